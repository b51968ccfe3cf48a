"""Run by test_runtime.py in a process of its own, on a mock card: what a session does, as JSON on stdout.

Usage: runtime_script.py FOLDER MOCK_FOLDER
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

folder, mock_folder = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(folder))
import mock_card  # noqa: E402

os.environ.update(mock_card.prepare("wormhole_n150", mock_folder), TT_METAL_LOGS_PATH=tempfile.mkdtemp())

import checked  # noqa: E402
import chunks  # noqa: E402
import replay  # noqa: E402
import runtime  # noqa: E402
from runtime import ttnn  # noqa: E402

said = {}


def error_of(function):
    try:
        function()
    except runtime.RuntimeFailure as error:
        return str(error)
    return None


values = np.random.default_rng(3).standard_normal((3, 40, 70)).astype(np.float32)
for dtype in ("fp32", "bf16", "bfp8_b", "bfp4_b"):
    held = runtime.upload(values, dtype, "tile", None)
    again = runtime.upload(runtime.read_back(held), dtype, "tile", None)
    exact = np.array_equal(runtime.read_back(held), runtime.read_back(again))
    said[dtype] = [exact, float(np.abs(runtime.read_back(held) - values).max()), str(runtime.read_back(held).dtype)]
numbers = np.array([[0, 1, 2**31 + 5]], np.uint32)
said["uint32"] = runtime.read_back(runtime.upload(numbers, "uint32", "row_major", None)).tolist()
special = np.array([[np.inf, -np.inf, np.nan, -0.0]], np.float32)
said["special"] = [repr(float(one)) for one in runtime.read_back(runtime.upload(special, "bf16", "row_major", None))[0]]

shapes = {"x": (2, 8), "y": (3,)}
long = {"x": np.arange(48).reshape(2, 24), "y": np.arange(3)}
stacked, cut = chunks.split(long, shapes)
said["along"] = [stacked, [chunk["x"][0].tolist() for chunk in cut]]
stacked, cut = chunks.split({"x": np.zeros((4, 2, 8)), "y": np.arange(12).reshape(4, 3)}, shapes)
said["own"] = [stacked, [chunk["y"].tolist() for chunk in cut]]
stacked, cut = chunks.split({"x": np.zeros((2, 8)), "y": np.zeros(3)}, shapes)
said["once"] = [stacked, len(list(cut))]
said["ragged"] = error_of(lambda: chunks.split({"x": np.zeros((2, 9)), "y": np.zeros(3)}, shapes))
said["unlike"] = error_of(lambda: chunks.split({"x": np.zeros((4, 2, 8)), "y": np.zeros((3, 3))}, shapes))
both = error_of(lambda: chunks.split({"x": np.zeros((2, 9))}, shapes))
said["all at once"] = both
said["missing"] = error_of(lambda: chunks.split({"x": np.zeros((2, 8))}, shapes))

inputs = {"x": np.zeros((64, 64), np.float32)}
with runtime.opened() as device:
    export = runtime.Export(folder)
    said["inputs"] = error_of(lambda: export.check_inputs({"x": np.zeros((64, 63), np.float32)}))
    session = replay.Session(export, device)
    said["shapes"] = {part: list(value.shape) for part, value in session.run(inputs).items()}
    chunked = session.stream({"x": np.zeros((64, 192), np.float32)})
    said["stream"] = {part: list(value.shape) for part, value in chunked.items()}
    said["time"] = error_of(lambda: session.time(inputs, 1))

    # What a trace keeps: a tensor, and views of it; not its neighbour.
    kept = replay.Traced(export, device)
    source, other = (runtime.upload(np.zeros((1, 1, 64, 64)), "bf16", "tile", device) for _ in range(2))
    view = ttnn.reshape(source, (1, 1, 64, 64))
    kept._sources.append(source)
    said["kept"] = [kept._is_kept(one) for one in (source, view, ttnn.reshape(source, (64, 64)), other)]
    ttnn.deallocate(other)
    said["kept"].append(kept._is_kept(other))

    # The card, as a program asks for it.
    said["fits"] = checked.misfit(export.manifest, device)
    said["unfit"] = [
        checked.misfit({**export.manifest, **wrong}, device)
        for wrong in ({"architecture": "blackhole", "card": "blackhole_p150", "grid": [13, 10]}, {"grid": [8, 9]})
    ]

    # What is raised in the midst of a run.
    raising = folder / "host.py"
    raising_text = raising.read_text()
    raising.write_text(
        "def host_0(channels):\n    raise RuntimeError('repeats must sum to 7\\nbacktrace:\\n - here')\n"
    )
    sys.modules.pop("host", None)
    said["host"] = error_of(lambda: session.run(inputs))
    raising.write_text(raising_text)
    sys.modules.pop("host", None)

    # Times of a stream, were this card one.
    runtime.on_mock = lambda: False
    export.manifest["stream"] = {"chunk_ms": 80.0, "inputs": {}}
    timed = session.time(inputs, 3)
    said["timed"] = [len(timed["operations"]), timed["real_time_factor"] * 0.08 / timed["median_seconds"]]
    said["report"] = replay.report({**timed, "median_seconds": 0.02, "real_time_factor": 0.25}).splitlines()[0]
    del export.manifest["stream"]
    said["plain"] = replay.report({**session.time(inputs, 1), "median_seconds": 0.02}).splitlines()[0]
    runtime.on_mock = lambda: True

    # A mock card records no commands: here it is told which calls would be made of it.
    calls = []
    ttnn.begin_trace_capture = lambda device, cq_id: calls.append("begin") or 7
    ttnn.end_trace_capture = lambda device, trace, cq_id: calls.append(f"end {trace}")
    ttnn.execute_trace = lambda device, trace, cq_id, blocking: calls.append(f"execute {trace}")
    copied = ttnn.copy_host_to_device_tensor
    ttnn.copy_host_to_device_tensor = lambda source, target: calls.append("write") or copied(source, target)
    linear = ttnn.linear
    ttnn.linear = lambda *arguments, **options: calls.append("linear") or linear(*arguments, **options)
    ttnn.linear.python_fully_qualified_name = "ttnn.linear"
    traced = replay.Traced(export, device)
    for _ in range(3):
        said["traced"] = {part: list(value.shape) for part, value in traced.run(inputs).items()}
        calls.append("run")
    said["calls"] = list(calls)

    # The same with an input that stays on the card until it changes.
    text = (folder / "model.py").read_text()
    held = text.replace("runtime.upload(np.asarray", 'runtime.hold(state, "x_on_card", np.asarray', 1)
    (folder / "model.py").write_text(held)
    uploaded = runtime._upload
    runtime._upload = lambda *given: calls.append("upload" if given[3] else "pack") or uploaded(*given)
    said["held"], other = {}, {"x": np.ones((64, 64), np.float32)}
    for kind in (replay.Session, replay.Traced):
        calls.clear()
        session = kind(runtime.Export(folder), device)
        tensors = []
        for number, given in enumerate((inputs, other, other, inputs)):
            calls.append(f"run {number}")
            session.run(given)
            tensors.append(session.state["x_on_card"].tensor)
        first = calls.index("run 0")  # states are uploaded before
        said["held"][kind.__name__] = [calls[first:], all(one is tensors[0] for one in tensors)]
    runtime._upload = uploaded
    back = text.replace(
        "    ttnn.copy(normed",
        "    runtime.upload(waveform.reshape(1, 1, 1, 128), 'bf16', 'tile', device)\n    ttnn.copy(normed",
    )
    (folder / "model.py").write_text(back)
    said["midst"] = error_of(lambda: replay.Traced(runtime.Export(folder), device).run(inputs))
print(json.dumps(said))
