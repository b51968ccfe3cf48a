"""What the stand-in was asked for, held against TensorRT's own Python bindings, without its libraries."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backends.hopper import tensorrt
from backends.hopper.exported import builder, engine
from backends.hopper.tensorrt import Settings, TensorRtError
from tests.backends.hopper import recording_tensorrt
from tests.backends.hopper.recording_tensorrt import ENUMS, ParserError, built
from tests.backends.hopper.three_sites import CALIBRATION, three_sites

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
