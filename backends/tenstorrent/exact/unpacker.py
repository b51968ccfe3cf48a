"""The unpacker: what a source register shows of a datum in the card's memory, as a float32 pattern.

Source: tenstorrent/ttsim v1.10.0. The same for SrcA and SrcB, Wormhole and Blackhole. bf16 in memory is copied
unchanged, so there is no function for it. `definition/packing.py` says the same one value at a time.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.tenstorrent.exact.compiled import compiled
from backends.tenstorrent.exact.host import run_packed
from backends.tenstorrent.exact.threads import run_chunks

_CHUNK = 8192


def unpack_bfp(exponents: NDArray[np.uint8], codes: NDArray[np.uint8], fmt: str) -> NDArray[np.float32]:
    """Unpack bfp8_b or bfp4_b.

    Args:
        exponents: shared exponents [..., ceil(n / 16)].
        codes: [..., n], sign above the magnitude.
        fmt: bfp8_b or bfp4_b.

    Returns:
        [..., n]: magnitude / 64 (bfp4_b: / 4) * 2**(exponent - 127) with its sign, the exponent 255 being as good as
        any. Quirks that only foreign bytes show, as no packer writes them: a sign without magnitude reads -inf, and an
        exponent below the magnitude's leading zeros wraps around to a huge one.

    Raises:
        ValueError: another format, or shapes that do not go together.
    """
    return run_packed(_unpack_blocks, exponents, codes, fmt)


def unpack_tf32(x: ArrayLike) -> NDArray[np.float32]:
    """Unpack fp32 to tf32, as tt-metal has it done with fp32_dest_acc_en: drop the low 13 bits, nothing else."""
    return _truncate(x, 0xFFFFE000, False)


def unpack_bf16(x: ArrayLike) -> NDArray[np.float32]:
    """Unpack fp32 to bf16, as tt-metal has it done without fp32_dest_acc_en: drop the low 16 bits.

    Denormals become zero, their sign kept.
    """
    return _truncate(x, 0xFFFF0000, True)


def _truncate(x: ArrayLike, mask: int, flush: bool) -> NDArray[np.float32]:
    patterns = np.ascontiguousarray(x, np.float32).reshape(-1).view(np.uint32)
    kept = np.empty_like(patterns)
    run_chunks(
        lambda i, j: _truncate_patterns(patterns[i:j], kept[i:j], np.uint32(mask), flush), patterns.size, 16 * _CHUNK
    )
    return kept.view(np.float32).reshape(np.shape(x))


@compiled
def _truncate_patterns(patterns: NDArray[np.uint32], kept: NDArray[np.uint32], mask: np.uint32, flush: bool) -> None:
    flushed = np.uint32(0x80000000) if flush else mask
    for i in range(patterns.size):
        bits = patterns[i]
        denormal = np.uint32(bits & np.uint32(0x7F800000)) == 0
        kept[i] = np.uint32(bits & (flushed if denormal else mask))


@compiled
def _unpack_blocks(
    exponents: NDArray[np.uint8], codes: NDArray[np.uint8], patterns: NDArray[np.uint32], lift: int
) -> None:
    for block in range(codes.shape[0]):
        # A magnitude as a float has exponent field 133 less its leading zeros; it wraps around as the card's does.
        scale = np.uint32(np.uint32(np.uint32(exponents[block]) + np.uint32(256 - 133)) << np.uint32(23))
        for i in range(codes.shape[1]):
            code = np.uint32(np.uint32(codes[block, i]) << np.uint32(lift))
            magnitude = np.uint32(code & np.uint32(127))
            sign = np.uint32(np.uint32(code & np.uint32(128)) << np.uint32(24))
            value = np.uint32(np.float32(np.int32(magnitude)).view(np.uint32) + scale)
            value = np.uint32(np.uint32(value & np.uint32(0x7FFFFFFF)) | sign)
            zero = np.uint32(0) if sign == 0 else np.uint32(0xFF800000)
            patterns[block, i] = value if magnitude != 0 else zero
