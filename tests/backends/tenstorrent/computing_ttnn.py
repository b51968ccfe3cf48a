"""Modules that stand for `ttnn` and `runtime` under an emitted model.py, and compute what its calls say.

What it is: our reading of ttnn 0.81.1's documented semantics, by torch in float32 on the CPU. Every operation takes the
arguments that an emission writes and no others, so that a misspelt one is a TypeError, and every call is recorded.
What it is not: the card. Nothing is rounded, whatever the type or fidelity; layouts, program and memory configs are
taken and mean nothing. That ttnn accepts the calls is shown on mock cards; what a real card computes, on a card.

A deallocated tensor becomes NaN with all that are views of it, so whoever reads a value too late gets NaN. Views are a
reshape, and what has nothing to move: a type that is the same, the whole of a slice, an order that changes nothing.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

NAMES = (
    "float32 bfloat16 bfloat8_b bfloat4_b uint32 TILE_LAYOUT ROW_MAJOR_LAYOUT DRAM_MEMORY_CONFIG L1_MEMORY_CONFIG"
    " Conv2dL1FullSliceConfig Conv2dDRAMSliceWidth"
)
CONFIGS = (
    "WormholeComputeKernelConfig Conv2dConfig Conv2dSliceConfig CoreGrid CoreRangeSet CoreRange CoreCoord"
    " LayerNormDefaultProgramConfig SDPAProgramConfig MatmulMultiCoreReuseProgramConfig"
    " MatmulMultiCoreReuseMultiCastProgramConfig MatmulMultiCoreReuseMultiCast1DProgramConfig"
)
HOW = frozenset(
    "device dtype layout memory_config program_config compute_kernel_config compute_config conv_config slice_config"
    " dram_slice_config core_grid output_layout use_welford embeddings_type".split()
)
"""Arguments by name that say how, and change nothing of what is computed."""
ENUMS = {
    "MathFidelity": "LoFi HiFi2 HiFi3 HiFi4",
    "ThrottleLevel": "NO_THROTTLE",
    "TensorMemoryLayout": "HEIGHT_SHARDED WIDTH_SHARDED BLOCK_SHARDED",
    "EmbeddingsType": "GENERIC",
}


@dataclass(frozen=True)
class Called:
    """A call that was made, deallocations apart."""

    name: str
    """As `ttnn.linear`."""
    arguments: Mapping[str, Any]
    """By the names that they have in ttnn; configs as namespaces of their fields, types and enums as their names."""
    shape: tuple[int, ...] | None
    """Of its result."""


@contextmanager
def standing_in(calls: list[Called]) -> Iterator[None]:
    """What `import ttnn` and `import runtime` find meanwhile; calls are added to `calls`."""
    ttnn, runtime = ModuleType("ttnn"), ModuleType("runtime")
    vars(ttnn).update(
        {name: name for name in NAMES.split()}, Conv2dL1FullSliceConfig=None, Conv2dDRAMSliceWidth="width"
    )
    vars(ttnn).update({name: SimpleNamespace(**{one: one for one in of.split()}) for name, of in ENUMS.items()})
    vars(ttnn).update(dict.fromkeys(CONFIGS.split(), lambda *_, **fields: SimpleNamespace(**fields)))
    vars(ttnn).update({name: _recorded(f"ttnn.{name}", one, calls) for name, one in OPERATIONS.items()})
    fused = "ttnn.transformer.scaled_dot_product_attention"
    transformer = SimpleNamespace(scaled_dot_product_attention=_recorded(fused, attention, calls))
    vars(ttnn).update(deallocate=deallocate, transformer=transformer)
    vars(runtime).update({one.__name__: _recorded(f"runtime.{one.__name__}", one, calls) for one in _TRAFFIC})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ttnn", ttnn)
        patch.setitem(sys.modules, "runtime", runtime)
        yield


def _recorded(name: str, compute: Callable[..., Any], calls: list[Called]) -> Callable[..., Any]:
    signature = inspect.signature(compute)

    def call(*arguments: Any, **named: Any) -> Any:
        bound = signature.bind(*arguments, **{key: value for key, value in named.items() if key not in HOW})
        made = compute(*bound.args, **bound.kwargs)
        first = made[0] if isinstance(made, tuple) else made
        calls.append(Called(name, {**bound.arguments, **named}, None if first is None else tuple(first.shape)))
        return made

    return call


def tensor_of(values: np.ndarray[Any, Any]) -> Tensor:
    whole = values.dtype.kind in "iu"
    return torch.from_numpy(values.astype(np.int64 if whole else np.float32))


def _row(weights: Tensor | None) -> Tensor | None:
    return None if weights is None else weights.reshape(-1)


def upload(array: Any, dtype: str, layout: str, device: str) -> Tensor:
    return tensor_of(array)


def hold(state: dict[str, Tensor], name: str, array: Any, dtype: str, layout: str, device: str) -> Tensor:
    state[name] = tensor_of(array)
    return state[name]


def download(x: Tensor) -> np.ndarray[Any, Any]:
    return x.numpy().copy()


def deallocate(x: Tensor) -> None:
    x.fill_(torch.nan) if x.is_floating_point() else x.fill_(-1)


def copy(source: Tensor, target: Tensor) -> None:
    assert source.shape == target.shape
    target.copy_(source)


def binary(compute: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda a, b: compute(torch.as_tensor(a), torch.as_tensor(b))


def unary(compute: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda x: compute(x)


def series(compute: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Of those with a fast form, the accurate one."""

    def call(x: Tensor, fast_and_approximate_mode: bool) -> Tensor:
        assert fast_and_approximate_mode is False
        return compute(x)

    return call


def reduction(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(x: Tensor, dim: int, keepdim: bool, scalar: float, fast_and_approximate_mode: bool) -> Tensor:
        assert fast_and_approximate_mode is False
        return compute(x, dim, keepdim=keepdim) * scalar

    return call


def linear(a, b, bias=None, *, transpose_a, transpose_b, activation):
    assert activation is None
    product = (a.mT if transpose_a else a) @ (b.mT if transpose_b else b)
    return product if bias is None else product + bias


def conv1d(
    *, input_tensor, weight_tensor, bias_tensor, in_channels, out_channels, batch_size, input_length, kernel_size,
    stride, padding, dilation, groups, return_output_dim, return_weights_and_bias,
):  # fmt: skip
    """Of [1, 1, batch * length, channels]; padding is what lies in front and behind."""
    assert (return_output_dim, return_weights_and_bias, weight_tensor.shape[-1]) == (False, True, kernel_size)
    x = input_tensor.reshape(batch_size, input_length, in_channels).mT
    y = F.conv1d(F.pad(x, padding), weight_tensor.squeeze(2), _row(bias_tensor), stride, 0, dilation, groups)
    return y.mT.reshape(1, 1, -1, out_channels), (weight_tensor, bias_tensor)


def conv_transpose2d(
    *, input_tensor, weight_tensor, bias_tensor, in_channels, out_channels, batch_size, input_height, input_width,
    kernel_size, stride, padding, output_padding, dilation, groups, mirror_kernel, return_output_dim,
    return_weights_and_bias,
):  # fmt: skip
    """Of height 1: zeros between the inputs, then a convolution with the kernel as given, or mirrored first.

    Torch's transposed convolution is the one with a mirrored kernel. Padding is cut off: above, below, left, right.
    """
    assert (return_output_dim, return_weights_and_bias) == (False, True)
    assert (input_height, padding[:2], output_padding[0], kernel_size) == (1, (0, 0), 0, weight_tensor.shape[2:])
    x = input_tensor.reshape(batch_size, input_width, in_channels).mT
    kernel = (weight_tensor if mirror_kernel else weight_tensor.flip(-1)).squeeze(2)
    whole = F.pad(F.conv_transpose1d(x, kernel, None, stride[1], 0, 0, groups, dilation[1]), (0, output_padding[1]))
    y = whole[..., padding[2] : whole.shape[-1] - padding[3]]
    y = y if bias_tensor is None else y + bias_tensor.reshape(-1, 1)
    return y.mT.reshape(1, 1, -1, out_channels), (weight_tensor, bias_tensor)


def layer_norm(x, *, epsilon, weight, bias, residual_input_tensor):
    assert residual_input_tensor is None
    return F.layer_norm(x, x.shape[-1:], _row(weight), _row(bias), epsilon)


def rms_norm(x, *, epsilon, weight, bias, residual_input_tensor):
    assert (bias, residual_input_tensor) == (None, None)
    return F.rms_norm(x, x.shape[-1:], _row(weight), epsilon)


def group_norm(x, *, num_groups, epsilon, input_mask, weight, bias, inplace, num_out_blocks, negative_mask):
    """Of [1, 1, positions, channels]."""
    assert (inplace, input_mask, negative_mask) == (False, None, None)
    return F.group_norm(x[0].mT, num_groups, _row(weight), _row(bias), epsilon).mT[None]


def softmax(x, *, dim, numeric_stable):
    return x.softmax(dim)


def attention(q, k, v, *, attn_mask, is_causal, scale):
    return F.scaled_dot_product_attention(q, k, v, attn_mask, is_causal=is_causal, scale=scale)


def embedding(indices, table, *, padding_idx):
    assert padding_idx is None
    return table.reshape(table.shape[-2:])[indices]


def cut(x, begins, ends, steps):
    part = x[tuple(map(slice, begins, ends, steps))]
    return x if part.shape == x.shape else part.clone()


def pad(x, padding, value):
    return F.pad(x, [amount for pair in reversed(padding) for amount in pair], value=value)


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    **{one.__name__: one for one in (linear, conv1d, conv_transpose2d, layer_norm, rms_norm, group_norm, softmax)},
    **{one.__name__: one for one in (embedding, pad, copy)},
    "matmul": linear,
    **{name: binary(getattr(torch, name)) for name in "add subtract multiply divide maximum minimum".split()},
    **{name: unary(getattr(torch, name)) for name in "relu sigmoid sin cos abs neg square reciprocal".split()},
    **{name: series(getattr(torch, name)) for name in "tanh exp log sqrt rsqrt".split()},
    "silu": unary(F.silu),
    "gelu": series(F.gelu),
    "sum": reduction(torch.sum),
    "mean": reduction(torch.mean),
    "softplus": lambda x, beta, threshold: F.softplus(x, beta, threshold),
    "leaky_relu": lambda x, negative_slope: F.leaky_relu(x, negative_slope),
    "elu": lambda x, alpha: F.elu(x, alpha),
    "clamp": lambda x, min, max: x.clamp(min, max),
    "pow": lambda x, exponent: x**exponent,
    "cumsum": lambda x, dim, reverse_order: x.cumsum(dim),
    "typecast": lambda x, dtype: x,
    "to_layout": lambda x, layout: x.clone(),
    "permute": lambda x, dims: x if tuple(dims) == tuple(range(x.ndim)) else x.permute(dims).clone(),
    "reshape": lambda x, shape: x.reshape(shape),
    "slice": cut,
    "concat": lambda tensors, dim: torch.cat(tensors, dim),
    "repeat": lambda x, counts: x.repeat(counts),
}
_TRAFFIC = (upload, hold, download)
