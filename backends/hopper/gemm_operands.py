"""Held: what the GEMM path keeps of a site between calls: its weight as it is stored, bias and scales."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from backends.hopper.gemm_products import Ran, scaled_product, sums_in_fp32, wide_product
from backends.hopper.numerics import (
    FP8_TYPES,
    WIDE_TYPES,
    HopperArithmetic,
    activation_scale,
    quantize_fp8,
    site_weight,
    spread_over_weight,
    stored_format,
)
from calibrate.calibration import Calibration
from precision.policy import Scheme
from voice.site_call import SiteCall

_ARITHMETIC = HopperArithmetic()


@dataclass(slots=True, eq=False)
class Held:
    """Of one (site, scheme), on the device that computes; a product of two activations holds none of it."""

    weight: Tensor | None = None
    """FP8 codes or values of a wide type, in the layout of `SiteCall.weight`."""
    weight_scale: Tensor | None = None
    """float32 [channels] or [1], where the weight is FP8 codes."""
    bias: Tensor | None = None
    """In the type in which results are stored."""
    input_scale: Tensor | None = None
    """float32 without axes, where the activation is FP8 and its scale static."""
    _rows: dict[int, Tensor] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Bytes of weight, bias and scales."""
        kept = (self.weight, self.weight_scale, self.bias, self.input_scale)
        return sum(tensor.nbytes for tensor in kept if tensor is not None)

    def row_scales(self, scale: Tensor, rows: int) -> Tensor:
        """One scale [rows, 1] for each row of the left operand, all the same.

        Those of a static scale are kept for good, by number of rows: a CUDA graph reads them where they lie.
        """
        # Repeated, because one row of an expanded tensor has a stride of 0, which the kernels do not take.
        if scale is not self.input_scale:
            return scale.reshape(1, 1).repeat(rows, 1)
        if rows not in self._rows:
            self._rows[rows] = scale.reshape(1, 1).repeat(rows, 1)
        return self._rows[rows]


def hold(call: SiteCall, scheme: Scheme, calibration: Calibration | None) -> Held:
    """Quantize a site's weight, bias and static scale, once; as `HopperArithmetic.prepare` does, kept in their types.

    Raises:
        UncalibratedSiteError: a static scale was never measured.
        ValueError: the weight has Inf or NaN.
    """
    if call.is_product:
        return Held()
    # Of a wide weight this is the weight, of an FP8 one the check that it is finite.
    prepared = _ARITHMETIC.prepare(call, scheme)
    bias = None if prepared.bias is None else prepared.bias.to(WIDE_TYPES[stored_format(scheme)])
    if scheme.weight not in FP8_TYPES:
        assert prepared.weight is not None
        return Held(prepared.weight.to(WIDE_TYPES[scheme.weight]), bias=bias)
    groups = 1 if call.options is None else call.options.groups
    codes, scale = site_weight(call.weight.detach(), call.op, groups, scheme)
    held = Held(codes, scale, bias)
    if scheme.activation in FP8_TYPES and scheme.activation_scale == "static":
        held.input_scale = activation_scale(call.site, "input", scheme, calibration, call.x)
    return held


def multiply(call: SiteCall, scheme: Scheme, held: Held, fast_accum: bool) -> tuple[Tensor, Ran]:
    """Compute a call from what is held of its site: the result in the type in which it is stored, and how."""
    return _scaled(call, scheme, held, fast_accum) if scheme.activation in FP8_TYPES else _wide(call, scheme, held)


def _scaled(call: SiteCall, scheme: Scheme, held: Held, fast_accum: bool) -> tuple[Tensor, Ran]:
    assert held.weight is not None
    assert held.weight_scale is not None
    scale = held.input_scale
    if scale is None:
        scale = activation_scale(call.site, "input", scheme, None, call.x)
    x = quantize_fp8(call.x.reshape(-1, call.x.shape[-1]), scale, scheme.activation)
    count = held.weight_scale.numel()
    # A scale for each channel takes one for each row beside it.
    scales = (scale, held.weight_scale[0]) if count == 1 else (held.row_scales(scale, len(x)), held.weight_scale[None])
    made, kernel = scaled_product(x, held.weight, *scales, held.bias, fast_accum=fast_accum)
    ran = Ran(
        kernel,
        x.dtype,
        held.weight.dtype,
        held.weight.dtype,
        None if held.bias is None else held.bias.dtype,
        count,
        scale is held.input_scale,
        fast_accum=fast_accum and x.device.type == "cuda",
    )
    return made.view(*call.x.shape[:-1], -1), ran


def _wide(call: SiteCall, scheme: Scheme, held: Held) -> tuple[Tensor, Ran]:
    dtype = WIDE_TYPES[scheme.activation]
    weight = call.weight.to(dtype) if held.weight is None else held.weight
    stored = weight.dtype
    if held.weight_scale is not None:
        # Stored in FP8 and multiplied in a wide type, into which it is brought anew for every call.
        groups = 1 if call.options is None else call.options.groups
        scale = spread_over_weight(held.weight_scale, weight, call.op, groups)
        weight = (weight.to(torch.float32) * scale).to(dtype)
    made, kernel = wide_product(call, call.x.to(dtype), weight, held.bias)
    ran = Ran(
        kernel,
        dtype,
        weight.dtype,
        stored,
        None if held.bias is None else held.bias.dtype,
        None if held.weight_scale is None else held.weight_scale.numel(),
        fp32_sums=call.x.device.type == "cpu" or sums_in_fp32(dtype),
    )
    return made, ran
