"""Manifest: program.json, by which an exported folder is built, run, and held against its policy."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from backends.hopper.tolerance import Bounds

if TYPE_CHECKING:
    from backends.hopper.lower import Lowered

VERSION = 1
NEXT = "_next"
"""What stands behind a state's name in that of the output which it is from then on."""
SITE = "site/"
"""What the names of a site's nodes begin with: `site/<site>/<role>`, of its second call `site/<site>#2/<role>`."""

_FORMATS = {
    TensorProto.FLOAT8E4M3FN: "fp8_e4m3",
    TensorProto.FLOAT8E5M2: "fp8_e5m2",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.FLOAT16: "fp16",
    TensorProto.FLOAT: "fp32",
}
_READING = ("quantize_input", "quantize_left", "cast_input", "cast_left")
"""Roles of what a site does first to what it reads; of none in fp32."""
_COUNTED = {"QuantizeLinear": "quantize", "DequantizeLinear": "dequantize", "Cast": "cast"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes that an axis may have."""

    least: int
    usual: int
    """What an engine is tuned for."""
    most: int

    def __post_init__(self) -> None:
        """Refuse limits that no size lies between."""
        if not 0 < self.least <= self.usual <= self.most:
            raise ValueError(f"limits of an axis are 0 < least <= usual <= most, got {self}")


@dataclass(frozen=True, slots=True)
class Told:
    """What a manifest says that its model does not."""

    limits: Mapping[str, Limits] = field(default_factory=dict)
    """Of every axis of the model that has a name in place of a size."""
    bounds: Mapping[str, Bounds] | None = None
    """Of each output of the sample, by part; None: there is no sample."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Site -> why it computes as it does, such as a measurement that spoke against FP8."""
    noise: Mapping[str, str] = field(default_factory=dict)
    """Input -> what it is drawn from, `normal` or `uniform`; whoever runs the model may give it, too."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What is known beside: model, policy, clip, sample rate, stream."""


def manifest(lowered: "Lowered", told: Told | None = None) -> dict[str, Any]:
    """Plain data of a lowered model; `exported/runtime.py` says what it reads of it.

    Raises:
        ValueError: an axis has a name and no limits, or an output has no bounds.
    """
    told = Told() if told is None else told
    graph, model = lowered.graph, lowered.model
    states = tuple(graph.states)
    given = {value.name: value for value in model.graph.input}
    made = {value.name: value for value in model.graph.output}
    axes = {axis: None for value in given.values() for axis in shape_of(value) if isinstance(axis, str)}
    if missing := [axis for axis in axes if axis not in told.limits]:
        raise ValueError(f"axes {', '.join(missing)} of the model have no limits; give them as `Told.limits`")
    if told.bounds is not None and (missing := [part for part in graph.parts if part not in told.bounds]):
        raise ValueError(f"outputs {', '.join(missing)} have no bounds; compute the sample's again")
    return {
        "version": VERSION,
        "onnx": {"opset": opset(model), "ir_version": model.ir_version},
        "route": lowered.route,
        **told.facts,
        "streaming": bool(states),
        "axes": {axis: _limits(told.limits[axis]) for axis in axes},
        "inputs": [_input(value, told.noise) for name, value in given.items() if name not in states],
        "fixed": {name: value.item() for name, value in graph.fixed.items()},
        "outputs": {
            part: {**_described(made[part]), "tolerance": None if told.bounds is None else told.bounds[part].to_dict()}
            for part in graph.parts
        },
        "states": {name: {**_described(given[name]), "update": f"{name}{NEXT}"} for name in states},
        "sites": sites_of(lowered, told.notes),
    }


def sites_of(lowered: "Lowered", notes: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Of every site of the model what its nodes hold it to, read from the graph and not from the policy."""
    schemes = dict(lowered.policy.schemes)
    nodes: dict[str, dict[str, list[NodeProto]]] = {}
    for node in lowered.model.graph.node:
        if node.name.startswith(SITE):
            call, _, role = node.name.removeprefix(SITE).rpartition("/")
            site = call if call in schemes else call.rpartition("#")[0]
            nodes.setdefault(site, {}).setdefault(call, []).append(node)
            assert role
    types = {tensor.name: tensor.data_type for tensor in lowered.model.graph.initializer}
    found = {}
    for site, calls in nodes.items():
        every = [node for held in calls.values() for node in held]
        counts = Counter(_COUNTED[node.op_type] for node in every if node.op_type in _COUNTED)
        found[site] = {
            "scheme": schemes[site].name,
            "op": next((node.op_type for node in every if _role(node) == "compute"), None),
            **_formats(next(iter(calls.values())), types),
            "calls": len(calls),
            **{name: counts[name] for name in _COUNTED.values()},
            "note": (notes or {}).get(site),
        }
    return found


def opset(model: ModelProto) -> int:
    """Version of ONNX's own operators that a model is written in."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def shape_of(value: ValueInfoProto) -> list[int | str]:
    """Sizes of an input or output; of an axis that may vary its name."""
    return [axis.dim_param or int(axis.dim_value) for axis in value.type.tensor_type.shape.dim]


def _role(node: NodeProto) -> str:
    return node.name.rpartition("/")[2]


def _formats(nodes: list[NodeProto], types: Mapping[str, int]) -> dict[str, str | None]:
    """Formats of one call's operands and result; the weight of a product of two activations is None."""
    roles = {_role(node): node for node in nodes}
    made = {name: types[name] for name in types}
    for node in nodes:
        made |= {name: kind for name in node.output for kind in _kinds(node, made)}
    weight = next((roles[role].input[0] for role in ("dequantize_weight", "cast_weight") if role in roles), None)
    if weight is None:
        weight = next((name for name in roles["compute"].input[1:2] if name in types), None)
    reading = [roles[role] for role in _READING if role in roles]
    stored = roles["cast_output"].output[0] if "cast_output" in roles else roles["compute"].output[0]
    return {
        "weight": None if weight is None else _FORMATS[made[weight]],
        "activation": _FORMATS[made[reading[0].output[0]] if reading else TensorProto.FLOAT],
        "stored": _FORMATS[made.get(stored, TensorProto.FLOAT)],
    }


def _kinds(node: NodeProto, made: Mapping[str, int]) -> Iterator[int]:
    """The element type that a node of an island gives, where it can be told from the island."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Cast":
        yield attributes["to"].i
    elif node.op_type == "QuantizeLinear":
        yield made[node.input[2]] if len(node.input) > 2 and node.input[2] else attributes["output_dtype"].i
    elif node.op_type == "DequantizeLinear":
        yield made.get(node.input[1], TensorProto.FLOAT)
    else:
        yield from {made[name] for name in node.input if name in made}


def _described(value: ValueInfoProto) -> dict[str, Any]:
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return {"name": value.name, "shape": shape_of(value), "dtype": dtype.name}


def _input(value: ValueInfoProto, noise: Mapping[str, str]) -> dict[str, Any]:
    data = _described(value)
    return {**data, "noise": noise[value.name]} if value.name in noise else data


def _limits(limits: Limits) -> dict[str, int]:
    return {"min": limits.least, "opt": limits.usual, "max": limits.most}
