"""TensixArithmetic: the matrix engine's arithmetic, fast enough to search with.

Operands are rounded and cut bit for bit as the card does it; sums are plain fp32 GEMMs, where the card aligns eight
products at a time (about 70 dB under the result) and may spill partial sums. Source: ttsim v1.10.0 and ttnn 0.81.1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from backends.base import Prepared
from backends.tenstorrent.accumulation import accumulate_bf16
from backends.tenstorrent.levers import fold_gain, round_bfp8_for_lofi, round_significant, truncation_gain
from backends.tenstorrent.rounding import (
    MAGNITUDE_BITS,
    WeightBlocks,
    clear_low_bits,
    host_bf16,
    host_blocks,
    pack_blocks,
    pack_float,
    truncate_float,
)
from calibrate.calibration import Calibration
from precision.policy import Fidelity, Scheme
from precision.site import Op
from voice.site_call import SiteCall

# Mantissa bits (without the hidden one) of the high slice. SrcA holds weights and right operands, SrcB activations.
_HIGH_A = 4
_HIGH_B = 6
_MANTISSA = {"bf16": 7, "fp32": 10, "bfp8_b": 6, "bfp4_b": 2}
"""Mantissa bits of a register datum, by storage format; fp32 is read as tf32 where sums are fp32."""
_CUTS_ACTIVATION: frozenset[Fidelity] = frozenset({"lofi", "hifi2"})


@dataclass(frozen=True, slots=True)
class TensixArithmetic:
    """Fast model of Wormhole and Blackhole; formats bf16, bfp8_b, bfp4_b, fp32. Needs no calibration.

    Results are stored as bf16, or as fp32 where the scheme's activation is; the next site rounds its own input. NaN
    among activations becomes Inf, as the packer has it.
    """

    name: str = "tensix_fast"

    def prepare(self, call: SiteCall, scheme: Scheme) -> Prepared:
        """Round weight and bias as the host stores them, apply the levers, cut to what the fidelity reads.

        A product of two activations has nothing to prepare. Raises ValueError where weight or bias is not finite.
        """
        if call.is_product:
            return Prepared(None, None)
        groups = 1 if call.options is None else call.options.groups
        _check_finite(call.site, "weight", call.weight)
        stored = store_weight(call.weight, call.op, groups, scheme)
        bias = call.bias
        if bias is not None:
            _check_finite(call.site, "bias", bias)
            bias = store_bias(bias.detach(), call.op, scheme)
        high = clear_low_bits(stored, 23 - _HIGH_A)
        if scheme.fidelity == "lofi":
            return Prepared(high, bias)
        second = scheme.accumulate == "bf16" or _reads_low_activation(scheme)
        whole = clear_low_bits(stored, 23 - _read_mantissa(scheme.weight, scheme) + (scheme.weight == "fp32"))
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


def store_weight(weight: Tensor, op: Op, groups: int, scheme: Scheme) -> Tensor:
    """Weight values that the card's memory holds under a scheme, levers included; layout as given.

    Args:
        weight: float32, finite, in the layout of `SiteCall.weight`.
        op: says where the output channels are: blocks of 16 lie along them.
        groups: of a convolution; 1 otherwise.
        scheme: `weight`, `fidelity`, `activation` and `levers` are read.
    """
    channels = _channels_first(weight.detach(), op, groups)
    flat = channels.flatten(1)
    blocks = WeightBlocks(len(flat), groups)

    def store(values: Tensor) -> Tensor:
        if scheme.weight == "fp32":
            return round_significant(values) if "fidelity_rounding" in scheme.levers else values
        if scheme.weight == "bf16":
            return round_significant(values) if "fidelity_rounding" in scheme.levers else host_bf16(values)
        if scheme.weight == "bfp8_b" and "fidelity_rounding" in scheme.levers:
            return round_bfp8_for_lofi(values, blocks)
        return host_blocks(values, scheme.weight, blocks)

    def read(values: Tensor) -> Tensor:
        stored = store(values)
        return clear_low_bits(stored, 23 - _HIGH_A) if scheme.fidelity == "lofi" else stored

    if "gain_folding" in scheme.levers:
        flat = fold_gain(flat, read, _activation_gain(scheme))
    return _channels_first(store(flat).view(channels.shape), op, groups)


def store_bias(bias: Tensor, op: Op, scheme: Scheme) -> Tensor:
    """Bias values on the card: bf16 for linear; a convolution's bias takes the format of its weights."""
    if op != "linear" and scheme.weight in MAGNITUDE_BITS:
        return host_blocks(bias.reshape(-1, 1), scheme.weight, WeightBlocks(bias.numel(), 1)).view(-1)
    return host_bf16(bias)


def read_activation(x: Tensor, scheme: Scheme, axis: int, *, cut: bool = True) -> Tensor:
    """Round an activation as it is stored, and cut it to what the fidelity reads of a first operand.

    Args:
        x: float32.
        scheme: `activation`, `accumulate` and `fidelity` are read.
        axis: the axis of channels (K), along which blocks lie.
        cut: False gives all bits that are stored.
    """
    kept = _HIGH_B if cut and scheme.fidelity in _CUTS_ACTIVATION else None
    return _store_activation(x, scheme, axis, kept)


def _store_activation(x: Tensor, scheme: Scheme, axis: int, kept: int | None) -> Tensor:
    if scheme.activation in MAGNITUDE_BITS:
        packed = pack_blocks(x, scheme.activation, axis)
        return packed if kept is None or kept >= 6 else clear_low_bits(packed, 23 - kept)
    mantissa = _read_mantissa(scheme.activation, scheme)
    if scheme.activation == "fp32":
        return truncate_float(x, mantissa if kept is None else min(kept, mantissa))
    return pack_float(x, mantissa, kept)


def _right(call: SiteCall, scheme: Scheme, prepared: Prepared) -> Tensor:
    """The second operand: a prepared weight, or an activation in the weights' place (blocks along its last axis)."""
    if prepared.weight is not None:
        return prepared.weight
    if scheme.fidelity == "lofi":
        return _store_activation(call.weight, scheme, -1, _HIGH_A)
    return _store_activation(call.weight, scheme, -1, 9 if scheme.activation == "fp32" else None)


def _two_passes(call: SiteCall, scheme: Scheme, prepared: Prepared, axis: int) -> Tensor:
    """HiFi3 and HiFi4 where activations have a low slice."""
    x = read_activation(call.x, scheme, axis)
    weight = _right(call, scheme, prepared)
    if scheme.fidelity == "hifi4":
        return call.compute(x, weight, with_bias=False)
    high = clear_low_bits(x, 23 - _HIGH_B)
    weight_high = prepared.weight_high if prepared.weight_high is not None else clear_low_bits(weight, 23 - _HIGH_A)
    total = call.compute(high, weight, with_bias=False)
    total += call.compute(x.sub_(high), weight_high, with_bias=False)
    return total


def _phases(call: SiteCall, scheme: Scheme, prepared: Prepared, axis: int) -> list[tuple[Tensor, Tensor]]:
    """Operands of each pass, in the card's order: high x high, then the weight's low slice, then the activation's."""
    x = read_activation(call.x, scheme, axis, cut=False)
    x_high = clear_low_bits(x, 23 - _HIGH_B)
    weight = _right(call, scheme, prepared)
    high = clear_low_bits(weight, 23 - _HIGH_A)
    low, x_low = weight - high, x - x_high
    passes = {"lofi": 1, "hifi2": 2, "hifi3": 3, "hifi4": 4}[scheme.fidelity or "hifi4"]
    return [(x_high, high), (x_high, low), (x_low, high), (x_low, low)][:passes]


def _reads_low_activation(scheme: Scheme) -> bool:
    return scheme.fidelity not in _CUTS_ACTIVATION and scheme.activation not in MAGNITUDE_BITS


def _read_mantissa(fmt: str, scheme: Scheme) -> int:
    return 7 if fmt == "fp32" and scheme.accumulate == "bf16" else _MANTISSA[fmt]


def _activation_gain(scheme: Scheme) -> float:
    if scheme.fidelity not in _CUTS_ACTIVATION or scheme.activation in MAGNITUDE_BITS:
        return 1.0
    return truncation_gain(1 + _read_mantissa(scheme.activation, scheme), 1 + _HIGH_B)


def _channels_first(weight: Tensor, op: Op, groups: int) -> Tensor:
    """Output channels of all groups first; of a transposed convolution its own inverse."""
    if op == "conv_transpose1d":
        return torch.unflatten(weight, 0, (groups, -1)).transpose(1, 2).flatten(0, 1).contiguous()
    return weight.contiguous()


def _check_finite(site: str, operand: str, values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"site {site}: the {operand} has Inf or NaN; find where it comes from first")
