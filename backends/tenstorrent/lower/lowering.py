"""lower: a site graph under a policy to a Program, or everything that stands in the way."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, fx

from backends.tenstorrent.cards import Card
from backends.tenstorrent.lower.arranged import IDENTITY, Arranged, Four, alike, four, padded
from backends.tenstorrent.lower.builder import Between, Builder
from backends.tenstorrent.lower.hosting import HostLinesError, line
from backends.tenstorrent.lower.operands import Operands
from backends.tenstorrent.lower.placing import Places, place
from backends.tenstorrent.lower.reading import UnsupportedError, shape_of
from backends.tenstorrent.lower.rounding import Rounding
from backends.tenstorrent.lower.rules import RULES, looked_up, rows_of
from backends.tenstorrent.lower.sites import CHANNELS_LAST, lower_site
from backends.tenstorrent.program import Program, State, Value
from precision.policy import Policy
from voice.graph import SiteGraph, constant_of, site_node, site_nodes

Host = Literal["allow", "refuse"]
aten = torch.ops.aten


class LoweringError(ValueError):
    """A graph that cannot be lowered; the message names every operation in the way."""


def lower(
    graph: SiteGraph,
    policy: Policy,
    card: Card,
    operands: Mapping[str, Operands],
    *,
    host: Host = "allow",
    between: Between = "fp32",
    seldom: Collection[str] = (),
) -> Program:
    """Lower a graph.

    Args:
        graph: of one clip, or of one chunk of a stream.
        policy: a scheme for every site of the graph, none of which the backend refuses.
        card: for which it is.
        operands: stored weight and bias of every site that has weights; see `stored_operands`.
        host: whether operations without a rule may stay in torch on the host, between two runs of the card. What is
            made of the inputs before the card starts may always.
        between: in what vector operations keep their results where a site does not round them at once. "fp32" is how a
            policy was heard by emulation; "bf16" is cheaper, and not what was heard.
        seldom: inputs that are mostly the same from one run to the next: they stay on the card until they change.

    Raises:
        LoweringError: the policy lacks sites, a site has no counterpart, or an operation would stay on the host and
            may not; all of them are named.
    """
    missing = sorted({site.site for site in site_nodes(graph)} - set(policy))
    if missing:
        raise LoweringError(f"the policy has no scheme for {', '.join(missing)}; find the model's sites again")
    kept: dict[fx.Node, str] = {}
    lying: dict[str, _Lying] = {}
    while True:
        lowering = _Lowering(graph, policy, Builder(card, between, seldom), operands, place(graph, kept), lying)
        lowering.run()
        stuck = {node: why for node, why in lowering.failed.items() if node in kept or site_node(node) is not None}
        if stuck:
            raise LoweringError(_said("cannot be lowered", stuck))
        if lowering.failed:
            kept |= lowering.failed
        elif lowering.lie_better:
            lying |= lowering.lie_better
        else:
            break
    waited = {node: kept.get(node, "ttnn has no operation for it here") for node in lowering.waited}
    if waited and host == "refuse":
        raise LoweringError(_said("would stay on the host between two runs of the card", waited))
    left = tuple(f"{_where(node)}: {why}" for node, why in waited.items())
    return replace(lowering.program(), left_on_host=left)


_Lying = tuple[str, Four]
"""Type and order of a state."""


def _said(what: str, nodes: Mapping[fx.Node, str]) -> str:
    lines = "".join(f"\n  {_where(node)}: {why}" for node, why in nodes.items())
    return f"{len(nodes)} operations {what}{lines}"


def _where(node: fx.Node) -> str:
    site = site_node(node)
    return site.site if site is not None else f"{node.meta.get('path') or 'the model'}, {node.target}"


class _Lowering:
    """One pass over the graph; operations that fail are noted, and the pass goes on."""

    def __init__(
        self,
        graph: SiteGraph,
        policy: Policy,
        build: Builder,
        operands: Mapping[str, Operands],
        places: Places,
        lying: Mapping[str, _Lying],
    ) -> None:
        self.build = build
        self.failed: dict[fx.Node, str] = {}
        self.lie_better: dict[str, _Lying] = {}
        """States that should lie as what they become does, and have not yet been made to."""
        self._graph = graph
        self._schemes = dict(policy.schemes)
        self._operands = operands
        self._places = places
        self._rounding = Rounding(graph, self._schemes, places)
        self._lying = lying
        self._held: dict[fx.Node, Arranged] = {}
        self._host: dict[fx.Node, Value] = {}
        self._pending: list[fx.Node] = []
        self._masks: dict[tuple[fx.Node, float], Value] = {}
        self._inputs: list[Value] = []
        self._outputs: dict[str, str] = {}
        self._states: dict[str, State] = {}

    @property
    def waited(self) -> tuple[fx.Node, ...]:
        """What the host does after the card has begun, of those that a later operation of the card waits for."""
        waited: set[fx.Node] = set()
        for node in reversed(list(self._graph.module.graph.nodes)):
            users = [user for user in node.users if user in self._places.card or user in waited]
            if users and node in self._places.host and node not in self._places.prepared:
                waited.add(node)
        return tuple(node for node in self._places.host if node in waited)

    def run(self) -> None:
        """Go through the graph."""
        nodes = list(self._graph.module.graph.nodes)
        for node in nodes:
            if node.op == "placeholder":
                self._placeholder(node)
        self._pending = [node for node in self._places.host if node in self._places.prepared]
        self._flush()
        for node in nodes:
            self.build.path = str(node.meta.get("path", ""))
            if node in self._places.card and node.op == "call_function":
                self._held[node] = self._on_card(node)
            elif node in self._places.host and node not in self._places.prepared:
                self._pending.append(node)
            elif node.op == "output":
                self._finish(node)

    def program(self) -> Program:
        """What came of it."""
        streaming = frozenset(site.site for site in site_nodes(self._graph)) if self._graph.states else frozenset[str]()
        return self.build.program(self._inputs, self._outputs, self._states, streaming)

    # What rules ask for.

    def rounds_next(self, node: fx.Node) -> bool:
        """See `Reader.rounds_next`."""
        return self._rounding.rounds_next(node)

    def constant(self, node: fx.Node) -> Tensor | None:
        """The value of a node that is a constant of the model."""
        return constant_of(self._graph, node) if node.op == "get_attr" else None

    def on_host(self, node: fx.Node) -> bool:
        """Whether the host has it."""
        return node.op != "get_attr" and self._same(node) not in self._held

    def card(self, node: fx.Node, dtype: str | None = None, order: Four | None = None) -> Arranged:
        """See `Reader.card`."""
        node = self._same(node)
        if node in self._held:
            return self._held[node]
        if self.build.between == "fp32":
            dtype = "fp32"
        constant = self.constant(node)
        shape = shape_of(node)
        if constant is not None:
            array = constant.detach().float().reshape(shape).contiguous().numpy()
            return Arranged(self.build.constant(str(node.target), array, dtype or "bf16"), shape, IDENTITY)
        dtype = dtype or ("fp32" if self._is_read_in_fp32(node) else "bf16")
        if node in self._places.moved:
            return self._moved(node, dtype)
        if order is None:
            order = CHANNELS_LAST if node.meta["val"].ndim == 3 and self._is_convolved(node) else IDENTITY
        return Arranged(self.build.upload(self._on_host(node), shape, order, dtype), shape, order)

    def card_indices(self, node: fx.Node) -> Value:
        """Whole numbers of the host."""
        return self._on_host(self._same(node))

    def host_mask(self, node: fx.Node, value: float) -> Value:
        """What the host makes of a mask: `value` where it is set, and zero."""
        key = (node, value)
        if key not in self._masks:
            mask = self._on_host(node)
            result = Value(self.build.name(f"{mask.name}_added"), mask.shape, "float32", place="host")
            self.build.host_step([mask.name], [result], f"{result.name} = {mask.name}.float() * {value!r}")
            self._masks[key] = result
        return self._masks[key]

    # The pass.

    def _same(self, node: fx.Node) -> fx.Node:
        while node in self._places.same:
            node = self._places.same[node]
        return node

    def _moved(self, node: fx.Node, dtype: str) -> Arranged:
        """A value of the host, read as a permutation or another shape of it."""
        whole = self.card(node.args[0], dtype)  # type: ignore[arg-type]
        if node.target is aten.permute.default:
            return self.build.permuted(whole, node.args[1])  # type: ignore[arg-type]
        return self.build.viewed(whole, shape_of(node))

    def _is_read_in_fp32(self, node: fx.Node) -> bool:
        """Whether a site computes in fp32 with it, or with what other operations make of it."""
        waiting, seen = [node], {node}
        while waiting:
            for user in waiting.pop().users:
                site = site_node(user)
                if site is not None and self._schemes[site.site].activation == "fp32":
                    return True
                if site is None and user not in seen:
                    seen.add(user)
                    waiting.append(user)
        return False

    def _is_convolved(self, node: fx.Node) -> bool:
        sites = [site_node(user) for user in node.users]
        return any(site is not None and site.options is not None for site in sites)

    def _placeholder(self, node: fx.Node) -> None:
        extents = node.meta["val"].shape
        name = str(node.target)
        if name not in self._graph.states:
            dtype = str(node.meta["val"].dtype).removeprefix("torch.")
            self._host[node] = Value(self.build.name(name), tuple(extents), dtype, place="host")
            self._inputs.append(self._host[node])
            return
        shape = padded(extents)
        if shape is None:
            raise LoweringError(f"state {name} has {len(extents)} axes; ttnn's operations take four")
        dtype, order = self._lying.get(name, ("bf16", IDENTITY))
        value = Value(self.build.name(name), tuple(shape[axis] for axis in order), dtype)
        self._held[node] = Arranged(value, shape, order)

    def _on_card(self, node: fx.Node) -> Arranged:
        try:
            site = site_node(node)
            if site is not None:
                operands = None if site.is_product else self._operands[site.site]
                shape = tuple(node.meta["val"].shape)
                return lower_site(self.build, site, self._schemes[site.site], operands, self.card, shape)
            if node in self._places.looked_up:
                table, indices = self._places.looked_up[node]
                held = self.build.ordered(self.card(table), IDENTITY)
                flat = self.build.reshaped(held.value, (1, 1, *held.value.shape[2:]))
                return looked_up(self, node, rows_of(self, node, flat), indices)
            return RULES[node.target](self, node)
        except UnsupportedError as error:
            self.failed[node] = str(error)
            shape_four = padded(node.meta["val"].shape) or four([1, 1, 1, 1])
            return Arranged(Value("failed", shape_four, "bf16"), shape_four, IDENTITY)

    def _on_host(self, node: fx.Node) -> Value:
        node = self._same(node)
        if node not in self._host and node in self._pending:
            self._flush()
        if node not in self._host and node in self._held:
            self._host[node] = self.build.download(self._held[node], tuple(node.meta["val"].shape), f"{node.name}_back")
        return self._host[node]

    def _flush(self) -> None:
        """Turn the operations of the host that wait into one step."""
        batch, self._pending = self._pending, []
        if not batch:
            return
        inside = set(batch)
        inputs: list[str] = []
        names = {node: self.build.name(node.name) for node in batch}
        lines: list[str] = []

        def named(node: fx.Node) -> str:
            node = self._same(node)
            if node in inside:
                return names[node]
            constant = self.constant(node)
            if constant is not None:
                name = str(node.target).replace(".", "_")
                self.build.host_constants[name] = constant.detach().cpu().numpy()
                return name
            value = self._on_host(node)
            if value.name not in inputs:
                inputs.append(value.name)
            return value.name

        for node in batch:
            try:
                lines.append(line(node, names[node], named))
            except HostLinesError as error:
                self.failed[node] = str(error)
        results = []
        for node in batch:
            value = node.meta["val"]
            if isinstance(value, Tensor) and any(user not in inside for user in node.users):
                dtype = str(value.dtype).removeprefix("torch.")
                self._host[node] = Value(names[node], tuple(value.shape), dtype, place="host")
                results.append(self._host[node])
        self.build.host_step(inputs, results, "\n".join(lines))

    def _finish(self, node: fx.Node) -> None:
        results: list[fx.Node] = list(node.args[0])  # type: ignore[arg-type]
        count = len(results) - len(self._graph.states)
        for name, result in zip(self._graph.parts, results[:count], strict=True):
            self._outputs[name] = self._on_host(result).name
        for name, result in zip(self._graph.states, results[count:], strict=True):
            held = next(one for key, one in self._held.items() if key.op == "placeholder" and str(key.target) == name)
            new = self.card(result)
            if name not in self._lying and (new.dtype != held.dtype or not alike(new.shape, new.order, held.order)):
                self.lie_better[name] = (new.dtype, new.order)
            value = self.build.cast(self.build.ordered(new, held.order).value, held.dtype)
            self._states[held.value.name] = State(held.value, value.name)
