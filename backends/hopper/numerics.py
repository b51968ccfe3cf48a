"""HopperArithmetic: scaled FP8, bf16, fp16 and fp32 with sums in fp32.

What is not modelled: the tensor cores align the FP8 products of a step to the largest and keep about 14 bits of it
(reported by DeepSeek-V3, arXiv 2412.19437, section 3.3; the exact rule is not documented).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from backends.base import Prepared
from calibrate.calibration import Calibration, Operand, UncalibratedSiteError
from calibrate.moments import Moments
from precision.formats import FORMATS
from precision.policy import Scheme
from precision.site import Op
from voice.site_call import SiteCall

_FP8 = {"fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
_WIDE = {"bf16": torch.bfloat16, "fp16": torch.float16}


def round_fp8(values: Tensor, fmt: str) -> Tensor:
    """Round float32 to the nearest FP8 value, ties to even, saturating; NaN stays NaN.

    Inf and all beyond the largest value (E4M3 448, E5M2 57344) become that value. Source: OCP OFP8 v1.0.
    """
    largest = FORMATS[fmt].max_value
    return values.clamp(-largest, largest).to(_FP8[fmt]).to(torch.float32)


def round_wide(values: Tensor, fmt: str) -> Tensor:
    """Round float32 to bf16 or fp16 (nearest, ties to even; overflow is Inf), or leave it as fp32."""
    return values if fmt == "fp32" else values.to(_WIDE[fmt]).to(torch.float32)


@dataclass(frozen=True, slots=True)
class HopperArithmetic:
    """Model of Hopper's tensor cores. FP8 operands have symmetric scales, amax / largest value.

    Results are stored in the activation's format where that is wide, in bf16 where it is FP8.
    """

    name: str = "hopper"

    def prepare(self, call: SiteCall, scheme: Scheme, moments: Moments | None = None) -> Prepared:
        """Round weight (to FP8 codes beside a scale, or to the wide format) and bias.

        A product of two activations has nothing to prepare. Raises ValueError where the weight is not finite.
        """
        if call.is_product:
            return Prepared(None, None)
        weight = call.weight.detach()
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(f"site {call.site}: the weight has Inf or NaN; find where it comes from first")
        bias = None if call.bias is None else round_wide(call.bias.detach(), _stored(scheme))
        if scheme.weight not in _FP8:
            return Prepared(round_wide(weight, scheme.weight), bias)
        groups = 1 if call.options is None else call.options.groups
        scale = weight_scale(weight, call.op, groups, scheme)
        codes = round_fp8(weight / _spread(scale, call.op, groups, weight), scheme.weight)
        if scheme.activation in _FP8:
            return Prepared(codes, bias, scale=scale)
        # Beside a wide activation the weight is only stored in FP8, and multiplied in the wide format.
        return Prepared(round_wide(codes * _spread(scale, call.op, groups, weight), scheme.activation), bias)

    def compute(self, call: SiteCall, scheme: Scheme, prepared: Prepared, calibration: Calibration | None) -> Tensor:
        """See `Arithmetic.compute`."""
        if scheme.activation not in _FP8:
            weight = round_wide(call.weight, scheme.activation) if prepared.weight is None else prepared.weight
            total = call.compute(round_wide(call.x, scheme.activation), weight, with_bias=False)
        else:
            total = _scaled(call, scheme, prepared, calibration)
        if prepared.bias is not None:
            total = total + _along_channels(prepared.bias, call, total)
        return round_wide(total, _stored(scheme))


def weight_scale(weight: Tensor, op: Op, groups: int, scheme: Scheme) -> Tensor:
    """Scale of an FP8 weight: amax / largest value, [channels] or [1]; 1 where all weights are zero.

    Args:
        weight: float32 in the layout of `SiteCall.weight`.
        op: says where the output channels are.
        groups: of a convolution; 1 otherwise.
        scheme: `weight` and `weight_scale` are read.
    """
    if scheme.weight_scale == "tensor":
        amax = weight.abs().amax().reshape(1)
    elif op == "conv_transpose1d":
        amax = torch.unflatten(weight.abs(), 0, (groups, -1)).amax((1, 3)).flatten()
    else:
        amax = weight.abs().flatten(1).amax(1)
    return _scale(amax, scheme.weight)


def _scale(amax: Tensor, fmt: str) -> Tensor:
    scale = amax / FORMATS[fmt].max_value
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _scaled(call: SiteCall, scheme: Scheme, prepared: Prepared, calibration: Calibration | None) -> Tensor:
    operand: Operand = "left" if call.is_product else "input"
    x_scale = _activation_scale(call, call.x, operand, scheme, calibration)
    x = round_fp8(call.x / x_scale, scheme.activation)
    if prepared.weight is None:
        scale = _activation_scale(call, call.weight, "right", scheme, calibration)
        right = round_fp8(call.weight / scale, scheme.activation)
        return call.compute(x, right, with_bias=False) * (x_scale * scale)
    assert prepared.scale is not None
    total = call.compute(x, prepared.weight, with_bias=False)
    return total * _along_channels(x_scale * prepared.scale, call, total)


def _activation_scale(
    call: SiteCall, values: Tensor, operand: Operand, scheme: Scheme, calibration: Calibration | None
) -> Tensor:
    if scheme.activation_scale == "dynamic":
        return _scale(values.abs().amax(), scheme.activation)
    if calibration is None:
        raise UncalibratedSiteError(
            f"site {call.site!r}: scheme {scheme.name!r} has a static activation scale and there is no calibration;"
            " give one, or use activation_scale dynamic"
        )
    return _scale(values.new_tensor(calibration.amax(call.site, operand)), scheme.activation)


def _stored(scheme: Scheme) -> str:
    return "bf16" if scheme.activation in _FP8 else scheme.activation


def _along_channels(values: Tensor, call: SiteCall, total: Tensor) -> Tensor:
    return values.view(-1, *[1] * (total.ndim - 2)) if call.options is not None else values


def _spread(scale: Tensor, op: Op, groups: int, weight: Tensor) -> Tensor:
    """Shape scales of output channels so that they broadcast against the weight."""
    if scale.numel() == 1:
        return scale
    if op == "conv_transpose1d":
        rows = scale.view(groups, 1, -1, 1).expand(-1, weight.shape[0] // groups, -1, -1)
        return rows.flatten(0, 1)
    return scale.view(-1, *[1] * (weight.ndim - 1))
