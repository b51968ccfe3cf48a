"""Engines by TensorRT, as far as they can be tested without it: words, keys, sizes, scales, and the order of calls.

The order is that in which a recording stand-in was called (`recording_tensorrt.py`); what was called is held against
TensorRT's own Python bindings where they are installed (PyPI's tensorrt-cu13-bindings, without its libraries). Nothing
here says what an engine computes.
"""

import ast
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from backends.hopper import tensorrt
from backends.hopper.exported import builder, engine, facts, gpu, measured, refitting
from backends.hopper.manifest import Limits
from backends.hopper.numerics import activation_scale
from backends.hopper.tensorrt import Settings, TensorRtError, new_scales, scale_names
from calibrate.calibration import Calibration, UncalibratedSiteError
from tests.backends.hopper import recording_tensorrt
from tests.backends.hopper.recording_tensorrt import ENUMS, HostTorch, Library, ParserError
from tests.backends.hopper.three_sites import CALIBRATION, POLICY, three_sites

H100 = gpu.Gpu("NVIDIA H100 80GB HBM3", (9, 0), (13, 0))


@pytest.fixture
def library(monkeypatch):
    """A stand-in for TensorRT, torch and the driver."""
    held = Library()
    held.shapes = {"x": (1, 32, 24), "past": (1, 1, 16), "out:y": (1, 24, 16), "out:past_next": (1, 1, 16)}
    monkeypatch.setitem(sys.modules, "tensorrt", held.module())
    monkeypatch.setattr(engine, "_torch", HostTorch)
    monkeypatch.setattr(gpu, "gpu", lambda _index=0: H100)
    monkeypatch.setattr(gpu, "use", lambda _index: None)
    engine.journal.cache_clear()
    yield held
    engine.journal.cache_clear()


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(three_sites().model, path)
    return path


def built(library, model, **options):
    settings = options.pop("settings", Settings())
    profile = options.pop("profile", {})
    return builder.build(library.module(), engine.journal(), model, profile, settings, **options)


# What is not there.


def test_without_tensorrt_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(TensorRtError, match=r"pip install 'precision-search\[tensorrt\]'"):
        tensorrt.build(three_sites())


def test_one_file_imports_tensorrt_and_only_when_it_is_asked_for():
    folder = Path(tensorrt.__file__).parent
    late, early = [], []
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "tensorrt" for name in names):
                (early if node in tree.body else late).append(path.name)
    assert (early, late) == ([], ["engine.py"])


def test_a_library_that_lacks_another_is_no_library(monkeypatch, tmp_path):
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.11: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(engine.NotInstalledError, match=r"libnvinfer\.so\.11.*requirements-tensorrt\.txt"):
        engine.library()


def test_no_driver_no_card_and_another_card_are_told_apart(monkeypatch):
    monkeypatch.setattr(gpu, "_DRIVER", "libcuda-that-is-not-there.so.1")
    with pytest.raises(gpu.NoGpuError, match="no NVIDIA driver"):
        gpu.gpu()
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda _name: Driver(cuInit=lambda _flags: 100))
    with pytest.raises(gpu.NoGpuError, match="finds no GPU"):
        gpu.gpu()
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda _name: Driver(cuInit=lambda _flags: 999))
    with pytest.raises(gpu.NoGpuError, match=r"does not start: unknown error \(999\)"):
        gpu.gpu()
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda _name: Driver())
    with pytest.raises(gpu.NoGpuError, match=r"no GPU 3: there are 1"):
        gpu.gpu(3)
    card = gpu.gpu(0)
    assert card == gpu.Gpu("NVIDIA L40S", (8, 9), (12, 8))
    assert card.slug == "nvidia-l40s-sm89"
    card.check_fp8()
    gpu.use(0)


class Driver:
    """libcuda of one L40S."""

    def __init__(self, **functions):
        self.__dict__.update(functions)

    def __getattr__(self, name):
        values = {"cuDeviceGetCount": 1, "cuDeviceGet": 0, "cuDriverGetVersion": 12080}

        def function(target, *arguments):
            if name in values:
                target._obj.value = values[name]
            elif name == "cuDeviceGetAttribute":
                target._obj.value = {75: 8, 76: 9}[arguments[0]]
            elif name == "cuDeviceGetName":
                target.value = b"NVIDIA L40S"
            elif name == "cuGetErrorString":
                arguments[0]._obj.value = b"unknown error"
            else:
                assert name in ("cuInit", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent")
            return 0

        return function


def test_a_card_without_fp8_is_refused_before_anything_is_built(library, monkeypatch):
    monkeypatch.setattr(gpu, "gpu", lambda _index=0: gpu.Gpu("NVIDIA A100", (8, 0), (13, 0)))
    with pytest.raises(TensorRtError, match=r"A100 has compute capability 8\.0.*need 8\.9 \(Ada\), 9\.0 \(Hopper\)"):
        tensorrt.build(three_sites())
    assert library.names("Builder") == []


def test_a_model_of_the_gemm_route_is_none_of_tensorrts():
    with pytest.raises(ValueError, match="lowered for route 'gemm'"):
        tensorrt.build(replace(three_sites(), route="gemm"))


# What an engine is called.


def test_a_key_hangs_on_all_that_an_engine_hangs_on():
    least = ((1, 4),) * 3
    same = ("digest", "11.4.0", H100.slug, Settings(), {"x": least}, ("a.input_scale",))
    others = [
        ("other", *same[1:]),
        (same[0], "11.3.0", *same[2:]),
        (*same[:2], "nvidia-h200-sm90", *same[3:]),
        (*same[:3], Settings(tf32=True), *same[4:]),
        (*same[:3], Settings(level=5), *same[4:]),
        (*same[:4], {"x": ((1, 4), (1, 4), (1, 8))}, same[5]),
        (*same[:5], ()),
    ]
    keys = [builder.key(*held) for held in (same, *others)]
    assert len(set(keys)) == len(keys)
    assert builder.key(*same) == keys[0]
    assert len(keys[0]) == 16


def test_an_engine_is_built_once_and_then_read(library, tmp_path):
    first = tensorrt.build(three_sites(), cache=tmp_path)
    assert library.names("Builder").count("build_serialized_network") == 1
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept[1] == "timings-11.4.0.106-nvidia-h100-80gb-hbm3-sm90.cache"
    again = tensorrt.build(three_sites(), cache=tmp_path)
    assert library.names("Builder").count("build_serialized_network") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
    assert first.lowered is again.lowered
    tensorrt.build(three_sites(), settings=Settings(level=1), cache=tmp_path)
    assert library.names("Builder").count("build_serialized_network") == 2


def test_a_digest_covers_weights_in_other_files(model, tmp_path):
    whole = facts.digest(model)
    assert facts.digest(model) == whole
    copy = onnx.load(model)
    onnx.save_model(copy, tmp_path / "apart.onnx", save_as_external_data=True, location="held", size_threshold=64)
    apart = facts.digest(tmp_path / "apart.onnx")
    data = bytearray((tmp_path / "held").read_bytes())
    data[-1] ^= 1
    (tmp_path / "held").write_bytes(data)
    assert len({whole, apart, facts.digest(tmp_path / "apart.onnx")}) == 3
    (tmp_path / "held").unlink()
    with pytest.raises(facts.FactError, match="held is not there"):
        facts.digest(tmp_path / "apart.onnx")


# Sizes.


def test_sizes_follow_from_limits_of_axes():
    shapes = {"mel": (1, 80, "frames"), "f0": (1, "2*frames + 1"), "phones": (1, 12), "past": ("frames // 4", 8)}
    assert facts.profile(shapes, {"frames": {"min": 4, "opt": 8, "max": 16}}) == {
        "mel": ((1, 80, 4), (1, 80, 8), (1, 80, 16)),
        "f0": ((1, 9), (1, 17), (1, 33)),
        "past": ((1, 8), (2, 8), (4, 8)),
    }


@pytest.mark.parametrize(
    ("axis", "axes", "said"),
    [
        ("frames", {}, "axes frames vary and have no limits"),
        ("frames", {"frames": {"min": 4, "opt": 2, "max": 8}}, "0 < min <= opt <= max"),
        ("frames", {"frames": {"min": 0, "opt": 2, "max": 8}}, "0 < min <= opt <= max"),
        ("frames", {"frames": {"min": 1, "opt": 2}}, "0 < min <= opt <= max"),
        ("9 - frames", {"frames": {"min": 1, "opt": 2, "max": 4}}, "do not grow"),
        ("frames ** 2", {"frames": {"min": 1, "opt": 2, "max": 4}}, "sums, differences, products"),
        ("2 frames", {"frames": {"min": 1, "opt": 2, "max": 4}}, "neither a name nor a size"),
    ],
)
def test_sizes_that_are_none_are_told(axis, axes, said):
    with pytest.raises(facts.FactError, match=said):
        facts.profile({"mel": (1, axis)}, axes)


def test_the_toolkits_limits_become_the_profile(library):
    lowered = three_sites()
    model = onnx.ModelProto()
    model.CopyFrom(lowered.model)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "frames"
    tensorrt.build(replace(lowered, model=model), {"frames": Limits(8, 24, 64)})
    assert library.profiles == [("x", (1, 32, 8), (1, 32, 24), (1, 32, 64))]
    with pytest.raises(ValueError, match="frames vary and have no limits"):
        tensorrt.build(replace(lowered, model=model))


# A build.


def test_a_build_is_strongly_typed_without_tf32_and_tells_of_its_layers(library, model):
    assert built(library, model, profile={"x": ((1, 8), (1, 9), (1, 10))}) == b"plan"
    assert library.network_flags == 1 << 0
    assert library.config_flags == {"TF32": False}
    assert library.config.values["profiling_verbosity"] is ENUMS["ProfilingVerbosity"].DETAILED
    assert library.config.values["builder_optimization_level"] == 3
    made = [(kind, name) for what, kind, name, _ in library.calls if what == "call"]
    assert made == [
        ("Builder", "create_network"),
        ("OnnxParser", "parse_from_file"),
        ("Builder", "create_builder_config"),
        ("IBuilderConfig", "clear_flag"),
        ("Builder", "create_optimization_profile"),
        ("IOptimizationProfile", "set_shape"),
        ("IBuilderConfig", "add_optimization_profile"),
        ("IBuilderConfig", "create_timing_cache"),
        ("IBuilderConfig", "set_timing_cache"),
        ("Builder", "build_serialized_network"),
    ]


def test_tf32_is_on_only_where_it_is_asked_for(library, model):
    built(library, model, settings=Settings(tf32=True))
    assert library.config_flags == {"TF32": True}


def test_nodes_that_do_not_parse_are_all_named(library, model):
    library.parser_errors = [
        ParserError("site/pre/compute", "Conv", "no kernel"),
        ParserError("site/mid/quantize_input", "QuantizeLinear", "scale must be positive"),
        ParserError("", "", "bad file"),
    ]
    with pytest.raises(builder.BuildFailedError) as failed:
        built(library, model)
    assert str(failed.value).splitlines() == [
        "TensorRT's parser does not take 3 nodes of model.onnx:",
        "  site/pre/compute (Conv): no kernel",
        "  site/mid/quantize_input (QuantizeLinear): scale must be positive",
        "  the model (-): bad file",
    ]


def test_a_build_that_fails_tells_what_tensorrt_said(library, model):
    library.plan, library.errors = None, ["no implementation for site/pre/compute", "out of memory"]
    with pytest.raises(builder.BuildFailedError, match="no implementation for site/pre/compute\nout of memory"):
        built(library, model)


def test_a_tensorrt_that_gives_nothing_is_told_in_words(library, model):
    def nothing(_log):
        raise TypeError("pybind11::init(): factory function returned nullptr")

    module = library.module()
    module.Builder = nothing
    with pytest.raises(builder.BuildFailedError, match=r"TensorRT 11\.4\.0\.106 does not start"):
        builder.build(module, engine.journal(), model, {}, Settings())


def test_timings_are_read_kept_and_begun_anew_where_they_are_of_another_card(library, model, tmp_path):
    timings = tmp_path / "new" / "timings.cache"
    built(library, model, timings=timings)
    assert timings.read_bytes() == b"timings"
    built(library, model, timings=timings)
    assert library.timing_data == [b"", b"timings"]
    library.cache_fits, library.timing_data = False, []
    built(library, model, timings=timings)
    assert library.timing_data == [b"timings", b""]


def test_progress_is_told_step_by_step(library, model):
    told = []
    library.steps = [("Building", 2), ("Timing", 1)]
    built(library, model, progress=lambda *held: told.append(held))
    assert told == [("Building", 1, 2), ("Building", 2, 2), ("Timing", 1, 1)]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["main thread", "another thread"])
def test_ctrl_c_ends_a_build_between_two_steps_and_leaves_nothing(library, model, tmp_path, elsewhere):
    steps, before = [], signal.getsignal(signal.SIGINT)

    def hit(step):
        steps.append(step)
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    def from_a_thread(step):  # as TensorRT calls: while the main thread waits, no handler of Python runs
        done = threading.Thread(target=hit, args=(step,))
        done.start()
        done.join()

    library.steps, library.on_step = [("Building", 5)], from_a_thread if elsewhere else hit
    cache = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        tensorrt.build(three_sites(), cache=cache)
    assert steps == [0, 1]
    assert not cache.exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_build_in_a_thread_leaves_signals_alone(library, model):
    made = []
    thread = threading.Thread(target=lambda: made.append(built(library, model)))
    thread.start()
    thread.join()
    assert made == [b"plan"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "engine.plan"
    builder.write_whole(path, b"first")
    monkeypatch.setattr(builder.os, "fsync", lambda _handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        builder.write_whole(path, b"second")
    assert path.read_bytes() == b"first"
    assert [held.name for held in path.parent.iterdir()] == ["engine.plan"]


def test_the_same_by_trtexec():
    profile = {"x": ((1, 8), (1, 9), (1, 10)), "past": ((2,), (2,), (2,))}
    command = builder.trtexec("model.onnx", "engine.plan", Settings(refit=True, level=4), profile)
    assert command == [
        "trtexec",
        "--onnx=model.onnx",
        "--saveEngine=engine.plan",
        "--noTF32",
        "--builderOptimizationLevel=4",
        "--profilingVerbosity=detailed",
        "--minShapes=x:1x8,past:2",
        "--optShapes=x:1x9,past:2",
        "--maxShapes=x:1x10,past:2",
        "--refit",
    ]


# Runs.


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


# What the real library has.

ASK = """
import inspect, json, re, sys
import tensorrt_bindings as trt
asked, wrong = json.load(sys.stdin), []
def takes(text, count):
    for signature in re.findall(r"\\((self: .*?)\\) -> ", text or ""):
        parts = re.split(r", (?=[A-Za-z_0-9]+: )", signature)[1:]
        least = sum(" = " not in part for part in parts)
        if least <= count <= len(parts):
            return True
    return False
for what, kind, name, count in asked["calls"]:
    held = getattr(trt, kind, None)
    member = getattr(held, name, None)
    if member is None:
        wrong.append(f"{kind}.{name} is not there")
    elif what == "set" and not (isinstance(member, property) and member.fset):
        wrong.append(f"{kind}.{name} can't be set")
    elif what == "read" and not isinstance(member, property):
        wrong.append(f"{kind}.{name} is no property")
    elif what in ("call", "make") and not takes(member.__doc__, count):
        wrong.append(f"{kind}.{name} does not take {count}: {member.__doc__}")
for kind, members in asked["enums"].items():
    wrong += [f"{kind}.{name} is not there" for name in members if name not in getattr(trt, kind).__members__]
for kind, methods in asked["derived"].items():
    derived = type(kind, (getattr(trt, kind),), {"__init__": lambda self, base=getattr(trt, kind): base.__init__(self)})
    derived()
    wrong += [f"{kind}.{name} is not there" for name in methods if not hasattr(derived, name)]
print(json.dumps({"version": trt.__version__, "wrong": wrong}))
"""
EMPTY = """
void *createInferBuilder_INTERNAL(void) { return 0; }
void *createInferRefitter_INTERNAL(void) { return 0; }
void *createInferRuntime_INTERNAL(void) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void) { return 0; }
void *createNvOnnxParser_INTERNAL(void) { return 0; }
void *getBuilderPluginRegistry(void) { return 0; }
void *getPluginRegistry(void) { return 0; }
int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void) { return 0; }
"""


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_bindings") is None or shutil.which("cc") is None,
    reason="needs tensorrt-cu13-bindings (1 MB, of PyPI) and a C compiler",
)
def test_the_real_bindings_take_every_call(library, model, tmp_path):
    """TensorRT's own Python bindings, on empty libraries in place of its real ones: names, signatures, settings."""
    made = tensorrt.build(three_sites(), {}, Settings(refit=True), cache=tmp_path)
    built(library, model, profile={"x": ((1, 8), (1, 9), (1, 10))}, settings=Settings(tf32=True))
    library.parser_errors = [ParserError("site/pre/compute", "Conv", "no kernel")]
    with pytest.raises(builder.BuildFailedError):
        built(library, model)
    made.run({"x": torch.zeros(1, 32, 24)})
    made.time({"x": torch.zeros(1, 32, 24)}, 1)
    with pytest.raises(TensorRtError):
        made.run({"x": torch.zeros(1, 32, 25)})
    made.account()
    library.known_weights, library.missing = {"pre.input_scale": (1, 4)}, ("pre.input_scale",)
    made.refit(CALIBRATION)
    made._engine.handle.serialize()
    (tmp_path / "empty.c").write_text(EMPTY)
    for name in ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11"):
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", tmp_path / name, tmp_path / "empty.c"]
        subprocess.run(command, check=True)
    calls = sorted({held for held in library.calls if held[0] != "derive"})
    assert len(calls) > 40
    enums = {kind: [member.name for member in members] for kind, members in ENUMS.items()}
    asked = {"calls": calls, "enums": enums, "derived": recording_tensorrt.DERIVED}
    where = str(Path(importlib.util.find_spec("tensorrt_bindings").origin).parents[1])
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": where}
    answer = subprocess.run(
        [sys.executable, "-c", ASK],
        input=json.dumps(asked),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(answer.stdout)
    assert said["wrong"] == []
    assert said["version"].startswith("11.")


def test_the_stand_in_answers_nothing_it_was_not_told(library):
    with pytest.raises(AttributeError, match="not told to answer set_precision"):
        assert library.module().Builder(engine.journal()).set_precision
