"""Manifest: program.json, by which an exported folder is built, run, and held against its policy."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from backends.hopper.exported.inspected import SITE
from backends.hopper.numerics import FP8_TYPES, stored_format
from backends.hopper.reading import shown
from backends.hopper.tolerance import Bounds, CardTolerance, CpuTolerance
from voice.graph import site_nodes

if TYPE_CHECKING:
    from backends.hopper.lower import Lowered
    from voice.graph.dynamic import DynamicGraph

VERSION = 1
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


def limits_of(graph: "DynamicGraph", most: Mapping[str, int] | None = None) -> dict[str, Limits]:
    """Limits of a dynamic graph's lengths: from the shortest that it was made of, tuned for its examples.

    Args:
        graph: it.
        most: the largest that is asked for, by length; four times the example's where it is not said. Where a
            constant of the graph ends before, that is the largest.
    """
    usual = graph.lengths_of(graph.examples)
    asked = {name: (most or {}).get(name, 4 * size) for name, size in usual.items()}
    held = {name: limit.largest for name, limit in graph.limits.items()}
    return {
        name: Limits(min(graph.shortest[name], size), size, max(min(asked[name], held.get(name, asked[name])), size))
        for name, size in usual.items()
    }


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
        ValueError: an axis has a name and no limits, an output has no bounds, or a site is not in the model as its
            policy has it.
    """
    told = Told() if told is None else told
    sites = sites_of(lowered, told.notes)
    if wrong := departures(lowered, sites):
        raise ValueError("the model departs from its policy, lower it again\n  " + "\n  ".join(wrong))
    graph, model = lowered.graph, lowered.model
    states = tuple(graph.states)
    given = {value.name: value for value in model.graph.input}
    # By place: an output that has an input's name is called otherwise.
    made = dict(zip(graph.parts, model.graph.output, strict=False))
    updates = dict(zip(states, model.graph.output[len(graph.parts) :], strict=True))
    named = [axis for value in given.values() for axis in shape_of(value) if isinstance(axis, str)]
    axes = dict.fromkeys(name for axis in named for name in re.findall(r"[A-Za-z_]\w*", axis))  # of 2*frames + 1
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
        "derivations": {"card": CardTolerance.DERIVATION, "cpu": CpuTolerance.DERIVATION},
        "host": _host(lowered),
        "states": {name: {**_described(given[name]), "update": updates[name].name} for name in states},
        "sites": sites,
    }


def _host(lowered: "Lowered") -> dict[str, Any] | None:
    """What runs on the host before an engine, and what it hands over; None where there is nothing of the kind."""
    host, device = lowered.parted if lowered.route == "tensorrt" else (None, lowered.model)
    if host is None:
        return None
    left = {value.name for value in device.graph.input}
    return {
        "nodes": len(host.graph.node),
        "takes": [value.name for value in host.graph.input],
        "alone": [value.name for value in host.graph.input if value.name not in left],
        "gives": [_described(value) for value in host.graph.output],
    }


def sites_of(lowered: "Lowered", notes: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Of every site of the model what its nodes hold it to, read from the graph and not from the policy."""
    read = {call.site: call for call in reversed(list(shown(lowered.model, set(lowered.policy))))}
    # Of a table that is multiplied the graph says so; the model has a constant there, as at a weight.
    products = {site.site: site.is_product for site in site_nodes(lowered.graph)}
    found = {}
    for site, calls in calls_of(lowered).items():
        nodes = [node for held in calls.values() for node in held]
        counts = Counter(_COUNTED[node.op_type] for node in nodes if node.op_type in _COUNTED)
        product = products[site]
        found[site] = {
            "scheme": lowered.policy[site].name,
            "op": next(node.op_type for node in nodes if role_of(node) == "compute"),
            "weight": None if product else read[site].right.fmt,
            "activation": read[site].left.fmt,
            "stored": read[site].stored,
            "weight_scale": None if product else read[site].right.granularity,
            "activation_scale": read[site].left.scale,
            "calls": len(calls),
            **{name: counts[name] for name in _COUNTED.values()},
            "note": (notes or {}).get(site),
        }
    return found


def departures(lowered: "Lowered", sites: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Every site of which the model has other formats, or other Q/DQ, than the policy says; and Q/DQ of no site.

    Args:
        lowered: the model.
        sites: of it, as `sites_of` reads them.
    """
    wrong = [
        f"{node.name}: {node.op_type} of no site"
        for node in lowered.model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not node.name.startswith(SITE)
    ]
    for site, held in sites.items():
        scheme, product = lowered.policy[site], held["weight"] is None
        quantized = (2 if product else 1) * (scheme.activation in FP8_TYPES)
        dequantized = quantized + (not product and scheme.weight in FP8_TYPES)
        wanted = {
            "activation": scheme.activation,
            "weight": None if product else scheme.weight,
            "stored": stored_format(scheme),
            "quantize": quantized * held["calls"],
            "dequantize": dequantized * held["calls"],
        }
        wrong += [f"{site}: {name} {held[name]}, and not {what}" for name, what in wanted.items() if held[name] != what]
    return wrong


def calls_of(lowered: "Lowered") -> dict[str, dict[str, list[NodeProto]]]:
    """Nodes of each call of each site, in the model's order."""
    known = set(lowered.policy)
    found: dict[str, dict[str, list[NodeProto]]] = {}
    for node in lowered.model.graph.node:
        if node.name.startswith(SITE):
            call = node.name.removeprefix(SITE).rpartition("/")[0]
            site = call if call in known else call.rpartition("#")[0]
            found.setdefault(site, {}).setdefault(call, []).append(node)
    return found


def role_of(node: NodeProto) -> str:
    """What a node of a site does there: `quantize_input`, `compute` and so on."""
    return node.name.rpartition("/")[2]


def opset(model: ModelProto) -> int:
    """Version of ONNX's own operators that a model is written in."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def shape_of(value: ValueInfoProto) -> list[int | str]:
    """Sizes of an input or output; of an axis that may vary its name."""
    return [axis.dim_param or int(axis.dim_value) for axis in value.type.tensor_type.shape.dim]


def _described(value: ValueInfoProto) -> dict[str, Any]:
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return {"name": value.name, "shape": shape_of(value), "dtype": dtype.name}


def _input(value: ValueInfoProto, noise: Mapping[str, str]) -> dict[str, Any]:
    data = _described(value)
    return {**data, "noise": noise[value.name]} if value.name in noise else data


def _limits(limits: Limits) -> dict[str, int]:
    return {"min": limits.least, "opt": limits.usual, "max": limits.most}
