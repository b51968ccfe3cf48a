"""What judging costs: CPU milliseconds a second of audio and core, metric by metric, beside the packages themselves.

`python benchmarks/metrics.py` scores bf16 renders of the embedded voice against fp32 with every gate of `transparent`,
on one core. A reference's own spectra are there already, as in a search; everything of the degraded clip is computed
anew. Then pesq, pystoi and librosa are called directly on the same clips, in turn with it, so that a busy machine slows
both. The issue's target is 60 ms for the whole suite. CPU time, of PESQ's process included; medians of several runs.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import librosa
import numpy as np
import pystoi
import torch
from gates import environment
from pesq import pesq

from audio_eval.audio import resample
from audio_eval.clip import Clip, Samples
from audio_eval.judge import judgeable
from audio_eval.profiles import PROFILES
from audio_eval.stoi import RATE_HZ
from audio_eval.suite import COST_RANK, ReferenceClip
from precision_search.wire import make_setting, read_recipe
from precision_search.yardsticks import render_yardstick

TARGET_MS = 60.0
CLIPS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of which the median counts")
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    environment(1)
    setting = make_setting(read_recipe("tts_blackhole", (f"data.held_back={CLIPS}",)))
    rate = setting.voice.sample_rate_hz
    gates, _ = judgeable(PROFILES["transparent"], setting.material("held_back"))
    metrics = sorted({gate.metric for gate in gates}, key=COST_RANK.__getitem__)
    clean = [setting.voice.render(clip).sound.numpy() for clip in setting.held_back_clips]
    degraded = [render_yardstick(setting, "bf16", clip).signal for clip in setting.held_back_clips]
    references = [
        ReferenceClip(samples, rate, clip.natural) for samples, clip in zip(clean, setting.held_back_clips, strict=True)
    ]
    seconds = sum(map(len, clean)) / rate
    once = spent(lambda: [r.score(samples, metrics) for r, samples in zip(references, degraded, strict=True)]) / seconds
    print(f"\n{CLIPS} clips of {seconds / CLIPS:.1f} s at {rate} Hz, {len(metrics)} metrics of {len(gates)} gates")
    taken = {name: [0.0] * runs for name in metrics}
    peers: dict[str, list[float]] = {}
    for run in range(runs):
        kept = [Clip(samples, rate) for samples in degraded]
        for name in metrics:
            taken[name][run] = spent(lambda name=name, kept=kept: score(references, kept, name)) / seconds
        for name, call in directly(clean, degraded, rate).items():
            peers.setdefault(name, []).append(spent(call) / seconds)
    for name in metrics:
        print(f"  {name:36} {1e3 * statistics.median(taken[name]):7.2f} ms")
    total = 1e3 * statistics.median(sum(column) for column in zip(*taken.values(), strict=True))
    print(
        f"  {'the whole suite':36} {total:7.2f} ms; target {TARGET_MS:g}: {'met' if total <= TARGET_MS else 'MISSED'}"
    )
    print(f"  {'the same, each reference heard first':36} {1e3 * once:7.2f} ms, libraries still warming up included")
    print("\ncalled directly, once each")
    for name, found in peers.items():
        print(f"  {name:36} {1e3 * statistics.median(found):7.2f} ms")


def score(references: Sequence[ReferenceClip], kept: Sequence[Clip], name: str) -> None:
    for reference, clip in zip(references, kept, strict=True):
        reference.score(clip, (name,))


def spent(call: Callable[[], object]) -> float:
    """CPU seconds of a call, in this process and in those that run PESQ for it."""
    before = time.process_time() + children_seconds()
    call()
    return time.process_time() + children_seconds() - before


def children_seconds() -> float:
    """CPU seconds that this process's living children have taken, as Linux counts them (in steps of 10 ms)."""
    ticks = 0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[1]) == os.getpid():
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def directly(clean: Sequence[Samples], degraded: Sequence[Samples], rate: int) -> dict[str, Callable[[], object]]:
    """The packages' own functions on the same clips."""
    pairs = list(zip(clean, degraded, strict=True))
    at_stoi = [tuple(resample(samples, rate, RATE_HZ).astype(np.float64) for samples in pair) for pair in pairs]
    return {
        "pesq, wide band": lambda: [pesq(rate, *pair, "wb") for pair in pairs],
        "pystoi, extended": lambda: [pystoi.stoi(*pair, RATE_HZ, extended=True) for pair in at_stoi],
        "librosa, log mel of both": lambda: [
            np.log(librosa.feature.melspectrogram(y=y, sr=rate, n_fft=2048, hop_length=512) + 1e-5)
            for pair in pairs
            for y in pair
        ],
        "librosa, yin of both": lambda: [librosa.yin(y, fmin=60, fmax=500, sr=rate) for pair in pairs for y in pair],
    }


if __name__ == "__main__":
    main()
