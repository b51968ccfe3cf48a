"""benchmarks/hopper_gpu.py without a card: it finds a rule that was planted, and says what it could not measure."""

import importlib
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from backends.hopper.accumulation import (
    CANDIDATES,
    EXACT_FP32,
    HOPPER_FP8,
    HOPPER_FP8_PROMOTED,
    AccumulationModel,
    matmul,
)
from backends.hopper.measured_results import MeasuredResults

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
PLANTED = [
    HOPPER_FP8,
    HOPPER_FP8_PROMOTED,
    AccumulationModel(16, 14, "nearest", includes_accumulator=False),
    AccumulationModel(32, 13, promote_every=512, exponents="products"),
    AccumulationModel(64, 15, promote_every=192),
    AccumulationModel(16, 25),
]
# What a machine with torch and numpy alone does not have.
BLOCKED = """
import sys
names = "safetensors pydantic scipy yaml librosa soundfile soxr pesq pystoi inflect numba matplotlib ray onnx onnx_ir"
for name in (*names.split(), "onnxruntime", "onnxscript", "modelopt", "tensorrt", "transformer_engine", "ml_dtypes"):
    sys.modules[name] = None
"""


@pytest.fixture
def part_of(monkeypatch, tmp_path):
    """A module of benchmarks/hopper, and a part to run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    machine = importlib.import_module("hopper.machine")

    def made(name, seconds=600.0):
        out = tmp_path / f"{name}.json"
        return importlib.import_module(f"hopper.{name}"), machine.Part(CPU, True, seconds, out)

    return made


@pytest.mark.parametrize("model", PLANTED, ids=str)
def test_the_probes_read_off_a_rule_that_was_planted(part_of, model):
    probes, _ = part_of("probes")
    reading = probes.read_off(lambda a, b: matmul(a, b, model), CPU)
    assert reading.model() == model
    assert reading.first_group == tuple(range(model.step))
    assert (reading.result_bits, reading.cut_one_by_one) == (model.result_bits, True)


def test_the_probes_say_where_there_is_no_rule_to_read(part_of):
    probes, _ = part_of("probes")
    exact = probes.read_off(lambda a, b: matmul(a, b, EXACT_FP32), CPU)
    assert exact.fraction_bits is None
    assert exact.model() is None
    order = torch.arange(256).view(2, -1).t().flatten()  # two places of k that are far apart meet in a step
    mixed = probes.read_off(lambda a, b: _in_order(a, b, order), CPU)
    assert mixed.step is None, "the group has gaps"
    assert mixed.first_group == (*range(16), *range(128, 144))


def _in_order(a, b, order):
    if a.shape[1] != len(order):
        return matmul(a, b, HOPPER_FP8)
    a, b = (codes.view(torch.uint8) for codes in (a, b))
    return matmul(a[:, order].view(torch.float8_e4m3fn), b[order].view(torch.float8_e4m3fn), HOPPER_FP8)


def test_the_fit_finds_the_rule_behind_a_gemm(part_of, monkeypatch):
    numerics, part = part_of("numerics")
    model = PLANTED[4]
    assert model not in CANDIDATES, "the probes must bring it"

    def card(codes, columns, scale, weight_scale, fast=True, out=torch.bfloat16):
        return (matmul(codes, columns, model if not fast else HOPPER_FP8) * scale * weight_scale).to(out)

    monkeypatch.setattr(numerics, "scaled_mm", card)
    monkeypatch.setattr(numerics, "CPU_LENGTHS", (48, 256))
    monkeypatch.setattr(numerics, "CPU_FITTED_LENGTH", 256)
    monkeypatch.setattr(numerics, "SEEN", 12)
    monkeypatch.setattr(numerics, "MOST_STEPS", 64)  # no fp32 one by one over 256
    numerics.measure(part)
    found = json.loads(part.out.read_text())
    assert "failed" not in found
    assert [(held["fast"], AccumulationModel(**held["model"])) for held in found["fitted"]] == [
        (True, HOPPER_FP8),
        (False, model),
    ]
    assert all(held["equal"] == 1 and held["max_ulp"] == 0 for held in found["fitted"])
    assert {row["fitted"]["equal"] for row in found["products"]} == {1.0}
    assert len(found["products"]) == 2 * 2 * 3 * 6
    assert {(row["scales"], row["out"]) for row in found["scales"] if row["equal"] == 1} == {
        (scales, out) for scales in ("tensor", "row") for out in ("bfloat16", "float32")
    }
    assert "no CUDA device" in found["quantization"]["not_measured"]


def test_the_fit_finds_how_torch_sums_on_this_cpu(part_of):
    numerics, part = part_of("numerics")
    found = {"fitted": []}
    best = numerics._fitted(True, [], numerics.SEEN, part, found)
    assert best.equal == found["fitted"][0]["equal"] > 0.5
    assert best.model.fraction_bits >= 23, "a CPU sums in fp32"


def test_a_card_is_timed_by_replays_of_a_graph(part_of, monkeypatch):
    timing, _ = part_of("timing")
    clock = iter(range(1000))
    made = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at_ms = next(clock)

        def elapsed_time(self, end):
            return float(end.at_ms - self.at_ms)

    class Graph:
        replays = 0

        def replay(self):
            Graph.replays += 1

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = {"Event": Event, "CUDAGraph": Graph, "Stream": lambda device: stream}
    fakes |= {"current_stream": lambda device: stream, "synchronize": lambda device: None}
    fakes |= {"graph": lambda graph: nullcontext(), "stream": lambda stream: nullcontext()}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    calls = [lambda place=place: made.append(place) for place in range(12)]
    found = timing.on_card(calls, torch.device("cuda"), runs=5)
    # A warm-up of 3 calls took 1 ms, so a graph of 1 ms would hold fewer than the 12 that must take turns.
    assert found.calls == 12
    assert made[6:] == list(range(12))
    assert Graph.replays == 6, "the first does not count"
    assert found.us == pytest.approx(1000 / 12)
    assert found.spread_us == 0


def test_quantization_is_compared_in_every_way(part_of, monkeypatch):
    quantization, _ = part_of("quantization")
    told = []
    # As on a card, but the card is the host: all bits must be the same.
    made = quantization.compared(SimpleNamespace(on_card=True, device=CPU, say=told.append))
    for fmt in ("fp8_e4m3", "fp8_e5m2"):
        shares = {name: share for name, share in made[fmt].items() if isinstance(share, float)}
        assert set(shares.values()) == {1.0}
        assert len(shares) == 5
        assert "triton" in made[fmt]["Triton"]["not_measured"]
    assert "bits equal to the host's" in told[0]
    a, b = torch.tensor([1.0, torch.nan, 0.0]), torch.tensor([1.0, -torch.nan, -0.0])
    assert quantization.equal(a, b) == pytest.approx(2 / 3)


def test_a_section_that_fails_leaves_the_others(part_of, monkeypatch):
    numerics, part = part_of("numerics")
    monkeypatch.setattr(numerics, "scaled_mm", lambda *_: (_ for _ in ()).throw(RuntimeError("no algorithm\nfound")))
    numerics.measure(part)
    found = json.loads(part.out.read_text())
    assert found["failed"].startswith("sums, fast accumulation True: RuntimeError: no algorithm; sums, fast")
    assert "not_measured" in found["quantization"]


def test_a_part_that_dies_leaves_what_it_wrote_and_a_time_that_is_over_is_said(part_of, monkeypatch):
    gemm, part = part_of("gemm", seconds=0.0)
    gemm.measure(part)
    found = json.loads(part.out.read_text())
    assert found["rows"] == []
    assert {row["why"] for row in found["left_out"]} == {"the part's time was over"}
    script = importlib.import_module("hopper_gpu")
    row = {"m": 1, "n": 16, "k": 16}

    def dies(command, **_):
        Path(command[command.index("--out") + 1]).write_text(json.dumps({"rows": [row]}))
        return SimpleNamespace(returncode=-11)

    monkeypatch.setattr(script.subprocess, "run", dies)
    held = script.run_apart("gemm", CPU, quick=True)
    assert held["rows"] == [row]
    assert held["failed"] == "its process ended with -11; what it printed says why"

    def hangs(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(script.subprocess, "run", hangs)
    assert "was stopped" in script.run_apart("gemm", CPU, quick=True)["failed"]
    results = {"version": 1, "environment": {"device": "a CPU", "type": "cpu"}}
    results |= {part: {"rows": [], "failed": "why"} for part in ("numerics", "gemm", "sites", "kernels")}
    assert sum("failed: why" in line for line in script.lines(results)) == 4


def test_the_command_runs_with_torch_and_numpy_alone_and_its_file_is_read_back(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    out = tmp_path / "results.json"
    command = ["benchmarks/hopper_gpu.py", "--device", "cpu", "--quick", "--parts", "gemm,kernels", "--out", str(out)]
    made = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    assert "no CUDA device in use" in made.stdout
    held = MeasuredResults.load(out)
    assert not held.on_card
    assert dict(held.not_measured) == {"numerics": "not asked for", "sites": "not asked for"}
    assert {(row.dtype, row.quantizes) for row in held.gemms} == {
        ("bf16", "none"),
        ("fp8_e4m3", "none"),
        ("fp8_e4m3", "static"),
        ("fp8_e4m3", "dynamic"),
    }
    assert {(row.operation, row.fmt) for row in held.kernels} == {
        (operation, fmt) for operation in ("fake_quantize", "fake_quantize_dynamic") for fmt in ("fp8_e4m3", "fp8_e5m2")
    }
    left_out = json.loads(out.read_text())["kernels"]["left_out"]
    assert any("triton" in row["why"] for row in left_out)


def test_what_is_asked_wrongly_is_said(part_of, monkeypatch, capsys):
    part_of("machine")
    script = importlib.import_module("hopper_gpu")
    monkeypatch.setattr(sys, "argv", ["hopper_gpu.py", "--parts", "gemm,speed"])
    with pytest.raises(SystemExit):
        script.main()
    assert "no part speed; there are numerics, gemm, sites, kernels" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["hopper_gpu.py", "--device", "cuda"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch finds no CUDA device here; take a machine with one, or --device cpu"):
        script.main()


def test_sites_are_those_of_the_models(part_of):
    sites, _ = part_of("sites")
    assert json.loads(sites.FILE.read_text()) == sites.discovered(), "python benchmarks/hopper_gpu.py --write-sites"


def test_the_file_has_a_line_for_each_row(part_of):
    part_of("machine")
    script = importlib.import_module("hopper_gpu")
    told = {"version": 1, "gemm": {"rows": [{"m": 1, "k": [2, 3]}, {"m": 2}], "left_out": []}, "card": {}}
    laid = script.laid_out(told)
    assert json.loads(laid) == told
    assert laid.count("\n") == 10
    assert '   {"m": 1, "k": [2, 3]},' in laid.splitlines()


def test_sites_add_up(part_of):
    sites, _ = part_of("sites")
    site = {"op": "linear", "k": 64, "n": 32, "groups": 1, "rows_per_second": 12.5, "count": 3}
    model = {"chunk_seconds": 0.08, "cache": "cold", "sites": [site, site | {"op": "matmul"}, site | {"k": 3}]}
    times = {
        (4, 32, 64, "cold"): {"bf16": 5.0, "fp8": 2.0, "fp8 static": 4.0, "fp8 dynamic": 6.0},
        (4, 32, 3, "cold"): {"bf16": 1.0},
    }
    made = sites.added_up(model, 4, times, "NVIDIA H100 80GB HBM3")
    assert made["us"] == {"bf16": 15.0, "fp8": 6.0, "fp8 static": 12.0, "fp8 dynamic": 18.0, "best": 12.0}
    assert (made["sites"], made["timed_in_both"], made["faster_in_fp8_static"]) == (6, 3, 3)
    assert made["us_of_sites_without_fp8"] == 3.0
    assert 0 < made["nvidia_us"]["bf16"] < made["nvidia_us"]["fp8"], "FP8 is slower there for small products"
    assert sites.added_up(model, 4, times, "cpu")["nvidia_us"] is None


def test_which_of_nvidias_tables_a_card_has(part_of):
    nvidia, _ = part_of("nvidia")
    cards = {"NVIDIA H100 80GB HBM3": "h100_sxm", "NVIDIA H200": "h200_sxm", "NVIDIA L40S": "l40s"}
    assert {name: nvidia.table_of(name) for name in cards} == cards
    assert nvidia.table_of("NVIDIA H100 PCIe") is None
    assert nvidia.table_of("NVIDIA A100-SXM4-40GB") is None
    bf16, fp8 = nvidia.nvidia_us("NVIDIA H100 80GB HBM3", 4096, 3072, 8192)
    assert fp8 < bf16
    assert nvidia.nvidia_us("AMD EPYC", 64, 64, 64) == (None, None)
