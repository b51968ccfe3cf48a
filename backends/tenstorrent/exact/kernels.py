"""The matrix engine's loops over whole operands, compiled. Arrays are flat, and their lengths multiples of 32."""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from backends.tenstorrent.exact import engine, simd
from backends.tenstorrent.exact.compiled import compiled
from backends.tenstorrent.exact.engine import (
    ABSENT,
    PLANES,
    Int16s,
    Int32s,
    accumulate,
    add_half,
    join_dst,
    lower_exponent,
    read_scalar,
    read_vector,
    shift_half_up,
    slice_registers,
    split_dst,
    sum_group,
    twice,
)
from backends.tenstorrent.exact.simd import any_of, load, maximum, minimum, narrow, select, store

_INLINED = hashlib.sha256("".join(map(inspect.getsource, (engine, simd))).encode()).hexdigest()[:12]


def _compiled(function: Callable[..., None]) -> Any:
    """Compile without the GIL and keep the result on disk, under a name that changes with the modules inlined.

    Numba itself sees changes of the kernel's own module only.
    """
    function.__qualname__ += f"-{_INLINED}"
    return compiled(function)


@_compiled
def decode(bits: Int32s, panels: int, depth: int, srca: bool, tf32: bool, planes: Int16s) -> None:
    """Decode patterns [depth, 32 * panels] into planes [panels, depth, PLANES], both flattened."""
    for panel in range(panels):
        for k in range(depth):
            exponent, upper, lower = slice_registers(load(bits, (k * panels + panel) * 32), tf32, srca)
            at = (panel * depth + k) * PLANES
            store(planes, at, narrow(exponent))
            store(planes, at + 32, narrow(upper))
            store(planes, at + 64, narrow(lower))


@_compiled
def multiply_matrices(
    srca: Int16s,
    srcb: Int32s,
    dst: Int32s,
    first: int,
    last: int,
    rows: int,
    tiles: int,
    panels: int,
    phases: int,
    dst16: bool,
    wormhole: bool,
    tf32: bool,
) -> None:
    """Add a product to blocks `first` to `last` of dst, each 32 rows of one panel of 32 columns.

    The blocks of a panel follow each other; there are panels * ceil(rows / 32). srca holds the weights, planes
    [panels, 32 * tiles, PLANES], srcb the activations, patterns [rows, 32 * tiles], dst patterns [rows, 32 * panels],
    all flattened; tiles count K, phases go from 1 for lofi to 4 for hifi4.
    """
    blocks = (rows + 31) // 32
    tops, sums = np.empty(4 * 32, np.int16), np.empty(16 * 32, np.int16)
    scalars = np.empty(PLANES, np.int32)
    exponents, doubles = np.empty(32 * 32, np.int32), np.empty(32 * 32, np.int32)
    for block in range(first, last):
        panel, top = block // blocks, (block % blocks) * 32
        height = min(32, rows - top)
        for row in range(height):
            exponent, doubled = split_dst(load(dst, ((top + row) * panels + panel) * 32))
            store(exponents, row * 32, exponent)
            store(doubles, row * 32, doubled)
        for tile in range(tiles):
            at_a = (panel * tiles + tile) * 32 * PLANES
            for row in range(height):
                activations = load(srcb, ((top + row) * tiles + tile) * 32)
                # Zeros leave a destination as it is once the first tile has rid it of denormals, NaN and -0.
                if tile > 0 and not any_of((activations & 0x7F800000) != 0):
                    continue
                exponent, upper, lower = slice_registers(activations, tf32, False)
                store(scalars, 0, twice(exponent))
                store(scalars, 32, twice(upper))
                store(scalars, 64, twice(lower))
                for group in range(4):
                    at_group = at_a + group * 8 * PLANES
                    sum_group(srca, at_group, scalars, group * 8, read_scalar, phases, tops, sums, group)
                exponent, doubled = load(exponents, row * 32), load(doubles, row * 32)
                for phase in range(phases):
                    for half in range(2):
                        exponent, doubled = add_half(tops, sums, phase, half, exponent, doubled, dst16, wormhole)
                store(exponents, row * 32, exponent)
                store(doubles, row * 32, doubled)
        for row in range(height):
            patterns = join_dst(load(exponents, row * 32), load(doubles, row * 32))
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
            sum_group(srca, at, srcb, at, read_vector, 4, tops, sums, group)
        exponent, doubled = split_dst(load(dst, 32 * vector))
        exponent, doubled = add_half(tops, sums, phase, 0, exponent, doubled, dst16, wormhole)
        store(dst, 32 * vector, join_dst(exponent, doubled))


@_compiled
def multiply_elements(
    srca: Int32s,
    srcb: Int32s,
    dst: Int32s,
    first: int,
    last: int,
    start: int,
    stop: int,
    dst16: bool,
    wormhole: bool,
    tf32: bool,
) -> None:
    """Add products in the phases `start` to `stop` to vectors `first` to `last` of dst; all patterns."""
    for vector in range(first, last):
        exponent, doubled = split_dst(load(dst, 32 * vector))
        exponent_a, upper_a, lower_a = slice_registers(load(srca, 32 * vector), tf32, True)
        exponent_b, upper_b, lower_b = slice_registers(load(srcb, 32 * vector), tf32, False)
        top = narrow(exponent_a + exponent_b)
        nothing = top & 0
        for phase in range(start, stop):
            product = (lower_a if phase & 1 else upper_a) * (lower_b if phase & 2 else upper_b)
            x, absent = lower_exponent(top, phase), nothing + ABSENT
            exponent, doubled = accumulate(x, narrow(product >> 1), absent, nothing, exponent, doubled, dst16, wormhole)
        store(dst, 32 * vector, join_dst(exponent, doubled))


@_compiled
def add_elements(
    srca: Int32s, srcb: Int32s, dst: Int32s, first: int, last: int, flip: int, dst16: bool, wormhole: bool, tf32: bool
) -> None:
    """Put srca + srcb, or srca - srcb where `flip` is -1, into vectors `first` to `last` of dst; all patterns."""
    seen = 0x7FFFE000 if tf32 else 0x7FFF0000
    for vector in range(first, last):
        left, right = load(srca, 32 * vector), load(srcb, 32 * vector)
        sign_left, sign_right = left >> 31, (right >> 31) ^ flip
        left, right = left & seen, right & seen
        left, right = select((left >> 23) > 0, left, 0), select((right >> 23) > 0, right, 0)
        sign = select(right > left, sign_right, sign_left)
        bigger, smaller = maximum(left, right), minimum(left, right)
        total = select(bigger > 0, ((bigger >> 13) & 1023) | 1024, 0)
        addend = select(smaller > 0, ((smaller >> 13) & 1023) | 1024, 0)
        addend = shift_half_up(addend << 1, (bigger >> 23) - (smaller >> 23))
        differ = sign_left ^ sign_right
        total = total + ((addend ^ differ) - differ)
        total = narrow((total ^ sign) - sign)
        nothing, zero = total & 0, bigger & 0
        exponent, doubled = accumulate(
            narrow(bigger >> 23), total, nothing + ABSENT, nothing, zero, zero, dst16, wormhole
        )
        store(dst, 32 * vector, join_dst(exponent, doubled))
