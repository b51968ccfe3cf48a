"""What an export holds: the model, what program.json and scales.json say of it, and the bounds on its outputs."""

import json
import math
import subprocess
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from backends.hopper import export
from backends.hopper.accumulation import HOPPER_FP8, matmul
from backends.hopper.emulated import ON_CARD, ON_CPU, Emulated, cut_bound, terms_of
from backends.hopper.export import scales_of, write_model, write_program
from backends.hopper.exported import FILES
from backends.hopper.manifest import Limits, Told, manifest
from backends.hopper.numerics import fp8_scale
from backends.hopper.tolerance import Bounds, CardTolerance, CpuTolerance, bounded
from backends.tolerance import BF16_SNR_DB, snr_db
from tests.backends.hopper.tiny_exports import (
    POLICY,
    bounds_of,
    mixed,
    start,
    streaming,
    write_mixed,
    write_oscillator,
    write_stream,
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return write_mixed(tmp_path_factory.mktemp("export") / "mixed")


def read(folder, name="program.json"):
    return json.loads((folder / name).read_text())


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_is_complete_and_the_same_every_time(exported, tmp_path):
    names = {str(path) for path in contents(exported)}
    said = {"model.onnx", "policy.yaml", "scales.json", "program.json", "README.md", "requirements.txt"}
    assert names == said | {"requirements-tensorrt.txt", "sample/input.npz", "sample/expected.npz"} | set(FILES)
    assert {"run.py", "runtime.py", "widening.py", "chunks.py", "engine.py", "facts.py"} <= set(FILES)
    assert contents(write_mixed(tmp_path / "again")) == contents(exported)


def test_nothing_of_this_toolkit_or_machine_is_in_it(exported):
    for path, body in contents(exported).items():
        assert b"import backends" not in body, path
        assert b"from backends" not in body, path
        assert str(exported.parent).encode() not in body, path
        assert b"site-packages" not in body, path


def test_the_model_is_valid_onnx_of_its_own_operations_alone(exported):
    onnx.checker.check_model(str(exported / "model.onnx"), full_check=True)
    model = onnx.load(exported / "model.onnx")
    assert {node.domain for node in model.graph.node} == {""}
    assert read(exported)["onnx"] == {"opset": model.opset_import[0].version, "ir_version": model.ir_version}


def test_sites_are_told_as_the_graph_has_them(exported):
    sites = read(exported)["sites"]
    assert {site: held["scheme"] for site, held in sites.items()} == {site: s.name for site, s in POLICY.items()}
    counted = ("weight", "activation", "stored", "calls", "quantize", "dequantize")
    assert [sites["project"][name] for name in counted] == ["fp8_e4m3", "fp8_e4m3", "bf16", 2, 2, 4]
    assert [sites["mix"][name] for name in counted] == ["fp8_e4m3", "bf16", "bf16", 1, 0, 1]
    assert [sites["#matmul0"][name] for name in counted] == [None, "fp8_e4m3", "bf16", 1, 2, 2]
    assert [sites["up"][name] for name in counted] == ["fp16", "fp16", "fp16", 1, 0, 0]
    assert [sites["out"][name] for name in counted] == ["fp32", "fp32", "fp32", 1, 0, 0]
    model = onnx.load(exported / "model.onnx")
    for kind, name in (("QuantizeLinear", "quantize"), ("DequantizeLinear", "dequantize")):
        there = sum(node.op_type == kind for node in model.graph.node)
        assert there == sum(held[name] for held in sites.values())


def test_inputs_outputs_and_derivations_are_told(exported):
    data = read(exported)
    assert data["inputs"] == [{"name": "rows", "shape": [1, 12, 32], "dtype": "float32"}]
    assert data["outputs"]["waveform"]["shape"] == [1, 1, 24]
    assert set(data["outputs"]["score"]["tolerance"]) == {"card", "cpu"}
    assert data["derivations"]["card"] == CardTolerance.DERIVATION
    assert (data["streaming"], data["states"], data["axes"], data["sample_rate_hz"]) == (False, {}, {}, 16000)


def test_state_is_told_with_what_it_is_from_then_on(tmp_path):
    data = read(write_stream(tmp_path / "stream"))
    assert data["streaming"]
    assert data["states"] == {
        "before": {"name": "before", "shape": [1, 32, 2], "dtype": "float32", "update": "before_next"}
    }
    assert [spec["name"] for spec in data["inputs"]] == ["x"]


def test_a_model_that_departs_from_its_policy_is_not_written(tmp_path):
    lowered, _ = mixed()
    model = onnx.ModelProto()
    model.CopyFrom(lowered.model)
    quantize = next(node for node in model.graph.node if node.name == "site/conv/quantize_input")
    quantize.name = "stray"
    with pytest.raises(ValueError, match=r"(?s)stray: QuantizeLinear of no site.*conv: quantize 0, and not 1"):
        write_program(replace(lowered, model=model), tmp_path)
    assert list(tmp_path.iterdir()) == []
    other = lowered.policy.replace("up", POLICY["out"])
    with pytest.raises(ValueError, match="up: activation fp16, and not fp32"):
        manifest(replace(lowered, policy=other))


def test_axes_with_names_need_limits():
    lowered, _ = mixed()
    model = onnx.ModelProto()
    model.CopyFrom(lowered.model)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "2*frames"
    dynamic = replace(lowered, model=model)
    with pytest.raises(ValueError, match="axes frames of the model have no limits"):
        manifest(dynamic)
    data = manifest(dynamic, Told({"frames": Limits(1, 6, 50)}, noise={"rows": "normal"}, notes={"up": "slower"}))
    assert data["axes"] == {"frames": {"min": 1, "opt": 6, "max": 50}}
    assert data["inputs"][0] == {"name": "rows", "shape": [1, "2*frames", 32], "dtype": "float32", "noise": "normal"}
    assert data["sites"]["up"]["note"] == "slower"
    with pytest.raises(ValueError, match="least <= usual <= most"):
        Limits(4, 2, 8)


def test_scales_are_those_of_the_model_and_of_what_was_calibrated(exported):
    lowered, measured = mixed()
    data = read(exported, "scales.json")
    assert data["method"] == "amax"
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in lowered.model.graph.initializer}
    entry = data["activations"]["conv"]["input"]
    amax = measured.calibration.amax("conv", "input")
    assert (entry["amax"], entry["format"], entry["largest"]) == (amax, "fp8_e4m3", 448.0)
    assert entry["scale"] == float(held[entry["initializer"]]) == float(fp8_scale(torch.tensor(amax), "fp8_e4m3"))
    assert set(data["activations"]["#matmul0"]) == {"left", "right"}
    assert data["activations"]["out"]["input"] == {"amax": measured.calibration.amax("out", "input"), "format": "fp32"}
    weight = data["weights"]["conv"]
    assert (weight["scales"], weight["format"]) == (32, "fp8_e4m3")
    assert weight["largest"] == float(held[weight["initializer"]].max())


def test_a_dynamic_scale_is_none_of_the_models_constants():
    data = scales_of(*mixed(dynamic=True)[:1], None)
    entry = data["activations"]["project"]["input"]
    assert entry == {"amax": None, "format": "fp8_e5m2", "largest": 57344.0, "scale": None, "initializer": None}


def test_weights_of_gigabytes_lie_beside_the_model(monkeypatch, tmp_path):
    monkeypatch.setattr(export, "EXTERNAL_BYTES", 0)
    folder = write_mixed(tmp_path / "large")
    assert (folder / "model.onnx.data").stat().st_size > 4000
    assert (folder / "model.onnx").stat().st_size < len(mixed()[0].model.SerializeToString())
    assert start(folder, "--check").returncode == 0
    assert not any(tensor.external_data for tensor in mixed()[0].model.graph.initializer)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    write_model(mixed()[0].model, tmp_path)
    first = (tmp_path / "model.onnx").read_bytes()
    write_model(onnx.load(tmp_path / "model.onnx"), tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == first


def test_what_is_expected_is_the_emulation(exported):
    lowered, measured = mixed()
    expected = Emulated(lowered.graph, lowered.policy, measured).run(lowered.graph.examples)
    with np.load(exported / "sample" / "expected.npz") as held:
        assert {name: array.tolist() for name, array in held.items()} == {
            name: values.tolist() for name, values in expected.items()
        }


def test_doubts_move_outputs_and_the_same_ones_every_time():
    lowered, measured = mixed()
    given = lowered.graph.examples
    told = []
    exact = Emulated(lowered.graph, lowered.policy, measured, told=told.append).run(given)["waveform"]
    assert told.count("project") == 2
    found = {}
    for doubt in (ON_CPU, ON_CARD):
        first, again = (
            Emulated(lowered.graph, lowered.policy, measured, doubt).run(given)["waveform"] for _ in range(2)
        )
        assert torch.equal(first, again)
        found[doubt] = snr_db(exact, first)
    assert 30 < found[ON_CARD] < found[ON_CPU]
    assert found[ON_CARD] < 60  # bf16's last place


def test_states_are_kept_from_run_to_run():
    lowered, measured = streaming()
    emulated = Emulated(lowered.graph, lowered.policy, measured)
    first, second = (emulated.run(lowered.graph.examples)["waveform"] for _ in range(2))
    assert not torch.equal(first[..., :2], second[..., :2])
    assert torch.equal(first[..., 2:], second[..., 2:])


def test_each_place_has_the_bounds_of_its_own_doubt_and_of_the_furthest_draw():
    def compute(doubt, seed):
        off = 0.0 if doubt is None or seed != 1 else 0.1 if doubt == ON_CPU else 0.3
        return {"out": np.ones(4) + off}

    expected, bounds = bounded(compute)
    assert expected["out"].tolist() == [1.0] * 4
    assert (bounds["out"].cpu.max_abs, bounds["out"].card.max_abs) == (pytest.approx(0.2), pytest.approx(0.6))


def test_bounds_are_twice_what_was_seen_and_never_below_a_step():
    lowered, measured = mixed()
    _, bounds = bounds_of(lowered, measured, [dict(lowered.graph.examples)], lambda runs: runs[0])
    for both in bounds.values():
        for found, least in ((both.card, BF16_SNR_DB), (both.cpu, CpuTolerance.LEAST_SNR_DB)):
            assert found.snr_db == pytest.approx(min(found.seen_snr_db - 20 * math.log10(2), least))
            assert found.max_abs >= 2 * found.seen_max_abs
    same = Bounds(CardTolerance.between([1.0], [1.0]), CpuTolerance.between([1.0], [1.0]))
    assert same.card.to_dict()["derivation"] == CardTolerance.DERIVATION
    assert same.to_dict()["cpu"] == {"snr_db": 60.0, "max_abs": 2**-8, "seen_snr_db": None, "seen_max_abs": 0.0}


@pytest.mark.parametrize("k", [64, 512])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_what_sums_may_lose_is_as_much_as_the_accumulation_model_loses(k, shift):
    draw = torch.Generator().manual_seed(k)
    left = ((torch.randn(24, k, generator=draw) + shift) * 40).to(torch.float8_e4m3fn)
    right = ((torch.randn(k, 24, generator=draw) + shift) * 40).to(torch.float8_e4m3fn)
    exact = left.double() @ right.double()
    lost = (matmul(left, right, HOPPER_FP8) - exact).square().mean().sqrt()
    bound = cut_bound(exact.float(), left.float().abs() @ right.float().abs(), k, HOPPER_FP8)
    drawn = bound.double().square().mean().sqrt() / math.sqrt(3)  # of a uniform draw
    assert 1.5 < drawn / lost < 20


def test_terms_are_the_products_of_one_value():
    weights = {"linear": (5, 48), "matmul": (2, 48, 7), "conv1d": (8, 6, 3), "conv_transpose1d": (12, 4, 5)}
    counted = {op: terms_of(op, torch.zeros(shape), 2) for op, shape in weights.items()}
    assert counted == {"linear": 48, "matmul": 48, "conv1d": 18, "conv_transpose1d": 30}


def test_a_corrupted_weight_is_found_by_the_check(exported, tmp_path):
    subprocess.run(["cp", "-r", exported, tmp_path / "wrong"], check=True)
    model = onnx.load(tmp_path / "wrong" / "model.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "conv.weight")
    assert weight.data_type == TensorProto.FLOAT8E4M3FN
    codes = bytearray(weight.raw_data)
    codes[:96] = bytes(code ^ 0x80 for code in codes[:96])  # the first output channel's signs
    weight.raw_data = bytes(codes)
    onnx.save(model, tmp_path / "wrong" / "model.onnx")
    done = start(tmp_path / "wrong", "--check")
    assert done.returncode == 1
    assert "BEYOND THE TOLERANCE" in done.stdout


def test_float64_goes_into_a_model_for_the_host(tmp_path):
    folder = write_oscillator(tmp_path / "osc")
    manifest = json.loads((folder / "program.json").read_text())
    assert manifest["host"]["takes"] == ["f0_hz"]
    assert manifest["host"]["alone"] == ["f0_hz"]
    (given,) = manifest["host"]["gives"]
    assert (given["name"], given["shape"], given["dtype"]) == ("host_0", [1, 32], "float32")
    device = onnx.load(folder / "device.onnx")
    assert [value.name for value in device.graph.input] == ["host_0"]
    assert "--onnx=device.onnx" in (folder / "README.md").read_text()
    checked = start(folder, "--check", script="build.py")
    assert checked.returncode == 0, checked.stderr
    assert "host.onnx: valid" in checked.stdout
    assert start(folder, "--check").returncode == 0
    (folder / "host.onnx").write_bytes((folder / "device.onnx").read_bytes())
    checked = start(folder, "--check", script="build.py")
    assert checked.returncode == 1
    assert "host.onnx gives" in checked.stderr


def test_an_engine_is_given_what_the_host_computes(tmp_path):
    """The session that hands over, with ONNX Runtime in the engine's place: no card is needed for that."""
    folder = write_oscillator(tmp_path / "osc")
    script = """
import onnxruntime as ort, numpy as np, runtime, sessions
manifest = runtime.read_manifest(sessions.Path("."))
device = ort.InferenceSession("device.onnx", providers=["CPUExecutionProvider"])
class Engine:
    def __init__(self, plan, manifest): pass
    def reset(self): pass
    def run(self, inputs):
        names = [value.name for value in device.get_inputs()]
        return {"out": device.run(None, {name: inputs[name] for name in names})[0]}
sessions._Engine = Engine
session = sessions.opened("tensorrt", sessions.Path("."), manifest, None, 1)
made = session.run(dict(np.load("sample/input.npz")))["out"]
np.testing.assert_allclose(made, np.load("sample/expected.npz")["out"], atol=2e-2)
print("handed over")
"""
    (folder / "handed.py").write_text(script)
    ran = start(folder, script="handed.py")
    assert ran.stdout == "handed over\n", ran.stderr
