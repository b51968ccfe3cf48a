"""Merging: the graphs of several lengths, node by node, into one that computes its sizes."""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from voice.graph.cleaning import is_site
from voice.graph.dynamic_columns import ALIKE, Column, as_long, columns_of, read_by, shown, where
from voice.graph.dynamic_constants import unified
from voice.graph.dynamic_sizes import Axis, Bound, DynamicError, Lengths, Row, Size, listed
from voice.graph.dynamic_spelling import without_sizes

aten = torch.ops.aten


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """What merging gives."""

    module: GraphModule
    noise: dict[str, tuple[Tensor, ...]]
    """Inputs that stand for noise, and what each graph had drawn."""
    axes: tuple[Axis, ...]
    """Those of noise that change."""
    bounds: tuple[Bound, ...]
    sizes: tuple[Size, ...]
    """All that is computed of symbols."""


class Merging:
    """Builds one graph of several that have the same nodes.

    Args:
        modules: of the graphs.
        inputs: names of their inputs, one at least.
        lengths: the symbols.
        axes: of inputs that change.
    """

    def __init__(
        self, modules: Sequence[GraphModule], inputs: Sequence[str], lengths: Lengths, axes: Sequence[Axis]
    ) -> None:
        self._modules, self._lengths = modules, lengths
        self._symbols = {axis.size.terms[0][0]: axis for axis in reversed(axes) if axis.size.is_symbol}
        self._last = inputs[-1]
        self._graph = Graph()
        self._places: dict[Node, int] = {}
        self._placeholders: dict[str, Node] = {}
        self._made: dict[Node, Node] = {}
        self._computed: dict[Any, Node] = {}
        self._constants: dict[str, Tensor] = {}
        self._noise: dict[str, tuple[Tensor, ...]] = {}
        self._axes: list[Axis] = []
        self._bounds: list[Bound] = []
        self._sizes: dict[Size, None] = {}

    def merge(self) -> Merged:
        """Merge all nodes.

        Raises:
            DynamicError: at the first difference that is no size, no float that follows from a length, no constant.
        """
        columns = columns_of(self._modules)
        for place, column in enumerate(columns):
            self._places |= dict.fromkeys(column, place)
        for column in columns:
            if column[0].op == "placeholder":
                node = column[0]
                self._placeholders[str(node.target)] = self._made[node] = self._graph.node_copy(node)
        for column in columns:
            if column[0].op == "get_attr":
                self._constant(column)
            elif column[0].op != "placeholder":
                self._operation(column)
        module = GraphModule(self._constants, self._graph, "DynamicGraph")
        return Merged(module, self._noise, tuple(self._axes), tuple(self._bounds), tuple(self._sizes))

    def _operation(self, column: Column) -> None:
        node = column[0]
        args = self._joined(without_sizes(column, self._lengths), column)
        kwargs = {name: self._joined([each.kwargs[name] for each in column], column) for name in node.kwargs}
        self._made[node] = made = self._graph.create_node(node.op, node.target, tuple(args), kwargs, node.name)
        made.meta = dict(node.meta)

    def _joined(self, values: Sequence[Any], column: Column) -> Any:
        """One argument for those of all graphs."""
        first = values[0]
        if isinstance(first, list | tuple) and all(as_long(value, first) for value in values):
            parts = [self._joined(part, column) for part in zip(*values, strict=True)]
            return tuple(parts) if isinstance(first, tuple) else parts
        if isinstance(first, Node) and len({self._places.get(value) for value in values}) == 1:
            return self._made[first]
        kinds = {type(value) for value in values}
        if kinds == {type(first)} and len({repr(value) for value in values}) == 1:
            return first
        if kinds <= {int, float} and not is_site(column[0]):
            return self._number(values, column[0])
        raise DynamicError(
            f"{where(column[0])} has in one graph the argument {shown(first)} and in another"
            f" {shown(next(value for value in values if repr(value) != repr(first)))}: {ALIKE}"
        )

    def _number(self, values: Sequence[Any], node: Node) -> Node:
        """What computes a number that differs."""
        if all(isinstance(value, int) for value in values):
            return self._size(self._fit(tuple(values), where(node)))
        ratio = self._lengths.fit_float([float(value) for value in values])
        if ratio is None:
            raise DynamicError(
                f"{where(node)} has the floats {listed(values)}, neither an affine function of any length nor 1 over"
                f" one ({self._lengths}): have the model compute them of a tensor"
            )
        value = self._compute(operator.mul, self._symbol(ratio.symbol), ratio.factor)
        value = self._compute(operator.add, value, ratio.constant) if ratio.constant else value
        return self._compute(operator.truediv, 1.0, value) if ratio.is_reciprocal else value

    def _constant(self, column: Column) -> None:
        node, target = column[0], str(column[0].target)
        values = tuple(attrgetter(str(each.target))(module) for each, module in zip(column, self._modules, strict=True))
        what, found = f"constant {read_by(node)}", unified(values, target.startswith("noise_"))
        if isinstance(found, str):
            raise DynamicError(f"{what} {found}")
        sizes: list[int | Node] = list(values[0].shape)
        fits = {}
        for axis, row in enumerate(zip(*(value.shape for value in values), strict=True)):
            if len(set(row)) > 1:
                fits[axis] = self._fit(row, f"{what}, axis {axis},")
        if found.kind == "noise":
            self._draw(node, values, fits)
            return
        made = self._hold(target, found.value, node)
        for axis, size in fits.items():
            sizes[axis] = length = self._size(size)
            if found.kind == "table":
                self._bounds.append(Bound(size, found.value.shape[axis], read_by(node)))
                made = self._cut(made, axis, length, node)
        if found.kind == "fill":
            made = self._append(node, aten.expand.default, (made, sizes))
        self._made[node] = made

    def _hold(self, name: str, value: Tensor, like: Node) -> Node:
        self._constants[name] = value
        made = self._graph.get_attr(name)
        made.meta = {**like.meta, "val": like.meta["val"].new_empty(value.shape, dtype=value.dtype)}
        return made

    def _cut(self, table: Node, axis: int, length: Node, like: Node) -> Node:
        """The beginning of a table along an axis."""
        whole = table.meta["val"].shape
        if math.prod(whole[:axis]) == 1:
            return self._append(like, aten.slice.Tensor, (table, axis, 0, length, 1))
        # A slice would have strides that depend on whether it is the whole, a question that torch.export must not ask.
        key = ("places", whole[axis], length)
        if key not in self._computed:
            places = self._hold(f"_places_{whole[axis]}", torch.arange(whole[axis]), like)
            self._computed[key] = self._append(like, aten.slice.Tensor, (places, 0, 0, length, 1))
        return self._append(like, aten.index_select.default, (table, axis, self._computed[key]))

    def _draw(self, node: Node, values: tuple[Tensor, ...], fits: dict[int, Size]) -> None:
        """Make noise an input, behind the others."""
        name = next(name for index in count() if (name := f"noise_{index}") not in self._placeholders)
        with self._graph.inserting_after(self._placeholders[self._last]):
            made = self._graph.placeholder(name)
        made.meta = dict(node.meta)
        self._made[node] = self._placeholders[name] = made
        self._last = name
        self._noise[name] = values
        self._axes += [Axis(name, axis, size) for axis, size in fits.items()]

    def _append(self, like: Node, target: Callable[..., Any], args: tuple[Any, ...]) -> Node:
        made = self._graph.call_function(target, args)
        given = torch.fx.map_arg(args, lambda node: node.meta["val"])
        made.meta = {**like.meta, "val": target(*given)}
        return made

    def _fit(self, row: Row, what: str) -> Size:
        size = self._lengths.fit(row)
        if size is None:
            raise DynamicError(
                f"{what} has the sizes {listed(row)}, no affine function of {self._lengths}: give clips whose lengths"
                " are multiples of the model's strides; where a length saturates, clips on one side of that"
            )
        return size

    def _size(self, size: Size) -> Node:
        """What computes a size."""
        self._sizes[size] = None
        divisor, total = size.divisor, None
        for symbol, factor in size.terms:
            term = self._compute(operator.mul, self._symbol(symbol), int(factor * divisor))
            total = term if total is None else self._compute(operator.add, total, term)
        assert total is not None  # what differs depends on a symbol
        total = self._compute(operator.add, total, int(size.constant * divisor))
        return self._compute(operator.floordiv, total, divisor)

    def _symbol(self, symbol: str) -> Node:
        axis = self._symbols[symbol]
        return self._compute(aten.sym_size.int, self._placeholders[axis.input], axis.axis)

    def _compute(self, function: Callable[..., Any], one: Any, other: Any) -> Node:
        """Compute what was not yet, unless a whole number stays what it is."""
        key = (function, one, other, type(other))
        if key[::2] in ((operator.add, 0), (operator.mul, 1), (operator.floordiv, 1)) and type(other) is int:
            assert isinstance(one, Node)
            return one
        if key not in self._computed:
            self._computed[key] = made = self._graph.call_function(function, (one, other))
            given = torch.fx.map_arg((one, other), lambda node: node.meta["val"])
            made.meta = {
                "path": "",
                "val": int(given[0].shape[other]) if function is aten.sym_size.int else function(*given),
            }
        return self._computed[key]
