"""TensixArithmetic: the matrix engine's arithmetic, fast enough to search with.

Operands are rounded and cut bit for bit as the card does it; sums are plain fp32 GEMMs, where the card aligns eight
products at a time (about 70 dB under the result) and may spill partial sums. Source: ttsim v1.10.0 and ttnn 0.81.1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from backends.base import Prepared
from backends.tenstorrent.accumulation import accumulate_bf16
from backends.tenstorrent.rounding import MAGNITUDE_BITS, clear_low_bits, pack_blocks, pack_float, truncate_float
from backends.tenstorrent.storage import (
    CUTS_ACTIVATION,
    HIGH_A,
    HIGH_B,
    check_finite,
    read_mantissa,
    store_bias,
    store_weight,
)
from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.policy import Scheme
from voice.site_call import SiteCall


@dataclass(frozen=True, slots=True)
class TensixArithmetic:
    """Fast model of Wormhole and Blackhole; formats bf16, bfp8_b, bfp4_b, fp32. Needs no calibration.

    Results are stored as bf16, or as fp32 where the scheme's activation is; the next site rounds its own input. NaN
    among activations becomes Inf, as the packer has it.
    """

    name: str = "tensix_fast"

    def prepare(self, call: SiteCall, scheme: Scheme, moments: Moments | None = None) -> Prepared:
        """Round weight and bias as the host stores them, apply the levers, cut to what the fidelity reads.

        A product of two activations has nothing to prepare. Raises ValueError where weight or bias is not finite.
        """
        if call.is_product:
            return Prepared(None, None)
        groups = 1 if call.options is None else call.options.groups
        check_finite(call.site, "weight", call.weight)
        stored = store_weight(call.weight, call.op, groups, scheme)
        bias = call.bias
        if bias is not None:
            check_finite(call.site, "bias", bias)
            bias = store_bias(bias.detach(), call.op, scheme)
        high = clear_low_bits(stored, 23 - HIGH_A)
        if scheme.fidelity == "lofi":
            return Prepared(high, bias)
        second = scheme.accumulate == "bf16" or _reads_low_activation(scheme)
        whole = clear_low_bits(stored, 23 - read_mantissa(scheme.weight, scheme) + (scheme.weight == "fp32"))
        return Prepared(whole, bias, weight_high=high if second else None)

    def compute(self, call: SiteCall, scheme: Scheme, prepared: Prepared, calibration: Calibration | None) -> Tensor:
        """See `Arithmetic.compute`; the calibration is not used."""
        axis = 1 if call.options is not None else -1
        if scheme.accumulate == "bf16":
            total = accumulate_bf16(call, _phases(call, scheme, prepared, axis))
        elif _reads_low_activation(scheme):
            total = _two_passes(call, scheme, prepared, axis)
        else:
            x = read_activation(call.x, scheme, axis)
            weight = _right(call, scheme, prepared)
            total = call.compute(x, weight, with_bias=False)
        if prepared.bias is not None:
            # The sum passes through a tf32 register on its way to the bias: 10 mantissa bits, by truncation.
            total.view(torch.int32).bitwise_and_(-(1 << 13))
            shape = (-1, *[1] * (total.ndim - 2)) if call.options is not None else (-1,)
            total += prepared.bias.view(shape)
        return total if scheme.activation == "fp32" else pack_float(total, 7)


def read_activation(x: Tensor, scheme: Scheme, axis: int, *, cut: bool = True) -> Tensor:
    """Round an activation as it is stored, and cut it to what the fidelity reads of a first operand.

    Args:
        x: float32.
        scheme: `activation`, `accumulate` and `fidelity` are read.
        axis: the axis of channels (K), along which blocks lie.
        cut: False gives all bits that are stored.
    """
    kept = HIGH_B if cut and scheme.fidelity in CUTS_ACTIVATION else None
    return _store_activation(x, scheme, axis, kept)


def _store_activation(x: Tensor, scheme: Scheme, axis: int, kept: int | None) -> Tensor:
    if scheme.activation in MAGNITUDE_BITS:
        packed = pack_blocks(x, scheme.activation, axis)
        return packed if kept is None or kept >= 6 else clear_low_bits(packed, 23 - kept)
    mantissa = read_mantissa(scheme.activation, scheme)
    if scheme.activation == "fp32":
        return truncate_float(x, mantissa if kept is None else min(kept, mantissa))
    return pack_float(x, mantissa, kept)


def _right(call: SiteCall, scheme: Scheme, prepared: Prepared) -> Tensor:
    """The second operand: a prepared weight, or an activation in the weights' place (blocks along its last axis)."""
    if prepared.weight is not None:
        return prepared.weight
    if scheme.fidelity == "lofi":
        return _store_activation(call.weight, scheme, -1, HIGH_A)
    return _store_activation(call.weight, scheme, -1, 9 if scheme.activation == "fp32" else None)


def _two_passes(call: SiteCall, scheme: Scheme, prepared: Prepared, axis: int) -> Tensor:
    """HiFi3 and HiFi4 where activations have a low slice."""
    x = read_activation(call.x, scheme, axis)
    weight = _right(call, scheme, prepared)
    if scheme.fidelity == "hifi4":
        return call.compute(x, weight, with_bias=False)
    high = clear_low_bits(x, 23 - HIGH_B)
    weight_high = prepared.weight_high if prepared.weight_high is not None else clear_low_bits(weight, 23 - HIGH_A)
    total = call.compute(high, weight, with_bias=False)
    total += call.compute(x.sub_(high), weight_high, with_bias=False)
    return total


def _phases(call: SiteCall, scheme: Scheme, prepared: Prepared, axis: int) -> list[tuple[Tensor, Tensor]]:
    """Operands of each pass, in the card's order: high x high, then the weight's low slice, then the activation's."""
    x = read_activation(call.x, scheme, axis, cut=False)
    x_high = clear_low_bits(x, 23 - HIGH_B)
    weight = _right(call, scheme, prepared)
    high = clear_low_bits(weight, 23 - HIGH_A)
    low, x_low = weight - high, x - x_high
    passes = {"lofi": 1, "hifi2": 2, "hifi3": 3, "hifi4": 4}[scheme.fidelity or "hifi4"]
    return [(x_high, high), (x_high, low), (x_low, high), (x_low, low)][:passes]


def _reads_low_activation(scheme: Scheme) -> bool:
    return scheme.fidelity not in CUTS_ACTIVATION and scheme.activation not in MAGNITUDE_BITS
