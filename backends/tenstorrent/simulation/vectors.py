"""Vectors: operations of the vector unit, norms, softmax and reductions, in float32.

No vectors of the simulator or of a card cover these: taken is what the operation means, computed by torch in float32.
The card's own series for exp, erf or sin end some bits earlier.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Options = Mapping[str, Any]
_BINARY: Mapping[str, Callable[[Any, Any], Tensor]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}
_UNARY: Mapping[str, Callable[[Tensor, Options], Tensor]] = {
    "relu": lambda x, _: x.relu(),
    "leaky_relu": lambda x, o: F.leaky_relu(x, o["slope"]),
    "elu": lambda x, o: F.elu(x, o["alpha"]),
    # The library has one accurate GELU, by the error function, and takes it for that by tanh, too.
    "gelu": lambda x, _: F.gelu(x),
    "silu": lambda x, _: F.silu(x),
    "tanh": lambda x, _: x.tanh(),
    "sigmoid": lambda x, _: x.sigmoid(),
    "softplus": lambda x, _: F.softplus(x),
    "exp": lambda x, _: x.exp(),
    "log": lambda x, _: x.log(),
    "sin": lambda x, _: x.sin(),
    "cos": lambda x, _: x.cos(),
    "sqrt": lambda x, _: x.sqrt(),
    "rsqrt": lambda x, _: x.rsqrt(),
    "abs": lambda x, _: x.abs(),
    "neg": lambda x, _: -x,
    "square": lambda x, _: x.square(),
    "reciprocal": lambda x, _: x.reciprocal(),
    "pow": lambda x, o: x.pow(o["exponent"]),
    "clamp": lambda x, o: x.clamp(o["min"], o["max"]),
}


def _binary(op: Callable[[Any, Any], Tensor]) -> Callable[[Sequence[Tensor], Options], Tensor]:
    def compute(inputs: Sequence[Tensor], options: Options) -> Tensor:
        if "scalar" not in options:
            return op(inputs[0], inputs[1])
        x, scalar = inputs[0], torch.tensor(float(options["scalar"]))
        return op(scalar, x) if options.get("reversed") else op(x, scalar)

    return compute


def _unary(op: Callable[[Tensor, Options], Tensor]) -> Callable[[Sequence[Tensor], Options], Tensor]:
    return lambda inputs, options: op(inputs[0], options)


def _layer_norm(inputs: Sequence[Tensor], options: Options) -> Tensor:
    x, *weights = inputs
    weight, bias = (*(values.reshape(-1) for values in weights), None, None)[:2]
    return F.layer_norm(x, x.shape[-1:], weight, bias, options["epsilon"])


def _rms_norm(inputs: Sequence[Tensor], options: Options) -> Tensor:
    x, *weights = inputs
    return F.rms_norm(x, x.shape[-1:], weights[0].reshape(-1) if weights else None, options["epsilon"])


def _group_norm(inputs: Sequence[Tensor], options: Options) -> Tensor:
    """Of [batch, 1, length, channels]."""
    x, *weights = inputs
    weight, bias = (*(values.reshape(-1) for values in weights), None, None)[:2]
    normed = F.group_norm(x.movedim(-1, 1), options["groups"], weight, bias, options["epsilon"])
    out: Tensor = normed.movedim(1, -1)
    return out


def _attention(inputs: Sequence[Tensor], options: Options) -> Tensor:
    q, k, v = inputs
    scale = options.get("scale")
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if options.get("causal"):
        past = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores.masked_fill(~past, -torch.inf)
    mixed: Tensor = scores.softmax(-1) @ v
    return mixed


VECTORS: Mapping[str, Callable[[Sequence[Tensor], Options], Tensor]] = {
    **{name: _binary(op) for name, op in _BINARY.items()},
    **{name: _unary(op) for name, op in _UNARY.items()},
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "softmax": lambda inputs, options: inputs[0].softmax(options.get("axis", -1)),
    "sum": lambda inputs, options: inputs[0].sum(options["axis"], keepdim=bool(options["keep"])),
    "mean": lambda inputs, options: inputs[0].mean(options["axis"], keepdim=bool(options["keep"])),
    "attention": _attention,
}
"""By operation: what it makes of float32 inputs, in the order of the step's, and the step's options."""
