"""Source registers decoded for the matrix engine's kernels. Source: ttsim v1.10.0; definition/engine.py has the rules.

Each run of 32 values becomes three int16 planes: exponents, upper slices and lower slices of the significands, slices
with the value's sign. SrcA's slices are doubled, SrcB's exponents have lost the bias; a zero is ABSENT with slices 0.
"""

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.tenstorrent.exact.simd import load, narrow, select, store
from backends.tenstorrent.exact.threads import run_chunks
from precision.policy import FIDELITIES, Fidelity

ABSENT = -1000
"""An exponent so small that what carries it is shifted out and never the largest."""
PLANES = 96
"""int16 items of 32 decoded values."""
TILE = 32
_CHUNK = 1 << 18
"""Values that a thread decodes at a time, about."""

Int16s = NDArray[np.int16]
Int32s = NDArray[np.int32]


def patterns(values: ArrayLike) -> Int32s:
    """The binary32 patterns of float32 values; what is uint32 or int32 already is taken as patterns."""
    given = np.asarray(values)
    return (given if given.dtype in (np.uint32, np.int32) else given.astype(np.float32, copy=False)).view(np.int32)


def pad(bits: Int32s, *multiples: int) -> Int32s:
    """A writable copy in C order, filled up with zeros to multiples of the given sizes, one an axis."""
    shape = [-(-size // multiple) * multiple for size, multiple in zip(bits.shape, multiples, strict=True)]
    padded = np.zeros(shape, np.int32)
    padded[tuple(slice(size) for size in bits.shape)] = bits
    return padded


def count_phases(fidelity: Fidelity) -> int:
    """Passes of the multiplier: 1 for lofi to 4 for hifi4.

    Raises:
        ValueError: for any other name.
    """
    if fidelity not in FIDELITIES:
        raise ValueError(f"a fidelity is one of {', '.join(FIDELITIES)}, not {fidelity!r}; give one of them")
    return FIDELITIES.index(fidelity) + 1


def check_phase(phase: int) -> None:
    """Raise ValueError unless the phase is one of 0 to 3."""
    if phase not in range(4):
        raise ValueError(f"a fidelity phase is 0, 1, 2 or 3, not {phase}; give one of them")


def open_dst(start: ArrayLike | None, shape: tuple[int, ...], dst16: bool) -> Int32s:
    """A destination's patterns, zero or `start`, its last axis filled up with zeros to a multiple of 32.

    Raises:
        ValueError: if start has another shape, or is not bf16 although the destination is.
    """
    bits = np.zeros(shape, np.int32) if start is None else patterns(start)
    if bits.shape != shape:
        raise ValueError(f"the destination is {shape}, its start is {bits.shape}; give one value for each output")
    if dst16 and np.any(bits & 0xFFFF):
        raise ValueError("a 16-bit destination holds bf16, and its start has more bits; round it to bf16 first")
    return pad(bits, *[1] * (len(shape) - 1), TILE)


def close_dst(dst: Int32s, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The destination without what filled it up, as float32 of the same patterns."""
    return np.ascontiguousarray(dst[..., : shape[-1]]).view(np.float32)


def decode_columns(bits: Int32s, srca: bool, tf32: bool) -> Int16s:
    """Patterns [K, N] of any multiple of 32 columns -> planes [N / 32, K, PLANES], flattened."""
    depth, width = bits.shape
    return _decode(bits, width // TILE, TILE, depth, width, srca, tf32)


def decode_rows(bits: Int32s, srca: bool, tf32: bool) -> Int16s:
    """Patterns [M, K] of any multiple of 32 in K -> planes [M, K / 32, PLANES], flattened."""
    rows, depth = bits.shape
    return _decode(bits, rows, depth, depth // TILE, TILE, srca, tf32)


def _decode(bits: Int32s, lines: int, stride: int, count: int, step: int, srca: bool, tf32: bool) -> Int16s:
    planes = np.empty(lines * count * PLANES, np.int16)
    flat = bits.reshape(-1)

    def work(first: int, last: int) -> None:
        _decode_lines(flat, first, last, stride, count, step, srca, tf32, planes)

    run_chunks(work, lines, max(_CHUNK // (TILE * max(count, 1)), 1))
    return planes


@numba.njit(nogil=True, cache=True)
def _decode_lines(
    bits: Int32s, first: int, last: int, stride: int, count: int, step: int, srca: bool, tf32: bool, planes: Int16s
) -> None:
    """Decode `count` runs of 32, `step` apart, from each of bits[first * stride], ... on."""
    for line in range(first, last):
        for item in range(count):
            values = load(bits, line * stride + item * step)
            exponent = (values >> 23) & 255
            present = exponent > 0
            significand = select(present, ((values >> 13) & (0x3FF if tf32 else 0x3F8)) + 1024, 0)
            if srca:
                upper, lower = (significand >> 6) << 1, significand & 62
            else:
                upper, lower = significand >> 4, (significand & 15) << 3
                exponent = exponent - 127
            sign = values >> 31
            at = (line * count + item) * PLANES
            store(planes, at, narrow(select(present, exponent, ABSENT)))
            store(planes, at + 32, narrow((upper ^ sign) - sign))
            store(planes, at + 64, narrow((lower ^ sign) - sign))
