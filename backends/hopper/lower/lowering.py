"""Lowered: the ONNX model of a graph under a policy."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from torch import Tensor

from backends.base import NOTHING_MEASURED, Measured
from backends.hopper.lower.hosting import parted
from backends.hopper.lower.islands import Call, Island
from backends.hopper.lower.tracing import DOMAIN, LoweringError, output_names, site_model, site_of
from backends.hopper.support import Route
from calibrate.calibration import UncalibratedSiteError
from precision.policy import Policy
from voice.graph import SiteGraph

_HELD = "held."
"""What torch's exporter puts before the names of a graph's constants."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What a site has in the model, all its calls together."""

    calls: int
    quantize: int
    """QuantizeLinear nodes: one for each FP8 activation of each call."""
    dequantize: int
    """DequantizeLinear nodes: one for each FP8 operand of each call."""
    casts: int


@dataclass(frozen=True, eq=False)  # no slots: what is computed once is kept
class Lowered:
    """A model, and what it was made of."""

    model: ModelProto
    """Opset 22, in the operations of ONNX alone. Inputs are those of the graph, then its states, by name; outputs its
    parts, then the new values of its states, as `outputs` names them. What lies between sites is float32."""
    graph: SiteGraph
    policy: Policy
    route: Route
    placed: Mapping[str, Placed]
    """By site, in the order of first calls."""

    @property
    def outputs(self) -> dict[str, str]:
        """Part, or state, by name -> what the model calls it, or its new value; in the model's order."""
        return output_names(self.graph)

    @cached_property
    def parted(self) -> tuple[ModelProto | None, ModelProto]:
        """What runs on the host, and what TensorRT builds, both to be left as they are; see `hosting.parted`."""
        return parted(self.model, self.graph.states)


def lower(
    graph: SiteGraph, policy: Policy, measured: Measured = NOTHING_MEASURED, route: Route = "tensorrt"
) -> Lowered:
    """Write a graph under a policy as ONNX; the same graph and policy give the same bytes.

    Whether the target takes each site's scheme is not asked here: `HopperBackend.build` does.

    Args:
        graph: of a clip or of a step; where it has symbolic sizes, so has the model.
        policy: a scheme for each site of the graph.
        measured: static scales, and what was trained for sites whose scheme says so.
        route: what is to run it.

    Raises:
        LoweringError: a site has no scheme, its weight is computed from the input, or its input is no float32; no
            static scale was measured; torch's exporter lacks an operation. All sites in the way are named.
        ValueError: a weight is not finite.
    """
    return expanded(site_model(graph), graph, policy, measured, route)


def expanded(
    model: ModelProto,
    graph: SiteGraph,
    policy: Policy,
    measured: Measured = NOTHING_MEASURED,
    route: Route = "tensorrt",
) -> Lowered:
    """As `lower`, of what `site_model` made of the graph, which is left as it is."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.input)}
    nodes: list[NodeProto] = []
    held: dict[str, TensorProto] = {}
    faults: list[str] = []
    islands: list[Island] = []
    count: Counter[str] = Counter()
    biases: dict[str, list[str]] = {}
    schemes = dict(policy.schemes)
    for node in model.graph.node:
        attributes = site_of(node)
        if attributes is None:
            nodes.append(node)
            continue
        site = str(attributes["site"])
        count[site] += 1
        fault = _fault(node, site, schemes, types, constants, attributes)
        if fault is not None:
            faults.append(f"{site}: {fault}")
            continue
        call = _call(node, attributes, constants, count[site], biases.setdefault(site, []))
        call = _adapted(call, schemes[site].adapted, measured)
        island = Island(call, schemes[site], measured.calibration)
        try:
            island.build()
        except UncalibratedSiteError as error:
            faults.append(str(error.args[0]))
            continue
        islands.append(island)
        nodes += island.nodes
        held |= island.constants
    if faults:
        raise LoweringError("\n  ".join(["the graph cannot be lowered under this policy", *dict.fromkeys(faults)]))
    lowered = _assembled(model, nodes, held)
    return Lowered(lowered, graph, policy, route, _placed(islands))


def _fault(
    node: NodeProto,
    site: str,
    schemes: Mapping[str, object],
    types: Mapping[str, int],
    constants: Mapping[str, TensorProto],
    attributes: Mapping[str, object],
) -> str | None:
    if site not in schemes:
        return "the policy has no scheme for it"
    if types.get(node.input[0], TensorProto.FLOAT) != TensorProto.FLOAT:
        kind = TensorProto.DataType.Name(types[node.input[0]]).lower()
        return f"its input is {kind}, and sites compute on float32; cast it before"
    if attributes["op"] != "matmul" and not all(name in constants for name in node.input[1:]):
        return "its weight is computed while the model runs, and cannot be stored; fold it into a parameter"
    return None


def _call(
    node: NodeProto,
    attributes: Mapping[str, object],
    constants: Mapping[str, TensorProto],
    index: int,
    biases: list[str],
) -> Call:
    """A call; `biases` are those of the site so far, and get its own."""
    weight = _read(constants.get(node.input[1]))
    bias, bias_index = None, 1
    if len(node.input) > 2:
        bias = _read(constants[node.input[2]])
        biases += [] if node.input[2] in biases else [node.input[2]]
        bias_index = biases.index(node.input[2]) + 1
    geometry = {
        name: (value,) if isinstance(value, int) else tuple(value)  # type: ignore[arg-type]
        for name, value in attributes.items()
        if name not in ("site", "op")
    }
    if geometry:
        assert weight is not None
        geometry["kernel"] = tuple(weight.shape[2:])
    right = node.input[1] if weight is None or attributes["op"] == "matmul" else None
    return Call(
        str(attributes["site"]),
        attributes["op"],  # type: ignore[arg-type]
        node.input[0],
        right,
        None if right is not None else weight,
        bias,
        geometry,
        node.output[0],
        index,
        bias_index,
    )


def _read(tensor: TensorProto | None) -> Tensor | None:
    return None if tensor is None else torch.from_numpy(numpy_helper.to_array(tensor).copy())


def _adapted(call: Call, digest: str | None, measured: Measured) -> Call:
    """The call with the weights that were trained for it, where its scheme has such."""
    if digest is None:
        return call
    operands = measured.adapted[digest][call.site]
    return Call(
        call.site, call.op, call.x, call.right, operands.weight, operands.bias, call.geometry, call.result, call.index
    )


def _assembled(model: ModelProto, nodes: Iterable[NodeProto], held: Mapping[str, TensorProto]) -> ModelProto:
    """A model of these nodes, with the constants that they read under short names, with inferred types and shapes."""
    result = ModelProto(ir_version=model.ir_version, producer_name="precision-search")
    result.opset_import.extend(opset for opset in model.opset_import if opset.domain != DOMAIN)
    graph = result.graph
    graph.name = "model"
    graph.node.extend(nodes)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    taken = {*held, *read}
    renamed: dict[str, str] = {}
    for tensor in model.graph.initializer:
        if tensor.name not in read:
            continue
        short = tensor.name.removeprefix(_HELD)
        renamed[tensor.name] = short if short not in taken else tensor.name
        graph.initializer.add().CopyFrom(tensor)
        graph.initializer[-1].name = renamed[tensor.name]
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
    graph.initializer.extend(tensor for name, tensor in held.items() if name in read)
    # Sizes that torch knows in symbols are more than ONNX infers.
    made = {name for node in graph.node for name in node.output}
    graph.value_info.extend(value for value in model.graph.value_info if value.name in made)
    return onnx.shape_inference.infer_shapes(result, check_type=True, strict_mode=True, data_prop=True)


def _placed(islands: Iterable[Island]) -> dict[str, Placed]:
    kinds: dict[str, Counter[str]] = {}
    for island in islands:
        counted = kinds.setdefault(island.call.site, Counter())
        counted.update(node.op_type for node in island.nodes)
        counted["call"] += 1
    return {
        site: Placed(found["call"], found["QuantizeLinear"], found["DequantizeLinear"], found["Cast"])
        for site, found in kinds.items()
    }
