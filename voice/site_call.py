"""SiteCall: one matrix product of a running model, handed to whoever decides how it is computed."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from precision.site import Op


@dataclass(frozen=True, slots=True)
class ConvOptions:
    """Geometry of a convolution, one value a spatial axis; padding always in numbers, zeros on both sides."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    output_padding: tuple[int, ...] = ()
    """Only of transposed convolutions."""


@dataclass(frozen=True, slots=True, eq=False)
class SiteCall:
    """One call of one site, in the operand layout that its `op` always has, however the model wrote it.

    | op | x | weight | result |
    |---|---|---|---|
    | linear | [..., k] (two axes at least) | [n, k] | [..., n] |
    | conv1d | [batch, channels, time] | [out, in / groups, taps] | [batch, out, time] |
    | conv2d | [batch, channels, height, width] | [out, in / groups, taps, taps] | [batch, out, height, width] |
    | conv_transpose1d | [batch, channels, time] | [in, out / groups, taps] | [batch, out, time] |
    | matmul | left [..., m, k] | right [..., k, n] | [..., m, n] |
    """

    site: str
    op: Op
    x: Tensor
    weight: Tensor
    """The weight; the right operand where the call is a product of two activations."""
    bias: Tensor | None
    options: ConvOptions | None
    """None for linear and matmul."""
    is_product: bool
    """Whether both operands are activations: then `weight` differs from call to call and must not be cached."""
    index: int
    """Position among all calls of the interception, from 0."""

    def compute(
        self,
        x: Tensor | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        *,
        with_bias: bool = True,
    ) -> Tensor:
        """Run torch's own operation, with operands replaced where given.

        No interception sees it. `with_bias=False` leaves the bias out. NaN and Inf go through as torch has them.
        """
        x = self.x if x is None else x
        weight = self.weight if weight is None else weight
        bias = (self.bias if bias is None else bias) if with_bias else None
        with torch._C.DisableTorchFunction():
            if self.op == "linear":
                return F.linear(x, weight, bias)
            if self.op == "matmul":
                return torch.matmul(x, weight)
            options = self.options
            assert options is not None
            if self.op == "conv_transpose1d":
                return F.conv_transpose1d(
                    x,
                    weight,
                    bias,
                    options.stride,
                    options.padding,
                    options.output_padding,
                    options.groups,
                    options.dilation,
                )
            convolve = F.conv1d if self.op == "conv1d" else F.conv2d
            return convolve(x, weight, bias, options.stride, options.padding, options.dilation, options.groups)
