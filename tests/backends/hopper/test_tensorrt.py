"""Engines by TensorRT, as far as they can be tested without it: words, keys, sizes, scales, and the order of calls.

The order is that in which a recording stand-in was called (`recording_tensorrt.py`); what was called is held against
TensorRT's own Python bindings in `test_tensorrt_bindings.py`. Nothing here says what an engine
computes.
"""

import ast
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from backends.hopper import tensorrt
from backends.hopper.exported import builder, engine, facts, gpu
from backends.hopper.manifest import Limits
from backends.hopper.tensorrt import Settings, TensorRtError
from tests.backends.hopper.recording_tensorrt import ENUMS, H100, ParserError, built
from tests.backends.hopper.three_sites import three_sites

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
