"""Triton kernels that quantize to FP8, or quantize and dequantize, in one pass: the only import of triton.

They round by integer arithmetic on the bits of float32, so they run on cards without FP8 too, and in Triton's
interpreter (TRITON_INTERPRET=1) on a CPU. Import this module late: triton takes a while, and is absent off Linux.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.hopper.numerics import FP8_TYPES
from precision.formats import FORMATS

BLOCK = 4096
_MANTISSA_BITS = {"fp8_e4m3": 3, "fp8_e5m2": 2}
_MIN_EXPONENT = {"fp8_e4m3": -6, "fp8_e5m2": -14}


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _quantize(  # type: ignore[no-untyped-def]
    values,
    scale,
    out,
    count,
    largest: tl.constexpr,
    shift: tl.constexpr,
    least_normal: tl.constexpr,
    magic: tl.constexpr,
    dynamic: tl.constexpr,
    codes: tl.constexpr,
    block: tl.constexpr,
):
    places = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = places < count
    x = tl.load(values + places, mask=inside, other=0.0).to(tl.float32)
    # What a dynamic scale is made of, the largest magnitude, comes in place of the scale.
    if dynamic:
        factor = tl.div_rn(tl.load(scale), largest)
        factor = tl.where(factor > 0, factor, 1.0)
    else:
        factor = tl.load(scale)
    bits = tl.div_rn(x, factor).to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    is_nan = magnitude > 0x7F800000
    largest_bits = tl.full((), largest, tl.float32).to(tl.int32, bitcast=True)
    magnitude = tl.minimum(magnitude, largest_bits)
    # Nearest, ties to even: half a unit less one, and one more where the last bit that stays is odd.
    odd = (magnitude >> shift) & 1
    normal = (magnitude + ((1 << (shift - 1)) - 1) + odd) & -(1 << shift)
    # Below the least normal number the grid is even: the sum with `magic` has the grid's step as its last bit.
    shifted = magnitude.to(tl.float32, bitcast=True) + magic
    small = magnitude < tl.full((), least_normal, tl.float32).to(tl.int32, bitcast=True)
    if codes:
        magic_bits = tl.full((), magic, tl.float32).to(tl.int32, bitcast=True)
        least_bits = tl.full((), least_normal, tl.float32).to(tl.int32, bitcast=True)
        # The least normal number has the code after all subnormal ones, 1 << (23 - shift).
        code = tl.where(small, shifted.to(tl.int32, bitcast=True) - magic_bits, 0)
        code = tl.where(small, code, ((normal - least_bits) >> shift) + (1 << (23 - shift)))
        code = tl.where(is_nan, 0x7F, code) | ((bits >> 24) & 0x80)
        tl.store(out + places, code.to(tl.uint8), mask=inside)
    else:
        rounded = tl.where(small, shifted - magic, normal.to(tl.float32, bitcast=True))
        signed = rounded.to(tl.int32, bitcast=True) | (bits & -2147483648)
        signed = tl.where(is_nan, bits, signed)
        tl.store(out + places, signed.to(tl.float32, bitcast=True) * factor, mask=inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _amax(values, amax_bits, count, block: tl.constexpr):  # type: ignore[no-untyped-def]
    places = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    x = tl.load(values + places, mask=places < count, other=0.0).to(tl.float32)
    # As integers, magnitudes are in the order of their values, and NaN is above all of them.
    tl.atomic_max(amax_bits, tl.max(x.to(tl.int32, bitcast=True) & 0x7FFFFFFF, axis=0))


def run(values: Tensor, scale: Tensor | None, fmt: str, codes: bool) -> Tensor:
    """Quantize in one pass, or with `scale` None in two, the first for the largest magnitude.

    Args:
        values: float32, bfloat16 or float16, any shape.
        scale: float32, one value on the device of `values`, above zero; None takes it from the values.
        fmt: a key of `FP8_TYPES`.
        codes: whether FP8 codes are wanted, or the float32 values that they stand for.

    Returns:
        Codes or values in the shape of `values`, as `quantize_fp8` and `fake_quantize` give them, bit for bit; which
        NaN a NaN becomes is not promised.
    """
    read = values.contiguous()
    # Codes are stored as bytes: cards before Ada have no FP8 type in Triton.
    out = torch.empty(read.shape, dtype=torch.uint8 if codes else torch.float32, device=read.device)
    grid = (triton.cdiv(read.numel(), BLOCK),)
    if read.numel():
        factor = scale
        if factor is None:
            amax_bits = torch.zeros(1, dtype=torch.int32, device=read.device)
            _amax[grid](read, amax_bits, read.numel(), block=BLOCK)
            factor = amax_bits.view(torch.float32)
        mantissa, least = _MANTISSA_BITS[fmt], _MIN_EXPONENT[fmt]
        _quantize[grid](
            read,
            factor,
            out,
            read.numel(),
            largest=FORMATS[fmt].max_value,
            shift=23 - mantissa,
            least_normal=2.0**least,
            magic=2.0 ** (23 + least - mantissa),
            dynamic=scale is None,
            codes=codes,
            block=BLOCK,
        )
    return out.view(FP8_TYPES[fmt]) if codes else out
