"""Placing: which operations of a graph run on the card, and which the host keeps."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import fx

from backends.tenstorrent.lower.rules import RULES
from voice.graph import SiteGraph, constant_of, site_node

aten = torch.ops.aten
_MOVES = frozenset({aten.permute.default, aten.reshape.default})


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where the nodes that are needed run."""

    card: frozenset[fx.Node]
    host: tuple[fx.Node, ...]
    """In the graph's order."""
    prepared: frozenset[fx.Node]
    """Those of the host that wait for nothing of the card: what is made of the inputs before it starts."""
    same: Mapping[fx.Node, fx.Node]
    """Nodes that are another under their circumstances."""
    looked_up: Mapping[fx.Node, tuple[fx.Node, fx.Node]]
    """Gathers of whole rows: their table, and the indices."""
    moved: frozenset[fx.Node]
    """What only says how a value of the host is read on the card; it is said as that is moved there."""


def place(graph: SiteGraph, kept: Collection[fx.Node] = ()) -> Places:
    """Place the nodes of a graph; `kept` must stay on the host.

    On the card is every site, every embedding, and whatever reads a value of the card and has a rule.
    """
    nodes = list(graph.module.graph.nodes)
    same = {node: source for node in nodes if (source := _unmasked(graph, node)) is not None}
    looked_up = {node: found for node in nodes if node not in kept and (found := _rows(node)) is not None}
    needed = _needed(nodes, same, looked_up)
    card: set[fx.Node] = set()
    waiting: set[fx.Node] = set()
    for node in nodes:
        if node not in needed:
            continue
        inputs = [same.get(one, one) for one in node.all_input_nodes]
        if node.op == "placeholder":
            if str(node.target) in graph.states:
                card.add(node)
        elif node.op == "call_function" and node not in same:
            if node not in kept and _suits(node, inputs, card, looked_up):
                card.add(node)
            elif any(one in card or one in waiting for one in inputs):
                waiting.add(node)
    moved: set[fx.Node] = set()
    for node in reversed(nodes):
        free = node in needed and node.target in _MOVES and node not in kept and node not in card | waiting
        if free and node.meta["val"].dtype == torch.float32 and all(user in card | moved for user in node.users):
            moved.add(node)
    elsewhere = card | moved | same.keys()
    host = tuple(node for node in nodes if node in needed and node.op == "call_function" and node not in elsewhere)
    prepared = frozenset(set(host) - waiting)
    return Places(frozenset(card), host, prepared, same, looked_up, frozenset(moved))


def _suits(
    node: fx.Node, inputs: list[fx.Node], card: set[fx.Node], looked_up: Mapping[fx.Node, tuple[fx.Node, fx.Node]]
) -> bool:
    if site_node(node) is not None:
        return True
    if node in looked_up:
        return looked_up[node][0] in card
    if node.target is aten.embedding.default:
        return isinstance(node.args[0], fx.Node) and node.args[0].op == "get_attr"
    value = node.meta.get("val")
    floats = isinstance(value, torch.Tensor) and value.dtype == torch.float32
    return floats and node.target in RULES and any(one in card for one in inputs)


def _needed(
    nodes: list[fx.Node],
    same: Mapping[fx.Node, fx.Node],
    looked_up: Mapping[fx.Node, tuple[fx.Node, fx.Node]],
) -> set[fx.Node]:
    """What the output rests on, where some nodes are others and gathers read indices before they are spread."""
    needed: set[fx.Node] = set()
    stack = [node for node in nodes if node.op == "output"]
    while stack:
        node = stack.pop()
        if node in needed:
            continue
        needed.add(node)
        if node in same:
            stack.append(same[node])
        elif node in looked_up:
            stack.extend(looked_up[node])
        else:
            stack.extend(node.all_input_nodes)
    return needed


def _rows(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Table [1, rows, channels] and indices [1, count] of a gather along axis 1 whose index is spread over channels."""
    if node.op != "call_function" or node.target is not aten.gather.default or node.args[1] not in (1, -2):
        return None
    table, spread = node.args[0], node.args[2]
    if not isinstance(table, fx.Node) or not isinstance(spread, fx.Node) or table.meta["val"].shape[0] != 1:
        return None
    if spread.target is not aten.expand.default or not isinstance(spread.args[0], fx.Node):
        return None
    single = spread.args[0]  # [1, count, 1]: the indices themselves, or those under another shape
    indices = single.args[0] if single.target is aten.reshape.default else single
    if table.meta["val"].ndim != 3 or tuple(single.meta["val"].shape)[::2] != (1, 1):
        return None
    return (table, indices) if isinstance(indices, fx.Node) else None


def _unmasked(graph: SiteGraph, node: fx.Node) -> fx.Node | None:
    """What a node is that clears rows of which a mask leaves nothing, where there is no such row."""
    if node.op != "call_function" or node.target is not aten.masked_fill.Scalar or node.args[2] != 0.0:
        return None
    source, nothing = node.args[0], node.args[1]
    if not isinstance(source, fx.Node) or not isinstance(nothing, fx.Node) or nothing.target is not aten.all.dim:
        return None
    compared = nothing.args[0]
    if not isinstance(compared, fx.Node) or compared.target is not aten.eq.Scalar or compared.args[1] != -math.inf:
        return None
    scores = compared.args[0]
    mask = scores.args[1] if isinstance(scores, fx.Node) and scores.target is aten.masked_fill.Scalar else None
    if isinstance(mask, fx.Node) and mask.op == "get_attr" and bool(constant_of(graph, mask).all(dim=-1).any()):
        return None
    return source
