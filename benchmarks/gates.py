"""The gauntlet: which planted defects each profile refuses, at which strength, and which harmless changes.

`python benchmarks/gates.py` plants every defect of audio_eval/gauntlet/ in fp32 renders of the embedded voice, in every
clip and in one clip alone, and looks for the slightest strength that is refused. With `--checkpoint` and `--audio` it
goes on to HiFi-GAN on those recordings, and to the recordings themselves. The yardstick is the model's own render with
every site in bf16 (operands and results rounded as IEEE has it, sums in fp32): a defect should be caught before it is
as bad as that by the gate of which bf16 uses up most, and at the strength that is promised. Beside that stands the gate
in which the defect itself overtakes bf16 first. `--gate "lsd_db worst max 5"` adds a gate to every profile.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from audio_eval.audio import RESAMPLER
from audio_eval.clip import Samples
from audio_eval.gauntlet.applied import AppliedGates, Yardstick
from audio_eval.gauntlet.defects import DEFECTS
from audio_eval.gauntlet.harmless import HARMLESS
from audio_eval.gauntlet.panel import Panel, Scores
from audio_eval.gauntlet.places import voiced_moment
from audio_eval.gauntlet.trial import Begun, Caught, Finding, Trial
from audio_eval.profiles import PROFILES
from backends.emulation.engine import EmulatedEngine
from backends.emulation.preparation import Preparation
from backends.hopper.numerics import HopperArithmetic
from precision.gates import Gate
from precision.policy import Policy, Scheme
from precision_search.setting import Setting
from precision_search.wire import make_setting, read_recipe
from voice.embedded import EmbeddedVoice
from voice.model import Clip

TAU = 2.0 * torch.pi
Degraded = Callable[[float], Sequence[Samples]]
"""Strength -> the set with a defect of that strength in every clip."""


@dataclass(frozen=True)
class Subject:
    """One set of clips."""

    name: str
    sample_rate_hz: int
    originals: tuple[Samples, ...]
    naturals: tuple[Samples, ...] | None = None
    renders: dict[str, tuple[Samples, ...]] = field(default_factory=dict)
    """The model's own, in other formats."""
    oscillator: dict[str, Degraded] = field(default_factory=dict)
    """Defects that can be had from the model's own oscillator, by name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="HiFi-GAN generator, its config.json beside it")
    parser.add_argument("--audio", metavar="DIR", help="recordings for it")
    parser.add_argument("--clips", type=int, default=8, help="of each set, at most")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads")
    parser.add_argument("--profile", nargs="+", default=list(PROFILES), choices=list(PROFILES))
    parser.add_argument("--gate", action="append", default=[], metavar='"METRIC OVER min|max LIMIT"', type=parse_gate)
    parser.add_argument("--only", nargs="+", default=list(DEFECTS), choices=list(DEFECTS), metavar="DEFECT")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if (arguments.checkpoint is None) != (arguments.audio is None):
        parser.error("--checkpoint and --audio go together")
    torch.set_num_threads(1)
    environment(arguments.workers)
    profiles = {name: (*PROFILES[name], *arguments.gate) for name in arguments.profile}
    told: list[dict[str, Any]] = []
    yardstick: Scores = ()
    for subject in subjects(arguments.checkpoint, arguments.audio, arguments.clips):
        begun = time.perf_counter()
        panel = Panel(subject.originals, subject.sample_rate_hz, subject.naturals, arguments.workers)
        applied = {name: AppliedGates.of(gates, panel) for name, gates in profiles.items()}
        if "bf16" in subject.renders:
            metrics = dict.fromkeys(name for gates in applied.values() for name in gates.metrics)
            yardstick = panel.score(subject.renders["bf16"], tuple(metrics))
        yardsticks = {name: Yardstick(gates, yardstick) for name, gates in applied.items()}
        told += run(subject, panel, yardsticks, arguments.only)
        print(f"{time.perf_counter() - begun:.0f} s", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def parse_gate(text: str) -> Gate:
    """One gate from `metric over min|max limit`."""
    try:
        metric, over, side, limit = text.split()
        return Gate(metric, over, **{side: float(limit)})
    except (TypeError, ValueError) as fault:
        raise argparse.ArgumentTypeError(f'{text!r}: want "METRIC OVER min|max LIMIT" ({fault})') from fault


def environment(workers: int) -> None:
    cpu = platform.processor() or platform.machine()
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        cpu = next((line.split(": ")[1] for line in listed.read_text().splitlines() if "model name" in line), cpu)
    print(f"{platform.platform()}, {cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {workers} threads")
    packages = ("numpy", "scipy", "librosa", "pesq", "pystoi", "soxr", "torch")
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in packages))
    print(f"resampler {RESAMPLER}")


def subjects(checkpoint: str | None, audio: str | None, count: int) -> Iterator[Subject]:
    """The sets of clips, one after another."""
    setting = make_setting(read_recipe("tts_blackhole", []))
    yield rendered("embedded voice", setting, setting.held_back_clips[:count])
    if checkpoint is None:
        return
    overrides = [f"model.checkpoint={checkpoint}", f"data.audio={audio}"]
    setting = make_setting(read_recipe("hifigan_blackhole", overrides))
    vocoder = rendered("HiFi-GAN", setting, setting.held_back_clips[:count])
    yield vocoder
    assert vocoder.naturals is not None
    yield Subject("recordings, bf16 that of HiFi-GAN on them", vocoder.sample_rate_hz, vocoder.naturals)


def rendered(name: str, setting: Setting, clips: Sequence[Clip]) -> Subject:
    """A model's fp32 renders, and those in other formats."""
    voice = setting.voice
    sites, preparation = [site.name for site in setting.sites], Preparation(HopperArithmetic())
    renders = {}
    for element in ("bf16", "fp16"):
        engine = EmulatedEngine(voice, Policy.uniform(sites, Scheme(element, element, element)), preparation)
        renders[element] = tuple(engine.render(clip).sound.numpy() for clip in clips)
    originals = tuple(voice.render(clip).sound.numpy() for clip in clips)
    return Subject(
        name,
        voice.sample_rate_hz,
        originals,
        tuple(clip.natural for clip in clips if clip.natural is not None),
        renders,
        oscillator_defects(voice, clips, originals) if isinstance(voice, EmbeddedVoice) else {},
    )


def oscillator_defects(
    voice: EmbeddedVoice, clips: Sequence[Clip], originals: Sequence[Samples]
) -> dict[str, Degraded]:
    """Drift and slip of the voice's true oscillator, by the F0 that it is given; a slip where the planted one is."""
    hop, rate = voice.module.vocoder.config.hop_samples, voice.sample_rate_hz
    frames = [voiced_moment(original, rate, seed)[0] // hop for seed, original in enumerate(originals)]

    def rendered(clip: Clip, f0_hz: torch.Tensor) -> Samples:
        return voice.render(replace(clip, inputs=(*clip.inputs[:2], f0_hz, *clip.inputs[3:]))).sound.numpy()

    def drifted(cents: float) -> list[Samples]:
        return [rendered(clip, clip.inputs[2] * 2.0 ** (cents / 1200.0)) for clip in clips]

    def slipped(radians: float) -> list[Samples]:
        # The phase is the sum of F0: one frame too high turns all harmonics from there to where voice ends.
        higher = [clip.inputs[2].clone() for clip in clips]
        for f0_hz, frame in zip(higher, frames, strict=True):
            f0_hz[frame] += radians / TAU * rate / hop
        return [rendered(clip, f0_hz) for clip, f0_hz in zip(clips, higher, strict=True)]

    return {"pitch_drift": drifted, "phase_slip": slipped}


def run(subject: Subject, panel: Panel, yardsticks: dict[str, Yardstick], only: Sequence[str]) -> list[dict[str, Any]]:
    """All trials of one set: printed, and as rows."""
    seconds = sum(map(len, subject.originals)) / subject.sample_rate_hz
    print(f"\n=== {subject.name}: {len(subject.originals)} clips, {seconds:.1f} s at {subject.sample_rate_hz} Hz")
    rows: list[dict[str, Any]] = []
    for profile, yardstick in yardsticks.items():
        rows.append({"profile": profile, "bf16": tell_yardstick(profile, yardstick)})
    print(f"{'':61} {'':44} {'':44} as bad as bf16 by what it")
    print(f"{'':6} {'defect, unit (promised)':54} {'caught in every clip from, by':44} ", end="")
    print(f"{'caught in whichever one clip from, by':44} uses most, by the defect's own")
    for name in only:
        defect = DEFECTS[name]
        if not defect.applicable(subject.sample_rate_hz):
            print(f"{name}: not at {subject.sample_rate_hz} Hz")
            continue

        def planted(strength: float, plant: Any = defect.plant) -> list[Samples]:
            return [plant(clip, subject.sample_rate_hz, strength, seed) for seed, clip in enumerate(subject.originals)]

        kinds = {name: planted}
        if name in subject.oscillator:
            kinds[f"{name}, of the oscillator"] = subject.oscillator[name]
        for kind, degraded in kinds.items():
            trial = Trial(panel, degraded, defect.strengths, defect.whole, defect.monotone)
            for profile, yardstick in yardsticks.items():
                found = trial.find(yardstick)
                held = found.held(defect.named)
                promised = "" if defect.named is None else f" ({defect.named:g})"
                shown = f"{kind}, {defect.unit}{promised}" if profile == next(iter(yardsticks)) else ""
                tell_finding(f"{shown:42} {profile}", yardstick, found, held=held)
                rows.append({"profile": profile, "defect": kind, "held": held, **finding_row(yardstick, found)})
    for profile, yardstick in yardsticks.items():
        found_rows = [row for row in rows if "defect" in row and row["profile"] == profile]
        missed = [row["defect"] for row in found_rows if not row["held"]]
        ended = f"; MISSED: {'; '.join(missed)}" if missed else ""
        print(
            f"{profile}: {len(found_rows) - len(missed)} of {len(found_rows)} defects caught as they should be{ended}"
        )
        rows += [{"profile": profile, **row} for row in tell_harmless(profile, subject, panel, yardstick.applied)]
    return [{"clips": subject.name, **row} for row in rows]


def tell_yardstick(profile: str, yardstick: Yardstick) -> dict[str, float]:
    """The gates that show what bf16 does."""
    applied = yardstick.applied
    known = [gate for gate in applied.gates if gate.metric in yardstick.scores[0]]
    print(
        f"{profile}: {len(applied.gates)} gates; bf16 in every site: {verdict(applied.broken(yardstick.scores, known))}"
    )
    for gate in yardstick.gates[:5]:
        value, used = yardstick.value(gate), 100 * yardstick.used(gate)
        print(f"  {title(gate):44} {value:8.4g} of {gate.threshold:5g}, {used:4.0f} % used up")
    if yardstick.gates and yardstick.used(yardstick.gates[0]) > 1.0:
        print("  as bf16 breaks this gate itself, whatever is as bad by it is refused: no evidence of the other gates")
    return {title(gate): yardstick.used(gate) for gate in yardstick.gates}


def tell_finding(kind: str, yardstick: Yardstick, found: Finding, *, held: bool) -> None:
    """One row of the table: of several gates, the cheapest and how many more."""
    own = "" if found.own_gate is None else f"{where(found.own_even)} {found.own_gate.metric}"
    line = f"{'held' if held else 'MISSED':6} {kind:54} {caught(found.every):44} {caught(found.one):44}"
    print(f"{line} {where(found.even):9} {own}".rstrip(), flush=True)


def tell_harmless(profile: str, subject: Subject, panel: Panel, applied: AppliedGates) -> list[dict[str, Any]]:
    """Each harmless change: refused or not, and the gate with the least left."""
    changed = {
        name: tuple(change.apply(clip, subject.sample_rate_hz, seed) for seed, clip in enumerate(subject.originals))
        for name, change in HARMLESS.items()
    }
    if "fp16" in subject.renders:
        changed["fp16_render"] = subject.renders["fp16"]
    rows = []
    for name, samples in changed.items():
        scores = panel.score(samples, applied.metrics)
        refused, tight = applied.broken(scores), applied.tightest(scores)
        value, used = applied.value(tight, scores), applied.used(tight, scores)
        print(
            f"  {profile:12} {name:14} {verdict(refused)}; tightest {title(tight)}: {value:.4g} of {tight.threshold:g},"
            f" {100 * used:.0f} % used up",
            flush=True,
        )
        rows.append({"harmless": name, "refused_by": [*map(title, refused)], "tightest": title(tight), "used": used})
    return rows


def title(gate: Gate) -> str:
    return f"{gate.metric} {gate.over}"


def verdict(refusing: Sequence[Gate]) -> str:
    return f"REFUSED by {', '.join(map(title, refusing))}" if refusing else "kept"


def where(begun: Begun | None) -> str:
    return "never" if begun is None else f"{'' if begun.exact else '<= '}{begun.strength:.4g}"


def caught(found: Caught | None) -> str:
    if found is None:
        return "ESCAPES"
    first, *more = dict.fromkeys(gate.metric for gate in found.gates)
    return f"{where(found.begun)} {first}" + (f" +{len(more)}" if more else "")


def finding_row(yardstick: Yardstick, found: Finding) -> dict[str, Any]:
    def strength(begun: Begun | None) -> float | None:
        return None if begun is None else begun.strength

    return {
        "every_clip": strength(found.every and found.every.begun),
        "every_clip_gates": [title(gate) for gate in found.every.gates] if found.every else [],
        "one_clip": strength(found.one and found.one.begun),
        "one_clip_gates": [title(gate) for gate in found.one.gates] if found.one else [],
        "bf16_gate": title(yardstick.gates[0]),
        "as_bad_as_bf16": strength(found.even),
        "own_gate": None if found.own_gate is None else title(found.own_gate),
        "own_as_bad_as_bf16": strength(found.own_even),
    }


if __name__ == "__main__":
    main()
