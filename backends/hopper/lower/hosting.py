"""Hosting: what TensorRT cannot have of a model, cut off as a model of its own that runs before it on the CPU."""

from collections.abc import Collection, Iterable, Mapping

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, shape_inference

from backends.hopper.exported.inspected import SITE
from backends.hopper.lower.tracing import LoweringError


def parted(model: ModelProto, states: Collection[str] = ()) -> tuple[ModelProto | None, ModelProto]:
    """Part a lowered model into what runs on the host, and the rest.

    TensorRT has no float64, in which oscillators add up their phase. Such nodes, and those that they are computed from,
    become a model for the CPU; what it gives is an input of the other.

    Args:
        model: of `lower`, with inferred types.
        states: names of the inputs that are state, which the device keeps.

    Returns:
        The host's model, None where there is nothing for it, and the device's: `model` itself then. What the one hands
        to the other is called `host_0` and so on.

    Raises:
        LoweringError: float64 is computed from the result of a site or from state, or goes in or out of the model.
    """
    graph = model.graph
    values = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    double = {name for name, value in values.items() if value.type.tensor_type.elem_type == TensorProto.DOUBLE}
    double |= {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.DOUBLE}
    ours = [node for node in graph.node if double.intersection((*node.input, *node.output))]
    if not ours:
        return None, model
    wanted = {name for node in ours for name in node.output}
    before = _needed(graph.node, wanted)
    calls = [node.name for node in before if node.name.startswith(SITE)]
    sites = sorted({name.removeprefix(SITE).rpartition("/")[0] for name in calls})
    kept = [state for state in states if _reads(before, state)]
    ends = sorted(double.intersection(value.name for value in (*graph.input, *graph.output)))
    why = [
        f"{what} {', '.join(names)}"
        for what, names in (("it depends on sites", sites), ("it depends on states", kept), ("in and out go", ends))
        if names
    ]
    if why:
        raise LoweringError(
            "TensorRT has no float64, and what is computed in it cannot run on the host beforehand:"
            f" {'; '.join(why)}. Compute it in float32, or give what it depends on as an input"
        )
    theirs = [node for node in graph.node if not any(node is other for other in ours)]
    theirs = _needed(theirs, {value.name for value in graph.output})
    outputs = {value.name for value in graph.output}
    read = {name for node in theirs for name in node.input} | outputs
    handed = [values[name] for node in ours for name in node.output if name in read]
    host = _part(model, before, [value for value in graph.input if _reads(before, value.name)], handed)
    device = _part(model, theirs, [*(value for value in graph.input if _reads(theirs, value.name)), *handed])
    names = {value.name: f"host_{number}" for number, value in enumerate(handed)}
    # An output that the host computes alone is one of the device's all the same, under its own name.
    passed = [helper.make_node("Identity", [names[name]], [name], name=name) for name in names if name in outputs]
    device = _renamed(device, names)
    for node in passed:
        next(value for value in device.graph.output if value.name == node.input[0]).name = node.output[0]
    device.graph.node.extend(passed)
    return _renamed(host, names), device


def _needed(nodes: Iterable[NodeProto], wanted: set[str]) -> list[NodeProto]:
    """The nodes that these tensors are computed by, in order."""
    open_, kept = set(wanted), []
    for node in reversed(list(nodes)):
        if open_.intersection(node.output):
            kept.append(node)
            open_.update(node.input)
    return kept[::-1]


def _reads(nodes: Iterable[NodeProto], name: str) -> bool:
    return any(name in node.input for node in nodes)


def _renamed(model: ModelProto, names: Mapping[str, str]) -> ModelProto:
    for node in model.graph.node:
        for tensors in (node.input, node.output):
            for index, name in enumerate(tensors):
                tensors[index] = names.get(name, name)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.name = names.get(value.name, value.name)
    return model


def _part(
    model: ModelProto,
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto] | None = None,
) -> ModelProto:
    part = ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    part.opset_import.extend(model.opset_import)
    graph = part.graph
    graph.name = model.graph.name
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.output.extend(model.graph.output if outputs is None else outputs)
    read = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in read)
    return shape_inference.infer_shapes(part, check_type=True, strict_mode=True, data_prop=True)
