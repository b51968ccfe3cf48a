"""Elementwise: operations of one element at a time, and the meeting of two tensors."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from backends.tenstorrent.lower.arranged import Arranged, axis_of, padded
from backends.tenstorrent.lower.reading import Reader, Rule, UnsupportedError, argument, refuse_unread, shape_of
from backends.tenstorrent.support import refuses_vector

aten = torch.ops.aten
LARGE = 1e4
"""From this magnitude on a score that is set and one that it is added to are the same after a softmax."""
_AFTER_A_MASK = frozenset(
    {aten.softmax.int, aten._softmax.default, aten.masked_fill.Scalar, aten.eq.Scalar}  # the last is attention's guard
)
_LOWEST = -3.3895314e38  # of bf16: minus infinity would make NaN of a row that has nothing else


def vector(reader: Reader, node: fx.Node, op: str, x: Arranged, options: Mapping[str, Any] | None = None) -> Arranged:
    """Add an operation whose result has the shape and order of its input."""
    x = kept_whole(reader, node, x)
    refused = refuses_vector(op, x.dtype)
    if refused is not None:
        raise UnsupportedError(refused)
    value = reader.build.step(op, [x.value], x.value.shape, x.dtype, name=node.name, options=options)
    return Arranged(value, x.shape, x.order)


def kept_whole(reader: Reader, node: fx.Node, x: Arranged) -> Arranged:
    """The input in the type in which the result is to be kept: ttnn gives that of the input."""
    if reader.build.between == "bf16" or reader.rounds_next(node):
        return x
    return Arranged(reader.build.cast(x.value, "fp32"), x.shape, x.order)


def _kept(reader: Reader, node: fx.Node, *dtypes: str) -> str:
    """Type in which the result of a binary operation is kept, which may differ from those of its operands."""
    if reader.build.between == "fp32":
        return "bf16" if reader.rounds_next(node) else "fp32"
    return "fp32" if "fp32" in dtypes else "bf16"


def unary(op: str, **named: tuple[int, str, Any]) -> Rule:
    """An operation of one tensor; options by name: position, name and default of the argument that they are."""

    def rule(reader: Reader, node: fx.Node) -> Arranged:
        refuse_unread(node, {"self", "input", *(name for _, name, _ in named.values())})
        options = {key: argument(node, *where) for key, where in named.items()}
        return vector(reader, node, op, reader.card(node.args[0]), options)  # type: ignore[arg-type]

    return rule


def in_fp32(op: str) -> Rule:
    """Sine and cosine: their arguments are angles, of which bf16 loses a whole turn from 256 on."""

    def rule(reader: Reader, node: fx.Node) -> Arranged:
        x = reader.card(node.args[0], "fp32")  # type: ignore[arg-type]
        wide = Arranged(reader.build.cast(x.value, "fp32"), x.shape, x.order)
        result = vector(reader, node, op, wide)
        dtype = _kept(reader, node, x.dtype)
        return Arranged(reader.build.cast(result.value, dtype), x.shape, x.order)

    return rule


def binary(op: str, *, swapped: bool = False) -> Rule:
    """An operation of two tensors, or of one and a number; `swapped`: the second argument comes first."""

    def rule(reader: Reader, node: fx.Node) -> Arranged:
        first, second = node.args[0], node.args[1]
        refuse_unread(node, ("self", "other"))
        turned = swapped
        if not isinstance(first, fx.Node) or _number(reader, first) is not None:
            first, second, turned = second, first, not turned
        assert isinstance(first, fx.Node)
        scalar = _number(reader, second) if isinstance(second, fx.Node) else float(second)  # type: ignore[arg-type]
        if scalar is not None:
            x = reader.card(first)
            options = {"scalar": scalar, "reversed": turned}
            dtype = _kept(reader, node, x.dtype)
            value = reader.build.step(op, [x.value], x.value.shape, dtype, name=node.name, options=options)
            return Arranged(value, x.shape, x.order)
        assert isinstance(second, fx.Node)
        x, y = met(reader, first, second)
        if turned:
            x, y = y, x
        shape, dtype = shape_of(node), _kept(reader, node, x.dtype, y.dtype)
        value = reader.build.step(op, [x.value, y.value], [shape[axis] for axis in x.order], dtype, name=node.name)
        return Arranged(value, shape, x.order)

    return rule


def _number(reader: Reader, node: fx.Node) -> float | None:
    """The value of a constant of one element."""
    constant = reader.constant(node)
    return float(constant) if constant is not None and constant.numel() == 1 else None


def met(reader: Reader, first: fx.Node, second: fx.Node) -> tuple[Arranged, Arranged]:
    """Two tensors in one order, that of the larger; constants as the other has it."""
    for one, other in ((first, second), (second, first)):
        # What is constant, or still on the host, is made to lie as the other does.
        given = reader.constant(one)
        if given is None and not reader.on_host(one):
            continue
        if reader.constant(other) is not None:
            raise UnsupportedError("two constants that were not folded")
        like = reader.card(other)
        made = reader.card(one, like.dtype, like.order) if given is None else as_constant(reader, one, given, like)
        return (made, like) if one is first else (like, made)
    x, y = reader.card(first), reader.card(second)
    order = x.order if math.prod(x.shape) >= math.prod(y.shape) else y.order
    return reader.build.ordered(x, order), reader.build.ordered(y, order)


def as_constant(reader: Reader, node: fx.Node, values: Tensor, like: Arranged) -> Arranged:
    """A constant of the model beside a tensor of the card: its order of axes, its type."""
    shape = padded(values.shape)
    if shape is None:
        raise UnsupportedError(f"a constant of {values.ndim} axes; ttnn's operations take four")
    array = values.detach().float().reshape(shape).permute(like.order).contiguous().numpy()
    dtype = "fp32" if reader.build.between == "fp32" else like.dtype
    value = reader.build.constant(str(node.target) if node.op == "get_attr" else node.name, array, dtype)
    return Arranged(value, shape, like.order)


def masked_fill(reader: Reader, node: fx.Node) -> Arranged:
    """A mask before a softmax, added: exact as far as the softmax can tell.

    Of a mask that the host makes it is taken for granted that it leaves something of every row.
    """
    if any(user.target not in _AFTER_A_MASK for user in node.users):
        raise UnsupportedError("a mask that something else than a softmax reads; only those before one are added")
    source, mask, fill = node.args[0], node.args[1], float(node.args[2])  # type: ignore[arg-type]
    x = reader.card(source)  # type: ignore[arg-type]
    if not abs(fill) >= LARGE:
        raise UnsupportedError(f"a mask that sets {fill}; only those that set {LARGE:g} or more in magnitude are added")
    fill = max(fill, _LOWEST)
    values = reader.constant(mask)  # type: ignore[arg-type]
    if values is not None:
        if bool(values.all(dim=-1).any()):
            raise UnsupportedError("a mask that leaves nothing of a row")
        added = as_constant(reader, mask, values.float() * fill, x)  # type: ignore[arg-type]
    elif reader.on_host(mask):  # type: ignore[arg-type]
        shape = shape_of(mask)  # type: ignore[arg-type]
        made = reader.host_mask(mask, fill)  # type: ignore[arg-type]
        added = Arranged(reader.build.upload(made, shape, x.order, x.dtype), shape, x.order)
    else:
        raise UnsupportedError("a mask that is computed on the card")
    dtype = _kept(reader, node, x.dtype, added.dtype)
    value = reader.build.step("add", [x.value, added.value], x.value.shape, dtype, name=node.name)
    return Arranged(value, x.shape, x.order)


def power(reader: Reader, node: fx.Node) -> Arranged:
    """A power of a number."""
    exponent = node.args[1]
    if isinstance(exponent, fx.Node):
        raise UnsupportedError("a power whose exponent is a tensor")
    x = reader.card(node.args[0])  # type: ignore[arg-type]
    if float(exponent) == 2.0:  # type: ignore[arg-type]
        return vector(reader, node, "square", x)
    return vector(reader, node, "pow", x, {"exponent": float(exponent)})  # type: ignore[arg-type]


def gelu(reader: Reader, node: fx.Node) -> Arranged:
    """GELU, as the model has it: by the error function, or by tanh."""
    options = {"approximate": str(node.kwargs.get("approximate", "none"))}
    return vector(reader, node, "gelu", reader.card(node.args[0]), options)  # type: ignore[arg-type]


def clamp(reader: Reader, node: fx.Node) -> Arranged:
    """Limits below, above, or both."""
    least, most = argument(node, 1, "min"), argument(node, 2, "max")
    options = {"min": None if least is None else float(least), "max": None if most is None else float(most)}
    return vector(reader, node, "clamp", reader.card(node.args[0]), options)  # type: ignore[arg-type]


def gated(reader: Reader, node: fx.Node) -> Arranged:
    """One half of the channels, times the sigmoid of the other (GLU; Dauphin et al. 2017)."""
    x = reader.card(node.args[0])  # type: ignore[arg-type]
    if reader.build.between == "fp32":  # the gate is a result of its own
        x = Arranged(reader.build.cast(x.value, "fp32"), x.shape, x.order)
    axis = axis_of(int(argument(node, 1, "dim", -1)), node.meta["val"].ndim)
    half = x.shape[axis] // 2
    one, other = (reader.build.cut(x, axis, begin, begin + half, f"{node.name}_half") for begin in (0, half))
    gate = reader.build.step("sigmoid", [other.value], other.value.shape, x.dtype, name=f"{node.name}_gate")
    dtype = _kept(reader, node, x.dtype)
    value = reader.build.step("multiply", [one.value, gate], gate.shape, dtype, name=node.name)
    return Arranged(value, one.shape, x.order)
