"""Checking: whether a model is what its program.json says, without a card; and the export's other files read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import operators  # type: ignore[import-not-found]  # the files beside this one, here and in an export
from inspected import SITE  # type: ignore[import-not-found]
from onnx import ModelProto, TensorProto, checker, numpy_helper, shape_inference

Array = np.ndarray[Any, Any]
COUNTED = {"QuantizeLinear": "quantize", "DequantizeLinear": "dequantize", "Cast": "cast"}
"""Nodes of a site that program.json counts, and what it calls their number."""
LEAST_OPSET = 19
"""Of the first with FP8 in QuantizeLinear."""


class CheckFailedError(RuntimeError):
    """A file of the export is not what another says, or can't be read; all that is wrong is named."""


def check(path: Path, manifest: Mapping[str, Any], profile: Mapping[str, Any]) -> list[str]:
    """Check a model: by ONNX's checker and strict shape inference, and its Q/DQ and casts against program.json.

    Returns:
        A line for each thing that was found right, and for what TensorRT would compute in another way.

    Raises:
        CheckFailedError: all that was found wrong.
    """
    model, wrong, right = onnx.load(path, load_external_data=False), list[str](), list[str]()
    try:
        checker.check_model(str(path))
        right.append(f"{path.name}: valid by onnx {onnx.__version__}")
        shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        right.append(f"{path.name}: types and shapes of all {len(model.graph.node)} nodes agree")
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        wrong.append(f"{path.name}: {error}")
    wrong += _foreign(model)
    counted, sites = _counts(model, manifest["sites"]), manifest["sites"]
    for site, held in sites.items():
        found = counted.get(site)
        if found is None:
            wrong.append(f"{site}: no node of the model is called {SITE}{site}/...")
        else:
            wrong += [
                f"{site}: {found[kind]} nodes of {op}, and program.json says {held[kind]}"
                for op, kind in COUNTED.items()
                if found[kind] != held[kind]
            ]
    wrong += [f"{site}: program.json has no such site" for site in counted if site not in sites]
    if wrong:
        raise CheckFailedError("\n".join(["the model can't be built as it is:", *(f"  {line}" for line in wrong)]))
    totals = {op: sum(held[kind] for held in counted.values()) for op, kind in COUNTED.items()}
    told = ", ".join(f"{count} {op}" for op, count in totals.items())
    right.append(f"{len(sites)} sites have what program.json says: {told}")
    for name, (least, usual, most) in profile.items():
        right.append(f"input {name}: {list(least)} to {list(most)}, tuned for {list(usual)}")
    return right + narrowed(model)


def host(path: Path, manifest: Mapping[str, Any]) -> str:
    """Check what runs on the host before an engine; a line of it.

    Raises:
        CheckFailedError: it is not valid, or hands over something else than program.json says.
    """
    try:
        checker.check_model(str(path), full_check=True)
        model = onnx.load(path)
    except (checker.ValidationError, shape_inference.InferenceError, OSError) as error:
        raise CheckFailedError(f"{path.name}: {error}") from error
    gives = [value.name for value in model.graph.output]
    if gives != [held["name"] for held in manifest["host"]["gives"]]:
        raise CheckFailedError(f"{path.name} gives {', '.join(gives)}, and program.json says something else")
    return f"{path.name}: valid; {len(model.graph.node)} nodes, in float64 in the end, run on the CPU and give {gives}"


def narrowed(model: ModelProto) -> list[str]:
    """A line where nodes compute in float64: TensorRT's parser makes that float32 (onnx-tensorrt, convertDtype)."""
    inferred = shape_inference.infer_shapes(model).graph
    wide = {value.name for value in inferred.value_info if value.type.tensor_type.elem_type == TensorProto.DOUBLE}
    nodes = [node for node in model.graph.node if wide & set(node.output)]
    if not nodes:
        return []
    sums = [node.name for node in nodes if node.op_type in ("CumSum", "ReduceSum")]
    told = f", sums among them ({', '.join(sums)})" if sums else ""
    return [f"note: {len(nodes)} nodes are of float64{told}; TensorRT computes them in float32"]


def has_fp8(manifest: Mapping[str, Any]) -> bool:
    """Whether a site has an FP8 operand."""
    return any("fp8" in str(held[key]) for held in manifest["sites"].values() for key in ("activation", "weight"))


def scales(held: Mapping[str, Any]) -> dict[str, Array]:
    """Initializer -> scale of an activation, float32 without axes, by scales.json; dynamic scales have none."""
    return {
        str(operand["initializer"]): np.array(operand["scale"], np.float32)
        for operands in held["activations"].values()
        for operand in operands.values()
        if operand.get("initializer") is not None
    }


def constant(path: Path, name: str) -> Array | None:
    """An initializer of a model, in its type; None where there is none of that name."""
    found = next((tensor for tensor in onnx.load(path).graph.initializer if tensor.name == name), None)
    return None if found is None else numpy_helper.to_array(found)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        CheckFailedError: it is damaged.
        OSError: it can't be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), strict=False)
    except ValueError as error:
        raise CheckFailedError(f"{path} is no JSON: {error}") from error


def _foreign(model: ModelProto) -> list[str]:
    """What TensorRT has not, whatever the model is."""
    wrong = [
        f"{node.name or node.op_type}: {why}"
        for node in model.graph.node
        if (why := operators.unknown(node.op_type, node.domain))
    ]
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        wrong.append(f"the model is of opset {opset}; FP8 begins with {LEAST_OPSET}")
    wrong += [
        f"{tensor.name}: FP8 E5M2, which TensorRT has not; it is of the route gemm"
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT8E5M2
    ]
    return wrong


def _counts(model: ModelProto, sites: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Nodes of each site, by what program.json calls them."""
    found: dict[str, dict[str, int]] = {}
    for node in model.graph.node:
        if node.name.startswith(SITE):
            call = node.name.removeprefix(SITE).rpartition("/")[0]
            site = call if call in sites else call.rpartition("#")[0] or call
            held = found.setdefault(site, dict.fromkeys(COUNTED.values(), 0))
            if node.op_type in COUNTED:
                held[COUNTED[node.op_type]] += 1
    return found
