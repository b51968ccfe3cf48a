"""SiteGraph: a model on one clip as a graph of operations, every call of a site one node."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from precision.site import Op
from voice.graph.cleaning import is_site
from voice.graph.tracing import call_of, options_of
from voice.site_call import ConvOptions, SiteCall


@dataclass(frozen=True, slots=True, eq=False)
class SiteNode:
    """A call of a site in a graph; the layouts of its operands are those of `SiteCall`."""

    site: str
    op: Op
    x: Node
    weight: Node
    bias: Node | None
    options: ConvOptions | None
    is_product: bool


def site_node(node: Node) -> SiteNode | None:
    """Read a node as the call of a site; None where it is anything else."""
    if not is_site(node):
        return None
    site, op, x, weight, bias, *_, is_product = node.args
    options = options_of(op, node.args)  # type: ignore[arg-type]
    return SiteNode(site, op, x, weight, bias, options, is_product)  # type: ignore[arg-type]


def site_nodes(graph: "SiteGraph") -> tuple[SiteNode, ...]:
    """All calls of sites, in order."""
    return tuple(site for node in graph.module.graph.nodes if (site := site_node(node)) is not None)


def constant_of(graph: "SiteGraph", node: Node) -> Tensor:
    """The value of a get_attr node."""
    value: Tensor = attrgetter(str(node.target))(graph.module)
    return value


@dataclass(frozen=True, slots=True, eq=False)
class SiteGraph:
    """A model on one clip. Shapes are those of the clip; `voice.graph.cleaning` says what nodes there are."""

    module: GraphModule
    """Its nodes have `meta["val"]`, a fake tensor of shape and type, and `meta["path"]`, that of the torch module whose
    forward made it. Constants are parameters and buffers of the model, and what was computed of them. Runs by itself,
    too: sites are then computed by torch."""
    inputs: tuple[str, ...]
    """Names of the placeholders that are inputs; states follow."""
    parts: tuple[str, ...]
    """Names of the first outputs: the parts of the rendering, then the sites whose results nothing reads."""
    states: tuple[str, ...]
    """Names of the placeholders that are state. The last outputs are what they are from then on; zeros at first."""
    examples: Mapping[str, Tensor]
    """The clip's inputs by name."""
    fixed: Mapping[str, Tensor] = field(default_factory=dict)
    """Inputs that are part of the graph, whole numbers without axes such as a seed, by name."""

    def run(
        self,
        inputs: Mapping[str, Tensor] | None = None,
        handler: Callable[[SiteCall], Tensor] = SiteCall.compute,
        states: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, ...]:
        """Compute the graph by torch, without gradients.

        Args:
            inputs: by name, of the shapes of `examples`; None takes those.
            handler: computes the calls of sites, with interception off as in `voice.intercept`.
            states: by name; None is zeros.

        Returns:
            Outputs, `parts` first, then the new states. NaN and Inf go through.

        Raises:
            ValueError: an input or a state is missing, unknown, or of another shape or type.
        """
        given = {**(self.examples if inputs is None else inputs), **(self._zeros() if states is None else states)}
        placeholders = {node.target: node.meta["val"] for node in self.module.graph.find_nodes(op="placeholder")}
        faults = [f"{name} is missing" for name in placeholders if name not in given]
        faults += [f"{name} is not one of {', '.join(placeholders)}" for name in given if name not in placeholders]
        faults += self._misfits({name: (given[name], value) for name, value in placeholders.items() if name in given})
        if faults:
            raise ValueError("inputs do not fit the graph: " + "; ".join(faults))
        with torch.no_grad():
            outputs: tuple[Tensor, ...] = _Run(self.module, handler).run(*(given[name] for name in placeholders))
        return outputs

    def _misfits(self, held: Mapping[str, tuple[Tensor, Tensor]]) -> list[str]:
        """What of inputs and states, each beside that of the graph's own clip, is of another shape or type."""
        return [
            f"{name} is {kind_of(given)} and the graph was made for {kind_of(own)}: export it again with this clip"
            for name, (given, own) in held.items()
            if given.shape != own.shape or given.dtype != own.dtype
        ]

    def _zeros(self) -> dict[str, Tensor]:
        nodes = {node.target: node for node in self.module.graph.find_nodes(op="placeholder")}
        return {name: torch.zeros(v.shape, dtype=v.dtype) for name in self.states for v in [nodes[name].meta["val"]]}


class _Run(Interpreter):
    """Computes a graph, sites by a handler."""

    def __init__(self, module: GraphModule, handler: Callable[[SiteCall], Tensor]) -> None:
        super().__init__(module)
        self._handler = handler
        self._calls = 0

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute one node."""
        if target is not torch.ops.precision_search.site.default:
            return super().call_function(target, args, kwargs)
        call = call_of(args, self._calls)
        self._calls += 1
        with torch._C.DisableTorchFunction():
            return self._handler(call)


def kind_of(tensor: Tensor) -> str:
    """Type and shape, as messages name them."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
