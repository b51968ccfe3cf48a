"""The matrix engine compiled: 32 outputs at a time. Source: ttsim v1.10.0; definition/engine.py says the same plainly.

Sources come decoded, as operands.py lays them out; destinations as binary32 patterns.

Two facts make it fast. A group of eight fits 16 bits: products are at most 31 * 127, doubled for the bit that rounds,
and the eight aligned ones sum to 31496 at most. And the exponents of a later phase are those of the first less a
constant, so the shifts that align a group are the same in every phase.

All kernels lie in this module: numba's cache on disk sees changes of a kernel's own module only.
"""

from typing import Any

import numba
import numpy as np

from backends.tenstorrent.exact.operands import ABSENT, PLANES, Int16s, Int32s
from backends.tenstorrent.exact.simd import any_of, float_bits, load, maximum, minimum, narrow, select, store, widen

HIDDEN = 1 << 24
"""The hidden one of a destination's 24-bit significand, doubled."""
_FRACTION = 0x7FFFFF

Lanes = Any
"""A vector of 32 integers, see simd."""

_inlined = numba.njit(forceinline=True)
_compiled = numba.njit(nogil=True, cache=True)


@_inlined
def _open(bits: Lanes) -> tuple[Lanes, Lanes]:
    """A destination's exponent field, and its magnitude doubled and inverted where negative; 0 and 0 for zero."""
    exponent = bits >> 23 & 255
    return exponent, select(exponent > 0, ((bits & _FRACTION) << 1 | HIDDEN) ^ bits >> 31, 0)


@_inlined
def _close(exponent: Lanes, doubled: Lanes) -> Lanes:
    """The binary32 patterns of opened destinations."""
    sign = doubled >> 31
    return sign << 31 | exponent << 23 | (doubled ^ sign) >> 1 & _FRACTION


@_inlined
def _shift(doubled: Lanes, amount: Lanes) -> Lanes:
    """Divide by 2**(amount + 1), halves up."""
    return ((doubled >> minimum(amount, 31)) + 1) >> 1


@_inlined
def _accumulate(
    x0: Lanes, g0: Lanes, x1: Lanes, g1: Lanes, exponent: Lanes, doubled: Lanes, dst16: bool, wormhole: bool
) -> tuple[Lanes, Lanes]:
    """Add two groups (int16 exponents, signed sums) to opened destinations; a group without exponent is ABSENT."""
    x0, x1 = widen(x0), widen(x1)
    largest = maximum(maximum(x0, x1), exponent)
    # Sums stand 13 bits up, one more to be doubled. Of an inverted magnitude a half goes down, so away from zero.
    first, second = _shift(widen(g0) << 14, largest - x0), _shift(widen(g1) << 14, largest - x1)
    old = _shift(doubled, largest - exponent)
    if dst16:
        first, second, old = first + 4096 & -8192, second + 4096 & -8192, old + (doubled >> 31) + 4096 & -8192
    total = first + second + old  # below 2**29
    sign = total >> 31
    magnitude = (total ^ sign) - sign
    # The conversion to float finds the leading one and rounds.
    if dst16:
        # At most 17 bits are in use, so the conversion is exact and the rounding to 8 bits is this addition.
        pattern = float_bits(magnitude) + 0x8000 & -0x10000
        field = largest - 150 + (pattern >> 23)
    else:
        # It rounds ties to even; a last one below the lost bits makes ties go up, and doubling makes room for it.
        pattern = float_bits(magnitude + magnitude + select(magnitude > 0xFFFFFF, (magnitude & 0) + 1, 0))
        field = largest - 151 + (pattern >> 23)
        if wormhole:
            field = select(total == -1, largest + 4, field)
    significand = (pattern & _FRACTION) << 1 | HIDDEN
    significand = select(field > 254, (pattern & 0) + HIDDEN, significand)
    field = select(magnitude > 0, minimum(maximum(field, 0), 255), 0)
    return field, select(field > 0, significand ^ sign, 0)


@_inlined
def _lower_exponent(exponent: Lanes, phase: int) -> Lanes:
    """A group's or product's exponent in a phase; ABSENT where it is not above 0."""
    lowered = exponent - ((phase & 1) * 5 + (phase >> 1) * 7)
    return select(lowered > 0, lowered, ABSENT)


@_inlined
def _scalar(planes: Int16s, at: int, lane: int, plane: int) -> Any:
    """SrcB in a matrix product: one value for all 32 columns; planes run along K."""
    return planes[at + lane + 32 * plane]


@_inlined
def _vector(planes: Int16s, at: int, lane: int, plane: int) -> Lanes:
    """An operand with a value for each output: planes follow each other along K."""
    return load(planes, at + lane * PLANES + 32 * plane)


@_inlined
def _sum_group(
    srca: Int16s, at: int, srcb: Int16s, at_b: int, read: Any, phases: int, tops: Int16s, sums: Int16s, group: int
) -> None:
    """Largest exponents of eight products into tops[group], their aligned sums in every phase into sums[phase, group].

    Exponents are the first phase's and may be negative: then the sums mean nothing.
    """
    largest = load(srca, at) + read(srcb, at_b, 0, 0)
    for lane in range(1, 8):
        largest = maximum(largest, _vector(srca, at, lane, 0) + read(srcb, at_b, lane, 0))
    store(tops, 32 * group, largest)
    nothing = largest & 0
    sum0, sum1, sum2, sum3 = nothing, nothing, nothing, nothing
    for lane in range(8):
        upper_a, upper_b = _vector(srca, at, lane, 1), read(srcb, at_b, lane, 1)
        # Beyond 13 every product is shifted out.
        shift = minimum(largest - (_vector(srca, at, lane, 0) + read(srcb, at_b, lane, 0)), 13)
        product = upper_a * upper_b
        # Doubled products take half a unit; negative ones a little less, so that halves go away from zero.
        half = ((nothing + 1) << shift) + (product >> 15)
        shift = shift + 1
        sum0 = sum0 + (product + half >> shift)
        if phases > 1:
            lower_a = _vector(srca, at, lane, 2)
            sum1 = sum1 + (lower_a * upper_b + half >> shift)
            if phases > 2:
                lower_b = read(srcb, at_b, lane, 2)
                sum2 = sum2 + (upper_a * lower_b + half >> shift)
                if phases > 3:
                    sum3 = sum3 + (lower_a * lower_b + half >> shift)
    store(sums, 32 * group, sum0)
    store(sums, 32 * group + 128, sum1)
    store(sums, 32 * group + 256, sum2)
    store(sums, 32 * group + 384, sum3)


@_inlined
def _step(
    tops: Int16s, sums: Int16s, phase: int, half: int, exponent: Lanes, doubled: Lanes, dst16: bool, wormhole: bool
) -> tuple[Lanes, Lanes]:
    """Add the two groups of one half tile."""
    at = 64 * half
    first, second = _lower_exponent(load(tops, at), phase), _lower_exponent(load(tops, at + 32), phase)
    at += 128 * phase
    return _accumulate(first, load(sums, at), second, load(sums, at + 32), exponent, doubled, dst16, wormhole)


@_compiled
def multiply_matrices(
    srca: Int16s,
    srcb: Int16s,
    dst: Int32s,
    first: int,
    last: int,
    rows: int,
    tiles: int,
    panels: int,
    phases: int,
    dst16: bool,
    wormhole: bool,
) -> None:
    """Add a product to blocks `first` to `last` of dst, each 32 rows of one panel of 32 columns.

    The blocks of a panel follow each other; there are panels * ceil(rows / 32). srca holds the weights, planes
    [panels, 32 * tiles, PLANES], srcb the activations, planes [rows, tiles, PLANES], dst patterns [rows, 32 * panels],
    all flattened; tiles count K, phases go from 1 for lofi to 4 for hifi4.
    """
    blocks = (rows + 31) // 32
    tops, sums = np.empty(4 * 32, np.int16), np.empty(16 * 32, np.int16)
    exponents, doubles = np.empty(32 * 32, np.int32), np.empty(32 * 32, np.int32)
    for block in range(first, last):
        panel, top = block // blocks, block % blocks * 32
        height = min(32, rows - top)
        for row in range(height):
            exponent, doubled = _open(load(dst, ((top + row) * panels + panel) * 32))
            store(exponents, row * 32, exponent)
            store(doubles, row * 32, doubled)
        for tile in range(tiles):
            at_a = (panel * tiles + tile) * 32 * PLANES
            for row in range(height):
                at_b = ((top + row) * tiles + tile) * PLANES
                # Zeros leave a destination as it is once the first tile has rid it of denormals, NaN and -0.
                if tile > 0 and not any_of(load(srcb, at_b + 32) != 0):
                    continue
                for group in range(4):
                    at_group = at_a + group * 8 * PLANES
                    _sum_group(srca, at_group, srcb, at_b + group * 8, _scalar, phases, tops, sums, group)
                exponent, doubled = load(exponents, row * 32), load(doubles, row * 32)
                for phase in range(phases):
                    for half in range(2):
                        exponent, doubled = _step(tops, sums, phase, half, exponent, doubled, dst16, wormhole)
                store(exponents, row * 32, exponent)
                store(doubles, row * 32, doubled)
        for row in range(height):
            patterns = _close(load(exponents, row * 32), load(doubles, row * 32))
            store(dst, ((top + row) * panels + panel) * 32, patterns)


@_compiled
def multiply_steps(
    srca: Int16s, srcb: Int16s, dst: Int32s, first: int, last: int, phase: int, dst16: bool, wormhole: bool
) -> None:
    """Single steps on vectors `first` to `last` of dst: planes [vectors, 16, PLANES] of both sources, flattened."""
    tops, sums = np.empty(4 * 32, np.int16), np.empty(16 * 32, np.int16)
    for vector in range(first, last):
        for group in range(2):
            at = (16 * vector + 8 * group) * PLANES
            _sum_group(srca, at, srcb, at, _vector, 4, tops, sums, group)
        exponent, doubled = _open(load(dst, 32 * vector))
        exponent, doubled = _step(tops, sums, phase, 0, exponent, doubled, dst16, wormhole)
        store(dst, 32 * vector, _close(exponent, doubled))


@_compiled
def multiply_elements(
    srca: Int16s, srcb: Int16s, dst: Int32s, first: int, last: int, start: int, stop: int, dst16: bool, wormhole: bool
) -> None:
    """Add products in the phases `start` to `stop` to vectors `first` to `last` of dst; planes [vectors, PLANES]."""
    for vector in range(first, last):
        exponent, doubled = _open(load(dst, 32 * vector))
        at = PLANES * vector
        top = load(srca, at) + load(srcb, at)
        nothing = top & 0
        for phase in range(start, stop):
            product = load(srca, at + 32 * (1 + (phase & 1))) * load(srcb, at + 32 * (1 + (phase >> 1)))
            x, absent = _lower_exponent(top, phase), nothing + ABSENT
            exponent, doubled = _accumulate(x, product >> 1, absent, nothing, exponent, doubled, dst16, wormhole)
        store(dst, 32 * vector, _close(exponent, doubled))


@_compiled
def add_elements(
    srca: Int32s, srcb: Int32s, dst: Int32s, first: int, last: int, flip: int, dst16: bool, wormhole: bool, tf32: bool
) -> None:
    """Put srca + srcb, or srca - srcb where `flip` is -1, into vectors `first` to `last` of dst; all patterns."""
    seen = 0x7FFFE000 if tf32 else 0x7FFF0000
    for vector in range(first, last):
        left, right = load(srca, 32 * vector), load(srcb, 32 * vector)
        sign_left, sign_right = left >> 31, right >> 31 ^ flip
        left, right = left & seen, right & seen
        left, right = select(left >> 23 > 0, left, 0), select(right >> 23 > 0, right, 0)
        swap = right > left
        bigger, smaller = maximum(left, right), minimum(left, right)
        sign = select(swap, sign_right, sign_left)
        big, small = (
            select(bigger > 0, bigger >> 13 & 1023 | 1024, 0),
            select(smaller > 0, smaller >> 13 & 1023 | 1024, 0),
        )
        # From 12 on nothing is left of the smaller.
        aligned = _shift(small << 1, (bigger >> 23) - (smaller >> 23))
        differ = sign_left ^ sign_right
        total = big + ((aligned ^ differ) - differ)
        total = narrow((total ^ sign) - sign)
        nothing = total & 0
        exponent, doubled = _accumulate(
            narrow(bigger >> 23), total, nothing + ABSENT, nothing, widen(nothing), widen(nothing), dst16, wormhole
        )
        store(dst, 32 * vector, _close(exponent, doubled))
