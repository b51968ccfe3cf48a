"""The matrix engine compiled: 32 outputs at a time. Source: ttsim v1.10.0; definition/engine.py says the same plainly.

Source registers are decoded 32 at a time into exponents, upper slices and lower slices of the significands, slices with
the value's sign. SrcA's slices are doubled, SrcB's exponents have lost the bias; a zero is ABSENT with slices 0.

Two facts make it fast. A group of eight fits 16 bits: products are at most 31 * 127, doubled for the bit that rounds,
and the eight aligned ones sum to 31496 at most. And the exponents of a later phase are those of the first less a
constant, so the shifts that align a group are the same in every phase.

What is here is inlined into the kernels of kernels.py.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from backends.tenstorrent.exact.simd import (
    clamp,
    float_bits,
    load,
    maximum,
    minimum,
    select,
    spread,
    store,
    widen,
)

ABSENT = -1000
"""An exponent so small that what carries it is shifted out and never the largest."""
PLANES = 96
"""int16 items of 32 decoded values."""
HIDDEN = 1 << 24
"""The hidden one of a destination's 24-bit significand, doubled."""
_FRACTION = 0x7FFFFF

Lanes = Any
"""A vector of 32 integers, see simd."""
Int16s = NDArray[np.int16]
Int32s = NDArray[np.int32]

_inlined = numba.njit(forceinline=True)


@_inlined
def slice_registers(bits: Lanes, tf32: bool, srca: bool) -> tuple[Lanes, Lanes, Lanes]:
    """Exponents, upper and lower slices of 32 source registers."""
    exponent = (bits >> 23) & 255
    present = exponent > 0
    significand = select(present, ((bits >> 13) & (0x3FF if tf32 else 0x3F8)) + 1024, 0)
    if srca:
        upper, lower = (significand >> 6) << 1, significand & 62
    else:
        upper, lower = significand >> 4, (significand & 15) << 3
        exponent = exponent - 127
    sign = bits >> 31
    return select(present, exponent, ABSENT), (upper ^ sign) - sign, (lower ^ sign) - sign


@_inlined
def split_dst(bits: Lanes) -> tuple[Lanes, Lanes]:
    """A destination's exponent field, and its magnitude doubled and inverted where negative; 0 and 0 for zero."""
    exponent = (bits >> 23) & 255
    return exponent, select(exponent > 0, (((bits & _FRACTION) << 1) | HIDDEN) ^ (bits >> 31), 0)


@_inlined
def join_dst(exponent: Lanes, doubled: Lanes) -> Lanes:
    """The binary32 patterns of split destinations."""
    sign = doubled >> 31
    return (sign << 31) | (exponent << 23) | (((doubled ^ sign) >> 1) & _FRACTION)


@_inlined
def shift_half_up(doubled: Lanes, amount: Lanes) -> Lanes:
    """Divide by 2**(amount + 1), halves up."""
    return ((doubled >> clamp(amount, 31)) + 1) >> 1


@_inlined
def accumulate(
    x0: Lanes, g0: Lanes, x1: Lanes, g1: Lanes, exponent: Lanes, doubled: Lanes, dst16: bool, wormhole: bool
) -> tuple[Lanes, Lanes]:
    """Add two groups (int16 exponents, signed sums) to split destinations; a group without exponent is ABSENT."""
    x0, x1 = widen(x0), widen(x1)
    largest = maximum(maximum(x0, x1), exponent)
    # Sums stand 13 bits up, one more to be doubled. Of an inverted magnitude a half goes down, so away from zero.
    first, second = shift_half_up(widen(g0) << 14, largest - x0), shift_half_up(widen(g1) << 14, largest - x1)
    old = shift_half_up(doubled, largest - exponent)
    if dst16:
        first, second = (first + 4096) & -8192, (second + 4096) & -8192
        old = (old + (doubled >> 31) + 4096) & -8192
    total = first + second + old  # below 2**29
    sign = total >> 31
    magnitude = (total ^ sign) - sign
    # The conversion to float finds the leading one and rounds.
    if dst16:
        # At most 17 bits are in use, so the conversion is exact and the rounding to 8 bits is this addition.
        pattern = (float_bits(magnitude) + 0x8000) & -0x10000
        field = largest - 150 + (pattern >> 23)
    else:
        # It rounds ties to even. Doubling makes room for one more bit, which, set where bits will be lost, makes ties
        # go up.
        inexact = ((magnitude & 0) + 0xFFFFFF - magnitude) >> 31
        pattern = float_bits(magnitude + magnitude - inexact)
        field = largest - 151 + (pattern >> 23)
        if wormhole:
            field = select(total == -1, largest + 4, field)
    significand = ((pattern & _FRACTION) << 1) | HIDDEN
    significand = select(field > 254, (pattern & 0) + HIDDEN, significand)
    present = (magnitude > 0) & (field > 0)
    return select(present, minimum(field, 255), 0), select(present, significand ^ sign, 0)


@_inlined
def lower_exponent(exponent: Lanes, phase: int) -> Lanes:
    """A group's or product's exponent in a phase; ABSENT where it is not above 0."""
    lowered = exponent - ((phase & 1) * 5 + (phase >> 1) * 7)
    return select(lowered > 0, lowered, ABSENT)


@_inlined
def read_scalar(planes: Int32s, at: int, lane: int, plane: int) -> Lanes:
    """SrcB in a matrix product: one value for all 32 columns; a plane runs along K."""
    return spread(planes, at + lane + 32 * plane)


@_inlined
def read_vector(planes: Int16s, at: int, lane: int, plane: int) -> Lanes:
    """An operand with a value for each output: a plane holds one k."""
    return load(planes, at + lane * PLANES + 32 * plane)


@_inlined
def sum_group(
    srca: Int16s, at: int, srcb: Any, at_b: int, read: Any, phases: int, tops: Int16s, sums: Int16s, group: int
) -> None:
    """Largest exponents of eight products into tops[group], their aligned sums in every phase into sums[phase, group].

    Exponents are the first phase's and may be negative: then the sums mean nothing.
    """
    largest = load(srca, at) + read(srcb, at_b, 0, 0)
    for lane in range(1, 8):
        largest = maximum(largest, read_vector(srca, at, lane, 0) + read(srcb, at_b, lane, 0))
    store(tops, 32 * group, largest)
    nothing = largest & 0
    sum0, sum1, sum2, sum3 = nothing, nothing, nothing, nothing
    for lane in range(8):
        upper_a, upper_b = read_vector(srca, at, lane, 1), read(srcb, at_b, lane, 1)
        # Beyond 13 every product is shifted out.
        shift = minimum(largest - (read_vector(srca, at, lane, 0) + read(srcb, at_b, lane, 0)), 13)
        product = upper_a * upper_b
        # Doubled products take half a unit; negative ones a little less, so that halves go away from zero.
        half = ((nothing + 1) << shift) + (product >> 15)
        shift = shift + 1
        sum0 = sum0 + ((product + half) >> shift)
        if phases > 1:
            lower_a = read_vector(srca, at, lane, 2)
            sum1 = sum1 + ((lower_a * upper_b + half) >> shift)
            if phases > 2:
                lower_b = read(srcb, at_b, lane, 2)
                sum2 = sum2 + ((upper_a * lower_b + half) >> shift)
                if phases > 3:
                    sum3 = sum3 + ((lower_a * lower_b + half) >> shift)
    store(sums, 32 * group, sum0)
    store(sums, 32 * group + 128, sum1)
    store(sums, 32 * group + 256, sum2)
    store(sums, 32 * group + 384, sum3)


@_inlined
def add_half(
    tops: Int16s, sums: Int16s, phase: int, half: int, exponent: Lanes, doubled: Lanes, dst16: bool, wormhole: bool
) -> tuple[Lanes, Lanes]:
    """Add the two groups of one half tile."""
    at = 64 * half
    first, second = lower_exponent(load(tops, at), phase), lower_exponent(load(tops, at + 32), phase)
    at += 128 * phase
    return accumulate(first, load(sums, at), second, load(sums, at + 32), exponent, doubled, dst16, wormhole)


@_inlined
def twice(items: Lanes) -> Lanes:
    """Each int32 item's lower half in both halves: CPUs spread 32 bits with less effort than 16."""
    return (items & 0xFFFF) | (items << 16)
