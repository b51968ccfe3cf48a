"""Building: the graph of one chunk, with what it keeps from the chunk before as state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node, map_arg

from voice.graph import SiteGraph, site_node
from voice.graph.cleaning import set_values
from voice.streaming.analysis import Analysis
from voice.streaming.timing import Timing, shape_with
from voice.streaming.windows import Window

aten = torch.ops.aten
MaskKey = tuple[int, Timing]
"""Axes of the values that a mask is for, and their timing."""


@dataclass(frozen=True, slots=True)
class Built:
    """A step, and what its masks are for, by the names of their inputs."""

    graph: SiteGraph
    masks: Mapping[str, MaskKey]


def build(graph: SiteGraph, analysis: Analysis, chunk: int) -> Built:
    """Make the step for chunks of so many frames, which give a whole number of samples of every value."""
    return _Builder(graph, analysis, chunk).build()


class _Builder:
    """Puts the nodes of the whole utterance's graph into that of a chunk."""

    def __init__(self, graph: SiteGraph, analysis: Analysis, chunk: int) -> None:
        self._whole = graph
        self._plans = analysis.plans
        self._zeroed = analysis.zeroed
        self._chunk = chunk
        self._graph = Graph()
        self._made: dict[Node, Node] = {}
        self._past = _past(analysis)
        """Samples that are kept of a value for the next chunk."""
        self._rows: dict[Node, tuple[Node, int]] = {}
        self._cuts: dict[tuple[Node, int, int], Node] = {}
        self._masks: dict[MaskKey, Node] = {}
        self._placeholders: list[Node] = []
        self._examples: dict[str, Tensor] = {}
        self._updates: dict[str, Node] = {}

    def build(self) -> Built:
        """Make all of it."""
        nodes = list(self._whole.module.graph.nodes)
        for node in nodes:
            if node.op == "placeholder":
                shape, dtype = self._shape(node), node.meta["val"].dtype
                self._made[node] = self._placeholder(node.name, torch.zeros(shape, dtype=dtype), node)
        for node in nodes:
            if node in self._zeroed:
                self._mask(node)
        for node in nodes:
            if node.op == "get_attr":
                self._made[node] = self._noted(self._graph.get_attr(node.target), node)
            elif node.op == "call_function":
                made = self._call(node)
                self._made[node] = (
                    self._add(aten.mul.Tensor, (made, self._mask(node)), node) if node in self._zeroed else made
                )
        (output,) = self._whole.module.graph.find_nodes(op="output")
        self._graph.output((*(self._made[value] for value in output.args[0]), *self._updates.values()))
        self._graph.eliminate_dead_code()
        module = GraphModule(self._whole.module, self._graph, "StepGraph")
        set_values(module, list(self._examples.values()))
        inputs = {name: value for name, value in self._examples.items() if name not in self._updates}
        step = SiteGraph(
            module, tuple(inputs), self._whole.parts, tuple(self._updates), inputs, fixed=self._whole.fixed
        )
        return Built(step, {mask.name: key for key, mask in self._masks.items()})

    def _call(self, node: Node) -> Node:
        plan = self._plans[node]
        inputs = {x: self._wait(x, plan.waits.get(x, 0)) for x in node.all_input_nodes}
        if plan.crops:
            return inputs[node.all_input_nodes[0]]
        if plan.window is not None:
            return self._convolve(node, plan.window)
        args, kwargs = map_arg((node.args, dict(node.kwargs)), lambda x: inputs[x])
        if plan.timing is not None and node.target in _SIZED:
            args = (args[0], list(self._shape(node)), *args[2:])
        return self._add(node.target, args, node, kwargs, name=node.name)

    def _convolve(self, node: Node, window: Window) -> Node:
        site = site_node(node)
        assert site is not None
        row, kept = self._row(site.x) if window.history else (self._made[site.x], 0)
        begin, end = kept - window.history + window.skip, kept + self._samples(site.x) - window.unread
        if (begin, end) != (0, kept + self._samples(site.x)):
            row = self._cut(row, 2, begin, end, node)
        options = window.options
        made = self._add(
            node.target,
            (
                site.site,
                site.op,
                row,
                self._made[site.weight],
                None if site.bias is None else self._made[site.bias],
                list(options.stride),
                list(options.padding),
                list(options.dilation),
                options.groups,
                list(options.output_padding),
                site.is_product,
            ),
            node,
            name=node.name,
        )
        if window.extra or window.excess:
            made = self._cut(made, 2, window.extra, window.extra + self._samples(node), node)
        return made

    def _wait(self, value: Node, samples: int) -> Node:
        """A value some samples later."""
        if not samples:
            return self._made[value]
        row, kept = self._row(value)
        begin = kept - samples
        return self._cut(row, self._timing(value).axis, begin, begin + self._samples(value), value)

    def _row(self, value: Node) -> tuple[Node, int]:
        """The last samples of the chunks before, and this chunk's, as one; and how many of them are from before."""
        if value in self._rows:
            return self._rows[value]
        kept = self._past.get(value, 0)
        axis, samples = self._timing(value).axis, self._samples(value)
        if kept:
            zeros = torch.zeros(shape_with(value.meta["val"], axis, kept), dtype=value.meta["val"].dtype)
            state = self._placeholder(f"{value.name}_past", zeros, value)
            row = self._add(aten.cat.default, ([state, self._made[value]], axis), value)
            self._updates[state.name] = self._cut(row, axis, samples, samples + kept, value)
        else:
            (source,) = value.all_input_nodes
            before, kept = self._row(source)
            args, kwargs = map_arg((value.args, dict(value.kwargs)), lambda _: before)
            row = self._add(value.target, args, value, kwargs)
        self._rows[value] = row, kept
        return row, kept

    def _mask(self, node: Node) -> Node:
        """The mask of a value; one for all that have the same timing."""
        timing = self._timing(node)
        key = (node.meta["val"].ndim, timing)
        if key not in self._masks:
            shape = [1] * key[0]
            shape[timing.axis] = self._samples(node)
            example = torch.ones(shape, dtype=node.meta["val"].dtype)
            self._masks[key] = self._placeholder(f"mask_{len(self._masks)}", example, node)
        return self._masks[key]

    def _placeholder(self, name: str, example: Tensor, like: Node) -> Node:
        before = self._placeholders[-1] if self._placeholders else self._graph._root
        with self._graph.inserting_after(before):
            made = self._noted(self._graph.placeholder(name), like)
        made._rename(name)
        self._placeholders.append(made)
        self._examples[made.name] = example
        return made

    def _cut(self, x: Node, axis: int, begin: int, end: int, like: Node) -> Node:
        key = (x, begin, end)
        if key not in self._cuts:
            self._cuts[key] = self._add(aten.slice.Tensor, (x, axis, begin, end, 1), like)
        return self._cuts[key]

    def _add(
        self,
        target: Any,
        args: tuple[Any, ...],
        like: Node,
        kwargs: dict[str, Any] | None = None,
        name: str | None = None,
    ) -> Node:
        made = self._graph.create_node("call_function", target, args, kwargs or {}, name=name)
        return self._noted(made, like)

    def _noted(self, made: Node, like: Node) -> Node:
        made.meta["path"] = like.meta.get("path", "")
        return made

    def _timing(self, node: Node) -> Timing:
        timing = self._plans[node].timing
        assert timing is not None
        return timing

    def _samples(self, node: Node) -> int:
        return self._timing(node).samples(self._chunk)

    def _shape(self, node: Node) -> tuple[int, ...]:
        """Shape that a value has in a step."""
        timing = self._plans[node].timing
        value = node.meta["val"]
        return tuple(value.shape) if timing is None else shape_with(value, timing.axis, timing.samples(self._chunk))


_SIZED = (aten.reshape.default, aten.view.default, aten._unsafe_view.default, aten.expand.default)


def _past(analysis: Analysis) -> dict[Node, int]:
    """The values of which samples are kept, and how many.

    A convolution reads what the activation before it makes of a value whose past is kept for a residual sum anyway: the
    activation then runs over the row, and no more is kept.
    """
    past: dict[Node, int] = {}
    for plan in analysis.plans.values():
        for value, samples in plan.waits.items():
            past[value] = max(past.get(value, 0), samples)
    waiting = set(past)
    for node, plan in analysis.plans.items():
        if plan.window is not None and plan.window.history:
            value = source = node.all_input_nodes[0]
            while source not in waiting and source not in analysis.zeroed and _is_activation(source):
                (source,) = source.all_input_nodes
            value = source if source in waiting else value
            past[value] = max(past.get(value, 0), plan.window.history)
    return past


def _is_activation(node: Node) -> bool:
    pointwise = isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags
    return pointwise and len(node.all_input_nodes) == 1
