"""Reductions: sums, means, softmax and norms."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from backends.tenstorrent.lower.arranged import Arranged, axis_of, four
from backends.tenstorrent.lower.elementwise import kept_whole
from backends.tenstorrent.lower.reading import Reader, Rule, UnsupportedError, argument, shape_of, whole
from backends.tenstorrent.program import Layout
from backends.tenstorrent.shards import TILE

aten = torch.ops.aten


def reduction(op: str) -> Rule:
    """A sum or a mean over axes; over stacked branches it is additions, and no stack is made."""

    def rule(reader: Reader, node: fx.Node) -> Arranged:
        source: fx.Node = node.args[0]  # type: ignore[assignment]
        rank = source.meta["val"].ndim
        given = argument(node, 1, "dim")
        axes = [axis_of(int(a), rank) for a in (range(rank) if given is None else given)]
        if is_stack(source) and axes == [axis_of(int(argument(source, 1, "dim", 0)), rank)]:
            return _sum_of_branches(reader, node, source, 1 / len(source.args[0]) if op == "mean" else None)  # type: ignore[arg-type]
        x = kept_whole(reader, node, reader.card(source))
        shape = four([1 if axis in axes else extent for axis, extent in enumerate(x.shape)])
        value = x.value
        for axis in axes:
            extents = list(value.shape)
            extents[x.place(axis)] = 1
            value = reader.build.step(
                op,
                [value],
                extents,
                x.dtype,
                name=node.name,
                options={"axis": x.place(axis), "keep": True},
                compute=reader.build.vector,
            )
        seen = Arranged(value, shape, x.order).viewed(shape_of(node))
        assert seen is not None
        return seen

    return rule


def is_stack(node: fx.Node) -> bool:
    """Whether a node stacks branches that are only summed or averaged, which needs no stack."""
    return node.op == "call_function" and node.target is aten.stack.default


def _sum_of_branches(reader: Reader, node: fx.Node, stack: fx.Node, factor: float | None) -> Arranged:
    branches: Sequence[fx.Node] = stack.args[0]  # type: ignore[assignment]
    tensors = [reader.card(branch) for branch in branches]
    order = tensors[0].order
    dtype = "fp32" if any(tensor.dtype == "fp32" for tensor in tensors) else "bf16"
    if reader.build.between == "fp32":
        dtype = "fp32"
    values = [reader.build.ordered(tensor, order).value for tensor in tensors]
    total = values[0]
    for value in values[1:]:
        total = reader.build.step("add", [total, value], total.shape, dtype, name=f"{node.name}_sum")
    if factor is not None:
        options = {"scalar": factor, "reversed": False}
        total = reader.build.step("multiply", [total], total.shape, dtype, name=node.name, options=options)
    seen = Arranged(total, tensors[0].shape, order).viewed(shape_of(node))
    if seen is None:
        raise UnsupportedError("branches of several shapes that are summed")
    return seen


def softmax(reader: Reader, node: fx.Node) -> Arranged:
    """Softmax along any one axis."""
    x = kept_whole(reader, node, reader.card(node.args[0]))  # type: ignore[arg-type]
    axis = axis_of(int(argument(node, 1, "dim", -1)), node.meta["val"].ndim)
    x = reader.build.ordered(x, four([*(other for other in x.order if other != axis), axis]))
    value = reader.build.step(
        "softmax",
        [x.value],
        x.value.shape,
        x.dtype,
        name=node.name,
        options={"axis": -1},
        compute=reader.build.vector,
    )
    return Arranged(value, x.shape, x.order)


def norm(op: str) -> Rule:
    """A norm over the last axis, or over groups of channels."""

    def rule(reader: Reader, node: fx.Node) -> Arranged:
        x = kept_whole(reader, node, reader.card(node.args[0]))  # type: ignore[arg-type]
        group = op == "group_norm"
        over = node.args[1]
        if not group and len(over) != 1:  # type: ignore[arg-type]
            raise UnsupportedError(f"{op} over {len(over)} axes; only the last is lowered")  # type: ignore[arg-type]
        channels = axis_of(1, node.meta["val"].ndim) if group else 3
        if group and (x.shape[channels] % TILE or x.shape[channels] % whole(over)):
            raise UnsupportedError(f"group_norm of {x.shape[channels]} channels; ttnn takes whole tiles of {TILE}")
        x = reader.build.ordered(x, four([*(axis for axis in x.order if axis != channels), channels]))
        epsilon = argument(node, 3 if op == "rms_norm" else 4, "eps")
        options: dict[str, Any] = {"epsilon": 2.0**-23 if epsilon is None else float(epsilon)}
        if group:
            options["groups"] = whole(over)
        given = [argument(node, 2, "weight"), None if op == "rms_norm" else argument(node, 3, "bias")]
        inputs = [x.value]
        for at, (name, held) in enumerate(zip(("weight", "bias"), given, strict=True)):
            if not any(one is not None for one in given[at:]):
                break  # ttnn takes a bias behind a weight only
            values = torch.ones(x.shape[channels]) if held is None else reader.constant(held)
            if values is None:
                raise UnsupportedError(f"a {name} of {op} that is no constant of the model")
            # Norms take weights in bf16 and fp32; those over groups in rows of a tile's width.
            shape = (1, 1, -1, TILE) if group else (1, 1, 1, -1)
            array = values.detach().float().reshape(shape).numpy()
            layout: Layout = "row_major" if group else "tile"
            wanted = f"{node.name}_ones" if held is None else str(held.target)
            inputs.append(reader.build.constant(wanted, array, x.dtype, layout=layout))
        value = reader.build.step(
            op, inputs, x.value.shape, x.dtype, name=node.name, options=options, compute=reader.build.vector
        )
        return Arranged(value, x.shape, x.order)

    return rule
