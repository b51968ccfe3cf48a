"""The Tensix matrix engine in plain Python integers: one step on one destination value. Source: ttsim v1.10.0.

Values go in and out as IEEE binary32 bit patterns. An exponent field of 0 reads as zero and one of 255 is ordinary, so
there are no special values: infinity is 2**128 and NaNs lie between 2**128 and 2**129.
"""

from collections.abc import Sequence
from typing import NamedTuple

BIAS = 127
GROUP = 8
"""Products that are aligned to one exponent and summed before they meet the destination."""
PHASES = {"lofi": (0,), "hifi2": (0, 1), "hifi3": (0, 1, 2), "hifi4": (0, 1, 2, 3)}


class Term(NamedTuple):
    """(-1)**sign * magnitude * 2**(exponent - 150): what the last adder takes, a sum of products or a destination."""

    sign: int
    exponent: int
    magnitude: int


NOTHING = Term(0, 0, 0)


def fields(pattern: int, tf32: bool) -> tuple[int, int, int]:
    """Sign, exponent field and 11-bit significand of a source register; significand 0 where the exponent field is 0.

    Only tf32 registers show all 10 mantissa bits, others the upper 7.
    """
    exponent = pattern >> 23 & 255
    mantissa = pattern >> 13 & (0x3FF if tf32 else 0x3F8)
    return pattern >> 31, exponent, 1024 + mantissa if exponent else 0


def product(srca: int, srcb: int, phase: int, tf32: bool) -> tuple[int, int, int]:
    """Sign, exponent and magnitude of one lane's product; the magnitude may be 0 while the exponent is not."""
    sign_a, exponent_a, significand_a = fields(srca, tf32)
    sign_b, exponent_b, significand_b = fields(srcb, tf32)
    if significand_a == 0 or significand_b == 0:
        return 0, 0, 0
    exponent = exponent_a + exponent_b - BIAS
    slice_a, slice_b = significand_a >> 6, significand_b >> 4
    if phase & 1:
        slice_a = significand_a >> 1 & 31
        exponent -= 5
    if phase & 2:
        slice_b = (significand_b & 15) << 3
        exponent -= 7
    return sign_a ^ sign_b, exponent, slice_a * slice_b


def sum_group(products: Sequence[tuple[int, int, int]]) -> Term:
    """Align products to their largest exponent, rounding each half up by magnitude, and add them."""
    largest = max(exponent for _, exponent, _ in products)
    if largest <= 0:
        return NOTHING
    total = 0
    for sign, exponent, magnitude in products:
        shift = largest - exponent
        aligned = (2 * magnitude + (1 << shift)) >> (shift + 1)
        total += -aligned if sign else aligned
    return Term(int(total < 0), largest, abs(total) << 13)


def accumulate(first: Term, second: Term, dst: int, dst16: bool, wormhole: bool) -> int:
    """Add two terms to a destination: align, add, normalise, round. Never NaN, never -0, never denormal.

    Args:
        first: a group's sum, or the only product of an element-wise step.
        second: the other group's sum, or NOTHING.
        dst: the destination's binary32 pattern.
        dst16: the destination is bf16: terms are rounded to 11 bits under the largest exponent, the sum to bf16.
        wormhole: a sum of minus one unit comes out 2**27 times too large, as on Wormhole with a 32-bit destination.
    """
    sign, exponent, fraction = dst >> 31, dst >> 23 & 255, dst & 0x7FFFFF
    old = Term(sign, exponent, (1 << 23) + fraction if exponent else 0)
    largest = max(first.exponent, second.exponent, old.exponent)
    if largest <= 0:
        return 0
    total = sum(_align(group, largest, group.sign, dst16) for group in (first, second)) + _align(old, largest, 0, dst16)
    if wormhole and total == -1:
        return _encode(1, largest + 4, 0)
    return _normalise(total, largest, 8 if dst16 else 24)


def _align(term: Term, largest: int, lean: int, dst16: bool) -> int:
    """A term in units of 2**(largest - 150); halves go away from zero where lean is 0, towards it where it is 1.

    Groups lean by their sign, so that their halves go to plus infinity; the destination does not lean.
    """
    magnitude, shift = term.magnitude, largest - term.exponent
    if shift >= 31:
        magnitude = 0
    elif shift:
        magnitude = (magnitude + (1 << (shift - 1)) - lean) >> shift
    if dst16:
        magnitude = (magnitude + (1 << 12) - lean) & ~8191
    return -magnitude if term.sign else magnitude


def _normalise(total: int, exponent: int, bits: int) -> int:
    """The pattern of total * 2**(exponent - 150), rounded half away from zero to `bits` significant bits."""
    if total == 0:
        return 0
    magnitude = abs(total)
    top = magnitude.bit_length() - 1
    exponent += top - 23
    excess = top + 1 - bits
    rounded = (magnitude + (1 << (excess - 1))) >> excess if excess > 0 else magnitude << -excess
    if rounded >> bits:
        rounded >>= 1
        exponent += 1
    return _encode(int(total < 0), exponent, (rounded << (24 - bits)) & 0x7FFFFF)


def _encode(sign: int, exponent: int, fraction: int) -> int:
    if exponent <= 0:
        return 0
    if exponent >= 255:
        exponent, fraction = 255, 0
    return sign << 31 | exponent << 23 | fraction


def mvmul(
    srca: Sequence[int], srcb: Sequence[int], dst: int, phase: int, *, dst16: bool, wormhole: bool, tf32: bool
) -> int:
    """One step of a matrix product: 16 products in two groups of eight, added to the destination."""
    products = [product(a, b, phase, tf32) for a, b in zip(srca, srcb, strict=True)]
    return accumulate(sum_group(products[:GROUP]), sum_group(products[GROUP:]), dst, dst16, wormhole)


def matmul(
    a_row: Sequence[int], b_column: Sequence[int], start: int, fidelity: str, *, dst16: bool, wormhole: bool, tf32: bool
) -> int:
    """One output of a matrix product: tiles of 32 along K, in each all phases, in each phase two halves of 16.

    Args:
        a_row: K patterns of in0 (SrcB).
        b_column: K patterns of in1 (SrcA).
        start: pattern of the destination before.
        fidelity: a key of PHASES.
        dst16: the destination is bf16.
        wormhole: with Wormhole's defect, see `accumulate`.
        tf32: the registers show 10 mantissa bits, not 7.
    """
    missing = -len(a_row) % 32
    a_row, b_column = [*a_row, *[0] * missing], [*b_column, *[0] * missing]
    dst = start
    for tile in range(0, len(a_row), 32):
        for phase in PHASES[fidelity]:
            for half in (tile, tile + 16):
                step = slice(half, half + 16)
                dst = mvmul(b_column[step], a_row[step], dst, phase, dst16=dst16, wormhole=wormhole, tf32=tf32)
    return dst


def elwmul(srca: int, srcb: int, dst: int, phase: int, *, dst16: bool, wormhole: bool, tf32: bool) -> int:
    """One phase of an element-wise product, added to the destination."""
    sign, exponent, magnitude = product(srca, srcb, phase, tf32)
    term = Term(sign, exponent, magnitude << 13) if exponent > 0 else NOTHING
    return accumulate(term, NOTHING, dst, dst16, wormhole)


def elwadd(srca: int, srcb: int, *, subtract: bool, dst16: bool, wormhole: bool, tf32: bool) -> int:
    """SrcA + SrcB or SrcA - SrcB; what the destination held before is lost."""
    sign_a, exponent_a, significand_a = fields(srca, tf32)
    sign_b, exponent_b, significand_b = fields(srcb ^ (int(subtract) << 31), tf32)
    bigger, smaller = (exponent_a, significand_a, sign_a), (exponent_b, significand_b, sign_b)
    if smaller[:2] > bigger[:2]:
        bigger, smaller = smaller, bigger
    shift = bigger[0] - smaller[0]
    aligned = smaller[1] if shift == 0 else (smaller[1] + (1 << (shift - 1))) >> shift
    magnitude = bigger[1] + aligned if bigger[2] == smaller[2] else bigger[1] - aligned
    return accumulate(Term(bigger[2], bigger[0], magnitude << 13), NOTHING, 0, dst16, wormhole)
