"""Canon: every operation of a traced graph written in one way.

| operation | stands for |
|---|---|
| reshape(x, shape) | view, flatten, unflatten, squeeze, unsqueeze |
| permute(x, order) | transpose, t, T, mT, movedim |
| slice.Tensor(x, axis, begin, end, step), select.int(x, axis, index) | narrow, chunk, split, unbind |
| expand(x, shape) | expand_as, broadcast_to |
| to.dtype(x, dtype) | every change of type |
| cat(parts, axis) of slices | slice_scatter, select_scatter |

Shapes, axes and positions in these are whole numbers of at least 0. Operations that change nothing (clone, dropout in
eval mode, + 0, * 1) are left out.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

aten = torch.ops.aten
_RESHAPES = ("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as")
_PERMUTES = ("transpose", "t", "numpy_T", "mT", "permute", "movedim", "moveaxis", "swapaxes", "swapdims")
_SPLITS = ("chunk", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split", "tensor_split", "unbind")
_CASTS = ("to", "_to_copy", "type_as")
_EXPANDS = ("expand", "expand_as", "broadcast_to")
_SAME = ("alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy", "view_as_real_copy")
_DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)


def name_of(node: Node) -> str:
    """Name of an operation of aten, "" for anything else."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return ""
    return str(target.overloadpacket.__name__)


def is_idle_dropout(node: Node) -> bool:
    """Whether a node is a dropout that drops nothing."""
    return name_of(node) in _DROPOUTS and bool(node.args[2] is False or node.args[1] == 0)


def rewrite(graph: Graph, node: Node) -> None:
    """Bring a node to the one way in which its operation is written; nodes before it are."""
    name = name_of(node)
    if node.target is operator.getitem and isinstance(node.args[0], Node) and name_of(node.args[0]) in _SPLITS:
        _replace(graph, node, *_part(node.args[0], int(node.args[1])))  # type: ignore[arg-type]
        return
    value, source = node.meta.get("val"), node.args[0] if node.args else None
    if not isinstance(value, Tensor) or not isinstance(source, Node):
        return
    before = source.meta["val"]
    if not isinstance(before, Tensor):
        return
    same = value.shape == before.shape and value.dtype == before.dtype
    if name in _SAME or is_idle_dropout(node) or (same and _changes_nothing(node, name)):
        node.replace_all_uses_with(source)
        graph.erase_node(node)
    elif name in _RESHAPES:
        if name_of(source) == "reshape":
            source = source.args[0]
        _replace(graph, node, aten.reshape.default, (source, list(value.shape)))
    elif name in _PERMUTES:
        order = _order(node, before.ndim)
        _replace(graph, node, aten.permute.default, (source, order))
    elif name in _EXPANDS:
        _replace(graph, node, aten.expand.default, (source, list(value.shape)))
    elif name in _CASTS:
        _replace(graph, node, aten.to.dtype, (source, value.dtype))
    elif name == "copy":
        _copy(graph, node, value)
    elif name in ("slice_scatter", "select_scatter"):
        _replace(graph, node, *_scattered(graph, node, name, source, value))
    elif name in ("slice", "narrow"):
        _replace(graph, node, *_span(node, name, before, value))
    elif name == "select":
        axis, index = (int(number) for number in node.args[1:3])  # type: ignore[arg-type]
        axis %= before.ndim
        _replace(graph, node, aten.select.int, (source, axis, index % before.shape[axis]))


def _replace(graph: Graph, node: Node, target: Callable[..., Any], args: tuple[Any, ...]) -> None:
    new = _insert(graph, node, target, args, node.meta["val"])
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _insert(graph: Graph, before: Node, target: Callable[..., Any], args: tuple[Any, ...], value: Any) -> Node:
    with graph.inserting_before(before):
        new = graph.call_function(target, args)
    new.meta = {**before.meta, "val": value}
    return new


def _changes_nothing(node: Node, name: str) -> bool:
    """Whether an operation whose result is of its first operand's shape and type gives that operand's numbers."""
    if name in _RESHAPES + _EXPANDS + _CASTS + ("slice", "narrow"):
        return name != "slice" or len(node.args) < 5 or bool(node.args[4] == 1)
    if name in _PERMUTES:
        return _order(node, node.meta["val"].ndim) == list(range(node.meta["val"].ndim))
    if name in ("cat", "stack") or node.kwargs or len(node.args) < 2 or isinstance(node.args[1], Node):
        return False
    return (name, node.args[1]) in (("add", 0), ("sub", 0), ("mul", 1), ("div", 1))


def _order(node: Node, axes: int) -> list[int]:
    sizes = _PRIMES[:axes]
    result = node.target(torch.empty(sizes, device="meta"), *node.args[1:], **node.kwargs)  # type: ignore[operator]
    return [sizes.index(size) for size in result.shape]


def _part(split: Node, index: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    source, parts = split.args[0], split.meta["val"]
    assert isinstance(source, Node)
    whole = source.meta["val"]
    index %= len(parts)
    # The axis is the last argument of all of them, and 0 where it is not given.
    wanted = 2 if name_of(split) != "unbind" else 1
    axis = int(split.kwargs.get("dim", split.args[wanted] if len(split.args) > wanted else 0)) % whole.ndim  # type: ignore[arg-type]
    if name_of(split) == "unbind":
        return aten.select.int, (source, axis, index)
    begin = sum(part.shape[axis] for part in parts[:index])
    return aten.slice.Tensor, (source, axis, begin, begin + parts[index].shape[axis], 1)


def _span(node: Node, name: str, before: Tensor, value: Tensor) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    axis, begin, step = _first(node.args[1:], name, before)
    length = value.shape[axis]
    end = min(begin + (length - 1) * step + 1, before.shape[axis]) if length else begin
    return aten.slice.Tensor, (node.args[0], axis, begin, end, step)


def _first(arguments: Sequence[Any], name: str, whole: Tensor) -> tuple[int, int, int]:
    """Axis, first position and step of a slice by what follows its operands."""
    axis, begin, _, step = [*arguments, None, None, None, None][:4]
    axis = int(axis or 0) % whole.ndim
    size = whole.shape[axis]
    begin = int(begin or 0)
    return axis, min(max(begin + size if begin < 0 else begin, 0), size), int(step or 1) if name != "narrow" else 1


def _copy(graph: Graph, node: Node, value: Tensor) -> None:
    """Write what is copied over a whole tensor as the tensor."""
    new = node.args[1]
    assert isinstance(new, Node)
    if new.meta["val"].dtype != value.dtype:
        new = _insert(graph, node, aten.to.dtype, (new, value.dtype), new.meta["val"].to(value.dtype))
    if new.meta["val"].shape != value.shape:
        new = _insert(graph, node, aten.expand.default, (new, list(value.shape)), value)
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _scattered(
    graph: Graph, node: Node, name: str, into: Node, value: Tensor
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A tensor with a stretch of it replaced, as what is before, the new, what is after."""
    new = node.args[1]
    assert isinstance(new, Node)
    if name == "select_scatter":
        axis, begin, step = int(node.args[2]) % value.ndim, int(node.args[3]), 1  # type: ignore[arg-type]
        begin %= value.shape[axis]
        shape = [*value.shape[:axis], 1, *value.shape[axis + 1 :]]
        new = _insert(graph, node, aten.reshape.default, (new, shape), new.meta["val"].reshape(shape))
    else:
        axis, begin, step = _first(node.args[2:], name, value)
    if step != 1:
        return node.target, node.args  # type: ignore[return-value]
    parts = []
    for first, last in ((0, begin), (begin + new.meta["val"].shape[axis], value.shape[axis])):
        if first < last:
            kept = value.narrow(axis, first, last - first)
            parts.append(_insert(graph, node, aten.slice.Tensor, (into, axis, first, last, 1), kept))
    parts.insert(0 if begin == 0 else 1, new)
    return aten.cat.default, (parts, axis)
