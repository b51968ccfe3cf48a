"""Analysis: the timing of every value of a graph, and where values must be made zero outside of the utterance."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch.fx import Node

from voice.graph import SiteGraph, site_node
from voice.streaming.plan import Plan
from voice.streaming.rules import plan_of
from voice.streaming.timing import Length, StreamingError, Timing

ADVICE = (
    "Stream a part of the model that has none of these, or give the model a step of its own that keeps what they need"
    " of the past, as a decoder keeps keys and values."
)


@dataclass(frozen=True, slots=True)
class Analysis:
    """What is known of a graph before it is cut into chunks; it holds for chunks of any length."""

    plans: Mapping[Node, Plan]
    zeroed: frozenset[Node]
    """Values to be multiplied by a mask: a convolution reads them where the whole utterance has its zero padding."""


def analyse(graph: SiteGraph, time_axes: Mapping[str, int]) -> Analysis:
    """Plan every node.

    Raises:
        StreamingError: naming all nodes at once that cannot run chunk by chunk.
        ValueError: the time axes do not fit the graph's inputs, or it has state of its own.
    """
    plans: dict[Node, Plan] = _inputs(graph, time_axes)
    refused: list[str] = []
    lost: set[Node] = set()
    for node in graph.module.graph.nodes:
        if node.op != "call_function":
            plans.setdefault(node, Plan())
            continue
        timings = {x: timing for x in node.all_input_nodes if (timing := plans[x].timing) is not None}
        if lost.intersection(node.all_input_nodes):
            lost.add(node)
        elif timings:
            try:
                plans[node] = plan_of(node, timings)
                continue
            except StreamingError as error:
                refused.append(f"{describe(node)} {error}")
                # What comes after is looked at as if this had kept its frames, so that all refusals are found at once.
                guess = _guess(node, timings)
                if guess is not None:
                    plans[node] = Plan(guess)
                    continue
                lost.add(node)
        plans[node] = Plan()
    if refused:
        raise StreamingError("\n".join([f"{len(refused)} operations cannot be streamed:", *refused, ADVICE]))
    return Analysis(plans, _zeroed(graph, plans))


def describe(node: Node) -> str:
    """Path and operation of a node, for messages."""
    site = site_node(node)
    if site is not None:
        return f"  site {site.site} ({site.op}):"
    operation = str(node.target)
    return f"  {node.meta.get('path') or 'the model itself'} ({operation}, {node.name}):"


def _inputs(graph: SiteGraph, time_axes: Mapping[str, int]) -> dict[Node, Plan]:
    if graph.states:
        raise ValueError(f"the graph has state of its own already: {', '.join(graph.states)}")
    unknown = sorted(time_axes.keys() - set(graph.inputs))
    if unknown or not time_axes:
        raise ValueError(f"time_axes must name some of the inputs {list(graph.inputs)}, got {sorted(time_axes)}")
    nodes = {node.name: node for node in graph.module.graph.nodes if node.op == "placeholder"}
    shapes = {name: nodes[name].meta["val"].shape for name in time_axes}
    axes = {name: axis + len(shapes[name]) if axis < 0 else axis for name, axis in time_axes.items()}
    for name, axis in axes.items():
        if not 0 <= axis < len(shapes[name]):
            raise ValueError(f"input {name} of shape {list(shapes[name])} has no axis {time_axes[name]}")
    sizes = {name: shapes[name][axis] for name, axis in axes.items()}
    frames = min(sizes.values())
    odd = {name: size for name, size in sizes.items() if size % frames}
    if odd or frames < 2:
        raise ValueError(
            f"inputs are {sizes} long in time: the shortest must have 2 frames or more, and the others whole multiples"
        )
    return {
        nodes[name]: Plan(Timing(axis, 0, Length(Fraction(sizes[name] // frames), (Fraction(0),))))
        for name, axis in axes.items()
    }


def _guess(node: Node, timings: Mapping[Node, Timing]) -> Timing | None:
    """A timing to go on with after a refusal: the first argument's, where a result axis is as long as its time."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    for argument, timing in timings.items():
        samples = argument.meta["val"].shape[timing.axis]
        places = [axis for axis, size in enumerate(value.shape) if size == samples]
        if places:
            axis = timing.axis if timing.axis in places else places[0]
            return Timing(axis, timing.delay, timing.length)
    return None


def _zeroed(graph: SiteGraph, plans: Mapping[Node, Plan]) -> frozenset[Node]:
    """Choose where to mask: as far upstream as the operations in between leave zeros alone, so that readers share."""
    wanted: set[Node] = set()
    for node in reversed(graph.module.graph.nodes):
        plan = plans[node]
        if plan.needs_zeros:
            wanted.add(node.all_input_nodes[0])
        elif node in wanted and node.op == "call_function":
            timed = {x for x in node.all_input_nodes if plans[x].timing is not None}
            sizes = [x.meta["val"].numel() for x in timed]
            # A larger tensor would cost more to mask, and of two arguments each would need it.
            if len(sizes) == 1 and sizes[0] <= node.meta["val"].numel() and _keeps_zeros(node, plan, timed, timed):
                wanted |= timed
    zeroed: set[Node] = set()
    zero: set[Node] = set()
    for node in graph.module.graph.nodes:
        plan = plans[node]
        if plan.timing is None:
            continue
        timed = {x for x in node.all_input_nodes if plans[x].timing is not None}
        # Streams are filled up with zeros at both ends, so that inputs are zero there by themselves.
        if node.op == "placeholder" or _keeps_zeros(node, plan, timed, zero):
            zero.add(node)
        elif node in wanted:
            zeroed.add(node)
            zero.add(node)
    return frozenset(zeroed)


def _keeps_zeros(node: Node, plan: Plan, timed: set[Node], zero: set[Node]) -> bool:
    """Whether a result is zero wherever the values `zero` are."""
    if site_node(node) is not None or not isinstance(node.target, torch._ops.OpOverload):
        return False
    if plan.crops:
        return plan.keeps_zeros and timed <= zero
    name = node.target._schema.name.removeprefix("aten::")
    if name == "mul":
        return bool(timed & zero)
    if name == "div":
        return node.args[0] in zero
    if not timed <= zero:
        return False
    if name in _ARRANGES:
        return True
    if torch.Tag.pointwise not in node.target.tags or timed != set(node.all_input_nodes):
        return False
    nothing = torch.fx.map_arg((node.args, dict(node.kwargs)), lambda x: torch.zeros((), dtype=x.meta["val"].dtype))
    result = node.target(*nothing[0], **nothing[1])
    return bool((result == 0).all())


_ARRANGES = frozenset(
    "cat stack sum mean amax amin select slice flip permute transpose reshape view expand squeeze unsqueeze to".split()
)
"""Operations whose result is zero where all that they read is."""
