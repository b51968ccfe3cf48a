"""run.py of an export, in a process that has nothing of this toolkit: what it computes, tells and refuses."""

import copy
import importlib
import json
import shutil
import sys
import wave
from types import ModuleType

import numpy as np
import pytest

from backends.hopper.exported import FILES
from tests.backends.hopper.tiny_exports import CHANNELS, RUNS, start, write_dynamic, write_mixed, write_stream

SHADOWED = ("arrays", "chunks", "engine", "facts", "listing", "run", "runtime", "sessions", "widening")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return write_mixed(tmp_path_factory.mktemp("run") / "mixed")


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    return {name: write_stream(folder / name, timed=name == "chunks") for name in ("chunks", "steps")}


@pytest.fixture
def scripts(exported, monkeypatch):
    """Modules of the export by name, as run.py imports them; put away afterwards."""
    monkeypatch.setattr(sys, "path", [str(exported), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    held = {name: sys.modules.pop(name) for name in SHADOWED if name in sys.modules}
    yield {name: importlib.import_module(name) for name in ("run", "runtime", "sessions", "arrays")}
    for name in SHADOWED:
        sys.modules.pop(name, None)
    sys.modules.update(held)


def read(path):
    with np.load(path) as held:
        return dict(held)


def files(folder):
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_the_sample_is_checked_and_the_folder_stays_as_it_is(exported):
    before = files(exported)
    done = start(exported, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("within the tolerance: SNR") == 2
    assert files(exported) == before


def test_neither_this_toolkit_nor_torch_is_needed(exported, tmp_path):
    for name in ("backends", "voice", "calibrate", "precision", "precision_search", "torch"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is asked for')")
    done = start(exported, "--check", path=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_outputs_are_written_as_asked(exported, tmp_path):
    done = start(exported, "--input", "sample/input.npz", "--output", str(tmp_path / "out.npz"), "--threads", "1")
    assert (done.returncode, done.stderr) == (0, "")
    made, expected = read(tmp_path / "out.npz"), read(exported / "sample" / "expected.npz")
    assert {name: array.shape for name, array in made.items()} == {n: array.shape for n, array in expected.items()}
    np.testing.assert_allclose(made["waveform"], expected["waveform"], atol=1e-3)
    np.save(tmp_path / "rows.npy", read(exported / "sample" / "input.npz")["rows"])
    assert start(exported, "--input", str(tmp_path / "rows.npy"), "--output", str(tmp_path / "o.wav")).returncode == 0
    with wave.open(str(tmp_path / "o.wav")) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (16000, 24)


def test_an_output_beyond_its_bounds_fails_by_how_much(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "other")
    expected = read(folder / "sample" / "expected.npz")
    expected["waveform"][0, 0, 3] += 0.25
    expected["score"] = expected["score"][:, :-1]
    np.savez(folder / "sample" / "expected.npz", **expected)
    done = start(folder, "--check")
    assert done.returncode == 1
    assert "waveform: BEYOND THE TOLERANCE: SNR" in done.stdout
    assert "off by 0.25 (at most" in done.stdout
    assert "score: BEYOND THE TOLERANCE: has shape (1, 12, 12), expected (1, 11, 12)" in done.stdout


@pytest.mark.parametrize(
    ("moved", "snr_db", "max_abs", "within"),
    [(0.05, 20, 0.1, True), (0.05, 30, 0.1, False), (0.05, 20, 0.04, False), (np.nan, 0, 9, False), (0, 99, 0, True)],
)
def test_either_bound_alone_fails_an_output(scripts, moved, snr_db, max_abs, within):
    expected = np.ones((1, 100), np.float32)
    found, _ = scripts["arrays"]._compared(expected, expected + moved, {"snr_db": snr_db, "max_abs": max_abs})
    assert found is within


def test_a_cpu_is_held_to_the_bounds_of_a_cpu(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "other")
    manifest = json.loads((folder / "program.json").read_text())
    for place, status in (("card", 0), ("cpu", 1)):
        held = copy.deepcopy(manifest)
        held["outputs"]["waveform"]["tolerance"][place]["snr_db"] = 900.0
        held["outputs"]["waveform"]["tolerance"][place]["max_abs"] = -1.0
        (folder / "program.json").write_text(json.dumps(held))
        assert start(folder, "--check").returncode == status, place


def test_sites_are_listed_without_a_runtime(exported):
    lines = start(exported, "--list").stdout.splitlines()
    assert lines[0].split() == ["site", "scheme", "op", "weight", "activation", "stored", "Q", "DQ", "casts"]
    assert lines[1].split() == ["project", "(x", "2)", "w8a8", "MatMul", "fp8_e4m3", "fp8_e4m3", "bf16", "2", "4", "4"]
    assert lines[-1].startswith("7 sites: 3 read fp8_e4m3")


def test_times_are_told_and_written(exported, tmp_path):
    done = start(exported, "--check", "--repeat", "4", "--json", str(tmp_path / "times.json"))
    assert "cpu: 4 runs, median" in done.stdout
    assert len(json.loads((tmp_path / "times.json").read_text())["times_ms"]) == 4


def test_an_utterance_runs_chunk_by_chunk(streams, tmp_path):
    assert start(streams["chunks"], "--check", "--repeat", "7").returncode == 0
    assert read(streams["chunks"] / "sample" / "expected.npz")["waveform"].shape == (1, 1, 4 * RUNS)
    longer = np.random.default_rng(0).standard_normal((1, CHANNELS, 22)).astype(np.float32)
    np.save(tmp_path / "x.npy", longer)
    done = start(streams["chunks"], "--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "y.npy"))
    assert (done.returncode, done.stderr) == (0, "")
    assert np.load(tmp_path / "y.npy").shape == (1, 1, 22)  # no whole number of chunks, and cut to its length


def test_one_model_runs_at_any_length_within_its_limits(tmp_path):
    folder = write_dynamic(tmp_path / "dynamic")
    manifest = json.loads((folder / "program.json").read_text())
    assert manifest["axes"] == {"x_length": {"min": 9, "opt": 9, "max": 40}}
    assert start(folder, "--check").returncode == 0
    for frames, status in ((31, 0), (41, 2)):
        np.save(folder / "x.npy", np.ones((1, CHANNELS, frames), np.float32))
        done = start(folder, "--input", "x.npy", "--output", "y.npy")
        assert done.returncode == status, done.stderr
    assert "x_length must be 9 to 40, got 41" in done.stderr
    assert np.load(folder / "y.npy").shape == (1, 1, 29)


def test_steps_have_a_first_axis_of_runs(streams):
    assert start(streams["steps"], "--check").returncode == 0
    assert read(streams["steps"] / "sample" / "input.npz")["x"].shape == (RUNS, 1, CHANNELS, 4)
    assert read(streams["steps"] / "sample" / "expected.npz")["waveform"].shape == (RUNS, 1, 1, 4)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give --input, --check or --list"),
        (("--check", "--input", "x.npz"), "leave --input out"),
        (("--check", "--engine", "x.plan"), "--runtime tensorrt alone"),
        (("--check", "--json", "x.json"), "give --repeat, too"),
        (("--check", "--repeat", "0"), "1 or more; got '0'"),
        (("--input", "none.npz"), "there is no none.npz"),
        (("--input", "run.py"), "inputs rows are read of an .npz or .npy"),
        (("--check", "--output", "out.mp3"), "outputs are written to .npz, .npy or .wav"),
        (("--check", "--output", "no/out.npz"), "there is no folder no"),
        (("--input", "policy.npz"), "can't be read as arrays"),
        (("--input", "long.npy"), "rows must have shape [1, 12, 32], got [1, 13, 32]"),
    ],
)
def test_wrong_use_is_told_in_a_line(scripts, monkeypatch, tmp_path, capsys, arguments, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.npz").write_text("no zip")
    (tmp_path / "run.py").touch()
    np.save(tmp_path / "long.npy", np.zeros((1, 13, 32), np.float32))
    try:
        status = scripts["run"].main(list(arguments))
    except SystemExit as stopped:  # argparse's own
        status = stopped.code
    assert status == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("runtime", "told"),
    [("tensorrt", "engine.plan; python build.py makes it"), ("ort-tensorrt", "ONNX Runtime")],
)
def test_a_runtime_that_is_not_there_is_told(exported, runtime, told):
    done = start(exported, "--runtime", runtime, "--check")
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "within the tolerance" not in done.stdout  # never by a CPU in its place


def test_missing_packages_are_told_with_what_to_install(exported, monkeypatch, scripts, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert scripts["run"].main(["--check"]) == 1
    assert "pip install onnxruntime-gpu (requirements.txt has the version)" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    (tmp_path / "any.plan").write_bytes(b"")
    assert scripts["run"].main(["--check", "--runtime", "tensorrt", "--engine", str(tmp_path / "any.plan")]) == 1
    assert "TensorRT" in capsys.readouterr().err


def test_a_damaged_or_foreign_manifest_is_told(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "damaged")
    text = (folder / "program.json").read_text()
    for held, told in ((text[:-9], "is damaged"), (text.replace('"version": 1', '"version": 9', 1), "has version 9")):
        (folder / "program.json").write_text(held)
        done = start(folder, "--list")
        assert (done.returncode, told in done.stderr) == (2, True)


def manifest_of(*shapes, axes=None, **more):
    specs = [{"name": name, "shape": shape, "dtype": "float32"} for name, shape in shapes]
    return {"inputs": specs, "axes": axes or {}, "states": {}, "outputs": {}, "host": None, **more}


def test_inputs_are_held_against_axes_that_vary(scripts):
    runtime = scripts["runtime"]
    limits = {"frames": {"min": 2, "opt": 4, "max": 8}}
    manifest = manifest_of(("mel", [1, 80, "frames"]), ("source", [1, "4*frames + 1"]), axes=limits)

    def given(frames, samples, dtype=np.float32):
        return {"mel": np.zeros((1, 80, frames), dtype), "source": np.zeros((1, samples))}

    taken = runtime.checked(manifest, given(3, 13))
    assert {name: array.dtype for name, array in taken.items()} == {"mel": np.float32, "source": np.float32}
    for inputs, told in (
        (given(3, 12), r"source must have shape \[1, 4\*frames \+ 1\], got \[1, 12\]"),
        (given(9, 37), "frames must be 2 to 8, got 9"),
        (given(1, 5), "frames must be 2 to 8, got 1"),
        (given(3, 13, np.complex64), "mel must hold float32, got complex64"),
        ({"mel": given(3, 1)["mel"], "f0": np.zeros(3)}, r"f0 is none of its inputs; source \[1, .*\] is missing"),
    ):
        with pytest.raises(runtime.UseError, match=told):
            runtime.checked(manifest, inputs)


def test_noise_is_drawn_as_long_as_it_must_be_and_the_same_by_its_seed(scripts):
    runtime = scripts["runtime"]
    manifest = manifest_of(("f0", ["frames"]), ("noise", ["256*frames"]), axes={"frames": {"min": 1, "max": 9}})
    manifest["inputs"][1]["noise"] = "normal"
    given = {"f0": np.zeros(40, np.float32)}
    first, again, other = (runtime.drawn(manifest, given, seed)["noise"] for seed in (0, 0, 1))
    assert first.shape == (256 * 40,)
    assert first.tolist() == again.tolist() != other.tolist()
    assert abs(first.std() - 1) < 0.05
    assert runtime.drawn(manifest, {**given, "noise": other}, 0)["noise"] is other
    manifest["inputs"][1]["noise"] = "uniform"
    uniform = runtime.drawn(manifest, given, 0)["noise"]
    assert 0 <= uniform.min() < 0.01 < 0.99 < uniform.max() < 1
    with pytest.raises(runtime.UseError, match="no input says how long"):
        runtime.drawn(manifest, {}, 0)


def test_state_goes_from_run_to_run_and_is_zero_again(scripts):
    manifest = manifest_of(("x", [1]), states={"sum": {"shape": [1], "dtype": "float32", "update": "sum_next"}})
    manifest["outputs"], manifest["streaming"] = {"y": {"name": "y"}}, True
    session = scripts["runtime"].Stateful(
        manifest, lambda held: {"y": held["sum"], "sum_next": held["sum"] + held["x"]}
    )
    program = scripts["runtime"].Program(manifest, session)
    runs = {"x": np.arange(1, 5, dtype=np.float32).reshape(4, 1)}
    for _ in range(2):
        assert program.utterance(runs)["y"].ravel().tolist() == [0, 1, 3, 6]
    assert len(program.times_ms(runs, 5)) == 5


def test_an_engine_keeps_its_states_itself_and_its_errors_are_told(scripts, monkeypatch, tmp_path):
    class EngineError(RuntimeError):
        pass

    class Engine:
        def __init__(self, plan, states):
            self.states, self.resets, self.inputs = states, 0, ("x", "s")

        def reset(self):
            self.resets += 1

        def run(self, inputs):
            if inputs["x"][0] > 3:
                raise EngineError("TensorRT stopped")
            assert set(inputs) == {"x"}
            return {"y": 2 * inputs["x"]}

    module = ModuleType("engine")
    module.Engine, module.EngineError = Engine, EngineError
    monkeypatch.setitem(sys.modules, "engine", module)
    runtime, sessions = scripts["runtime"], scripts["sessions"]
    manifest = manifest_of(("x", [1]), states={"s": {"shape": [1], "dtype": "float32", "update": "s_next"}})
    manifest["outputs"], manifest["streaming"] = {"y": {"name": "y"}}, True
    (tmp_path / "engine.plan").write_bytes(b"")
    session = sessions.opened("tensorrt", tmp_path, manifest, None, 0)
    assert session._engine.states == {"s": "s_next"}
    program = runtime.Program(manifest, session)
    made = program.utterance({"x": np.array([[1], [2]], np.float32)})
    assert (made["y"].ravel().tolist(), session._engine.resets) == ([2, 4], 1)
    with pytest.raises(runtime.RuntimeFailure, match="TensorRT stopped"):
        program.run({"x": np.array([9], np.float32)})


def test_a_host_computes_what_its_engine_reads(scripts):
    class Engine:
        def reset(self):
            self.taken = None

        def run(self, inputs):
            self.taken = inputs
            return {"y": inputs["phase"] + inputs["x"]}

    engine = Engine()
    hosted = scripts["sessions"]._Hosted(engine, lambda held: {"phase": np.cumsum(held["f0"])}, ["f0"])
    hosted.reset()
    assert hosted.run({"f0": np.ones(3), "x": np.zeros(3)})["y"].tolist() == [1, 2, 3]
    assert set(engine.taken) == {"f0", "x", "phase"}  # those that are none of the engine's it leaves out


def test_the_provider_is_told_shapes_of_axes_that_vary(scripts, tmp_path):
    limits = {"frames": {"min": 2, "opt": 4, "max": 8}}
    manifest = manifest_of(("mel", [1, 80, "frames"]), ("fixed", [3]), axes=limits)
    options = scripts["sessions"]._provider_options(tmp_path, manifest)
    shapes = {name: value for name, value in options.items() if "shapes" in name}
    assert shapes == {
        f"trt_profile_{which}_shapes": f"mel:1x80x{limits['frames'][which]}" for which in limits["frames"]
    }
    assert not any(name.endswith(("fp16_enable", "bf16_enable", "int8_enable")) for name in options)


def test_help_teaches(exported):
    text = start(exported, "--help").stdout
    for word in ("--runtime tensorrt", "ort-tensorrt", "--check", "--list", "exit status: 0 done"):
        assert word in text


def test_every_script_stands_by_itself():
    for name, file in FILES.items():
        text = file.read_text()
        assert "import backends" not in text, name
        assert "from backends" not in text, name
