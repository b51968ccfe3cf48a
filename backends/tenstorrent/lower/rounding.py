"""Rounding: which values may be kept in bf16 with no bit of a result changed, for all that read them round first.

A value may where every way from it ends at a site that rounds its operands to bf16, and on the way lies nothing but
what rounding may come before or after alike:

* what gives values as they are: other shapes and orders, parts, values behind each other;
* a product with zeros and ones: round(x m) = round(x) m;
* a masked write, old (1 - m) + new m: of every sum one term is zero, so round(old (1 - m) + new m) =
  round(old) (1 - m) + round(new) m. So a cache of keys and values is written;
* state: the way goes on where the next run reads it. It may lead back to where it began, as a cache does that is
  written over itself; what is never read but by sites is never read unrounded.

Where rounding makes infinity of a finite value (above 3.39e38) a masked write would make NaN of it as it is written
over; no site has a use for such an operand either.
"""

from collections.abc import Mapping

import torch
from torch import fx

from backends.tenstorrent.lower.placing import Places
from precision.policy import Scheme
from voice.graph import SiteGraph, constant_of, site_node

aten = torch.ops.aten
_MOVED = frozenset(
    {aten.reshape.default, aten.permute.default, aten.slice.Tensor, aten.select.int, aten.expand.default}
)
_CARRIED = _MOVED | {aten.cat.default}
"""Operations that give values as they are."""


class Rounding:
    """What is known of a graph's values under a policy."""

    def __init__(self, graph: SiteGraph, schemes: Mapping[str, Scheme], places: Places) -> None:
        self._graph, self._schemes, self._places = graph, schemes, places
        (output,) = graph.module.graph.find_nodes(op="output")
        results: list[fx.Node] = list(output.args[0])
        count = len(results) - len(graph.states)
        placeholders = {str(node.target): node for node in graph.module.graph.find_nodes(op="placeholder")}
        self._parts = frozenset(results[:count])
        self._becomes = [(new, placeholders[name]) for name, new in zip(graph.states, results[count:], strict=True)]

    def rounds_next(self, node: fx.Node) -> bool:
        """Whether whoever reads a node's value, in this run or a later one, rounds it to bf16 first."""
        if self._is_zero_or_one(node):
            return True  # bf16 has both
        waiting, seen, read = [node], {node}, False
        while waiting:
            value = waiting.pop()
            if value in self._parts or value in self._places.host:
                return False
            following = [state for new, state in self._becomes if new is value]
            for user in value.users:
                site = site_node(user)
                if site is not None:
                    read = True
                    if self._schemes[site.site].activation != "bf16":
                        return False
                elif self._commutes(user, value):
                    following.append(user)
                elif user.op != "output":
                    return False
            waiting += [one for one in following if one not in seen]
            seen.update(following)
        return read

    def _commutes(self, user: fx.Node, value: fx.Node) -> bool:
        """Whether it is the same to round this operand of a node, or the result."""
        if user in self._places.host:
            return False
        if user.target in _CARRIED or self._places.same.get(user) is value:
            return True
        if user.target is aten.mul.Tensor:
            return any(self._is_zero_or_one(one) for one in user.args if one is not value and isinstance(one, fx.Node))
        return self._is_masked_write(user)

    def _is_masked_write(self, node: fx.Node) -> bool:
        """Whether it is old (1 - m) + new m, m of zeros and ones."""
        if node.target is not aten.add.Tensor or node.kwargs.get("alpha", 1) != 1:
            return False
        terms = [one for one in node.args if isinstance(one, fx.Node) and one.target is aten.mul.Tensor]
        if len(terms) != 2:
            return False
        first, second = terms
        return any(
            rest.target is aten.rsub.Scalar and rest.args[0] is mask and self._is_zero_or_one(rest)
            for one, other in ((first, second), (second, first))
            for rest in one.all_input_nodes
            for mask in other.all_input_nodes
        )

    def _is_zero_or_one(self, node: fx.Node) -> bool:
        """Whether all values are zeros and ones, whatever the inputs."""
        if node.op == "get_attr":
            values = constant_of(self._graph, node)
            return bool(((values == 0) | (values == 1)).all())
        source = node.args[0] if node.op == "call_function" and node.args else None
        if not isinstance(source, fx.Node):
            return False
        if node.target is aten.rsub.Scalar:
            turned = bool(node.args[1] == 1) and bool(node.kwargs.get("alpha", 1) == 1)
            return turned and self._is_zero_or_one(source)
        return (node.target in _MOVED or node.target is aten.embedding.default) and self._is_zero_or_one(source)
