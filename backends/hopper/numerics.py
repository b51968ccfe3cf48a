"""HopperArithmetic: scaled FP8, bf16, fp16 and fp32 with sums in fp32, and the rounding that all of Hopper's paths use.

Lowering, the GEMM path and the emulation take their codes and scales from here, so that one definition decides.

What is not modelled is how the tensor cores cut the sums of FP8 products. `backends.hopper.accumulation` models that
apart, and a search keeps fp32 sums: the rule is not documented and changes with the kernel that a library picks; and
by the model it costs little where layers of a voice are concerned. In all 73 layers of the embedded voice (k from 64 to
2048) its error lies 29 dB and more below that of rounding the operands to FP8, 44 on average. Long sums of values of
one sign are another matter: from k = 512 on they lose more than the rounding does, unless the sum is promoted to fp32
(`use_fast_accum=False`). Figures: benchmarks/results/accumulation.txt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from backends.base import Prepared
from calibrate.calibration import Calibration, Operand, UncalibratedSiteError
from calibrate.moments import Moments
from precision.formats import FORMATS
from precision.policy import Scheme
from precision.site import Op
from voice.site_call import SiteCall

FP8_TYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
)
"""Scaled formats, and torch's types of their codes."""
WIDE_TYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
)
"""Formats without a scale."""


def quantize_fp8(values: Tensor, scale: Tensor | float, fmt: str) -> Tensor:
    """Divide by a scale and round to FP8 codes: nearest, ties to even, saturating (OCP OFP8 v1.0).

    This is ONNX's QuantizeLinear with `saturate` 1 and zero point 0: one float32 division, then one rounding.

    What is too large differs between the libraries, so it is clamped before the cast and no library decides: Inf and
    all beyond the largest value (E4M3 448, E5M2 57344) become that value. Alone, ml_dtypes' casts give NaN (E4M3) or
    Inf (E5M2), torch's give Inf for E5M2 and, by version, NaN or 448 for E4M3. NaN stays NaN with its sign; its code is
    torch's, 0x7F or 0xFF in both formats.

    Args:
        values: float32 (float16 and bfloat16 are widened first), any shape.
        scale: float32, above zero, broadcast against `values`; 1 rounds the values as they are. For values on a card
            give a tensor on the card: by a number of the host, torch multiplies with its reciprocal there, which is
            exact for powers of two alone.
        fmt: a key of `FP8_TYPES`.

    Returns:
        Codes in the shape of `values`; `.to(torch.float32)` reads their values, `.view(torch.uint8)` their bits.
    """
    largest = FORMATS[fmt].max_value
    return (values.to(torch.float32) / scale).clamp(-largest, largest).to(FP8_TYPES[fmt])


def round_fp8(values: Tensor, fmt: str) -> Tensor:
    """Round float32 to the nearest FP8 value, as `quantize_fp8` with scale 1 does; float32."""
    return quantize_fp8(values, 1.0, fmt).to(torch.float32)


def round_wide(values: Tensor, fmt: str) -> Tensor:
    """Round float32 to bf16 or fp16 (nearest, ties to even; overflow is Inf), or leave it as fp32."""
    return values if fmt == "fp32" else values.to(WIDE_TYPES[fmt]).to(torch.float32)


def stored_format(scheme: Scheme) -> str:
    """Format of a site's results and bias: the activation's where that is wide, bf16 where it is FP8."""
    return "bf16" if scheme.activation in FP8_TYPES else scheme.activation


def fp8_scale(amax: Tensor, fmt: str) -> Tensor:
    """Scale that takes a magnitude to the largest value of a format: amax / largest, in float32; 1 where that is 0.

    Args:
        amax: float32, >= 0. NaN gives 1, so that it harms no element but itself.
        fmt: a key of `FP8_TYPES`.
    """
    # By a tensor: of a number torch's CUDA kernel takes the reciprocal first, which costs the last bit.
    scale = amax / torch.full_like(amax, FORMATS[fmt].max_value)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


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
    return fp8_scale(amax, scheme.weight)


def spread_over_weight(scale: Tensor, weight: Tensor, op: Op, groups: int) -> Tensor:
    """Shape scales of output channels, [channels] or [1], so that they broadcast against the weight."""
    if scale.numel() == 1:
        return scale
    if op == "conv_transpose1d":
        rows = scale.view(groups, 1, -1, 1).expand(-1, weight.shape[0] // groups, -1, -1)
        return rows.flatten(0, 1)
    return scale.view(-1, *[1] * (weight.ndim - 1))


def site_weight(weight: Tensor, op: Op, groups: int, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Quantize a weight as `scheme` says, whose `weight` is an FP8 format.

    Args:
        weight: float32 in the layout of `SiteCall.weight`.
        op: says where the output channels are.
        groups: of a convolution; 1 otherwise.
        scheme: `weight` and `weight_scale` are read.

    Returns:
        Codes in the shape of `weight`, and their scale, float32 [channels] or [1]; `spread_over_weight` shapes it.

    Raises:
        ValueError: the weight has Inf or NaN.
    """
    _refuse_not_finite(weight)
    scale = weight_scale(weight, op, groups, scheme)
    return quantize_fp8(weight, spread_over_weight(scale, weight, op, groups), scheme.weight), scale


def activation_scale(
    site: str, operand: Operand, scheme: Scheme, calibration: Calibration | None, values: Tensor | None = None
) -> Tensor:
    """Scale of an FP8 activation, float32 without axes: of what was calibrated, or of the values themselves.

    Args:
        site: name of the site.
        operand: `input`, or which side of a product.
        scheme: `activation` and `activation_scale` are read.
        calibration: where a static scale comes from.
        values: the activation; a dynamic scale needs it, a static one goes to its device.

    Raises:
        UncalibratedSiteError: the scale is static and was never measured.
        ValueError: the scale is dynamic, and there are no values.
    """
    if scheme.activation_scale == "dynamic":
        if values is None:
            raise ValueError(f"site {site!r}: scheme {scheme.name!r} takes its scale from each tensor; give the values")
        return fp8_scale(values.abs().amax(), scheme.activation)
    if calibration is None:
        raise UncalibratedSiteError(
            f"site {site!r}: scheme {scheme.name!r} has a static activation scale and there is no calibration;"
            " give one, or use activation_scale dynamic"
        )
    amax = torch.tensor(calibration.amax(site, operand), device=None if values is None else values.device)
    return fp8_scale(amax, scheme.activation)


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
        bias = None if call.bias is None else round_wide(call.bias.detach(), stored_format(scheme))
        _refuse_not_finite(weight, call.site)
        if scheme.weight not in FP8_TYPES:
            return Prepared(round_wide(weight, scheme.weight), bias)
        groups = 1 if call.options is None else call.options.groups
        stored, scale = site_weight(weight, call.op, groups, scheme)
        codes = stored.to(torch.float32)
        if scheme.activation in FP8_TYPES:
            return Prepared(codes, bias, scale=scale)
        # Beside a wide activation the weight is only stored in FP8, and multiplied in the wide format.
        wide = codes * spread_over_weight(scale, weight, call.op, groups)
        return Prepared(round_wide(wide, scheme.activation), bias)

    def compute(self, call: SiteCall, scheme: Scheme, prepared: Prepared, calibration: Calibration | None) -> Tensor:
        """See `Arithmetic.compute`."""
        if scheme.activation not in FP8_TYPES:
            weight = round_wide(call.weight, scheme.activation) if prepared.weight is None else prepared.weight
            total = call.compute(round_wide(call.x, scheme.activation), weight, with_bias=False)
        else:
            total = _scaled(call, scheme, prepared, calibration)
        if prepared.bias is not None:
            total = total + _along_channels(prepared.bias, call, total)
        return round_wide(total, stored_format(scheme))


def _scaled(call: SiteCall, scheme: Scheme, prepared: Prepared, calibration: Calibration | None) -> Tensor:
    operand: Operand = "left" if call.is_product else "input"
    x_scale = activation_scale(call.site, operand, scheme, calibration, call.x)
    x = quantize_fp8(call.x, x_scale, scheme.activation).to(torch.float32)
    if prepared.weight is None:
        scale = activation_scale(call.site, "right", scheme, calibration, call.weight)
        right = quantize_fp8(call.weight, scale, scheme.activation).to(torch.float32)
        return call.compute(x, right, with_bias=False) * (x_scale * scale)
    assert prepared.scale is not None
    total = call.compute(x, prepared.weight, with_bias=False)
    return total * _along_channels(x_scale * prepared.scale, call, total)


def _refuse_not_finite(weight: Tensor, site: str = "") -> None:
    if not bool(torch.isfinite(weight).all()):
        where = f"site {site}: the" if site else "the"
        raise ValueError(f"{where} weight has Inf or NaN; find where it comes from first")


def _along_channels(values: Tensor, call: SiteCall, total: Tensor) -> Tensor:
    return values.view(-1, *[1] * (total.ndim - 2)) if call.options is not None else values
