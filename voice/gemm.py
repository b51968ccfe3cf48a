"""A site's call as a matrix product: rows of the input, columns of the weight, and the result put back.

K runs over the taps, then over the channels of each tap: the order in which an unfolded convolution is summed. Grouped
convolutions are one product a group.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from precision.site import Op
from voice.site_call import SiteCall


def to_rows(call: SiteCall, x: Tensor) -> Tensor:
    """Rows [..., m, k] of a linear layer or product; of a convolution [batch, groups, positions, taps * channels].

    Args:
        call: gives the operation and its geometry.
        x: in the layout of `call.x`; its values may be others.
    """
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


def to_columns(weight: Tensor, op: Op, groups: int = 1) -> Tensor:
    """Columns of a weight in torch's layout: [..., k, n], of convolutions [groups, taps * channels, n]."""
    if op == "linear":
        return weight.mT
    if op == "matmul":
        return weight
    grouped = torch.unflatten(weight, 0, (groups, -1))
    if op == "conv_transpose1d":  # [groups, in, out, taps]
        return grouped.flip(-1).permute(0, 3, 1, 2).flatten(1, 2)
    spatial = weight.ndim - 2  # [groups, out, in, *taps]
    return grouped.permute(0, *range(3, 3 + spatial), 2, 1).flatten(1, 1 + spatial)


def from_columns(columns: Tensor, op: Op, shape: tuple[int, ...], groups: int = 1) -> Tensor:
    """The inverse of `to_columns`: a weight of `shape`, contiguous, in torch's layout."""
    if op == "linear":
        return columns.mT.contiguous()
    if op == "matmul":
        return columns
    taps = shape[2:]
    if op == "conv_transpose1d":
        grouped = torch.unflatten(columns, 1, (taps[0], -1)).permute(0, 2, 3, 1).flip(-1)
        return grouped.flatten(0, 1).contiguous()
    spatial = len(taps)
    grouped = torch.unflatten(columns, 1, (*taps, -1))  # [groups, *taps, in, out]
    return grouped.permute(0, 2 + spatial, 1 + spatial, *range(1, 1 + spatial)).flatten(0, 1).contiguous()


def from_rows(call: SiteCall, total: Tensor) -> Tensor:
    """Put products [..., m, n] (of a convolution [batch, groups, positions, n]) back into the call's layout."""
    options = call.options
    if options is None:
        return total
    result = total.transpose(2, 3).flatten(1, 2)
    if call.op != "conv2d":
        return result
    spans = zip(call.x.shape[2:], call.weight.shape[2:], options.stride, options.padding, options.dilation, strict=True)
    return torch.unflatten(result, 2, [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in spans])
