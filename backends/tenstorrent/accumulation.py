"""Sums kept in bf16: what fp32_dest_acc_en=False does to a long reduction, by one rounding a step.

An approximation of the card's own order: every 16 products are summed in fp32, brought to 11 bits under the larger of
the sum and the running total, and the total is rounded to bf16, half away from zero. The card sums two groups of
eight, and takes the exponents of the products. Source: ttsim v1.10.0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from backends.tenstorrent.rounding import pack_float
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
    lowered = [(_rows(call, x), _columns(call, weight)) for x, weight in phases]
    rows, columns = lowered[0]
    depth = rows.shape[-1]
    total = rows[..., :0] @ columns[..., :0, :]
    for tile in range(0, depth, 2 * STEP):
        for left, right in lowered:
            for start in range(tile, min(tile + 2 * STEP, depth), STEP):
                step = slice(start, start + STEP)
                total = _add(total, left[..., step] @ right[..., step, :])
    return _restore(call, total)


def _add(total: Tensor, partial: Tensor) -> Tensor:
    largest = torch.maximum(total.abs(), partial.abs())
    field = (largest.view(torch.int32) & _EXPONENT).clamp_min(11 << 23)
    quantum = (field - (10 << 23)).view(torch.float32)
    partial = torch.floor(partial / quantum + 0.5) * quantum
    total = torch.trunc(total / quantum + torch.copysign(torch.full_like(total, 0.5), total)) * quantum
    return pack_float(total + partial, 7)


def _rows(call: SiteCall, x: Tensor) -> Tensor:
    """Rows of the matrix product: [..., m, k]; of a convolution [batch, groups, positions, taps * channels]."""
    options = call.options
    if options is None:
        return x
    taps = call.weight.shape[2:]
    stride: tuple[int, ...] = options.stride
    padding = [(amount, amount) for amount in options.padding]
    if call.op == "conv_transpose1d":
        # The same as a convolution over inputs spread by the stride, with the taps reversed.
        spread = x.new_zeros((*x.shape[:2], (x.shape[2] - 1) * stride[0] + 1))
        spread[..., :: stride[0]] = x
        reach = options.dilation[0] * (taps[0] - 1) - options.padding[0]
        x, stride, padding = spread, (1,), [(reach, reach + options.output_padding[0])]
    x = F.pad(x, [amount for pair in reversed(padding) for amount in pair])
    for axis, count in enumerate(taps):
        dilation = options.dilation[axis]
        x = x.unfold(2 + axis, dilation * (count - 1) + 1, stride[axis])[..., ::dilation]
    x = torch.unflatten(x, 1, (options.groups, -1))  # [batch, groups, channels, *positions, *taps]
    spatial = len(taps)
    order = [0, 1, *range(3, 3 + 2 * spatial), 2]
    return x.permute(order).flatten(2 + spatial).flatten(2, 1 + spatial)


def _columns(call: SiteCall, weight: Tensor) -> Tensor:
    """Columns of the matrix product: [..., k, n]; of a convolution [groups, taps * channels, n]."""
    options = call.options
    if options is None:
        return weight.mT if call.op == "linear" else weight
    grouped = torch.unflatten(weight, 0, (options.groups, -1))
    if call.op == "conv_transpose1d":  # [groups, in, out, taps]
        return grouped.flip(-1).permute(0, 3, 1, 2).flatten(1, 2)
    spatial = weight.ndim - 2  # [groups, out, in, *taps]
    return grouped.permute(0, *range(3, 3 + spatial), 2, 1).flatten(1, 1 + spatial)


def _restore(call: SiteCall, total: Tensor) -> Tensor:
    """Put [batch, groups, positions, n] back into the layout of a convolution's result."""
    options = call.options
    if options is None:
        return total
    result = total.transpose(2, 3).flatten(1, 2)
    if call.op != "conv2d":
        return result
    spans = zip(call.x.shape[2:], call.weight.shape[2:], options.stride, options.padding, options.dilation, strict=True)
    return torch.unflatten(result, 2, [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in spans])
