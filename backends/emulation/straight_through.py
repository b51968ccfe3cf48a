"""Straight-through: a target's arithmetic forwards, the plain operation's gradients backwards.

What rounds has a gradient of zero almost everywhere, so nothing can be trained through it. Taken for the identity
backwards (Bengio et al. 2013, arXiv 1308.3432), rounding lets weights learn under exactly the values that the target
will compute.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backends.base import Arithmetic
from calibrate.calibration import Calibration
from precision.policy import Scheme
from voice.site_call import ConvOptions, SiteCall

Reader = Callable[[SiteCall, Scheme], Tensor]
"""What the multiplier reads of a call's input, in its shape."""
_RATIO = (0.5, 2.0)
"""Bounds of read / exact, past which a value is lost in its block rather than rounded."""


def compute_straight_through(
    arithmetic: Arithmetic,
    call: SiteCall,
    scheme: Scheme,
    calibration: Calibration | None = None,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    read: Reader | None = None,
) -> Tensor:
    """Compute a call under a scheme, differentiably.

    Args:
        arithmetic: any target's; asked to prepare the weight every time, for it may have moved.
        call: gives operation, geometry and input, float32.
        scheme: without levers that need the moments of an input.
        calibration: for static scales.
        weight: in place of the call's; a product of two activations takes none.
        bias: in place of the call's.
        read: gives the input as the multiplier sees it, which a weight's gradient is then taken at. The input's own
            gradient is scaled by read / exact, as if its relative error were a constant: training so learns to keep
            small what is rounded where that is heard, to which the identity is blind. None: as it arrives.

    Returns:
        What `arithmetic.compute` gives, bit for bit. Gradients reach input, weight and bias as those of torch's own
        operation do, at the weight as the multiplier reads it.

    Raises:
        ValueError: weight or bias has Inf or NaN; a lever of the scheme needs moments.
    """
    weight = call.weight if weight is None else weight
    bias = call.bias if bias is None else bias

    def forward(x: Tensor, latent: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        moved = replace(call, x=x, weight=latent, bias=offset)
        prepared = arithmetic.prepare(moved, scheme)
        seen = latent if prepared.weight is None else prepared.weight
        if prepared.weight is not None and prepared.scale is not None:
            seen = seen * _for_output(prepared.scale, call)
        result = arithmetic.compute(moved, scheme, prepared, calibration)
        return result, x if read is None else read(moved, scheme), seen

    with torch._C.DisableTorchFunction():
        result: Tensor = _StraightThrough.apply(call.x, weight, bias, call.options, call.op, forward)  # type: ignore[no-untyped-call]
    return result


def _for_output(scale: Tensor, call: SiteCall) -> Tensor:
    """A factor of the result, one value or one an output channel, in the shape that scales the weight alike."""
    if scale.numel() == 1:
        return scale.reshape(())
    if call.op == "conv_transpose1d":
        groups = 1 if call.options is None else call.options.groups
        each = scale.reshape(groups, 1, -1, 1).expand(-1, call.weight.shape[0] // groups, -1, -1)
        return each.reshape(call.weight.shape[0], -1, 1)
    return scale.reshape(-1, *[1] * (call.weight.ndim - 1))


_Forward = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]


class _StraightThrough(torch.autograd.Function):
    """Values of a target, gradients of torch's operation."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        options: ConvOptions | None,
        op: str,
        compute: _Forward,
    ) -> Tensor:
        result, read, seen = compute(x.detach(), weight.detach(), None if bias is None else bias.detach())
        ctx.save_for_backward(x, read, seen)
        ctx.options, ctx.op, ctx.has_bias = options, op, bias is not None
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, read, weight = ctx.saved_tensors
        wanted = [bool(wants) for wants in ctx.needs_input_grad[:3]]
        # The innermost interception may still be open, and a product here is none of the model's.
        with torch._C.DisableTorchFunction():
            if ctx.options is None:
                to_x, to_weight, to_bias = _product(gradient, read, weight, ctx.op, wanted)
            else:
                to_x, to_weight, to_bias = _convolution(gradient, read, weight, ctx.options, ctx.op, wanted)
            if to_x is not None and read is not x:
                to_x = to_x * torch.where(x != 0, read / x, 1.0).clamp(*_RATIO)
        return to_x, to_weight, to_bias, None, None, None


def _convolution(
    gradient: Tensor, x: Tensor, weight: Tensor, options: ConvOptions, op: str, wanted: list[bool]
) -> tuple[Tensor | None, ...]:
    spread = options.output_padding or (0,) * len(options.stride)
    found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        [gradient.shape[1]],
        options.stride,
        options.padding,
        options.dilation,
        op == "conv_transpose1d",
        spread,
        options.groups,
        wanted,
    )
    return found


def _product(gradient: Tensor, x: Tensor, weight: Tensor, op: str, wanted: list[bool]) -> tuple[Tensor | None, ...]:
    """Gradients of x @ right; of a linear layer right is the weight transposed."""
    linear = op == "linear"
    right = weight.mT if linear else weight
    to_x = (gradient @ right.mT).sum_to_size(x.shape) if wanted[0] else None
    to_weight = to_bias = None
    if wanted[1] and linear:
        to_weight = gradient.flatten(0, -2).mT @ x.flatten(0, -2)
    elif wanted[1]:
        to_weight = (x.mT @ gradient).sum_to_size(weight.shape)
    if wanted[2]:
        to_bias = gradient.flatten(0, -2).sum(0)
    return to_x, to_weight, to_bias
