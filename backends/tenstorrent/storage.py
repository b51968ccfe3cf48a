"""Storage: what the card's memory holds of a weight and a bias under a scheme, levers included.

Source: ttnn 0.81.1, measured; the card's reads of it from ttsim v1.10.0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from backends.tenstorrent.error_feedback import ColumnGrid, Grid, RunGrid, compensated, feed_back
from backends.tenstorrent.levers import fold_gain, round_bfp8_for_lofi, round_significant, truncation_moments
from backends.tenstorrent.rounding import MAGNITUDE_BITS, WeightBlocks, clear_low_bits, host_bf16, host_blocks
from calibrate.moments import NEEDS_MOMENTS, Moments
from precision.policy import Fidelity, Scheme
from precision.site import Op
from voice.gemm import from_columns, to_columns
from voice.site_call import SiteCall

# Mantissa bits (without the hidden one) of the high slice. SrcA holds weights and right operands, SrcB activations.
HIGH_A = 4
HIGH_B = 6
_MANTISSA = {"bf16": 7, "fp32": 10, "bfp8_b": 6, "bfp4_b": 2}
"""Mantissa bits of a register datum, by storage format; fp32 is read as tf32 where sums are fp32."""
CUTS_ACTIVATION: frozenset[Fidelity] = frozenset({"lofi", "hifi2"})


def store_operands(call: SiteCall, scheme: Scheme, moments: Moments | None = None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a call as the card's memory holds them, levers included; layouts as given.

    Raises:
        ValueError: weight or bias is not finite; a lever needs moments and there are none, or they are of another K.
    """
    groups = 1 if call.options is None else call.options.groups
    check_finite(call.site, "weight", call.weight)
    if call.bias is not None:
        check_finite(call.site, "bias", call.bias)
    wanted = [lever for lever in scheme.levers if lever in NEEDS_MOMENTS]
    if wanted:
        _check_moments(call.site, wanted[0], moments, _by_channel(call.weight, call.op, groups).shape[1])
    bias = None if call.bias is None else call.bias.detach()
    lost = None if bias is None else bias - store_bias(bias, call.op, scheme)
    weight = store_weight(call.weight, call.op, groups, scheme, moments, lost)
    if bias is None:
        return weight, None
    if moments is not None and "bias_correction" in scheme.levers:
        bias = bias + bias_shift(call.weight, weight, call.op, groups, scheme, moments)
    return weight, store_bias(bias, call.op, scheme)


def store_weight(
    weight: Tensor,
    op: Op,
    groups: int,
    scheme: Scheme,
    moments: Moments | None = None,
    bias_lost: Tensor | None = None,
) -> Tensor:
    """Weight values that the card's memory holds under a scheme, levers included; layout as given.

    Args:
        weight: float32, finite, in the layout of `SiteCall.weight`.
        op: says where the output channels are: blocks of 16 lie along them, or along K with col_tilize.
        groups: of a convolution; 1 otherwise.
        scheme: `weight`, `fidelity`, `activation` and `levers` are read.
        moments: of the site's input; error_feedback asks for them.
        bias_lost: what rounding the bias takes from it, [output channels]: error_feedback has the weights make up for
            as much of it as the inputs' means allow.
    """
    flat = _by_channel(weight.detach(), op, groups)
    storage = _Storage(scheme, groups)
    gain, spread = _activation_model(scheme) if "gain_folding" in scheme.levers else (1.0, 0.0)
    if "error_feedback" in scheme.levers:
        assert moments is not None, "error_feedback without moments"
        parts = []
        lost = torch.zeros(len(flat)) if bias_lost is None else bias_lost
        inputs = zip(moments.mean, moments.second, lost.cpu().double().chunk(groups), strict=True)
        for part, (mean, second, missing) in zip(flat.cpu().double().chunk(groups), inputs, strict=True):
            target, hessian = compensated(part, second, gain, spread, missing[:, None] * mean)
            parts.append(feed_back(target, hessian, _Storage(scheme, 1).grid, storage.read))
        stored = torch.cat(parts).to(weight.device)
    else:
        if "gain_folding" in scheme.levers:
            # For white inputs: <exact, cut> / <cut, cut>.
            flat = fold_gain(flat, lambda values: storage.read(storage.store(values)), gain / (gain**2 + spread))
        stored = storage.store(flat)
    columns = torch.unflatten(stored, 0, (groups, -1)).mT
    return from_columns(columns if op != "linear" else columns[0], op, tuple(weight.shape), groups)


def store_bias(bias: Tensor, op: Op, scheme: Scheme) -> Tensor:
    """Bias values on the card: bf16; a convolution's shares exponents as its weights do; apart it is fp32."""
    if scheme.bias_apart:
        return bias
    if op != "linear" and scheme.weight in MAGNITUDE_BITS:
        return host_blocks(bias.reshape(-1, 1), scheme.weight, WeightBlocks(bias.numel(), 1)).view(-1)
    return host_bf16(bias)


def bias_shift(weight: Tensor, stored: Tensor, op: Op, groups: int, scheme: Scheme, moments: Moments) -> Tensor:
    """What the mean of a result loses, [output channels]: mean(x) W - mean(x as read) W as read."""
    exact = _by_channel(weight.detach(), op, groups).double()
    seen = _Storage(scheme, groups).read(_by_channel(stored, op, groups)).double()
    change = torch.unflatten(exact - _activation_model(scheme)[0] * seen, 0, (groups, -1))
    mean = moments.mean.to(change.device)
    return (change @ mean[..., None]).flatten().float()


def read_mantissa(fmt: str, scheme: Scheme) -> int:
    """Mantissa bits of a register datum read from a stored format."""
    return 7 if fmt == "fp32" and scheme.accumulate == "bf16" else _MANTISSA[fmt]


def check_finite(site: str, operand: str, values: Tensor) -> None:
    """Raise ValueError, naming site and operand, where there is Inf or NaN."""
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"site {site}: the {operand} has Inf or NaN; find where it comes from first")


@dataclass(frozen=True, slots=True)
class _Storage:
    """Rounding of weights [channels, k] to what is stored, and the multiplier's view of it."""

    scheme: Scheme
    groups: int

    def store(self, values: Tensor) -> Tensor:
        """Values in memory of [channels, any k]."""
        scheme = self.scheme
        for_lofi = "fidelity_rounding" in scheme.levers
        if scheme.weight not in MAGNITUDE_BITS:
            exact = scheme.weight == "fp32"
            return round_significant(values) if for_lofi else values if exact else host_bf16(values)
        along_k = "col_tilize" in scheme.levers
        rows = values.mT.contiguous() if along_k else values
        blocks = WeightBlocks(len(rows), 1 if along_k else self.groups)
        if for_lofi and scheme.weight == "bfp8_b":
            rows = round_bfp8_for_lofi(rows, blocks)
        else:
            rows = host_blocks(rows, scheme.weight, blocks)
        return rows.mT if along_k else rows

    def read(self, stored: Tensor) -> Tensor:
        """What the multiplier sees of stored values, of any shape."""
        whole = min(read_mantissa(self.scheme.weight, self.scheme), HIGH_A + 5)  # two slices of five bits in all
        return clear_low_bits(stored, 23 - (HIGH_A if self.scheme.fidelity == "lofi" else whole))

    @property
    def grid(self) -> Grid:
        """The stored values, column by column."""
        scheme = self.scheme
        if scheme.weight in MAGNITUDE_BITS and "col_tilize" in scheme.levers:
            return RunGrid(scheme.weight, "fidelity_rounding" in scheme.levers)
        return ColumnGrid(self.store)


def _activation_model(scheme: Scheme) -> tuple[float, float]:
    """Gain and spread of the cut that a fidelity makes of activations; see `truncation_moments`."""
    if scheme.fidelity not in CUTS_ACTIVATION or scheme.activation in MAGNITUDE_BITS:
        return 1.0, 0.0
    return truncation_moments(1 + read_mantissa(scheme.activation, scheme), 1 + HIGH_B)


def _by_channel(weight: Tensor, op: Op, groups: int) -> Tensor:
    """[output channels of all groups, K] of a weight in torch's layout."""
    columns = to_columns(weight, op, groups)
    return (columns if columns.ndim == 3 else columns[None]).mT.flatten(0, 1).contiguous()


def _check_moments(site: str, lever: str, moments: Moments | None, k: int) -> None:
    if moments is None:
        raise ValueError(
            f"site {site}: lever {lever} needs the moments of the site's input, and there are none; observe clips that"
            " reach the site (calibrate.moments), and hand them to the Preparation"
        )
    if moments.mean.shape[-1] != k:
        raise ValueError(
            f"site {site}: moments of {moments.mean.shape[-1]} inputs, and the weight has {k}; observe again"
        )
