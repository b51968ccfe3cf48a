"""Host conversions, unpacker and packer by definition: float32 patterns and codes as plain integers, one at a time.

Source: tenstorrent/ttsim v1.10.0 and, for the host, the ttnn 0.81.1 wheel, measured. A block is a list of up to 16
patterns; a bfp code has its sign above its magnitude.
"""

import math
import struct
from collections.abc import Sequence

from backends.tenstorrent.exact.tiles import magnitude_bits
from precision.blocks import BLOCK_FORMATS, round_block

INFINITY = 0x7F800000
NAN = 0x7FC00000
SIGN = 0x80000000


def exponent_field(pattern: int) -> int:
    """The 8 bits below the sign."""
    return pattern >> 23 & 255


def is_nan(pattern: int) -> bool:
    """Whether a float32 pattern stands for no number."""
    return pattern & ~SIGN > INFINITY


def value_of(pattern: int) -> float:
    """The number that a float32 pattern stands for."""
    (value,) = struct.unpack("<f", struct.pack("<I", pattern))
    return float(value)


def host_bf16(pattern: int) -> int:
    """Nearest bf16, ties to even, denormals kept; every NaN is 0x7FC0."""
    if is_nan(pattern):
        return NAN
    kept, lost = divmod(pattern, 2**16)
    if lost > 2**15 or (lost == 2**15 and kept % 2 == 1):
        kept += 1
    return kept << 16


def host_pack(block: Sequence[int], fmt: str) -> tuple[int, list[int]]:
    """Shared exponent and codes of what the host stores; `precision.blocks.round_block` defines the values.

    To the packer the exponent field 255 is like any other, so a block that has it is packed one binade further down,
    where its values are numbers; what a field of 1 loses by that is nothing, 254 binades under the largest.
    """
    width = magnitude_bits(fmt)
    shared = max(exponent_field(pattern) for pattern in block)
    down = shared == 255
    lowered = [pattern - (down << 23) if exponent_field(pattern) else pattern for pattern in block]
    codes = []
    for value in round_block([value_of(pattern) for pattern in lowered], BLOCK_FORMATS[fmt]):
        magnitude = int(math.ldexp(abs(value), width - 1 - (shared - down - 127)))
        codes.append(magnitude + (1 << width) if value < 0 else magnitude)
    return shared, codes


def host_decode(exponent: int, code: int, fmt: str) -> int:
    """The leading one becomes the hidden one, and the exponent goes down by the zeros before it; 255 is like any other.

    Where that leaves 0 the hidden one is lost, below the result is +0. A sign without magnitude is -0.
    """
    negative, leading_zeros, fraction = _split(code, magnitude_bits(fmt))
    if fraction is None:
        return negative << 31
    if leading_zeros > exponent:
        return 0
    return (negative << 31) + (exponent - leading_zeros << 23) + fraction


def unpack_tf32(pattern: int) -> int:
    """Read fp32 in memory as tf32."""
    return pattern >> 13 << 13


def unpack_bf16(pattern: int) -> int:
    """Read fp32 in memory as bf16."""
    return (pattern if exponent_field(pattern) else pattern & SIGN) >> 16 << 16


def unpack_bfp(exponent: int, code: int, fmt: str) -> int:
    """Read bfp in memory as `host_decode` does, but the exponent wraps around, and a sign without magnitude is -inf."""
    negative, leading_zeros, fraction = _split(code, magnitude_bits(fmt))
    if fraction is None:
        return SIGN + INFINITY if negative else 0
    return (negative << 31) + ((exponent - leading_zeros) % 256 << 23) + fraction


def _split(code: int, width: int) -> tuple[int, int, int | None]:
    """Sign, zeros before the magnitude's leading one, and what follows that as 23 bits; None if there is no one."""
    negative, magnitude = divmod(code, 1 << width)
    leading_zeros = width - magnitude.bit_length()
    if magnitude == 0:
        return negative, leading_zeros, None
    return negative, leading_zeros, ((magnitude << leading_zeros) - (1 << (width - 1))) << (24 - width)


def pack_float(pattern: int, output: str, dst16: bool) -> int:
    """What the packer makes of a destination datum, output fp32 or bf16."""
    if dst16:
        return _to_bf16(pattern >> 16 << 16)
    if output == "fp32":
        return pattern
    return _flush(_no_nan(pattern) + 0x8000 >> 16 << 16)


def pack_block(block: Sequence[int], fmt: str, dst16: bool, precise: bool) -> tuple[int, list[int]]:
    """Shared exponent and codes of what the packer makes of a row of destination data."""
    first = [_pack_first(pattern, dst16, precise) for pattern in block]
    shared = max(exponent_field(pattern) for pattern in first)
    codes = []
    for pattern in first:
        field = exponent_field(pattern)
        significand = 128 + (pattern >> 16 & 127) if field else 0
        distance = shared - field
        magnitude = 0 if distance >= 8 else min((significand + (1 << distance)) >> (distance + 1), 127)
        if fmt == "bfp4_b":
            magnitude >>= 4
        negative = pattern >= SIGN and magnitude > 0
        codes.append(magnitude + (1 << magnitude_bits(fmt)) if negative else magnitude)
    return shared, codes


def _pack_first(pattern: int, dst16: bool, precise: bool) -> int:
    """The intermediate format: E8M6, or precise the upper half of fp32, or bf16."""
    if dst16:
        first = _to_bf16(pattern >> 16 << 16)
        return first if precise else first + 0x10000 >> 17 << 17
    if precise:
        return _flush(pattern >> 16 << 16)
    return _flush((_no_nan(pattern) >> 16) + 1 >> 1 << 17)


def accumulate_fp32(old: int, new: int) -> int:
    """Nearest float32 of the sum, ties to even, denormals read and written as zero, one NaN."""
    old, new = _flush_keeping_sign(old), _flush_keeping_sign(new)
    if is_nan(old) or is_nan(new) or {old, new} == {INFINITY, SIGN + INFINITY}:
        return NAN
    for pattern in (old, new):
        if pattern & ~SIGN == INFINITY:
            return pattern
    total = _units(old) + _units(new)
    if total == 0:
        return old & new & SIGN
    sign = SIGN if total < 0 else 0
    dropped = max(abs(total).bit_length() - 24, 0)
    kept, lost = divmod(abs(total), 1 << dropped)
    if 2 * lost > 1 << dropped or (2 * lost == 1 << dropped and kept % 2 == 1):
        kept += 1
    # A significand of 24 bits has its leading one where the lowest bit of the exponent field lies.
    return sign + (min((dropped << 23) + kept, INFINITY) if kept >= 2**23 else 0)


def accumulate_bf16(old: int, new: int) -> int:
    """Sum in binary64, then nearest bf16, ties to even, denormals read and written as zero.

    A NaN in memory is the largest binary64 of its sign.
    """
    old, new = _flush_keeping_sign(old), _flush_keeping_sign(new)
    left = math.copysign(1.7976931348623157e308, -(old & SIGN)) if is_nan(old) else value_of(old)
    total = left + value_of(new)
    if math.isnan(total):
        return NAN
    sign = SIGN if math.copysign(1, total) < 0 else 0
    if abs(total) < 2.0**-126:
        return sign
    if abs(total) >= 2.0**128:
        return sign + INFINITY
    fraction, exponent = math.frexp(abs(total))
    # round() of a float is to nearest, ties to even.
    return sign + (round(fraction * 2**8) + ((exponent + 125) << 7) << 16)


def _units(pattern: int) -> int:
    """A finite number in units of 2**-149."""
    field = exponent_field(pattern)
    magnitude = (2**23 + pattern % 2**23) << (field - 1) if field else 0
    return -magnitude if pattern & SIGN else magnitude


def _no_nan(pattern: int) -> int:
    return pattern & SIGN | INFINITY if is_nan(pattern) else pattern


def _flush(pattern: int) -> int:
    return pattern if exponent_field(pattern) else 0


def _flush_keeping_sign(pattern: int) -> int:
    return pattern if exponent_field(pattern) else pattern & SIGN


def _to_bf16(pattern: int) -> int:
    return _flush(_no_nan(pattern))
