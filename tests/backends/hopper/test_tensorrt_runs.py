"""Engines on the recording stand-in: runs and their states, times, accounts, and new scales."""

import json

import numpy as np
import onnx
import pytest
import torch

from backends.hopper import tensorrt
from backends.hopper.exported import engine, measured, refitting
from backends.hopper.numerics import activation_scale
from backends.hopper.tensorrt import Settings, new_scales, scale_names
from calibrate.calibration import Calibration, UncalibratedSiteError
from tests.backends.hopper.three_sites import CALIBRATION, POLICY, three_sites


def test_states_go_from_run_to_run_by_their_addresses(library):
    made = tensorrt.build(three_sites())
    inputs = {"x": torch.zeros(1, 32, 24)}
    results = [made.run(inputs) for _ in range(3)]
    assert [list(result) for result in results] == [["y"]] * 3
    first, second, third = library.addresses
    assert second["past"] == first["past_next"]
    assert third["past"] == second["past_next"]
    made.reset()
    made.run(inputs)
    assert library.addresses[3]["past"] != third["past_next"]
    names = library.names("IExecutionContext")
    assert names[-6:].count("execute_async_v3") == 1
    assert names.index("set_input_shape") < names.index("infer_shapes") < names.index("get_tensor_shape")


def test_a_state_can_be_given_and_numpy_goes_in_and_out(library):
    loaded = engine.Engine(b"plan", {"past": "past_next"})
    given = np.full((1, 1, 16), 3.0, np.float32)
    made = loaded.run({"x": np.zeros((1, 32, 24), np.float32), "past": given})
    assert list(made) == ["y"]
    assert made["y"].dtype == np.float32
    assert np.array_equal(loaded.given["past"].numpy(), given)


def test_inputs_that_do_not_fit_are_told(library):
    loaded = engine.Engine(b"plan", {"past": "past_next"})
    with pytest.raises(engine.EngineError, match=r"inputs x are missing; z are none of its inputs \(x, past\)"):
        loaded.step({"z": torch.zeros(1)})
    with pytest.raises(
        engine.EngineError, match=r"input x has shape \(1, 32, 25\), and the engine was built for \(1, 4\)"
    ):
        loaded.step({"x": torch.zeros(1, 32, 25)})


def test_an_engine_of_another_tensorrt_is_told_to_be_built_again(library):
    library.loads = False
    with pytest.raises(engine.EngineError, match=r"does not take the engine: of another version\n.*build it there"):
        engine.Loaded(b"plan")


def test_times_are_of_the_card_alone_and_a_profiler_has_a_context_of_its_own(library):
    made = tensorrt.build(three_sites())
    loaded = made._engine
    context = loaded.context
    timing = made.time({"x": torch.zeros(1, 32, 24)}, runs=5)
    assert timing.runs_us == (250.0,) * 5
    assert timing.run_us == 250.0
    assert loaded.context is context
    assert "profiler" not in context.values
    assert len(library.addresses) == 2 * (measured.WARM_RUNS + 5)


def test_a_captured_run_has_states_of_its_own(library):
    loaded = engine.Engine(b"plan", {"past": "past_next"})
    loaded.states["past"] += 5
    replay = measured.captured(loaded, {"x": torch.zeros(1, 32, 24)})
    assert list(replay({"x": torch.ones(1, 32, 24)})) == ["y"]
    assert loaded.torch.replays == 1
    assert float(loaded.states["past"].sum()) == 80.0
    with pytest.raises(KeyError):
        replay({"z": torch.ones(1)})


def test_the_account_is_read_with_its_bare_control_characters(library):
    library.account = '{"Layers": [{"Name": "a", "Metadata": "[ONNX Layer: b]\x1f[ONNX Layer: c]"}]}'
    assert engine.Loaded(b"plan").account()["Layers"][0]["Metadata"].count("\x1f") == 1


def test_an_engine_is_held_against_its_policy(library):
    nodes = [f"site/{site}/compute" for site in POLICY]
    kinds = {"pre": "FP8", "mid": "FP8", "head": "Half"}
    layers = [
        {"Name": node, "LayerType": "gemm", "Metadata": f"[ONNX Layer: {node}]", "Inputs": [{"Datatype": kinds[site]}]}
        for site, node in zip(POLICY, nodes, strict=True)
    ]
    library.account = json.dumps({"Layers": layers})
    made = tensorrt.build(three_sites())
    assert [(one.site, one.got) for one in made.mismatches()] == [("head", "fp16")]
    assert made.realized()["head"].activation == "fp16"
    assert "1 of 3 sites did not get what the policy says" in made.report()


# Scales.


def test_a_new_calibration_is_the_scales_of_the_sites_that_have_one():
    lowered = three_sites()
    assert scale_names(lowered) == {"pre.input_scale": ("pre", "input"), "mid.input_scale": ("mid", "input")}
    other = Calibration.of("amax", {"pre": {"input": 6.0}, "mid": {"input": 1.0}})
    scales = new_scales(lowered, other)
    for site in ("pre", "mid"):
        expected = activation_scale(site, "input", POLICY[site], other)
        assert scales[f"{site}.input_scale"] == expected.numpy()
        assert scales[f"{site}.input_scale"].dtype == np.float32
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in lowered.model.graph.initializer}
    assert {name: held[name] for name in scales} == new_scales(lowered, CALIBRATION)
    with pytest.raises(UncalibratedSiteError):
        new_scales(lowered, Calibration.of("amax", {"pre": {"input": 6.0}}))


def test_scales_are_marked_before_a_build_and_changed_after_it(library):
    made = tensorrt.build(three_sites(), settings=Settings(refit=True))
    assert library.config_flags["REFIT_INDIVIDUAL"]
    assert library.marked == ["pre.input_scale", "mid.input_scale"]
    library.known_weights = {"pre.input_scale": (1, 4), "pre.weight": (6144, 6144)}
    library.missing = ("pre.weight",)
    refused = made.refit(Calibration.of("amax", {"pre": {"input": 6.0}, "mid": {"input": 1.0}}))
    assert refused == {"mid.input_scale": "it was folded into a kernel when the engine was built; build again"}
    assert list(library.given) == ["pre.input_scale", "pre.weight"]  # the weight as the model has it, in FP8
    assert library.names("Refitter")[-1] == "refit_cuda_engine"


def test_what_can_not_be_refitted_says_why(library):
    loaded, log = engine.Loaded(b"plan"), engine.journal()
    library.known_weights, library.refuses = {"a": (4, 16), "b": (1, 4)}, ("b",)
    one = np.float32(1)
    refused = refitting.refit(loaded, log, {"a": one, "b": one}, lambda _name: None)
    assert refused == {
        "a": "the engine holds 4 values in 16 bytes, and 1 in 4 were given",
        "b": "TensorRT refuses it as FLOAT",
    }
    library.missing = ("folded",)
    with pytest.raises(refitting.RefitError, match="'folded' again, for it is folded with a changed one"):
        refitting.refit(loaded, log, {"b": one}, lambda _name: None)
    library.refittable = False
    with pytest.raises(refitting.RefitError, match=r"built without refit.*--refit"):
        refitting.refit(engine.Loaded(b"plan"), log, {"b": one}, lambda _name: None)
