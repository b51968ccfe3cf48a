"""Spellings: the many ways in which torch code writes a matrix product, brought to the layouts of SiteCall.

Each function takes the arguments of the torch operation that it stands for, and returns None where the operation
should run as it is.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from precision.site import Op
from voice.site_call import ConvOptions


class Calls(Protocol):
    """Who names the sites and has their calls computed."""

    def matrix_site(self, matrix: Tensor) -> str | None:
        """Name the site of an operand of matmul; None where it is not a whole matrix of the model's weights."""

    def layer_site(self, weight: Tensor, op: Op) -> str | None:
        """Name the site of a layer's weight; None where it is an activation, or outside the module."""

    def product_site(self, kind: str) -> str | None:
        """Name the next product of two activations; None outside the module."""

    def named_site(self, weight: Tensor, name: str) -> str | None:
        """Name the site of a weight that the running module calls `name`; None where it is not the module's."""

    def table_site(self, table: Tensor) -> str | None:
        """Name the site of a matrix whose rows are searched; None where it is an activation."""

    def unrolled(self, steps: int) -> None:
        """Note that a recurrent layer is computed in so many steps."""

    def call(
        self,
        site: str,
        op: Op,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        options: ConvOptions | None = None,
    ) -> Tensor:
        """Have a call computed."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """One torch operation: what stands for it, and the keywords that this understands."""

    run: Callable[..., Any]
    """Gives what the operation gives, or None where it should run as it is."""
    keywords: frozenset[str]


# Torch's own attention forward asks for overrides first and then runs blind to them; with that question answered no,
# the same code runs where its products are seen.
attention_forward = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": lambda operands: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)


def linear(calls: Calls, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """A layer with weights, or a product of activations written as one."""
    if not is_plain(input, weight) or weight.ndim != 2:
        return None
    x = input if input.ndim > 1 else input[None]
    site = calls.layer_site(weight, "linear")
    if site is not None:
        result = calls.call(site, "linear", x, weight, bias)
    else:
        site = calls.product_site("matmul")
        if site is None:
            return None
        result = calls.call(site, "matmul", x, weight.mT)
        result = result if bias is None else result + bias
    return result if input.ndim > 1 else result[0]


def matmul(calls: Calls, input: Tensor, other: Tensor) -> Tensor | None:
    """A product; with a whole matrix of the model's weights on one side it is a linear layer."""
    return _matmul(calls, input, other, None)


def _matmul_mat2(calls: Calls, input: Tensor, mat2: Tensor) -> Tensor | None:
    return _matmul(calls, input, mat2, None)


def _matmul_tensor2(calls: Calls, input: Tensor, tensor2: Tensor) -> Tensor | None:
    return _matmul(calls, input, tensor2, None)


def _matmul_vec(calls: Calls, input: Tensor, vec: Tensor) -> Tensor | None:
    return _matmul(calls, input, vec, None)


def _rmatmul(calls: Calls, input: Tensor, other: Tensor) -> Tensor | None:
    return _matmul(calls, other, input, None)


def _matmul(calls: Calls, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor | None:
    if not is_plain(left, right) or left.ndim == right.ndim == 1:
        return None
    if right.ndim == 1:
        column = _matmul(calls, left, right[:, None], None)
        if column is None:
            return None
        return column.squeeze(-1) if bias is None else column.squeeze(-1) + bias
    if left.ndim == 1:
        row = _matmul(calls, left[None], right, bias)
        return None if row is None else row.squeeze(-2)
    site = calls.matrix_site(right)
    if site is not None:
        return calls.call(site, "linear", left, right.mT, bias)
    site = calls.matrix_site(left)
    if site is not None:
        product = calls.call(site, "linear", right.mT, left).mT
    else:
        site = calls.product_site("matmul")
        if site is None:
            return None
        product = calls.call(site, "matmul", left, right)
    return product if bias is None else product + bias


def addmm(
    calls: Calls, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor | None:
    """A product with something added: the bias of a linear layer where it can be one."""
    if not isinstance(input, Tensor):
        return None
    if beta == 1 and alpha == 1 and input.ndim == 1 and mat2.ndim > 1:
        return _matmul(calls, mat1, mat2, input)
    product = _matmul(calls, mat1, mat2, None)
    if product is None:
        return None
    product = product if alpha == 1 else product * alpha
    # As in torch, what is added times zero is not read: its NaN and Inf do not come through.
    return product if beta == 0 else product + input * beta


def addmv(calls: Calls, input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor | None:
    """As addmm, of a vector."""
    return addmm(calls, input, mat, vec, beta=beta, alpha=alpha)


def baddbmm(
    calls: Calls, input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor | None:
    """As addmm, over a batch."""
    return addmm(calls, input, batch1, batch2, beta=beta, alpha=alpha)


def scaled_dot_product_attention(
    calls: Calls,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """Attention as its definition has it: two products around a softmax in fp32, zeros where a mask leaves nothing."""
    if not is_plain(query, key, value):
        return None
    site = calls.product_site("qk")
    if site is None:
        return None
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    scores = calls.call(site, "matmul", query, key.mT)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    scores = scores * (1.0 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~past, -math.inf)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    nothing = (scores == -math.inf).all(-1, keepdim=True)
    weights = torch.softmax(scores, -1).masked_fill(nothing, 0.0).to(query.dtype)
    if dropout_p > 0.0:
        weights = torch.dropout(weights, dropout_p, True)
    site = calls.product_site("pv")
    assert site is not None
    return calls.call(site, "matmul", weights, value)


def _convolution(op: Op, axes: int, transposed: bool = False) -> Callable[..., Tensor | None]:
    def run(
        calls: Calls,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        output_padding: Any,
    ) -> Tensor | None:
        if not is_plain(input, weight):
            return None
        site = calls.layer_site(weight, op)
        if site is None:
            return None
        x = input if input.ndim == axes + 2 else input[None]
        steps = _per_axis(dilation, axes)
        if isinstance(padding, str):
            spans = [
                step * (taps - 1) if padding == "same" else 0
                for step, taps in zip(steps, weight.shape[2:], strict=True)
            ]
            # An even kernel is padded by one more at the end, as in torch.
            x = F.pad(x, [end for span in reversed(spans) for end in (0, span % 2)])
            padding = tuple(span // 2 for span in spans)
        options = ConvOptions(
            _per_axis(stride, axes),
            _per_axis(padding, axes),
            steps,
            groups,
            _per_axis(output_padding, axes) if transposed else (),
        )
        result = calls.call(site, op, x, weight, bias, options)
        return result if input.ndim == axes + 2 else result[0]

    def convolve(
        calls: Calls,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor | None:
        return run(calls, input, weight, bias, stride, padding, dilation, groups, 0)

    def convolve_transposed(
        calls: Calls,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Tensor | None:
        return run(calls, input, weight, bias, stride, padding, dilation, groups, output_padding)

    return convolve_transposed if transposed else convolve


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def is_plain(*tensors: Any) -> bool:
    """Whether all are ordinary tensors of real numbers, with an axis at least."""
    return all(
        isinstance(tensor, Tensor)
        and tensor.is_floating_point()
        and tensor.layout == torch.strided
        and not tensor.is_nested
        and tensor.ndim > 0
        for tensor in tensors
    )


def spelling(run: Callable[..., Any]) -> Spelling:
    """A spelling that understands all keywords of what stands for it."""
    return Spelling(run, frozenset(inspect.signature(run).parameters))


SPELLINGS: dict[Any, Spelling] = {
    F.linear: spelling(linear),
    torch.conv1d: spelling(_convolution("conv1d", 1)),
    torch.conv2d: spelling(_convolution("conv2d", 2)),
    torch.conv_transpose1d: spelling(_convolution("conv_transpose1d", 1, transposed=True)),
    torch.matmul: spelling(matmul),
    torch.linalg.matmul: spelling(matmul),
    torch.Tensor.matmul: spelling(_matmul_tensor2),
    torch.Tensor.__matmul__: spelling(matmul),
    torch.Tensor.__rmatmul__: spelling(_rmatmul),
    torch.mm: spelling(_matmul_mat2),
    torch.Tensor.mm: spelling(_matmul_mat2),
    torch.bmm: spelling(_matmul_mat2),
    torch.Tensor.bmm: spelling(_matmul_mat2),
    torch.mv: spelling(_matmul_vec),
    torch.Tensor.mv: spelling(_matmul_vec),
    torch.addmv: spelling(addmv),
    torch.Tensor.addmv: spelling(addmv),
    torch.addmm: spelling(addmm),
    torch.Tensor.addmm: spelling(addmm),
    torch.baddbmm: spelling(baddbmm),
    torch.Tensor.baddbmm: spelling(baddbmm),
    F.scaled_dot_product_attention: spelling(scaled_dot_product_attention),
}
