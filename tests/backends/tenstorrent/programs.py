"""Small programs for the emission, and what a mock card says of them."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from backends.tenstorrent.cards import CARDS
from backends.tenstorrent.emission import emit
from backends.tenstorrent.exported import mock_card
from backends.tenstorrent.program import CardStep, Compute, Constant, Program, State, Step, Value

LOFI = Compute("lofi", True)
EXPORTED = Path(mock_card.__file__).parent
SHAPE = (1, 1, 64, 64)


def constant(name, shape, dtype="bf16", layout="tile", *, on_host=False):
    stored = "fp32" if on_host else dtype
    value = Value(name, tuple(shape), dtype, layout=layout)
    return Constant(value, np.zeros(shape, np.float32), stored, layout, on_host)


def step(op, inputs, result, shape=SHAPE, dtype="bf16", *, layout="tile", place="card", source="model", **more):
    value = Value(result, tuple(shape), dtype if place == "card" else "float32", place, layout)
    return CardStep(op, tuple(inputs.split()), value, source=source, **more)


def program(
    steps: Sequence[Step],
    constants: Sequence[Constant] = (),
    inputs: Mapping[str, tuple[int, ...]] | None = None,
    card: str = "blackhole_p150",
    outputs: Mapping[str, str] | None = None,
    states: Mapping[str, State] | None = None,
) -> Program:
    hosts = tuple(Value(name, shape, "float32", "host") for name, shape in (inputs or {"h": SHAPE}).items())
    named = {one.value.name: one for one in constants}
    return Program(
        CARDS[card].architecture, card, hosts, named, {}, tuple(steps), outputs or {"part": "out"}, states or {}
    )


def around(body: CardStep, dtype="bf16", shape=SHAPE, *, layout="tile", constants=(), card="blackhole_p150") -> Program:
    """A step between upload and download; it reads `x`."""
    return program(
        [
            step("upload", "h", "x", shape, dtype, layout=layout),
            body,
            step("download", body.result.name, "out", body.result.shape, place="host"),
        ],
        constants,
        {"h": shape},
        card,
    )


def convolution(channels, out, taps, length=64, *, card="blackhole_p150", activation="bf16", weight="bf16", **more):
    """A conv1d, or its transpose of stride 2, as a program: options as of a card step, `op`, `layout`, `compute`."""
    op, layout = more.pop("op", "conv1d"), more.pop("layout", None)
    shares = activation in ("bfp8_b", "bfp4_b")
    transposed = op == "conv_transpose1d"
    compute, stride = more.pop("compute", LOFI), 2 if transposed else 1
    both = (taps - 2) // 2 if transposed else taps // 2
    padding = (both, taps - 2 - both) if transposed else (both, taps - 1 - both)
    options = {
        "batch": 1,
        "length": length,
        "in_channels": channels,
        "out_channels": out,
        "kernel": taps,
        "stride": stride,
        "padding": padding,
        "dilation": 1,
        "groups": 1,
        "in0_block_w": None,
        **more,
    }
    dtype = "fp32" if activation == "fp32" else "bf16"
    shape = (channels, out, 1, taps) if transposed else (out, channels, 1, taps)
    return around(
        step(op, "x w b", "y", (1, 1, length * stride, out), dtype, options=options, compute=compute, site="site"),
        activation,
        (1, 1, length, channels),
        layout=layout or ("tile" if shares else "row_major"),
        constants=[
            constant("w", shape, weight, "row_major", on_host=True),
            constant("b", (1, 1, 1, out), weight, "row_major", on_host=True),
        ],
        card=card,
    )


def asked(card: str, programs: Sequence[Program]) -> list[dict]:
    """What ttnn says of programs on a mock card: see ask_card.py."""
    cases = [
        {
            "text": emit(one),
            "weights": {
                name: (held.value.shape, held.file_dtype, held.file_layout, held.on_host)
                for name, held in one.constants.items()
            },
            "inputs": {value.name: value.shape for value in one.inputs},
        }
        for one in programs
    ]
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "cases.json", Path(folder) / "answers.json"
        given.write_text(json.dumps(cases))
        environment = os.environ | mock_card.prepare(card) | {"PYTHONPATH": str(EXPORTED), "OMP_NUM_THREADS": "1"}
        script = Path(__file__).with_name("ask_card.py")
        done = subprocess.run(
            [sys.executable, str(script), str(given), str(found)],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        answers: list[dict] = json.loads(found.read_text())
    return answers
