"""The packer: what the card writes to memory of a destination register, and adds to what lies there.

Source: tenstorrent/ttsim v1.10.0. The same for Wormhole and Blackhole. `definition/packing.py` says the same one value
at a time.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.tenstorrent.exact.compiled import compiled
from backends.tenstorrent.exact.threads import run_chunks
from backends.tenstorrent.exact.tiles import count_blocks, from_blocks, magnitude_bits, to_blocks

Output = Literal["fp32", "bf16", "bfp8_b", "bfp4_b"]

_CHUNK = 8192
_FIELD = np.uint32(0x7F800000)
_SIGN = np.uint32(0x80000000)


def pack(dst: ArrayLike, output: Output, dst16: bool, precise: bool = False) -> NDArray[np.float32]:
    """Values that the packer leaves in memory.

    Args:
        dst: destination register, float32; with dst16 only the upper 16 bits count. For bfp, 16 neighbours along the
            last axis share an exponent, and a short last block is filled up with zeros.
        output: format in memory.
        dst16: whether the register holds bf16 (fp32_dest_acc_en False).
        precise: bfp only: by way of fp32 or bf16 (bfp8_pack_precise, as `ttnn.typecast` has it), not of 6 mantissa
            bits. With bfp4_b that is still truncated.

    Returns:
        Values in the shape of dst; for bfp as the unpacker shows them. NaN becomes Inf except on the way from an fp32
        register to fp32 or, precise, bfp. Denormals become +0 except from fp32 to fp32. Rounding is half away from
        zero and may carry to Inf.

    Raises:
        ValueError: another output, or bfp of a single number.
    """
    given = np.asarray(dst, np.float32)
    if output not in ("fp32", "bf16"):
        blocks = to_blocks(given).view(np.uint32)
        exponents, codes = np.empty(len(blocks), np.uint8), np.empty((0, blocks.shape[1]), np.uint8)
        values = np.empty_like(blocks)
        _run_blocks(blocks, exponents, codes, values, output, dst16, precise)
        return from_blocks(values.view(np.float32), given.shape)
    if output == "fp32" and not dst16:
        return np.array(given)
    patterns = np.ascontiguousarray(given).reshape(-1).view(np.uint32)
    packed = np.empty_like(patterns)
    half = np.uint32(0 if dst16 else 0x8000)
    run_chunks(lambda i, j: _pack_floats(patterns[i:j], packed[i:j], dst16, half), patterns.size, 16 * _CHUNK)
    return packed.view(np.float32).reshape(given.shape)


def pack_bytes(
    dst: ArrayLike, output: Literal["bfp8_b", "bfp4_b"], dst16: bool, precise: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Shared exponents [..., ceil(n / 16)] and codes [..., n] (sign above the magnitude) of what `pack` gives.

    Raises:
        ValueError: another output, or a single number.
    """
    given = np.asarray(dst, np.float32)
    blocks = to_blocks(given).view(np.uint32)
    exponents, codes = np.empty(len(blocks), np.uint8), np.empty(blocks.shape, np.uint8)
    _run_blocks(blocks, exponents, codes, np.empty((0, blocks.shape[1]), np.uint32), output, dst16, precise)
    return exponents.reshape(*given.shape[:-1], count_blocks(given.shape[-1])), from_blocks(codes, given.shape)


def l1_accumulate(old: ArrayLike, new: ArrayLike, fmt: Literal["fp32", "bf16"]) -> NDArray[np.float32]:
    """Add what the packer packed to what lies in memory (packer_l1_acc).

    Args:
        old: values in memory, float32, of the same shape as `new`; for bf16 only the upper 16 bits count.
        new: what `pack` gave for `fmt`.
        fmt: format in memory.

    Returns:
        fp32: the nearest float32, ties to even; denormals count as and become zero with their sign, any NaN becomes
        0x7FC00000. bf16: the same, except that a NaN in memory is the largest float64 of its sign (and so gives Inf)
        and +inf with -inf is 0x7FC0.

    Raises:
        ValueError: another format, or other shapes.
    """
    left, right = np.ascontiguousarray(old, np.float32), np.ascontiguousarray(new, np.float32)
    if fmt not in ("fp32", "bf16"):
        raise ValueError(f"the packer adds fp32 or bf16, got {fmt!r}")
    if left.shape != right.shape:
        raise ValueError(f"what is added is as large as what lies in memory, {left.shape}, got {right.shape}")
    a, b = left.reshape(-1).view(np.uint32), right.reshape(-1).view(np.uint32)
    total = np.empty_like(a)
    kernel = _add_fp32 if fmt == "fp32" else _add_bf16
    run_chunks(lambda i, j: kernel(a[i:j], b[i:j], total[i:j]), a.size, 16 * _CHUNK)
    return total.view(np.float32).reshape(left.shape)


def _run_blocks(
    blocks: NDArray[np.uint32],
    exponents: NDArray[np.uint8],
    codes: NDArray[np.uint8],
    values: NDArray[np.uint32],
    output: str,
    dst16: bool,
    precise: bool,
) -> None:
    """Pack [blocks, 16] to codes or to values, whichever is not empty."""
    width = magnitude_bits(output)
    # The way leads by E8M6 (7 bits after the first, half of the last added), by the upper 16 bits, or by bf16.
    half = np.uint32(0 if precise else 0x10000)
    kept = np.uint32(0xFFFF0000 if precise else 0xFFFE0000)
    infinite = dst16 or not precise
    run_chunks(
        lambda i, j: _pack_blocks(
            blocks[i:j], exponents[i:j], codes[i:j], values[i:j], dst16, infinite, half, kept, 7 - width
        ),
        len(blocks),
        _CHUNK,
    )


@compiled
def _first_step(bits: np.uint32, dst16: bool, infinite: bool, half: np.uint32, kept: np.uint32) -> np.uint32:
    """Round to the intermediate format: a pattern whose lower half is zero."""
    upper = np.uint32(bits & np.uint32(0xFFFF0000))
    upper = upper if np.uint32(upper & _FIELD) != 0 else np.uint32(0)
    seen = upper if dst16 else bits
    nan = np.uint32(seen & np.uint32(0x7FFFFFFF)) > _FIELD
    seen = np.uint32(seen & np.uint32(0xFF800000)) if nan and infinite else seen
    rounded = np.uint32(np.uint32(seen + half) & kept)
    return np.uint32(rounded if np.uint32(rounded & _FIELD) != 0 else np.uint32(0))


@compiled
def _pack_floats(patterns: NDArray[np.uint32], packed: NDArray[np.uint32], dst16: bool, half: np.uint32) -> None:
    for i in range(patterns.size):
        packed[i] = _first_step(patterns[i], dst16, True, half, np.uint32(0xFFFF0000))


@compiled
def _pack_blocks(
    blocks: NDArray[np.uint32],
    exponents: NDArray[np.uint8],
    codes: NDArray[np.uint8],
    values: NDArray[np.uint32],
    dst16: bool,
    infinite: bool,
    half: np.uint32,
    kept: np.uint32,
    dropped: int,
) -> None:
    lowest = np.uint32(1 << dropped)
    first = np.empty(blocks.shape[1], np.uint32)
    for block in range(blocks.shape[0]):
        shared = np.uint32(0)
        for i in range(blocks.shape[1]):
            bits = _first_step(blocks[block, i], dst16, infinite, half, kept)
            first[i] = bits
            field = np.uint32(bits & _FIELD)
            shared = field if field > shared else shared
        exponents[block] = np.uint8(shared >> np.uint32(23))
        scale = np.uint32(shared - np.uint32(133 << 23))
        for i in range(blocks.shape[1]):
            bits = first[i]
            field = np.uint32(bits & _FIELD)
            distance = np.uint32(np.uint32(shared - field) >> np.uint32(23))
            significand = np.uint32(np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(127)) | np.uint32(128))
            significand = significand if field != 0 else np.uint32(0)
            aligned = np.uint32(significand >> np.uint32(min(distance, np.uint32(8))))
            magnitude = np.uint32(np.uint32(aligned + np.uint32(1)) >> np.uint32(1))
            magnitude = magnitude if magnitude < np.uint32(127) else np.uint32(127)
            magnitude = np.uint32(magnitude & np.uint32(~(lowest - np.uint32(1))))
            if values.shape[0] > 0:
                value = np.uint32(np.float32(np.int32(magnitude)).view(np.uint32) + scale)
                value = np.uint32(value | np.uint32(bits & _SIGN))
                values[block, i] = value if magnitude != 0 else np.uint32(0)
            else:
                signed = np.uint32(magnitude | np.uint32(np.uint32(bits >> np.uint32(24)) & np.uint32(128)))
                signed = signed if magnitude != 0 else np.uint32(0)
                codes[block, i] = np.uint8(np.uint32(signed >> np.uint32(dropped)))


@compiled
def _flushed(bits: np.uint32) -> np.uint32:
    return np.uint32(bits if np.uint32(bits & _FIELD) != 0 else np.uint32(bits & _SIGN))


@compiled
def _add_fp32(old: NDArray[np.uint32], new: NDArray[np.uint32], total: NDArray[np.uint32]) -> None:
    for i in range(old.size):
        left, right = np.uint32(_flushed(old[i])), np.uint32(_flushed(new[i]))
        bits = np.float32(left.view(np.float32) + right.view(np.float32)).view(np.uint32)
        nan = np.uint32(bits & np.uint32(0x7FFFFFFF)) > _FIELD
        total[i] = np.uint32(0x7FC00000) if nan else _flushed(bits)


@compiled
def _add_bf16(old: NDArray[np.uint32], new: NDArray[np.uint32], total: NDArray[np.uint32]) -> None:
    for i in range(old.size):
        before = np.uint32(_flushed(np.uint32(old[i] & np.uint32(0xFFFF0000))))
        after = np.uint32(_flushed(np.uint32(new[i] & np.uint32(0xFFFF0000))))
        left = np.float64(before.view(np.float32))
        if np.uint32(before & np.uint32(0x7FFFFFFF)) > _FIELD:
            left = np.float64(1.7976931348623157e308) if before < _SIGN else np.float64(-1.7976931348623157e308)
        total[i] = _nearest_bf16(np.float64(left + np.float64(after.view(np.float32))))


@compiled
def _nearest_bf16(value: np.float64) -> np.uint32:
    bits = np.float64(value).view(np.uint64)
    magnitude = np.uint64(bits & np.uint64(0x7FFFFFFFFFFFFFFF))
    sign = np.uint32(np.uint32(bits >> np.uint64(32)) & _SIGN)
    if magnitude > np.uint64(0x7FF0000000000000):
        return np.uint32(0x7FC00000)
    if magnitude < np.uint64((1023 - 126) << 52):
        return sign
    if magnitude >= np.uint64((1023 + 128) << 52):
        return np.uint32(sign | _FIELD)
    rebased = np.uint64(magnitude - np.uint64((1023 - 127) << 52))
    even = np.uint64(np.uint64(rebased >> np.uint64(45)) & np.uint64(1))
    rounded = np.uint32(np.uint64(rebased + np.uint64((1 << 44) - 1) + even) >> np.uint64(45))
    return np.uint32(sign | np.uint32(rounded << np.uint32(16)))
