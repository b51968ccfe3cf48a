"""Sums kept in bf16 (fp32_dest_acc_en=False), step by step as the matrix engine makes them.

A GEMM cannot show what a rounding at every 16 products does to a long sum, and anything short of the card's own order
flips roundings that stay in it. So this path is the card's arithmetic to the bit: on a CPU by the compiled kernel, on a
GPU in exact float32 operations, for ordinary values (products and sums between 2**-90 and 2**127). Source: ttsim
v1.10.0.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backends.tenstorrent.rounding import clear_low_bits, pack_float
from backends.tenstorrent.shards import TILE
from backends.tenstorrent.storage import HIGH_A, HIGH_B
from precision.policy import Fidelity

_EXPONENT = 0x7F800000
# Products have 12 significant bits, so a nudge of 2**-14 turns ties away from zero and moves nothing else across one.
_NUDGE = 1 + 2.0**-14
_CHUNK = 1 << 21
"""Results computed together, each with 16 lanes of products."""
_PASSES: dict[Fidelity, int] = {"lofi": 1, "hifi2": 2, "hifi3": 3, "hifi4": 4}
# Which slice of (left, right) each pass multiplies, 0 being the high one, and how far its exponents lie below.
_SLICES = ((0, 0, 1.0), (0, 1, 2.0**-5), (1, 0, 2.0**-7), (1, 1, 2.0**-12))


def accumulate_bf16(left: Tensor, right: Tensor, fidelity: Fidelity, start: Tensor | None = None) -> Tensor:
    """Multiply [..., m, k] by [..., k, n], rounding the running sum to bf16 at every 16 products of every pass.

    Order: K tile, pass, half of 16. In each step two groups of eight products are aligned to their largest exponent,
    then both and the running sum to the largest of the three.

    Args:
        left: float32, at most 8 significant bits, as SrcB holds activations; batch axes broadcast.
        right: the same, as SrcA holds weights.
        fidelity: which passes run.
        start: bf16 values [..., m, n] that the sum starts from; 0 without.

    Returns:
        float32 [..., m, n] holding bf16 values. Inf counts as 2**128 on a CPU, and gives Inf or NaN on a GPU.
    """
    if right.ndim == 2 and left.ndim > 2:
        rows = accumulate_bf16(left.flatten(0, -2), right, fidelity, None if start is None else start.flatten(0, -2))
        return torch.unflatten(rows, 0, left.shape[:-1])
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    lefts = left.expand(*batch, -1, -1).reshape(-1, *left.shape[-2:])
    rights = right.expand(*batch, -1, -1).reshape(-1, *right.shape[-2:])
    shape = (*batch, left.shape[-2], right.shape[-1])
    starts = left.new_zeros(shape) if start is None else start
    accumulate = _compiled if left.device.type == "cpu" else accumulate_in_torch
    return accumulate(lefts, rights, fidelity, starts.reshape(len(lefts), *shape[-2:])).reshape(shape)


def _compiled(lefts: Tensor, rights: Tensor, fidelity: Fidelity, starts: Tensor) -> Tensor:
    # Late: only these schemes need the compiled kernels, whose import takes a second.
    from backends.tenstorrent.exact.matmul import matmul

    total = torch.empty(starts.shape)
    for item, (left, right, start) in enumerate(zip(lefts, rights, starts, strict=True)):
        summed = matmul(left.detach().numpy(), right.detach().numpy(), fidelity, dst16=True, start=start.numpy())
        total[item] = torch.from_numpy(summed)
    return total


def accumulate_in_torch(lefts: Tensor, rights: Tensor, fidelity: Fidelity, starts: Tensor) -> Tensor:
    """The same in tensor operations, for a GPU, of [items, m, k] and [items, k, n] onto [items, m, n]."""
    items, m, n = starts.shape
    padding = -lefts.shape[-1] % TILE
    lefts, rights = F.pad(lefts, (0, padding)), F.pad(rights, (0, 0, 0, padding))
    total = starts.clone()
    together = max(1, _CHUNK // max(m * n, 1))
    rows_together = max(1, _CHUNK // max(n, 1))
    for item in range(0, items, together):
        several = slice(item, item + together)
        columns = _Lanes.of_right(rights[several])
        for row in range(0, m, rows_together):
            part = (several, slice(row, row + rows_together))
            total[part] = _sum(total[part], _Lanes.of_left(lefts[part]), columns, _PASSES[fidelity])
    return total


class _Lanes:
    """High and low slices of an operand and the powers of two under its values, [steps, groups, lanes, batch, m, n]."""

    def __init__(self, values: Tensor, kept: int, nudge: float) -> None:
        high = clear_low_bits(values, 23 - kept)
        low = values - high
        self.slices = (high * nudge, low * nudge)
        self.powers = _power_below(values)

    @classmethod
    def of_left(cls, values: Tensor) -> "_Lanes":
        items, rows, depth = values.shape
        return cls(values.permute(2, 0, 1).reshape(depth // 16, 2, 8, items, rows, 1), HIGH_B, _NUDGE)

    @classmethod
    def of_right(cls, values: Tensor) -> "_Lanes":
        items, depth, columns = values.shape
        return cls(values.transpose(0, 1).reshape(depth // 16, 2, 8, items, 1, columns), HIGH_A, 1.0)


def _sum(total: Tensor, left: _Lanes, right: _Lanes, passes: int) -> Tensor:
    for first in range(0, len(left.powers), 2):
        for low_left, low_right, offset in _SLICES[:passes]:
            for step in (first, first + 1):
                products = left.slices[low_left][step] * right.slices[low_right][step]
                # The exponents are those of the whole operands, also where a slice of one is zero.
                largest = (left.powers[step] * right.powers[step]).amax(1).mul_(offset).clamp_min_(2.0**-100)
                total = _step(total, products, largest)
    return total


def _step(total: Tensor, products: Tensor, largest: Tensor) -> Tensor:
    """One MVMUL: products [2, 8, ...] under powers of two [2, ...] onto the running sum [...]."""
    groups = products.mul_((1024 / largest).unsqueeze(1)).round_().sum(1).mul_(largest)
    top = torch.maximum(torch.maximum(largest[0], largest[1]), _power_below(total))
    scale = 1024 / top
    # A group is rounded twice, halves to +infinity: first 13 bits below the last one that is kept.
    groups.mul_(8 * scale).add_(0.5).floor_().mul_(2.0**-13).add_(0.5).floor_()
    running = total * scale
    running = torch.trunc(running + torch.copysign(torch.full_like(running, 0.5), running))
    return pack_float((running + groups[0] + groups[1]).mul_(top).mul_(2.0**-10), 7)


def _power_below(values: Tensor) -> Tensor:
    """The power of two at or below each magnitude; 0 for zeros and denormals."""
    return (values.view(torch.int32) & _EXPONENT).view(torch.float32)
