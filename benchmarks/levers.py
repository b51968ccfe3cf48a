"""What each lever wins on a vocoder, every site of it in LoFi.

`python benchmarks/levers.py --checkpoint PATH --audio DIR` takes a HiFi-GAN generator (its config.json beside it) and
recordings; without them the embedded voice speaks its own sentences, its vocoder alone in LoFi (`--sites` for others).
Levers that use data see half of the clips, and all are judged on the other half, against the model's own fp32 renders.
A lever acts where it can: col_tilize at linear layers, channel_order where two sites share channels with no other.
"""

import argparse
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
import torch

from audio_eval.audio import read_folder, resample
from audio_eval.suite import ReferenceClip
from backends.emulation.engine import EmulatedEngine
from backends.emulation.preparation import Preparation
from backends.emulation.sampling import sample_rows
from backends.tenstorrent.numerics import TensixArithmetic
from backends.tenstorrent.rounding import MAGNITUDE_BITS
from calibrate.moments import Moments, observing_moments
from precision.policy import Lever, Policy, Scheme
from precision_search.agreement import snr_db
from voice.chains import find_chains
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.hifigan import HifiganVoice
from voice.intercept import intercept
from voice.model import Clip, Voice
from voice.sites import discover

METRICS = ("lsd_db", "log_mel_l1", "group_delay_rad", "pesq_wb")
DEFAULT_SITES = {"hifigan": "*", "embedded": "vocoder.*"}
WIDE = Scheme("wide", "fp32", "fp32", "fp32", "hifi4")
LEVERS: tuple[tuple[Lever, ...], ...] = (
    (),
    ("gain_folding",),
    ("error_feedback",),
    ("fidelity_rounding",),
    ("fidelity_rounding", "gain_folding"),
    ("fidelity_rounding", "error_feedback"),
    ("fidelity_rounding", "gain_folding", "error_feedback"),
    ("fidelity_rounding", "gain_folding", "bias_correction"),
    ("fidelity_rounding", "gain_folding", "error_feedback", "bias_correction"),
)
BLOCK_LEVERS: tuple[tuple[Lever, ...], ...] = (
    ("fidelity_rounding", "gain_folding", "channel_order"),
    ("fidelity_rounding", "gain_folding", "error_feedback", "channel_order"),
    ("fidelity_rounding", "gain_folding", "col_tilize"),
    ("fidelity_rounding", "gain_folding", "error_feedback", "col_tilize"),
)
"""For weights whose neighbours share an exponent."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--audio", type=Path, metavar="DIR")
    parser.add_argument("--clips", type=int, default=4, help="of each half")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each recording")
    parser.add_argument("--weights", nargs="+", default=["bf16", "bfp8_b"])
    parser.add_argument("--activation", default="bf16")
    parser.add_argument("--sites", metavar="PATTERN", help="of the sites in LoFi")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    voice, clips = load(arguments.checkpoint, arguments.audio, arguments.seconds)
    seen, judged = clips[: arguments.clips], clips[arguments.clips : 2 * arguments.clips]
    if len(judged) < arguments.clips:
        raise SystemExit(f"--clips {arguments.clips}: asks for twice as many, and there are {len(clips)}")
    sites = discover(voice.module, lambda: voice.render(seen[0]), seen[0].seconds).sites
    lowered = [site for site in sites if fnmatchcase(site.name, arguments.sites or DEFAULT_SITES[voice.name])]
    acting: dict[Lever, set[str]] = {
        "col_tilize": {site.name for site in lowered if site.op == "linear"},
        "channel_order": set(chains := find_chains(voice.module, lambda: voice.render(seen[0]).parts)),
    }
    begun = time.perf_counter()
    moments = moments_of(voice, seen, [site.name for site in lowered])
    print(f"{platform.machine()}, torch {torch.__version__}, one thread; arithmetic {TensixArithmetic().name}")
    print(
        f"{voice.name}: {len(lowered)} of {len(sites)} sites in LoFi, activations {arguments.activation}, others fp32;"
        f" moments of {len(seen)} clips in {time.perf_counter() - begun:.1f} s; judged on {len(judged)} others"
    )
    references = [ReferenceClip(voice.render(clip).sound.numpy(), voice.sample_rate_hz) for clip in judged]
    print(f"{'weights':8} {'levers':66} {'SNR dB':>7} {'LSD dB':>7} {'log-mel':>8} {'delay':>7} {'PESQ':>6} {'s':>6}")
    for weight in arguments.weights:
        base = Scheme("lofi", weight, arguments.activation, "fp32", "lofi")
        whole = replace(base, fidelity="hifi4")
        rows = [("(hifi4)", whole), ("(hifi4) error_feedback", replace(whole, levers=("error_feedback",)))]
        rows += [
            (" + ".join(levers) or "none", replace(base, levers=levers))
            for levers in LEVERS + (BLOCK_LEVERS if weight in MAGNITUDE_BITS else ())
            if all(acting[lever] for lever in levers if lever in acting)
        ]
        for label, scheme in rows:
            named = {site.name for site in lowered}
            policy = Policy(tuple((s.name, at(scheme, s.name, acting) if s.name in named else WIDE) for s in sites))
            preparation = Preparation(TensixArithmetic(), moments, chains)
            begun = time.perf_counter()
            found = scores(voice, policy, preparation, judged, references)
            columns = zip(("snr", *METRICS), ("7.2f", "7.3f", "8.4f", "7.4f", "6.3f"), strict=True)
            shown = " ".join(f"{found[name]:{width}}" for name, width in columns)
            print(f"{weight:8} {label:66} {shown} {time.perf_counter() - begun:6.1f}", flush=True)


def at(scheme: Scheme, site: str, acting: Mapping[Lever, set[str]]) -> Scheme:
    """The scheme without the levers that cannot act at a site."""
    return replace(scheme, levers=tuple(lever for lever in scheme.levers if site in acting.get(lever, {site})))


def load(checkpoint: Path | None, audio: Path | None, seconds: float) -> tuple[Voice, tuple[Clip, ...]]:
    """The voice, and its clips."""
    if checkpoint is None:
        return EmbeddedVoice.load(), bundled_clips()
    voice = HifiganVoice.load(checkpoint)
    rate = voice.sample_rate_hz
    if audio is None:
        named = {clip.name: (clip.natural, 16000) for clip in bundled_clips() if clip.natural is not None}
    else:
        named = dict(read_folder(audio))
    return voice, tuple(
        voice.clip(Path(name).stem, resample(samples, source, rate)[: int(seconds * rate)], rate)
        for name, (samples, source) in named.items()
    )


def moments_of(voice: Voice, clips: Sequence[Clip], sites: Sequence[str]) -> dict[str, Moments]:
    """Moments of what goes into the sites."""
    rows = partial(sample_rows, limit=16384 // len(clips))
    with observing_moments(partial(intercept, voice.module), rows, sites) as observer:
        for clip in clips:
            voice.render(clip)
    return observer.moments()


def scores(
    voice: Voice, policy: Policy, preparation: Preparation, clips: Sequence[Clip], references: Sequence[ReferenceClip]
) -> Mapping[str, float]:
    """Means over the clips under a policy."""
    engine = EmulatedEngine(voice, policy, preparation)
    found = []
    for clip, reference in zip(clips, references, strict=True):
        rendered = engine.render(clip).sound.numpy()
        found.append({**reference.score(rendered, METRICS), "snr": snr_db(reference.reference, rendered)})
    return {name: float(np.mean([row[name] for row in found])) for name in found[0]}


if __name__ == "__main__":
    main()
