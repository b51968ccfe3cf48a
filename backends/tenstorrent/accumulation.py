"""Sums kept in bf16: what fp32_dest_acc_en=False does to a long reduction, by one rounding a step.

An approximation of the card's own order: every 16 products are summed in fp32, brought to 11 bits under the larger of
the sum and the running total, and the total is rounded to bf16, half away from zero. The card sums two groups of
eight, and takes the exponents of the products. Source: ttsim v1.10.0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from backends.tenstorrent.rounding import pack_float
from voice.gemm import from_rows, to_columns, to_rows
from voice.site_call import SiteCall

STEP = 16
"""Products of one step of the matrix engine; two steps make a tile of K."""
_EXPONENT = 0x7F800000


def accumulate_bf16(call: SiteCall, phases: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Compute a call without its bias, rounding the running sum at every 16 products of every phase.

    Args:
        call: gives the operation and its geometry.
        phases: operands (x, weight) of each pass of the multiplier, in the call's layout; the card's order is K tile,
            then phase, then half tile. Convolutions run over taps, then over channels.

    Returns:
        float32 holding bf16 values, in the shape of `call.compute()`. Slow: a Python loop over K / 16 * phases.
    """
    groups = 1 if call.options is None else call.options.groups
    lowered = [(to_rows(call, x), to_columns(weight, call.op, groups)) for x, weight in phases]
    rows, columns = lowered[0]
    depth = rows.shape[-1]
    total = rows[..., :0] @ columns[..., :0, :]
    for tile in range(0, depth, 2 * STEP):
        for left, right in lowered:
            for start in range(tile, min(tile + 2 * STEP, depth), STEP):
                step = slice(start, start + STEP)
                total = _add(total, left[..., step] @ right[..., step, :])
    return from_rows(call, total)


def _add(total: Tensor, partial: Tensor) -> Tensor:
    largest = torch.maximum(total.abs(), partial.abs())
    field = (largest.view(torch.int32) & _EXPONENT).clamp_min(11 << 23)
    quantum = (field - (10 << 23)).view(torch.float32)
    partial = torch.floor(partial / quantum + 0.5) * quantum
    total = torch.trunc(total / quantum + torch.copysign(torch.full_like(total, 0.5), total)) * quantum
    return pack_float(total + partial, 7)
