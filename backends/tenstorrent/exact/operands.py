"""Operands and destinations of the exact matrix engine as its kernels take them: patterns, filled up to whole tiles."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.tenstorrent.exact.engine import PLANES, Int16s, Int32s
from backends.tenstorrent.exact.kernels import decode
from precision.policy import FIDELITIES, Fidelity

TILE = 32


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
    """Patterns [K, N], N a multiple of 32 -> planes [N / 32, K, PLANES], flattened."""
    depth, width = bits.shape
    planes = np.empty(bits.size * PLANES // TILE, np.int16)
    decode(bits.reshape(-1), width // TILE, depth, srca, tf32, planes)
    return planes
