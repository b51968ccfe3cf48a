"""README.md of an export: what it says is so, and its commands are those that the scripts take."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest

from backends.hopper.exported import FILES
from backends.hopper.manifest import Limits, Told, manifest
from backends.hopper.readme import readme, requirements
from backends.hopper.tolerance import Bounds, CardTolerance, CpuTolerance
from tests.backends.hopper.tiny_exports import facts, mixed, streaming, write_mixed

BOUNDS = {"waveform": Bounds(CardTolerance.between([1.0], [0.99]), CpuTolerance.between([1.0], [1.0]))}
PARSES = """
import json, sys
sys.path.insert(0, ".")
import build, run
for script, *arguments in json.load(sys.stdin):
    {"run.py": run, "build.py": build}[script].parse(arguments)
"""


def told(lowered, **changed):
    """The README of a model, with facts changed."""
    return readme(manifest(lowered, changed.pop("told", None)), facts(lowered, **changed), BOUNDS)


@pytest.fixture(scope="module")
def text():
    return told(mixed()[0], sites=9)


def commands(text):
    """Lines of the shell, joined where they go on."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


def test_commands_are_those_that_the_scripts_take(text, tmp_path):
    write_mixed(tmp_path / "tiny")
    written = (tmp_path / "tiny" / "README.md").read_text()
    scripts = [words[1:] for words in commands(written) if words[0] == "python"]
    assert {script for script, *_ in scripts} == {"run.py", "build.py"}
    assert ["run.py", "--check"] in scripts
    assert ["build.py"] in scripts
    done = subprocess.run(
        [sys.executable, "-c", PARSES],
        cwd=tmp_path / "tiny",
        input=json.dumps(scripts),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {words[0] for words in commands(written)} == {"python", "pip", "trtexec"}


def test_every_file_is_named_and_no_other(text):
    files = text.partition("## Files")[2]
    named = {name.strip() for line in re.findall(r"^\* `([^`]*)`", files, re.MULTILINE) for name in line.split(",")}
    others = {"model.onnx", "program.json", "policy.yaml", "scales.json", "sample/", *requirements()}
    assert named == set(FILES) | others


def test_flags_of_trtexec_are_each_explained(text):
    build, timing, layers = (words for words in commands(text) if words[0] == "trtexec")
    table = text.partition("| flag | what for |")[2].partition("##")[0]
    for flag in (*build, *timing, *layers):
        name = flag.partition("=")[0]
        if name not in ("trtexec", "--onnx", "--saveEngine", "--loadEngine"):
            assert name in table, name
    assert {"--stronglyTyped", "--noTF32", "--profilingVerbosity=detailed"} <= set(build)
    assert "--fp8" not in text  # TensorRT 11 has no flags of precision
    assert "minShapes" not in text


def test_an_axis_that_varies_has_its_limits_in_the_commands():
    lowered = mixed()[0]
    model = type(lowered.model)()
    model.CopyFrom(lowered.model)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "frames"
    text = told(replace(lowered, model=model), told=Told({"frames": Limits(1, 12, 48)}, noise={"rows": "normal"}))
    build, timing, _ = (words for words in commands(text) if words[0] == "trtexec")
    assert "--minShapes=rows:1x1x32" in build
    assert "--optShapes=rows:1x12x32" in build
    assert "--maxShapes=rows:1x48x32" in build
    assert "--shapes=rows:1x12x32" in timing
    assert "`frames` may be 1 to 48; an engine is tuned for 12" in text
    assert "`rows` is noise, normal" in text


def test_what_is_in_it_is_said(text):
    assert "of 7 sites 3 read fp8_e4m3, 2 bf16, 1 fp16, 1 fp32. Precision" in text
    assert "`rows` [1, 12, 32] float32" in text
    assert "It has 7 of the model's 9 sites" in text
    assert "| w8a8 | 75.0% |" in text
    assert "nothing of this folder has run on a card" in text
    assert "5 QuantizeLinear and 9 DequantizeLinear" in text
    assert "| waveform | CPU | 60.0 | 0.00391 | inf |" in text
    assert mixed()[0].policy.digest in text


def test_what_a_cpu_computed_is_said_where_it_did(text):
    assert "by ONNX Runtime on a CPU" not in text.partition("## What was seen")[2]
    seen = told(mixed()[0], seen_on_cpu={"waveform": 61.25, "score": float("inf")})
    assert "* Seen: the sample by ONNX Runtime on a CPU, waveform 61.2 dB; score equal." in seen


def test_notes_of_sites_are_said():
    note = "FP8 measured slower than bf16 at this shape"
    assert f"* `up`: {note}" in told(mixed()[0], told=Told(notes={"up": note}))


def test_a_model_for_gemms_says_why_no_engine_is_made_of_it():
    text = told(mixed(dynamic=True)[0])
    assert "by plain GEMMs" in text
    assert "E5M2, which TensorRT does not have and scales that are taken from each tensor" in text
    assert "trtexec" not in text
    assert all(words[:2] != ["python", "build.py"] for words in commands(text))


def test_chunks_and_steps_say_how_runs_make_an_utterance():
    size = {"chunk_ms": 4.0, "chunk_frames": 4, "chunk_samples": 64, "latency_samples": 96, "parts": {}}
    text = told(streaming()[0], stream={**size, "inputs": {"x": {}}, "masks": {"early": {}}})
    assert "sample i of chunk n is sample 64 n - 96 + i of the utterance" in text
    assert "`early`" in text
    assert "states: 1, kept from run to run" in text
    assert "random numbers" in text
    steps = told(streaming()[0], stream={**size, "inputs": {}, "masks": {}})
    assert "A run is a step of 4.0 ms" in steps
    assert "the first 96 samples (runs: 1)" in steps


def test_requirements_name_what_each_runtime_needs():
    files = requirements()
    assert "onnxruntime-gpu==" in files["requirements.txt"]
    assert "tensorrt" not in files["requirements.txt"]
    assert files["requirements-tensorrt.txt"].startswith("-r requirements.txt\ntensorrt==")
