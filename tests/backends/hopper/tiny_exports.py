"""Tiny models as exports: sites of every format in one, and a stream with state."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from backends.base import Measured
from backends.hopper.emulated import Emulated
from backends.hopper.export import write_export
from backends.hopper.lower import Lowered, lower
from backends.hopper.manifest import Told, limits_of
from backends.hopper.readme import Facts
from backends.hopper.tolerance import bounded
from calibrate.calibration import Calibration
from precision.policy import Policy, Scheme
from voice.graph import SiteGraph, graph_of, site_nodes
from voice.graph.dynamic import dynamic_graph

FP8 = Scheme("w8a8", "fp8_e4m3", "fp8_e4m3")
STORED = Scheme("w8a16", "fp8_e4m3", "bf16")
BF16, FP16, FP32 = (Scheme(name, name, name) for name in ("bf16", "fp16", "fp32"))
E5M2 = Scheme("dynamic", "fp8_e4m3", "fp8_e5m2", activation_scale="dynamic")
CHANNELS, FRAMES, RUNS = 32, 12, 5


class Mixed(nn.Module):
    """Each op, one under each scheme of `POLICY`; the projection is called twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Linear(CHANNELS, CHANNELS)
        self.mix = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.conv = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1)
        self.up = nn.ConvTranspose1d(CHANNELS, CHANNELS, 4, stride=2, padding=1)
        self.out = nn.Conv1d(CHANNELS, 1, 7, padding=3)
        self.eval().requires_grad_(False)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """[1, frames, channels] to sound [1, 1, 2 frames] and a score for each pair of frames."""
        first = torch.nn.functional.gelu(self.project(rows))
        second = self.project(first)
        score = torch.softmax(second @ self.mix(first).transpose(1, 2), -1)
        sound = self.up(torch.nn.functional.leaky_relu(self.conv((score @ second).transpose(1, 2)), 0.1))
        return torch.tanh(self.out(sound)), score


POLICY = {"project": FP8, "mix": STORED, "#matmul0": FP8, "#matmul1": BF16, "conv": FP8, "up": FP16, "out": FP32}


class Stream(nn.Module):
    """A causal convolution on chunks of four frames, which keeps the last two of the frames before."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(CHANNELS, CHANNELS, 3)
        self.out = nn.Conv1d(CHANNELS, 1, 1)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """[1, channels, 4] and [1, channels, 2] to [1, 1, 4] and the state from then on."""
        joined = torch.cat([before, x], 2)
        return torch.tanh(self.out(self.conv(joined))), joined[:, :, -2:].clone()


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def calibrated(graph: SiteGraph) -> Calibration:
    """Largest magnitudes on the graph's examples."""
    ranges: dict[str, dict[str, float]] = {}

    def observe(call):
        held = {"left": call.x, "right": call.weight} if call.is_product else {"input": call.x}
        for operand, values in held.items():
            seen = ranges.setdefault(call.site, {})
            seen[operand] = max(seen.get(operand, 0.0), float(values.abs().amax()))
        return call.compute()

    graph.run(handler=observe)
    return Calibration.of("amax", ranges)  # type: ignore[arg-type]


def policy_of(graph: SiteGraph, schemes: dict[str, Scheme]) -> Policy:
    """By the site's name, or how it ends."""
    names = dict.fromkeys(site.site for site in site_nodes(graph))
    return Policy.of({name: next(scheme for end, scheme in schemes.items() if name.endswith(end)) for name in names})


@cache
def mixed(dynamic: bool = False) -> tuple[Lowered, Measured]:
    """`Mixed`, for TensorRT; or with E5M2 and dynamic scales, for GEMMs."""
    graph = graph_of(Mixed(), {"rows": random(1, FRAMES, CHANNELS)}, parts=("waveform", "score"))
    measured = Measured(calibration=calibrated(graph))
    schemes = {**POLICY, "project": E5M2, "conv": BF16} if dynamic else POLICY
    return lower(graph, policy_of(graph, schemes), measured, "gemm" if dynamic else "tensorrt"), measured


@cache
def streaming() -> tuple[Lowered, Measured]:
    """`Stream`, a chunk of it."""
    given, states = {"x": random(1, CHANNELS, 4)}, {"before": torch.zeros(1, CHANNELS, 2)}
    graph = graph_of(Stream(), given, states, parts=("waveform",))
    measured = Measured(calibration=calibrated(graph))
    return lower(graph, policy_of(graph, {"conv": FP8, "out": BF16}), measured), measured


@cache
def dynamic() -> tuple[Lowered, Measured]:
    """The convolutions of `Stream` on whole utterances of any length."""
    model = Stream()
    whole = nn.Sequential(model.conv, nn.LeakyReLU(0.1), model.out)
    graphs = [graph_of(whole, {"x": random(1, CHANNELS, frames)}, parts=("waveform",)) for frames in (9, 14, 23)]
    graph = dynamic_graph(graphs)
    measured = Measured(calibration=calibrated(graph))
    return lower(graph, policy_of(graph, {"0": FP8, "2": BF16}), measured), measured


def facts(lowered: Lowered, **changed: object) -> Facts:
    known: dict[str, object] = {
        "model": "tiny",
        "policy": "studies/tiny/policy.yaml",
        "policy_digest": lowered.policy.digest,
        "scheme_shares": {"w8a8": 0.75, "bf16": 0.25},
        "fp8_mac_share": 0.75,
        "sites": len(lowered.policy),
        "clip": "anna",
        "clip_seconds": 0.5,
        "versions": {"precision-search": "0.1.0"},
        "sample_rate_hz": 16000,
    }
    return Facts(**{**known, **changed})  # type: ignore[arg-type]


def bounds_of(lowered: Lowered, measured: Measured, runs: list[dict[str, Tensor]], join) -> tuple:
    """What is expected of runs, and the bounds on it."""

    def compute(doubt, seed):
        emulated = Emulated(lowered.graph, lowered.policy, measured, doubt, seed)
        return join([emulated.run(run) for run in runs])

    return bounded(compute)


def write_mixed(folder: Path, *, dynamic: bool = False, told: Told | None = None) -> Path:
    """The export of `mixed`, in a new folder."""
    lowered, measured = mixed(dynamic)
    given = dict(lowered.graph.examples)
    expected, bounds = bounds_of(lowered, measured, [given], lambda runs: _numpy(runs[0]))
    return _write(lowered, measured, folder, _numpy(given), expected, bounds, facts(lowered), told)


def write_dynamic(folder: Path) -> Path:
    """The export of `dynamic`, for 9 to 40 frames."""
    lowered, measured = dynamic()
    given, told = dict(lowered.graph.examples), Told(limits_of(lowered.graph, {"x_length": 40}))  # type: ignore[arg-type]
    expected, bounds = bounds_of(lowered, measured, [given], lambda runs: _numpy(runs[0]))
    return _write(lowered, measured, folder, _numpy(given), expected, bounds, facts(lowered), told)


class Oscillator(nn.Module):
    """A phase summed up in float64, which TensorRT has not, before a layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(CHANNELS, CHANNELS)
        self.eval().requires_grad_(False)

    def forward(self, f0_hz: Tensor) -> Tensor:
        """[1, channels] of F0 to as many values."""
        phase = torch.cumsum(f0_hz.double() / 16000, 1)
        return self.layer(torch.sin(2 * torch.pi * (phase - torch.floor(phase))).float())


def write_oscillator(folder: Path) -> Path:
    """The export of `Oscillator`, its layer in FP8."""
    graph = graph_of(Oscillator(), {"f0_hz": 300 * random(1, CHANNELS).abs()}, parts=("out",))
    measured = Measured(calibration=calibrated(graph))
    lowered = lower(graph, policy_of(graph, {"layer": FP8}), measured)
    given = dict(graph.examples)
    expected, bounds = bounds_of(lowered, measured, [given], lambda runs: _numpy(runs[0]))
    return _write(lowered, measured, folder, _numpy(given), expected, bounds, facts(lowered), None)


def write_stream(folder: Path, *, timed: bool = True) -> Path:
    """The export of `streaming`: of an utterance of whole chunks, or with a first axis of runs."""
    lowered, measured = streaming()
    x = random(1, CHANNELS, 4 * RUNS)
    runs = [{"x": chunk} for chunk in x.split(4, 2)]
    size = {"chunk_ms": 4.0, "chunk_frames": 4, "chunk_samples": 4, "latency_samples": 0, "masks": {}}
    axis = {"axis": 2, "delay": 0, "rate": "1", "offsets": ["0"]}
    stream = {**size, "inputs": {"x": axis} if timed else {}, "parts": {"waveform": axis} if timed else {}}

    def join(made):
        parts = [run["waveform"] for run in made]
        return {"waveform": (torch.cat(parts, 2) if timed else torch.stack(parts)).numpy()}

    given = x if timed else torch.stack([run["x"] for run in runs])
    expected, bounds = bounds_of(lowered, measured, runs, join)
    told = facts(lowered, stream=stream, sites=3)
    return _write(lowered, measured, folder, {"x": given.numpy()}, expected, bounds, told, None)


def _write(lowered, measured, folder, inputs, expected, bounds, facts, told) -> Path:
    folder.mkdir()
    write_export(
        lowered,
        folder,
        facts=facts,
        policy_text="sites: {}\n",
        calibration=measured.calibration,
        inputs=inputs,
        expected=expected,
        bounds=bounds,
        told=told,
    )
    return folder


def _numpy(tensors):
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def start(
    folder: Path, *arguments: str, script: str = "run.py", path: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a script of an export, with this toolkit out of reach; modules in `path` come before those installed."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    environment |= {} if path is None else {"PYTHONPATH": str(path)}
    environment["OMP_NUM_THREADS"] = "1"
    return subprocess.run(
        [sys.executable, script, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
