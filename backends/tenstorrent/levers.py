"""Levers: what is done to weights beforehand, free at run time, so that a cut multiplication loses less."""

from collections.abc import Callable

import torch
from torch import Tensor

from backends.tenstorrent.rounding import WeightBlocks

LOFI_WEIGHT_BITS = 5
"""Significant bits that LoFi reads of a weight."""


def round_significant(weight: Tensor, bits: int = LOFI_WEIGHT_BITS) -> Tensor:
    """Round float32 to the nearest value of `bits` significant bits, ties to even; finite values only."""
    dropped = 24 - bits
    pattern = weight.contiguous().view(torch.int32)
    odd = (pattern >> dropped) & 1
    return ((pattern + (1 << (dropped - 1)) - 1 + odd) & -(1 << dropped)).view(torch.float32)


def round_bfp8_for_lofi(weight: Tensor, blocks: WeightBlocks) -> Tensor:
    """Round [channels, k] to bfp8_b codes of at most 5 significant bits: LoFi then reads the whole of each.

    One rounding from the given weight. A code that would round past the block's largest (127) can be held at 124, or
    the block's exponent raised, which doubles everyone's step: each block takes what errs less. The host packer
    stores the result unchanged. Finite values only; denormals count as zero.
    """
    shared = exponents_for_lofi(weight, blocks)
    return torch.copysign(codes_for_lofi(weight.abs().double(), shared), weight.double()).float() + 0.0


def exponents_for_lofi(weight: Tensor, blocks: WeightBlocks) -> Tensor:
    """Exponent field under which each block of [channels, k] errs least, spread over its weights, int32."""
    shared = blocks.shared_exponent(weight.contiguous())
    exact = weight.abs().double()
    kept, overflowing = _codes_for_lofi(exact, shared)
    crowded = blocks.reduce(overflowing.to(torch.int32), "amax") > 0
    if not bool(crowded.any()):
        return shared
    raised, _ = _codes_for_lofi(exact, shared + 1)
    kept_loss = blocks.reduce((kept - exact).square(), "sum")
    raised_loss = blocks.reduce((raised - exact).square(), "sum")
    return shared + (crowded & (raised_loss < kept_loss)).to(torch.int32)


def codes_for_lofi(magnitude: Tensor, shared: Tensor) -> Tensor:
    """Nearest values, of float64 >= 0, on LoFi's grid under exponent fields; held at its largest, 124."""
    return _codes_for_lofi(magnitude, shared)[0]


def _codes_for_lofi(magnitude: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
    """Values on the grid under an exponent field, and which of them had to be held below it."""
    quantum = torch.ldexp(torch.ones_like(magnitude), shared - 133)
    units = torch.where(shared > 0, magnitude / quantum, 0.0)
    step = torch.where(units < 32, 1.0, torch.where(units < 64, 2.0, 4.0))
    codes = (units / step).round() * step
    return codes.clamp_max(124.0) * quantum, codes > 127


def fold_gain(weight: Tensor, read: Callable[[Tensor], Tensor], activation_gain: float) -> Tensor:
    """Scale each output channel so that what is read of it has the exact weight's gain.

    The gain of a cut operand is <exact, cut> / <cut, cut>, per channel and for white inputs; truncation loses 1 to 2 %
    of it. Scaling the weight before it is rounded gives that back with no operation added.

    Args:
        weight: [channels, k], float32, finite.
        read: what the multiplier sees of a weight: storage rounding, then the fidelity's cut.
        activation_gain: the same ratio for the activations' cut; see `truncation_gain`.

    Returns:
        The scaled weight, not yet rounded; an all-zero channel stays as it is.
    """
    exact = weight.double()
    scale = torch.ones_like(exact[:, :1])
    for _ in range(3):  # rounding moves with the scale, by less at each step
        seen = read((exact * scale).float()).double()
        energy = seen.square().sum(1, keepdim=True)
        ratio = (exact * seen).sum(1, keepdim=True) / energy * activation_gain
        scale = scale * torch.where(energy > 0, ratio, 1.0)
    return (exact * scale).float()


def truncation_gain(significant_bits: int, kept_bits: int) -> float:
    """<exact, cut> / <cut, cut> of a value of so many significant bits cut to fewer, its logarithm being uniform."""
    gain, spread = truncation_moments(significant_bits, kept_bits)
    return gain / (gain**2 + spread)


def truncation_moments(significant_bits: int, kept_bits: int) -> tuple[float, float]:
    """Gain and spread of a cut, taken as gain * value plus noise, for values whose logarithm is uniform.

    Returns:
        (<exact, cut> / <exact, exact>, mean square of the noise over that of the value).
    """
    values = torch.arange(1 << (significant_bits - 1), 1 << significant_bits, dtype=torch.float64)
    step = float(1 << (significant_bits - kept_bits))
    cut = (values / step).floor() * step
    # Of a uniform logarithm the density goes as 1 / value, and so does the weight of each square here.
    gain = float(cut.sum() / values.sum())
    return gain, float((cut * cut / values).sum() / values.sum()) - gain**2
