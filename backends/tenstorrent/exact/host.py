"""What `ttnn` makes of float32 tensors on the host before it sends them to the card, and of what comes back.

Source: the ttnn 0.81.1 wheel, measured. `definition/packing.py` says the same one value at a time.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.tenstorrent.exact.compiled import compiled
from backends.tenstorrent.exact.threads import run_chunks
from backends.tenstorrent.exact.tiles import count_blocks, from_blocks, magnitude_bits, to_blocks

# Kernels loop up to shape[1], not 16: a bound the compiler knows makes it unroll the loop before it could vectorize it.
_CHUNK = 8192
"""Blocks that a thread takes at a time: 512 KiB of float32."""

_FIELD = np.uint32(0x7F800000)
_SIGN = np.uint32(0x80000000)
_FRACTION = np.uint32(0x7FFFFF)
_HIDDEN = np.uint32(0x800000)


def host_pack_bf16(x: ArrayLike) -> NDArray[np.float32]:
    """Round to bf16 as `ttnn.from_torch` does: nearest, ties to even, denormals kept, every NaN to 0x7FC0.

    Returns:
        The values, in the shape of x; bf16 patterns are their upper 16 bits.
    """
    given = np.ascontiguousarray(x, np.float32)
    patterns = given.reshape(-1).view(np.uint32)
    rounded = np.empty_like(patterns)
    run_chunks(lambda i, j: _round_bf16(patterns[i:j], rounded[i:j]), patterns.size, 16 * _CHUNK)
    return rounded.view(np.float32).reshape(np.shape(x))


def host_pack(x: ArrayLike, fmt: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pack as `ttnn.from_torch` does: 16 neighbours along the last axis share the largest exponent field among them.

    The 24-bit significand is aligned by truncation, then rounded once to nearest, ties to even, and saturated.
    Denormals count as zero, zeros lose their sign. Inf and NaN have the exponent field 255, which is an ordinary one:
    the rest of their block becomes as good as zero.

    Args:
        x: float32, any shape of one axis or more; a short last block of a row is filled up with zeros.
        fmt: bfp8_b or bfp4_b.

    Returns:
        Shared exponents [..., ceil(n / 16)] and codes [..., n] (sign above the magnitude), one code a byte.

    Raises:
        ValueError: another format, or a single number.
    """
    width = magnitude_bits(fmt)
    given = np.asarray(x, np.float32)
    blocks = to_blocks(given).view(np.uint32)
    exponents = np.empty(len(blocks), np.uint8)
    codes = np.empty(blocks.shape, np.uint8)
    magic, top = _rounding(width)
    run_chunks(
        lambda i, j: _pack_blocks(blocks[i:j], exponents[i:j], codes[i:j], magic, top, width), len(blocks), _CHUNK
    )
    return exponents.reshape(*given.shape[:-1], count_blocks(given.shape[-1])), from_blocks(codes, given.shape)


def host_decode(exponents: NDArray[np.uint8], codes: NDArray[np.uint8], fmt: str) -> NDArray[np.float32]:
    """Read packed values as `ttnn.to_torch` does.

    Args:
        exponents: shared exponents [..., ceil(n / 16)].
        codes: [..., n], sign above the magnitude.
        fmt: bfp8_b or bfp4_b.

    Returns:
        magnitude / 64 (bfp4_b: / 4) * 2**(exponent - 127) with its sign, [..., n]; with exponent 255, Inf or NaN where
        the magnitude's top bit is set. Quirks that only foreign bytes show, as no packer writes them: a result of
        2**-127 up to 2**-126 loses its leading one (the exponent field becomes 0, the fraction stays), one below is +0,
        and a sign without magnitude is -0.

    Raises:
        ValueError: another format, or shapes that do not go together.
    """
    return run_packed(_decode_blocks, exponents, codes, fmt)


def host_round(x: ArrayLike, fmt: str, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Round to what the host stores as `fmt`: `host_pack` and `host_decode` (or `host_pack_bf16`) in one pass.

    Args:
        x: float32, any shape of one axis or more; 16 neighbours along the last axis share an exponent.
        fmt: bfp8_b, bfp4_b or bf16.
        out: where to put the result, of the shape of x, C-contiguous; may be x itself, not a part of it.

    Raises:
        ValueError: another format, a single number, or an `out` that does not fit.
    """
    given = np.asarray(x, np.float32)
    if out is not None and (out.shape != given.shape or out.dtype != np.float32 or not out.flags.c_contiguous):
        raise ValueError(
            f"out must be contiguous float32 {given.shape}, got {out.dtype} {out.shape}; give np.empty(...)"
        )
    if fmt == "bf16":
        rounded = host_pack_bf16(given)
    else:
        magic, top = _rounding(magnitude_bits(fmt))
        blocks = to_blocks(given).view(np.uint32)
        direct = out is not None and out.size == blocks.size
        target = out.reshape(blocks.shape).view(np.uint32) if out is not None and direct else np.empty_like(blocks)
        run_chunks(lambda i, j: _round_blocks(blocks[i:j], target[i:j], magic, top), len(blocks), _CHUNK)
        if out is not None and direct:
            return out
        rounded = from_blocks(target.view(np.float32), given.shape)
    if out is None:
        return rounded
    out[...] = rounded
    return out


def run_packed(
    kernel: Callable[..., None], exponents: NDArray[np.uint8], codes: NDArray[np.uint8], fmt: str
) -> NDArray[np.float32]:
    """Turn blocks of codes into float32 [..., n]; the kernel takes (exponents, codes [b, 16], patterns [b, 16], lift).

    Raises:
        ValueError: another format than bfp8_b or bfp4_b; exponents and codes not uint8, or not of the same blocks.
    """
    lift = 7 - magnitude_bits(fmt)
    if exponents.dtype != np.uint8 or codes.dtype != np.uint8:
        raise ValueError(f"exponents and codes are uint8, got {exponents.dtype} and {codes.dtype}")
    wanted = (*codes.shape[:-1], count_blocks(codes.shape[-1])) if codes.ndim else ()
    if codes.ndim == 0 or exponents.shape != wanted:
        raise ValueError(f"codes {codes.shape} go with exponents {wanted}, got {exponents.shape}")
    blocks = to_blocks(codes)
    shared = np.ascontiguousarray(exponents).reshape(-1)
    patterns = np.empty(blocks.shape, np.uint32)
    run_chunks(lambda i, j: kernel(shared[i:j], blocks[i:j], patterns[i:j], lift), len(blocks), _CHUNK)
    return from_blocks(patterns.view(np.float32), codes.shape)


def _rounding(width: int) -> tuple[np.float32, np.float32]:
    """The number that rounds a significand below 2**24 to `width` bits when added and taken away, and the largest."""
    return np.float32(1.5 * 2.0 ** (47 - width)), np.float32((2**width - 1) * 2.0 ** (24 - width))


@compiled
def _round_bf16(patterns: NDArray[np.uint32], rounded: NDArray[np.uint32]) -> None:
    for i in range(patterns.size):
        bits = patterns[i]
        even = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
        nearest = np.uint32(np.uint32(bits + np.uint32(np.uint32(0x7FFF) + even)) & np.uint32(0xFFFF0000))
        rounded[i] = np.uint32(0x7FC00000) if np.uint32(bits & np.uint32(0x7FFFFFFF)) > _FIELD else nearest


@compiled
def _aligned(bits: np.uint32, shared: np.uint32, magic: np.float32, top: np.float32) -> np.float32:
    """Align the significand to the shared exponent field (in place in the bits), round and saturate it; below 2**24."""
    field = np.uint32(bits & _FIELD)
    distance = np.uint32(np.uint32(shared - field) >> np.uint32(23))
    significand = np.uint32(np.uint32(np.uint32(bits & _FRACTION) | _HIDDEN) >> np.uint32(min(distance, np.uint32(31))))
    whole = np.float32(np.int32(significand if field != 0 else np.uint32(0)))
    # In float32, what lies under the last kept bit falls off here, to nearest, ties to even.
    rounded = np.float32(np.float32(whole + magic) - magic)
    return np.float32(rounded if rounded < top else top)


@compiled
def _round_blocks(blocks: NDArray[np.uint32], rounded: NDArray[np.uint32], magic: np.float32, top: np.float32) -> None:
    for block in range(blocks.shape[0]):
        shared = np.uint32(0)
        for i in range(blocks.shape[1]):
            field = np.uint32(blocks[block, i] & _FIELD)
            shared = field if field > shared else shared
        # To units of 2**-150 at exponent 0. Adding fields as integers is right for 255, too; nothing is denormal.
        scale = np.uint32(shared - np.uint32(150 << 23))
        for i in range(blocks.shape[1]):
            bits = blocks[block, i]
            magnitude = np.float32(_aligned(bits, shared, magic, top))
            value = np.uint32(np.uint32(magnitude.view(np.uint32) + scale) | np.uint32(bits & _SIGN))
            rounded[block, i] = value if magnitude != np.float32(0) else np.uint32(0)


@compiled
def _pack_blocks(
    blocks: NDArray[np.uint32],
    exponents: NDArray[np.uint8],
    codes: NDArray[np.uint8],
    magic: np.float32,
    top: np.float32,
    width: int,
) -> None:
    down = np.float32(2.0 ** (width - 24))
    sign = np.uint32(1 << width)
    for block in range(blocks.shape[0]):
        shared = np.uint32(0)
        for i in range(blocks.shape[1]):
            field = np.uint32(blocks[block, i] & _FIELD)
            shared = field if field > shared else shared
        exponents[block] = np.uint8(shared >> np.uint32(23))
        for i in range(blocks.shape[1]):
            bits = blocks[block, i]
            magnitude = np.uint32(np.int32(np.float32(_aligned(bits, shared, magic, top) * down)))
            signed = np.uint32(magnitude | sign) if bits >= _SIGN else magnitude
            codes[block, i] = np.uint8(signed if magnitude != 0 else np.uint32(0))


@compiled
def _decode_blocks(
    exponents: NDArray[np.uint8], codes: NDArray[np.uint8], patterns: NDArray[np.uint32], lift: int
) -> None:
    for block in range(codes.shape[0]):
        shared = np.uint32(exponents[block])
        for i in range(codes.shape[1]):
            code = np.uint32(np.uint32(codes[block, i]) << np.uint32(lift))
            magnitude = np.uint32(code & np.uint32(127))
            sign = np.uint32(np.uint32(code & np.uint32(128)) << np.uint32(24))
            # A magnitude as a float has exponent field 133 less its leading zeros.
            raised = np.uint32(np.float32(np.int32(magnitude)).view(np.uint32) + np.uint32(shared << np.uint32(23)))
            value = np.uint32(np.uint32(raised - np.uint32(133 << 23)) | sign)
            value = value if raised >= np.uint32(133 << 23) else np.uint32(0)
            patterns[block, i] = value if magnitude != 0 else sign
