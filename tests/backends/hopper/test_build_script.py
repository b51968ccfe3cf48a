"""build.py of an export: its words without TensorRT, without a card, of a model that is not right, of an account."""

import json
import subprocess
import sys
from importlib import import_module

import onnx
import pytest
from onnx import TensorProto, helper

from backends.hopper.export import write_program
from backends.hopper.exported import FILES
from tests.backends.hopper.recording_tensorrt import Library
from tests.backends.hopper.test_realized import BF16_GEMM, good
from tests.backends.hopper.three_sites import CALIBRATION, three_sites


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    write_program(three_sites(), folder, None, CALIBRATION)
    return folder


@pytest.fixture
def export(exported, tmp_path):
    """A copy of its own, for what is changed in it."""
    for name in ("model.onnx", "program.json", "scales.json"):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    return tmp_path


@pytest.fixture
def script(exported, monkeypatch):
    """build.py of the export, with the files beside it and nothing else of this toolkit."""
    names = [name.removesuffix(".py") for name in FILES]
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    monkeypatch.syspath_prepend(exported)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    yield import_module("build")
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(kept)


def changed(folder, change):
    model = onnx.load(folder / "model.onnx")
    change(model)
    onnx.save(model, folder / "model.onnx")


def test_help_teaches_and_a_model_is_checked_without_anything_of_ours(exported, tmp_path):
    def run(*options):
        command = [sys.executable, exported / "build.py", *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    told = run("--help")
    assert told.returncode == 0
    for said in ("python build.py --check", "--size", "--layers", "exit status: 0 done", "Ctrl-C"):
        assert said in told.stdout
    checked = run("--check")
    assert checked.returncode == 0, checked.stderr
    assert "model.onnx: valid by onnx" in checked.stdout
    assert "types and shapes of all" in checked.stdout
    assert "3 sites have what program.json says: 2 QuantizeLinear, 4 DequantizeLinear, 6 Cast" in checked.stdout
    assert not list(exported.glob("__pycache__"))


def test_sizes_of_a_model_that_varies_are_listed(script, export, capsys):
    def vary(model):
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "frames"

    changed(export, vary)
    assert script.main(["--check"], export) == 2
    assert "axes frames vary and have no limits: give NAME=MIN:OPT:MAX" in capsys.readouterr().err
    assert script.main(["--trtexec", "--size", "frames=8:24:64"], export) == 0
    assert "--minShapes=x:1x32x8 --optShapes=x:1x32x24 --maxShapes=x:1x32x64" in capsys.readouterr().out
    assert script.main(["--trtexec", "--size", "frames=8:24:64", "--size", "frmes=8:24:96"], export) == 2
    assert "no axis that varies is called frmes; there are ['frames']" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        script.main(["--check", "--size", "frames=8"], export)
    assert stopped.value.code == 2
    assert "frames=16:512:4096; got 'frames=8'" in capsys.readouterr().err


def test_all_that_is_wrong_with_a_model_is_named(script, export, capsys):
    def spoil(model):
        node = next(node for node in model.graph.node if node.name == "site/mid/quantize_input")
        reader = next(node for node in model.graph.node if node.name == "site/mid/dequantize_input")
        model.graph.node.remove(reader)
        for other in model.graph.node:
            other.input[:] = [node.input[0] if name == reader.output[0] else name for name in other.input]
        model.graph.node.append(helper.make_node("Fused", ["x"], ["z"], name="own", domain="example"))
        model.opset_import.append(helper.make_opsetid("example", 1))
        model.graph.node.append(helper.make_node("Det", ["x"], ["d"], name="determinant"))
        model.graph.initializer.append(TensorProto(name="e", data_type=TensorProto.FLOAT8E5M2, raw_data=b""))

    changed(export, spoil)
    assert script.main(["--check"], export) == 1
    said = capsys.readouterr().err
    assert "mid: 1 nodes of DequantizeLinear, and program.json says 2" in said
    assert "own: operator example.Fused is not ONNX's own" in said
    assert "determinant: TensorRT's parser has no operator Det" in said
    assert "e: FP8 E5M2, which TensorRT has not" in said


def test_float64_is_told_for_tensorrt_has_none(script, export, card, capsys):
    assert script.main(["--check"], export) == 0
    assert "float64" not in capsys.readouterr().out

    def widen(model):
        wide = helper.make_node("Cast", ["x"], ["wide"], name="widen", to=TensorProto.DOUBLE)
        axis = helper.make_tensor("axis", TensorProto.INT64, [], [2])
        phase = helper.make_node("CumSum", ["wide", "axis"], ["phase"], name="phase")
        model.graph.initializer.append(axis)
        model.graph.node.extend([wide, phase])

    changed(export, widen)
    assert script.main(["--check"], export) == 0
    told = "note: 2 nodes are of float64, sums among them (phase); TensorRT computes them in float32"
    assert told in capsys.readouterr().out
    assert script.main([], export) == 0
    assert told in capsys.readouterr().err


def test_a_model_whose_types_do_not_fit_or_that_is_none_is_told(script, export, capsys):
    def spoil(model):
        node = next(node for node in model.graph.node if node.name == "site/head/compute")
        node.input[0] = "x"

    changed(export, spoil)
    assert script.main(["--check"], export) == 1
    assert "site/head/compute" in capsys.readouterr().err
    (export / "model.onnx").write_bytes(b"no model")
    assert script.main(["--check"], export) == 2
    assert "is no ONNX model" in capsys.readouterr().err
    (export / "model.onnx").unlink()
    assert script.main(["--check"], export) == 2
    assert "model.onnx is not there" in capsys.readouterr().err


def test_an_export_of_the_gemm_route_has_no_engine(script, export, capsys):
    manifest = json.loads((export / "program.json").read_text())
    (export / "program.json").write_text(json.dumps({**manifest, "route": "gemm"}))
    assert script.main([], export) == 1
    assert "there is no engine of it" in capsys.readouterr().err


def test_without_tensorrt_or_a_card_it_says_what_is_missing(script, export, capsys, monkeypatch):
    assert script.main([], export) == 1
    assert "TensorRT can't be imported" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tensorrt", Library().module())
    monkeypatch.setattr(script.gpu, "_DRIVER", "libcuda-that-is-not-there.so.1")
    assert script.main([], export) == 1
    assert "no NVIDIA driver" in capsys.readouterr().err
    assert not (export / "engine.plan").exists()


@pytest.fixture
def card(script, monkeypatch):
    """A stand-in for TensorRT and the driver."""
    library = Library()
    monkeypatch.setitem(sys.modules, "tensorrt", library.module())
    monkeypatch.setattr(script.gpu, "gpu", lambda _index=0: script.gpu.Gpu("NVIDIA H100", (9, 0), (13, 0)))
    monkeypatch.setattr(script.gpu, "use", lambda _index: None)
    library.account = json.dumps(good())
    return library


def test_an_engine_is_written_and_its_sites_are_listed(script, export, card, capsys):
    assert script.main(["--layers", str(export / "layers.json")], export) == 0
    said = capsys.readouterr().out
    assert (export / "engine.plan").read_bytes() == b"plan"
    assert json.loads((export / "layers.json").read_text()) == good()
    assert (export / "timings-11.4.0.106-nvidia-h100-sm90.cache").read_bytes() == b"timings"
    assert card.config_flags == {"TF32": False}
    assert "NVIDIA H100, TensorRT 11.4.0.106, digest" in said
    assert "all of 3 sites got what the policy says" in said
    assert script.main(["--table", str(export / "layers.json")], export) == 0
    assert "all of 3 sites" in capsys.readouterr().out


def test_a_site_that_departs_is_told_and_fails_where_that_is_asked_for(script, export, card, capsys):
    account = good()
    account["Layers"][2]["TacticName"] = BF16_GEMM
    card.account = json.dumps(account)
    assert script.main([], export) == 0
    assert "1 of 3 sites did not get what the policy says:\n  mid: activation bf16" in capsys.readouterr().out
    assert script.main(["--strict"], export) == 1


def test_ctrl_c_and_a_failed_build_write_nothing(script, export, card, capsys):
    def stop(_step):
        raise KeyboardInterrupt

    card.on_step = stop
    assert script.main([], export) == 130
    assert "stopped; nothing was written" in capsys.readouterr().err
    card.on_step, card.plan, card.errors = lambda _step: None, None, ["no FP8 kernel for site/pre/compute"]
    assert script.main([], export) == 1
    assert "no FP8 kernel for site/pre/compute" in capsys.readouterr().err
    assert sorted(path.name for path in export.iterdir()) == ["model.onnx", "program.json", "scales.json"]


def test_scales_are_changed_in_the_engine_that_is_there(script, export, card, capsys):
    assert script.main(["--refit"], export) == 0
    assert card.marked == ["pre.input_scale", "mid.input_scale"]
    held = json.loads((export / "scales.json").read_text())
    held["activations"]["pre"]["input"]["scale"] = 0.5
    (export / "new.json").write_text(json.dumps(held))
    card.known_weights = {"pre.input_scale": (1, 4)}
    assert script.main(["--scales", str(export / "new.json")], export) == 1
    said = capsys.readouterr().out
    assert "1 of 2 scales changed" in said
    assert "mid.input_scale: it was folded into a kernel" in said
    assert (export / "engine.plan").read_bytes() == b"plan refitted"
    (export / "new.json").write_text("{")
    assert script.main(["--scales", str(export / "new.json")], export) == 1
    assert "new.json is no JSON" in capsys.readouterr().err
    assert script.main(["--scales", str(export / "none.json")], export) == 2
    assert "none.json: No such file" in capsys.readouterr().err
