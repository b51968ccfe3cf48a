"""`export` of a study for a Hopper GPU: what is written, what is refused by name, and what the folder then does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml

from precision_search.lowering import Asked, choose_hopper
from precision_search.main import main

SCHEMES = """
schemes:
  fp32: {weight: fp32, activation: fp32}
  bf16: {weight: bf16, activation: bf16}
  fp8: {weight: fp8_e4m3, weight_scale: tensor, activation: fp8_e4m3}
  e5m2: {weight: fp8_e4m3, activation: fp8_e5m2, activation_scale: dynamic}
baseline: bf16
space: [{match: "*", allow: [fp32, bf16, fp8, e5m2]}]
"""
DECODER = f"""
version: 1
name: tokens
model: {{name: decoder}}
target: {{device: h100_sxm, slow_fp8: allow}}
data: {{search: 1, held_back: 1}}
calibrate: {{method: amax}}
{SCHEMES}
gates: [{{metric: lsd_db, max: 1.0}}]
search: {{minimize: seconds, candidates: 3, evaluations: 12, seed: 0}}
"""


def run(*arguments):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code or 0


@pytest.fixture(scope="module")
def recipe(made) -> Path:
    text = (made / "tiny.yaml").read_text()
    head, tail = text.split("schemes:")[0], text[text.index("gates:") :]
    path = made / "hopper.yaml"
    path.write_text(head.replace("p150a", "h100_sxm, slow_fp8: allow") + SCHEMES + tail)
    return path


def written(recipe, path, scheme_of):
    """A policy file of a scheme for each site, bf16 where none is named."""
    names = [site.name for site in choose_hopper(Asked(str(recipe))).setting.sites]
    path.write_text(yaml.safe_dump({"sites": {name: scheme_of(name) or "bf16" for name in names}}))
    return path


@pytest.fixture(scope="module")
def policy(recipe) -> Path:
    """FP8 at the first convolution, fp32 at the last."""
    return written(recipe, recipe.with_name("policy.yaml"), {"conv_pre": "fp8", "conv_post": "fp32"}.get)


@pytest.fixture(scope="module")
def exported(recipe, policy, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "tiny_h100"
    assert run("export", recipe, "--policy", policy, "--seconds", "0.2", "--out", out, "--quiet") == 0
    return out.rename(tmp_path_factory.mktemp("elsewhere") / "moved")


def start(folder, *arguments):
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_quantized_is_what_the_policy_quantizes(exported):
    model = onnx.load(exported / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    quantizes = [node.name for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    roles = ("quantize_input", "dequantize_input", "dequantize_weight")
    assert quantizes == [f"site/conv_pre/{role}" for role in roles]
    sites = json.loads((exported / "program.json").read_text())["sites"]
    assert [name for name, site in sites.items() if site["activation"] == "fp8_e4m3"] == ["conv_pre"]
    assert sites["conv_post"]["activation"] == "fp32"


def test_the_folder_checks_itself_and_takes_another_length(exported):
    checked = start(exported, "run.py", "--check")
    assert checked.returncode == 0, checked.stderr
    assert "within the tolerance" in checked.stdout
    built = start(exported, "build.py", "--check")
    assert built.returncode == 0, built.stdout + built.stderr
    axes = json.loads((exported / "program.json").read_text())["axes"]
    (limits,) = axes.values()
    frames = limits["opt"] + 3
    np.savez(exported / "other.npz", mel=np.zeros((1, 80, frames), np.float32))
    ran = start(exported, "run.py", "--input", "other.npz", "--output", "other_out.npz")
    assert ran.returncode == 0, ran.stderr
    assert np.load(exported / "other_out.npz")["waveform"].shape[-1] == 256 * frames


def test_fixed_shapes_and_streams(recipe, policy, tmp_path, capsys):
    arguments = ("export", recipe, "--policy", policy, "--seconds", "0.2", "--json")
    assert run(*arguments, "--fixed", "--out", tmp_path / "fixed") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["lengths"], data["fixed"]) == ({}, "as --fixed asks")
    assert run(*arguments, "--stream", "--chunk-ms", "100", "--out", tmp_path / "live") == 0
    manifest = json.loads((tmp_path / "live" / "program.json").read_text())
    assert manifest["streaming"]
    assert manifest["states"]
    checked = start(tmp_path / "live", "run.py", "--check")
    assert checked.returncode == 0, checked.stderr


def test_an_export_is_the_same_every_time(recipe, policy, exported, tmp_path):
    assert run("export", recipe, "--policy", policy, "--seconds", "0.2", "--out", tmp_path / "b", "--quiet") == 0
    for path in (tmp_path / "b").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (exported / path.relative_to(tmp_path / "b")).read_bytes(), path.name


def test_fp8_at_a_transposed_convolution_is_refused_by_name(recipe, tmp_path, capsys):
    other = written(recipe, tmp_path / "other.yaml", {"ups.0": "fp8"}.get)
    assert run("export", recipe, "--policy", other, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "TensorRT on h100_sxm refuses 1 of" in said
    assert "1 site: ups.0" in said
    assert not (tmp_path / "out").exists()


def test_e5m2_is_refused_for_tensorrt_by_name_and_lowered_for_gemms(tmp_path, capsys):
    recipe = tmp_path / "tokens.yaml"
    recipe.write_text(DECODER)
    policy = written(recipe, tmp_path / "policy.yaml", lambda site: "e5m2" if site.endswith(".query") else None)
    arguments = ("export", recipe, "--policy", policy, "--fixed", "--quiet")
    assert run(*arguments, "--out", tmp_path / "engine") == 2
    said = capsys.readouterr().err
    assert "TensorRT" in said
    assert "layers.0.attention.query" in said
    assert not (tmp_path / "engine").exists()
    assert run(*arguments, "--route", "gemm", "--out", tmp_path / "gemms") == 0
    streamed = ("--route", "gemm", "--stream", "--chunk-ms", "80", "--out", tmp_path / "live")
    assert run("export", recipe, "--policy", policy, "--quiet", *streamed) == 2
    assert "the scale of a chunk is not that of the whole" in capsys.readouterr().err
    model = onnx.load(tmp_path / "gemms" / "model.onnx")
    quantized = [node.name.split("/")[1] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert quantized == [f"layers.{layer}.attention.query" for layer in range(4)]
    checked = start(tmp_path / "gemms", "run.py", "--check")
    assert checked.returncode == 0, checked.stderr


def test_modelopts_configuration(recipe, policy, tmp_path, capsys):
    arguments = ("export", recipe, "--policy", policy, "--to", "modelopt", "--out", tmp_path / "cfg", "--json")
    assert run(*arguments) == 0
    assert json.loads(capsys.readouterr().out)["fp8_sites"] == 1
    cfg = json.loads((tmp_path / "cfg" / "quant_cfg.json").read_text())
    assert "conv_pre" in json.dumps(cfg)
    assert "conv_post" not in json.dumps(cfg)


def test_ranges_of_modelopt_go_before_our_own(recipe, policy, tmp_path, capsys):
    torch.save({"conv_pre.input_quantizer._amax": torch.tensor(44.8)}, tmp_path / "calibrated.pt")
    arguments = ("export", recipe, "--policy", policy, "--seconds", "0.2", "--fixed", "--quiet")
    assert run(*arguments, "--ranges", tmp_path / "calibrated.pt", "--out", tmp_path / "out") == 0
    (held,) = json.loads((tmp_path / "out" / "scales.json").read_text())["activations"]["conv_pre"].values()
    assert held["scale"] == pytest.approx(0.1)
    torch.save({"elsewhere.input_quantizer._amax": torch.tensor(1.0)}, tmp_path / "other.pt")
    assert run(*arguments, "--ranges", tmp_path / "other.pt", "--out", tmp_path / "none") == 2
    assert "no sites elsewhere" in capsys.readouterr().err
    assert run(*arguments, "--ranges", tmp_path / "nothing.pt", "--out", tmp_path / "none") == 2
    assert "nothing.pt" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--card", "blackhole_p150", "--no-host"), ("--card", "--no-host", "the export is for hopper")),
        (("--backend", "tenstorrent", "--route", "gemm"), ("--route", "the export is for tenstorrent")),
        (("--backend", "tenstorrent"), ("h100_sxm", "Tenstorrent card")),
        (("--chunk-ms", "80"), ("--stream",)),
    ],
)
def test_what_does_not_go_together_is_told_at_once(recipe, tmp_path, capsys, arguments, words):
    assert run("export", recipe, *arguments, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert not (tmp_path / "out").exists()


def test_without_onnx_the_extra_is_named(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "precision_search.written_onnx", raising=False)
    for package in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, package, None)
    assert run("export", recipe, "--out", tmp_path / "out") == 2
    assert "onnx and onnxscript not installed: pip install 'precision-search[hopper]'" in capsys.readouterr().err


def test_a_study_for_a_tensix_card_is_no_hopper_export(made, tmp_path, capsys):
    assert run("export", made / "tiny.yaml", "--backend", "hopper", "--out", tmp_path / "out") == 2
    assert "is for p150a" in capsys.readouterr().err
