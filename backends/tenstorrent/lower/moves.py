"""Moves: operations that put elements elsewhere and leave them as they are."""

import math
from collections.abc import Sequence

import torch
from torch import fx

from backends.tenstorrent.lower.arranged import Arranged, axis_of, four, padded
from backends.tenstorrent.lower.elementwise import as_constant
from backends.tenstorrent.lower.reading import Reader, UnsupportedError, argument, shape_of, whole
from backends.tenstorrent.program import Layout

aten = torch.ops.aten


def permuted(reader: Reader, node: fx.Node) -> Arranged:
    """A permutation: a word, and nothing on the card."""
    shape_of(node)  # refuses more than four axes
    return reader.build.permuted(reader.card(node.args[0]), node.args[1])  # type: ignore[arg-type]


def viewed(reader: Reader, node: fx.Node) -> Arranged:
    """Another shape: for free where only axes of one element come or go."""
    return reader.build.viewed(reader.card(node.args[0]), shape_of(node))  # type: ignore[arg-type]


def sliced(reader: Reader, node: fx.Node) -> Arranged:
    """A run along an axis, or one place of it, which takes the axis away."""
    source, axis, begin = node.args[0], whole(node.args[1]), whole(node.args[2])
    x = reader.card(source)  # type: ignore[arg-type]
    axis = axis_of(axis, source.meta["val"].ndim)  # type: ignore[union-attr]
    one = node.target is aten.select.int
    end = begin + 1 if one else whole(node.args[3])
    if not one and whole(node.args[4]) != 1:
        raise UnsupportedError(f"a slice with a step of {node.args[4]}; only whole runs are lowered")
    cut = reader.build.cut(x, axis, begin, end, node.name)
    if not one:
        return cut
    seen = cut.viewed(shape_of(node))
    assert seen is not None  # one axis of one element less
    return seen


def concatenated(reader: Reader, node: fx.Node) -> Arranged:
    """Tensors one after another along an axis, or along a new one."""
    parts: Sequence[fx.Node] = node.args[0]  # type: ignore[assignment]
    axis = axis_of(int(argument(node, 1, "dim", 0)), node.meta["val"].ndim)
    stacked = node.target is aten.stack.default
    read = [reader.card(part) for part in parts if reader.constant(part) is None]
    like = read[0]
    tensors: list[Arranged] = []
    for part in parts:
        given = reader.constant(part)
        tensor = as_constant(reader, part, given, like) if given is not None else reader.card(part)
        if stacked:
            extents = list(part.meta["val"].shape)
            extents.insert(axis - (4 - node.meta["val"].ndim), 1)
            seen = tensor.viewed(padded(extents) or four(extents))
            assert seen is not None
            tensor = seen
        tensors.append(tensor)
    order = max(tensors, key=lambda tensor: math.prod(tensor.shape)).order
    dtype = "fp32" if any(tensor.dtype == "fp32" for tensor in tensors) else "bf16"
    values = [reader.build.cast(reader.build.ordered(tensor, order).value, dtype) for tensor in tensors]
    shape = shape_of(node)
    place = order.index(axis)
    value = reader.build.step(
        "concat", values, [shape[axis] for axis in order], dtype, name=node.name, options={"axis": place}
    )
    return Arranged(value, shape, order)


def padded_out(reader: Reader, node: fx.Node) -> Arranged:
    """Elements of one value around a tensor."""
    x = reader.card(node.args[0])  # type: ignore[arg-type]
    amounts: Sequence[int] = node.args[1]  # type: ignore[assignment]
    plain = node.target is aten.constant_pad_nd.default
    mode, value_at = ("constant", 2) if plain else (argument(node, 2, "mode", "constant"), 3)
    if mode != "constant":
        raise UnsupportedError(f"padding of mode {mode}; only constants are lowered")
    if any(int(amount) < 0 for amount in amounts):
        raise UnsupportedError("negative padding; slice instead")
    pads = [(0, 0)] * 4
    shape = list(x.shape)
    for index in range(len(amounts) // 2):
        before, after = int(amounts[2 * index]), int(amounts[2 * index + 1])
        pads[x.place(3 - index)] = (before, after)
        shape[3 - index] += before + after
    # The library fills up tiles behind only; rows on either side.
    layout: Layout = "row_major" if any(before for before, _ in pads) else "tile"
    value = reader.build.step(
        "pad",
        [reader.build.laid_out(x.value, layout)],
        [shape[axis] for axis in x.order],
        x.dtype,
        name=node.name,
        layout=layout,
        options={"pads": tuple(pads), "value": float(argument(node, value_at, "value", None) or 0.0)},
    )
    return Arranged(reader.build.laid_out(value, "tile"), four(shape), x.order)


def expanded(reader: Reader, node: fx.Node) -> Arranged:
    """Axes of one element repeated."""
    x = reader.card(node.args[0])  # type: ignore[arg-type]
    shape = shape_of(node)
    counts = [shape[axis] // x.shape[axis] for axis in x.order]
    if counts == [1, 1, 1, 1]:
        return x
    extents = [shape[axis] for axis in x.order]
    value = reader.build.step("repeat", [x.value], extents, x.dtype, name=node.name, options={"counts": tuple(counts)})
    return Arranged(value, shape, x.order)
