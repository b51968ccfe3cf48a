"""DynamicGraph: the graphs of a voice on clips of several lengths as one, whose sizes follow from its inputs.

The graphs differ in nothing but numbers: sizes and positions in arguments, and constants of which a longer clip needs
more. Each number is fitted as an affine function of the lengths of inputs, exactly and in all graphs, and computed of
them when the graph runs. `voice.graph.dynamic_constants` says what becomes of constants.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import Dim

from voice.graph.dynamic_merging import Merging
from voice.graph.dynamic_sizes import Axis, Bound, DynamicError, Size, find_symbols
from voice.graph.site_graph import SiteGraph, kind_of


class Limit(NamedTuple):
    """How large a length may be."""

    largest: int
    constant: str
    """The constant that holds no more, and what reads it."""


@dataclass(frozen=True, slots=True, eq=False)
class DynamicGraph(SiteGraph):
    """A model on clips of any length: a SiteGraph whose `examples` and `meta["val"]` are those of the first clip.

    `inputs` end on those that stand for noise. Its nodes are those of a SiteGraph, and beside them `aten.sym_size.int`
    of inputs and Python's arithmetic on what that gives; reshape and expand may have a size of -1, slice and select
    positions that count from the end.
    """

    symbols: Mapping[str, tuple[Axis, ...]] = field(default_factory=dict)
    """Lengths that may be chosen, named after an input, `mel_length`; and the axes of inputs whose sizes follow."""
    shortest: Mapping[str, int] = field(default_factory=dict)
    """The shortest of each symbol among the graphs that it was made of; below, nothing was compared."""
    noise: tuple[str, ...] = ()
    """Inputs that stand for noise that the model drew. Whoever runs the graph draws it."""
    bounds: tuple[Bound, ...] = ()
    """Sizes that constants limit."""
    sizes: tuple[Size, ...] = ()
    """All sizes that the graph computes."""

    @property
    def limits(self) -> dict[str, Limit]:
        """How large each symbol may be with the others at their shortest; one that nothing limits is left out."""
        limits: dict[str, Limit] = {}
        for bound in self.bounds:
            for symbol, factor in bound.size.terms:
                others = sum(other * self.shortest[name] for name, other in bound.size.terms if name != symbol)
                largest = (bound.largest - bound.size.constant - others) // factor
                if factor > 0 and (symbol not in limits or largest < limits[symbol].largest):
                    limits[symbol] = Limit(int(largest), bound.constant)
        return limits

    def lengths_of(self, inputs: Mapping[str, Tensor]) -> dict[str, int]:
        """What each symbol is for some inputs, by name."""
        roots = {name: next(axis for axis in axes if axis.size.is_symbol) for name, axes in self.symbols.items()}
        return {name: inputs[axis.input].shape[axis.axis] for name, axis in roots.items()}

    def shape_of(self, name: str, lengths: Mapping[str, int]) -> tuple[int, ...]:
        """Shape of an input, noise among them, at some lengths.

        Args:
            name: of the input.
            lengths: of every symbol.

        Raises:
            ValueError: a size is no whole number of at least 0.
        """
        shape = list(self.examples[name].shape)
        for axis in self._axes(name):
            shape[axis.axis] = axis.size.at(lengths)
        return tuple(shape)

    def dynamic_shapes(self) -> dict[str, dict[int, Any] | None]:
        """What `torch.export.export` of `module` takes: by input and state, the axes that change.

        For a module that takes them as `*inputs`, give `(tuple(shapes.values()),)`.
        """
        largest = {name: limit.largest for name, limit in self.limits.items()}
        roots = {name: Dim(name, min=self.shortest[name], max=largest.get(name)) for name in self.symbols}
        given: dict[str, dict[int, Any] | None] = {
            name: {axis.axis: _dim(axis.size, roots) for axis in self._axes(name)} or None for name in self.inputs
        }
        return given | dict.fromkeys(self.states)

    def _axes(self, name: str) -> dict[Axis, None]:
        return {axis: None for axes in self.symbols.values() for axis in axes if axis.input == name}

    def _misfits(self, held: Mapping[str, tuple[Tensor, Tensor]]) -> list[str]:
        """What of inputs and states is of a type or shape that the graph does not take."""
        faults = []
        for name, (given, own) in held.items():
            changing = {axis.axis for axis in self._axes(name)}
            sizes = zip(given.shape, own.shape, strict=False)
            other = any(size != wanted for axis, (size, wanted) in enumerate(sizes) if axis not in changing)
            if given.dtype != own.dtype or given.ndim != own.ndim or other:
                kept = f" but for axis {' and '.join(map(str, sorted(changing)))}" if changing else ""
                faults.append(f"{name} is {kind_of(given)} and must be {kind_of(own)}{kept}")
        if faults or any(name not in held for name in self.inputs):
            return faults
        tensors = {name: tensor for name, (tensor, _) in held.items()}
        return self._too_long(self.lengths_of(tensors), tensors)

    def _too_long(self, lengths: Mapping[str, int], held: Mapping[str, Tensor]) -> list[str]:
        """What does not go together at some lengths, or is beyond what constants hold."""
        at = ", ".join(f"{symbol} {length}" for symbol, length in lengths.items())
        try:
            shapes = {name: self.shape_of(name, lengths) for name in self.inputs}
            sizes = {size: size.at(lengths) for size in (*self.sizes, *(bound.size for bound in self.bounds))}
        except ValueError as error:
            return [str(error)]
        faults = [
            f"{name} is {kind_of(held[name])} and must be {list(shape)} at {at}"
            for name, shape in shapes.items()
            if shape != tuple(held[name].shape)
        ]
        return faults + [
            f"{bound.size} is {sizes[bound.size]} and at most {bound.largest}, for which there is constant"
            f" {bound.constant}: give dynamic_graph a longer clip"
            for bound in self.bounds
            if sizes[bound.size] > bound.largest
        ]


def dynamic_graph(graphs: Sequence[SiteGraph]) -> DynamicGraph:
    """Bring the graphs of a voice on clips of several lengths to one for all lengths.

    Two more of different lengths are needed than there are lengths that change by themselves: 3 for a vocoder, 4 where
    phones and frames do. What cannot be seen in them is not known: take lengths that differ in nothing but that, some
    odd, no multiples of each other; and one as long as the longest that will be run, for tables end there.

    Args:
        graphs: of one model, its examples and `meta` are those of the first.

    Raises:
        DynamicError: there are too few, or they differ in more than sizes; says where.
    """
    _same_ends(graphs)
    first = graphs[0]
    lengths, axes = find_symbols(
        {name: [tuple(graph.examples[name].shape) for graph in graphs] for name in first.inputs}
    )
    merged = Merging([graph.module for graph in graphs], first.inputs, lengths, axes).merge()
    examples = {**first.examples, **{name: values[0] for name, values in merged.noise.items()}}
    all_axes = (*axes, *merged.axes)
    made = DynamicGraph(
        module=merged.module,
        inputs=(*first.inputs, *merged.noise),
        parts=first.parts,
        states=first.states,
        # Of strides that are those of the sizes: torch.export takes all others for a part of the graph.
        examples={name: value.contiguous() for name, value in examples.items()},
        fixed={
            name: value
            for name, value in first.fixed.items()
            if all(torch.equal(graph.fixed[name], value) for graph in graphs)
        },
        symbols={
            symbol: tuple(axis for axis in all_axes if symbol in dict(axis.size.terms)) for symbol in lengths.rows
        },
        shortest={symbol: min(row) for symbol, row in lengths.rows.items()},
        noise=tuple(merged.noise),
        bounds=merged.bounds,
        sizes=merged.sizes,
    )
    for index, graph in enumerate(graphs):
        _check(made, graph, {name: values[index] for name, values in merged.noise.items()})
    return made


def _same_ends(graphs: Sequence[SiteGraph]) -> None:
    """Hold what graphs take and give against the first."""
    if len(graphs) < 3:
        raise DynamicError(f"a dynamic graph is made of 3 graphs of different lengths at least, got {len(graphs)}")
    ends = [_ends(graph) for graph in graphs]
    for what in ends[0]:
        for end in ends[1:]:
            if end[what] != ends[0][what]:
                raise DynamicError(f"the graphs have different {what}, {ends[0][what]} and {end[what]}")


def _ends(graph: SiteGraph) -> dict[str, Any]:
    values = {node.target: node.meta["val"] for node in graph.module.graph.find_nodes(op="placeholder")}
    return {
        "inputs": [f"{name}: {values[name].dtype}, axes {values[name].ndim}" for name in graph.inputs],
        "parts": list(graph.parts),
        "states": [f"{name}: {kind_of(values[name])}" for name in graph.states],
        "fixed inputs": list(graph.fixed),
    }


def _check(made: DynamicGraph, graph: SiteGraph, noise: Mapping[str, Tensor]) -> None:
    """Hold the dynamic graph against one that it was made of."""
    for part, result, wanted in zip(
        [*graph.parts, *graph.states], made.run({**graph.examples, **noise}), graph.run(), strict=True
    ):
        if not torch.allclose(result.double(), wanted.double(), rtol=1e-3, atol=1e-5, equal_nan=True):
            raise DynamicError(
                f"{part} of the dynamic graph is not that of the graph with {made.lengths_of(graph.examples)}"
            )


def _dim(size: Size, roots: Mapping[str, Any]) -> Any:
    """A length as torch.export writes it, where it can; else it is left to find it out."""
    if len(size.terms) > 1 or size.divisor > 1:
        return Dim.AUTO
    ((symbol, factor),) = size.terms
    dim = roots[symbol]
    dim = dim if factor == 1 else int(factor) * dim
    return dim if size.constant == 0 else dim + int(size.constant)
