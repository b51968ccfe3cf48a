"""Storage: what the card's memory holds of a weight and a bias under a scheme, levers included.

Source: ttnn 0.81.1, measured; the card's reads of it from ttsim v1.10.0.
"""

import torch
from torch import Tensor

from backends.tenstorrent.levers import fold_gain, round_bfp8_for_lofi, round_significant, truncation_gain
from backends.tenstorrent.rounding import MAGNITUDE_BITS, WeightBlocks, clear_low_bits, host_bf16, host_blocks
from precision.policy import Fidelity, Scheme
from precision.site import Op

# Mantissa bits (without the hidden one) of the high slice. SrcA holds weights and right operands, SrcB activations.
HIGH_A = 4
HIGH_B = 6
_MANTISSA = {"bf16": 7, "fp32": 10, "bfp8_b": 6, "bfp4_b": 2}
"""Mantissa bits of a register datum, by storage format; fp32 is read as tf32 where sums are fp32."""
CUTS_ACTIVATION: frozenset[Fidelity] = frozenset({"lofi", "hifi2"})


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
        return clear_low_bits(stored, 23 - HIGH_A) if scheme.fidelity == "lofi" else stored

    if "gain_folding" in scheme.levers:
        flat = fold_gain(flat, read, _activation_gain(scheme))
    return _channels_first(store(flat).view(channels.shape), op, groups)


def store_bias(bias: Tensor, op: Op, scheme: Scheme) -> Tensor:
    """Bias values on the card: bf16 for linear; a convolution's bias takes the format of its weights."""
    if op != "linear" and scheme.weight in MAGNITUDE_BITS:
        return host_blocks(bias.reshape(-1, 1), scheme.weight, WeightBlocks(bias.numel(), 1)).view(-1)
    return host_bf16(bias)


def read_mantissa(fmt: str, scheme: Scheme) -> int:
    """Mantissa bits of a register datum read from a stored format."""
    return 7 if fmt == "fp32" and scheme.accumulate == "bf16" else _MANTISSA[fmt]


def _activation_gain(scheme: Scheme) -> float:
    if scheme.fidelity not in CUTS_ACTIVATION or scheme.activation in MAGNITUDE_BITS:
        return 1.0
    return truncation_gain(1 + read_mantissa(scheme.activation, scheme), 1 + HIGH_B)


def _channels_first(weight: Tensor, op: Op, groups: int) -> Tensor:
    """Output channels of all groups first; of a transposed convolution its own inverse."""
    if op == "conv_transpose1d":
        return torch.unflatten(weight, 0, (groups, -1)).transpose(1, 2).flatten(0, 1).contiguous()
    return weight.contiguous()


def check_finite(site: str, operand: str, values: Tensor) -> None:
    """Raise ValueError, naming site and operand, where there is Inf or NaN."""
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"site {site}: the {operand} has Inf or NaN; find where it comes from first")
