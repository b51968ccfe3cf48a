"""Export: a lowered model as a folder that ONNX Runtime and TensorRT take, and nothing of this toolkit."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from backends.hopper.exported import FILES
from backends.hopper.manifest import Told, calls_of, manifest, role_of
from backends.hopper.readme import Facts, readme, requirements
from backends.hopper.tolerance import Bounds
from calibrate.calibration import Calibration
from precision.formats import FORMATS

if TYPE_CHECKING:
    from backends.hopper.lower import Lowered

MODEL, MANIFEST, SCALES, SAMPLE = "model.onnx", "program.json", "scales.json", "sample"
HOST, DEVICE = "host.onnx", "device.onnx"
"""Of a model that TensorRT cannot have whole: what runs before it on the CPU, and what it builds."""
EXTERNAL_BYTES = 1_900_000_000
"""From which on weights lie in a file of their own: a message of protobuf holds 2 GB."""
Arrays = Mapping[str, NDArray[Any]]


def write_program(
    lowered: "Lowered", folder: Path, told: Told | None = None, calibration: Calibration | None = None
) -> None:
    """Write what is needed to build, to run and to inspect a model into an empty folder; the same bytes every time.

    Args:
        lowered: it.
        folder: there, and empty.
        told: what the manifest says that the model does not.
        calibration: what static scales were made of; None where there are none.

    Raises:
        ValueError: as `manifest` has it.
        LoweringError: TensorRT is to run it, and part of it can run nowhere; see `hosting.parted`.
        OSError: as writing files has it.
    """
    data = manifest(lowered, told)
    write_model(lowered.model, folder)
    if data["host"] is not None:
        host, device = lowered.parted
        assert host is not None
        write_model(host, folder, HOST)
        write_model(device, folder, DEVICE)
    _write_json(folder / MANIFEST, data)
    _write_json(folder / SCALES, scales_of(lowered, calibration))
    for name, file in FILES.items():
        (folder / name).write_bytes(file.read_bytes())


def write_export(
    lowered: "Lowered",
    folder: Path,
    *,
    facts: Facts,
    policy_text: str,
    calibration: Calibration | None,
    inputs: Arrays,
    expected: Arrays,
    bounds: Mapping[str, Bounds],
    told: Told | None = None,
) -> None:
    """Write a whole export into an empty folder.

    Args:
        lowered: the model.
        folder: there, and empty.
        facts: what the export is of.
        policy_text: policy.yaml.
        calibration: see `write_program`.
        inputs: the sample's by name, as `run.py` takes them: of chunks the whole utterance, of steps a first axis of
            runs.
        expected: what the emulation makes of them, by part.
        bounds: on each of these.
        told: limits, notes and noise; facts and bounds are those given here.

    Raises:
        ValueError, OSError: as `write_program` has them.
    """
    told = Told() if told is None else told
    told = Told(told.limits, bounds, told.notes, told.noise, {**facts.manifest(), **told.facts})
    write_program(lowered, folder, told, calibration)
    (folder / SAMPLE).mkdir()
    np.savez(folder / SAMPLE / "input.npz", **inputs)
    np.savez(folder / SAMPLE / "expected.npz", **expected)
    data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (folder / "README.md").write_text(readme(data, facts, bounds), encoding="utf-8")
    for name, text in requirements().items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "policy.yaml").write_text(policy_text, encoding="utf-8")


def write_model(model: ModelProto, folder: Path, name: str = MODEL) -> None:
    """Write a model; beyond `EXTERNAL_BYTES` its weights go into a file beside it, with .data behind its name."""
    if model.ByteSize() <= EXTERNAL_BYTES:
        (folder / name).write_bytes(model.SerializeToString(deterministic=True))
        return
    copy = ModelProto()
    copy.CopyFrom(model)  # saving takes the weights out of what is saved
    onnx.save_model(copy, folder / name, save_as_external_data=True, location=f"{name}.data", size_threshold=1024)


def scales_of(lowered: "Lowered", calibration: Calibration | None) -> dict[str, Any]:
    """Ranges that were calibrated, and the scales of the model, read from its graph.

    Of every activation `amax`, what was seen (None: nothing); of one in FP8 also `format`, its `largest` value, the
    `scale`, None where it is taken from each tensor as it comes, and the `initializer` that holds it. A weight may have
    a scale for each output channel; of those the number, the least and the largest are here, and all in the model.
    """
    held = {tensor.name: tensor for tensor in lowered.model.graph.initializer}
    activations: dict[str, dict[str, Any]] = {}
    weights: dict[str, dict[str, Any]] = {}
    schemes = dict(lowered.policy.schemes)
    for site, operand, amax in () if calibration is None else calibration.ranges:
        if site in schemes:
            activations.setdefault(site, {})[operand] = {"amax": amax, "format": schemes[site].activation}
    for site, calls in calls_of(lowered).items():
        for node in next(iter(calls.values())):
            kind, _, side = role_of(node).partition("_")
            if kind == "quantize":
                entry = activations.setdefault(site, {}).setdefault(side, {"amax": _amax(calibration, site, side)})
                fmt, scale = schemes[site].activation, held.get(node.input[1])
                entry |= {
                    "format": fmt,
                    "largest": FORMATS[fmt].max_value,
                    "scale": None if scale is None else float(numpy_helper.to_array(scale)),
                    "initializer": None if scale is None else scale.name,
                }
            elif role_of(node) == "dequantize_weight":
                values = numpy_helper.to_array(held[node.input[1]])
                weights[site] = {
                    "format": schemes[site].weight,
                    "scales": int(values.size),
                    "least": float(values.min()),
                    "largest": float(values.max()),
                    "initializer": node.input[1],
                }
    method = None if calibration is None else calibration.method
    return {"version": 1, "method": method, "activations": activations, "weights": weights}


def _amax(calibration: Calibration | None, site: str, operand: str) -> float | None:
    ranges = () if calibration is None else calibration.ranges
    return next((amax for name, side, amax in ranges if (name, side) == (site, operand)), None)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
