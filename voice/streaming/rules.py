"""Rules: what each operation does to the time axis of a value, and which operations cannot run chunk by chunk."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from voice.graph import SiteNode, site_node
from voice.streaming.plan import Plan, Timings
from voice.streaming.timing import StreamingError, Timing
from voice.streaming.windows import aligned, convolution, cropped, transposed_convolution


def plan_of(node: Node, timings: Timings) -> Plan:
    """Plan a node of which an argument has a time axis; `timings` has those of the arguments.

    Raises:
        StreamingError: why it cannot run chunk by chunk.
    """
    site = site_node(node)
    if site is not None:
        return _site(site, timings)
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        raise StreamingError("may mix frames: streaming has no rule for it")
    arguments = _bound(node, target)
    name = target._schema.name.removeprefix("aten::")
    rule = _RULES.get(name)
    if rule is not None:
        return rule(node, arguments, timings)
    if torch.Tag.pointwise in target.tags or name in _POINTWISE:
        return _pointwise(node, arguments, timings)
    raise StreamingError("may mix frames: streaming has no rule for it")


def _bound(node: Node, target: torch._ops.OpOverload) -> dict[str, Any]:
    """Arguments of a node by the names that the operation's schema gives them, defaults included."""
    names = target._schema.arguments
    values = {argument.name: argument.default_value for argument in names if argument.has_default_value()}
    values.update(zip((argument.name for argument in names), node.args, strict=False))
    return values | dict(node.kwargs)


def _site(site: SiteNode, timings: Timings) -> Plan:
    if site.op in ("linear", "matmul"):
        return _product(site, timings)
    timing = timings.get(site.x)
    if timing is None or site.weight in timings or site.bias in timings:
        raise StreamingError("has weights that differ from frame to frame")
    if site.op == "conv2d" or timing.axis != 2:
        raise StreamingError(f"runs over other axes than time, which is axis {timing.axis} of its input")
    assert site.options is not None
    taps = site.weight.meta["val"].shape[-1]
    plan = transposed_convolution if site.op == "conv_transpose1d" else convolution
    window = plan(timing, taps, site.options)
    alone = taps == 1 and site.options.padding[0] == 0 and site.op == "conv1d"
    return Plan(window.timing, window=window, needs_zeros=not alone)


def _product(site: SiteNode, timings: Timings) -> Plan:
    left, right = timings.get(site.x), timings.get(site.weight)
    if left is not None and right is not None:
        raise StreamingError("multiplies frames with frames, as attention does")
    if site.bias in timings:
        raise StreamingError("has a bias that differs from frame to frame")
    ranks = [operand.meta["val"].ndim for operand in (site.x, site.weight)]
    if left is not None:
        if left.axis == ranks[0] - 1:
            raise StreamingError("adds up all frames")
        return Plan(Timing(left.axis + max(ranks[1] - ranks[0], 0), left.delay, left.length))
    assert right is not None
    if site.op == "linear" or right.axis != ranks[1] - 1:
        raise StreamingError("adds up all frames, or has weights that differ from frame to frame")
    return Plan(Timing(max(ranks) - 1, right.delay, right.length))


def _pointwise(node: Node, _: Mapping[str, Any], timings: Timings) -> Plan:
    rank = node.meta["val"].ndim
    operands = [(argument, argument.meta["val"].ndim) for argument in node.all_input_nodes]
    axes = {timings[argument].axis + rank - own for argument, own in operands if argument in timings}
    if len(axes) > 1:
        raise StreamingError(f"has its frames along several axes, {sorted(axes)}")
    (axis,) = axes
    for argument, own in operands:
        place = axis - rank + own
        if argument not in timings and place >= 0 and argument.meta["val"].shape[place] != 1:
            raise StreamingError(f"reads {argument.name}, which is fixed over all frames")
    return _together(node, timings, axis)


def _together(node: Node, timings: Timings, axis: int) -> Plan:
    """All arguments at the same moment."""
    found = {argument: timings[argument] for argument in node.all_input_nodes if argument in timings}
    latest = aligned(list(found.values()))
    if any(timing.length != latest.length for timing in found.values()):
        lengths = ", ".join(f"{argument.name}: {timing.rate} a frame" for argument, timing in found.items())
        raise StreamingError(f"joins values whose lengths in time do not go together ({lengths})")
    waits = {argument: latest.delay - timing.delay for argument, timing in found.items()}
    return Plan(Timing(axis, latest.delay, latest.length), {x: samples for x, samples in waits.items() if samples})


def _joined(node: Node, arguments: Mapping[str, Any], timings: Timings, *, adds_axis: bool) -> Plan:
    tensors = arguments["tensors"]
    if any(tensor not in timings for tensor in tensors):
        raise StreamingError("joins what changes with time and what is fixed over all frames")
    axes = {timings[tensor].axis for tensor in tensors}
    dim = _axis(arguments["dim"], node.meta["val"].ndim)
    if len(axes) > 1 or (not adds_axis and dim in axes):
        raise StreamingError("joins values one after another in time")
    (axis,) = axes
    return _together(node, timings, axis + 1 if adds_axis and dim <= axis else axis)


def _cat(node: Node, arguments: Mapping[str, Any], timings: Timings) -> Plan:
    return _joined(node, arguments, timings, adds_axis=False)


def _stack(node: Node, arguments: Mapping[str, Any], timings: Timings) -> Plan:
    return _joined(node, arguments, timings, adds_axis=True)


def _along(node: Node, arguments: Mapping[str, Any], timings: Timings) -> Plan:
    """An operation over some axes, by `dim`, that time must not be among."""
    (timing,) = _only(node, timings)
    rank = node.all_input_nodes[0].meta["val"].ndim
    dims = arguments.get("dim")
    over = {_axis(dim, rank) for dim in ([dims] if isinstance(dims, int) else dims or range(rank))}
    if timing.axis in over:
        raise StreamingError("runs over all frames")
    gone = 0 if node.meta["val"].ndim == rank else sum(dim < timing.axis for dim in over)
    return Plan(Timing(timing.axis - gone, timing.delay, timing.length))


def _normalised(node: Node, arguments: Mapping[str, Any], timings: Timings) -> Plan:
    (timing,) = _only(node, timings)
    if timing.axis >= node.meta["val"].ndim - len(arguments["normalized_shape"]):
        raise StreamingError("normalises over all frames")
    return Plan(timing)


def _slice(node: Node, arguments: Mapping[str, Any], timings: Timings) -> Plan:
    (timing,) = _only(node, timings)
    shape = arguments["self"].meta["val"].shape
    if _axis(arguments["dim"], len(shape)) != timing.axis:
        return Plan(timing)
    if arguments["step"] != 1:
        raise StreamingError("skips frames; a convolution with a stride can stand for it")
    size = shape[timing.axis]
    begin, end = (_place(arguments[key], size, missing) for key, missing in (("start", 0), ("end", size)))
    later, wait = cropped(timing, begin, size - end)
    return Plan(later, {arguments["self"]: wait} if wait else {}, crops=True)


def _pad(node: Node, arguments: Mapping[str, Any], timings: Timings) -> Plan:
    (timing,) = _only(node, timings)
    amounts = list(arguments["pad"])
    place = 2 * (node.meta["val"].ndim - 1 - timing.axis)
    before, behind = amounts[place : place + 2] or (0, 0)
    elsewhere = any(amounts[:place] + amounts[place + 2 :])
    if not before and not behind:
        return Plan(timing)
    if elsewhere or arguments.get("mode", "constant") != "constant" or arguments.get("value"):
        raise StreamingError("pads time with something else than zeros, or other axes with it")
    later, wait = cropped(timing, -before, -behind)
    source = node.all_input_nodes[0]
    return Plan(
        later, {source: wait} if wait else {}, crops=True, needs_zeros=True, keeps_zeros=min(before, behind) >= 0
    )


def _moved(node: Node, arguments: Mapping[str, Any], timings: Timings) -> Plan:
    """An operation that only orders axes anew, or cuts and joins those beside time."""
    (timing,) = _only(node, timings)
    before = node.all_input_nodes[0].meta["val"]
    after = node.meta["val"]
    if "dims" in arguments:
        axis = [_axis(dim, before.ndim) for dim in arguments["dims"]].index(timing.axis)
    elif "dim0" in arguments:
        swapped = [_axis(arguments[key], before.ndim) for key in ("dim0", "dim1")]
        axis = sum(swapped) - timing.axis if timing.axis in swapped else timing.axis
    else:
        axis = _kept(before.shape, after.shape, timing.axis)
    return Plan(Timing(axis, timing.delay, timing.length))


def _kept(before: Sequence[int], after: Sequence[int], axis: int) -> int:
    """Where the time axis is after a reshape."""
    outer = torch.Size(before[:axis]).numel()
    for place, size in enumerate(after):
        if size == before[axis] and torch.Size(after[:place]).numel() == outer:
            return place
    raise StreamingError("cuts time up, or joins it with another axis")


def _expand(node: Node, _: Mapping[str, Any], timings: Timings) -> Plan:
    (timing,) = _only(node, timings)
    added = node.meta["val"].ndim - node.all_input_nodes[0].meta["val"].ndim
    return Plan(Timing(timing.axis + added, timing.delay, timing.length))


def _embedding(node: Node, arguments: Mapping[str, Any], timings: Timings) -> Plan:
    if arguments["weight"] in timings:
        raise StreamingError("looks up in a table that differs from frame to frame")
    return Plan(timings[arguments["indices"]])


def _only(node: Node, timings: Timings) -> tuple[Timing]:
    found = [timings[argument] for argument in node.all_input_nodes if argument in timings]
    if len(found) != 1 or node.all_input_nodes[0] not in timings:
        raise StreamingError("has weights that differ from frame to frame")
    return (found[0],)


def _axis(dim: int, rank: int) -> int:
    return dim % rank


def _place(bound: int | None, size: int, missing: int) -> int:
    place = missing if bound is None else bound
    return min(max(place + size if place < 0 else place, 0), size)


_POINTWISE = frozenset({"to", "_to_copy", "contiguous", "alias"})
_RULES: Mapping[str, Callable[[Node, Mapping[str, Any], Timings], Plan]] = {
    "cat": _cat,
    "stack": _stack,
    **dict.fromkeys(("sum", "mean", "amax", "amin", "select", "squeeze", "flip"), _along),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax", "glu"), _along),
    **dict.fromkeys(("layer_norm", "rms_norm"), _normalised),
    "slice": _slice,
    **dict.fromkeys(("constant_pad_nd", "pad"), _pad),
    **dict.fromkeys(("permute", "transpose", "view", "reshape", "_unsafe_view", "unsqueeze"), _moved),
    "expand": _expand,
    "embedding": _embedding,
}
