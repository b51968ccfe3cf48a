"""What the gates say of phases that lose bits: an oscillator's, stored in 16 of them, and one that a layer predicts.

`python benchmarks/phase.py [CLIPS [SECONDS]]` prints how many gates of profile `transparent` are kept, and which are
broken worst: of the source-filter vocoder with its phase kept in each type, in three ways; and of Vocos with
one layer under a scheme of Tensix, all others in fp32. References are the voices' own fp32.
"""

import sys
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audio_eval.judge import Judgement, judge_in_order
from audio_eval.profiles import PROFILES
from audio_eval.suite import ReferenceClip
from backends.emulation.preparation import Preparation
from backends.tenstorrent.numerics import TensixArithmetic
from precision.policy import Scheme
from voice.intercept import intercept
from voice.model import Clip
from voice.nsf import Kept, phase_kept_in
from voice.nsf_voice import NsfVoice
from voice.site_call import SiteCall
from voice.vocos import VocosVoice

KEPT: Mapping[Kept, str] = {
    "sum": "running sum stored",
    "turn": "turn of an exact sum stored",
    "state": "phase summed within a turn",
}
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SITES = ("head.project", "head", "blocks.2.wide")
SCHEMES = (
    Scheme("bf16", "bf16", "bf16", fidelity="hifi4"),
    Scheme("bf16, lofi", "bf16", "bf16", fidelity="lofi"),
    Scheme("bfp8_b, both operands", "bfp8_b", "bfp8_b", fidelity="hifi4"),
)


def main() -> None:
    torch.set_num_threads(1)
    count, seconds = int((*sys.argv[1:], "6")[0]), float((*sys.argv[2:], "2")[0])
    print(f"{count} clips of {seconds:g} s, profile transparent")
    oscillator(count, seconds)
    predicted(count, seconds)


def oscillator(count: int, seconds: float) -> None:
    """The source-filter vocoder with its phase in 16 bits."""
    voice = NsfVoice.load()
    clips = [cut(voice, clip, seconds) for clip in voice.bundled_clips()[:count]]
    references = references_of(voice, clips)
    for name, dtype in TYPES.items():
        for kept, told in KEPT.items():
            with phase_kept_in(voice.module.source, dtype, kept):
                made = [voice.render(clip).sound.numpy() for clip in clips]
            print_row(f"nsf, {told} in {name}", judged(references, made))


def predicted(count: int, seconds: float) -> None:
    """Vocos with one layer lowered."""
    voice = VocosVoice.load()
    samples = round(seconds * voice.sample_rate_hz)
    clips = [
        voice.clip(clip.name, clip.natural[:samples], voice.sample_rate_hz)
        for clip in voice.bundled_clips()[:count]
        if clip.natural is not None
    ]
    references = references_of(voice, clips)
    preparation = Preparation(TensixArithmetic())
    for site in SITES:
        for scheme in SCHEMES:
            with intercept(voice.module, lowering(preparation, site, scheme)):
                made = [voice.render(clip).sound.numpy() for clip in clips]
            print_row(f"vocos, {site} in {scheme.name}", judged(references, made))


def lowering(preparation: Preparation, site: str, scheme: Scheme) -> Callable[[SiteCall], Tensor]:
    """A handler that computes one site under a scheme, and the others as they are."""
    return lambda call: preparation.compute(call, {site: scheme}, None) if call.site == site else call.compute()


def references_of(voice: NsfVoice | VocosVoice, clips: list[Clip]) -> list[ReferenceClip]:
    """The voice's own sound of each clip."""
    return [ReferenceClip(voice.render(clip).sound.numpy(), voice.sample_rate_hz, clip.natural) for clip in clips]


def cut(voice: NsfVoice, clip: Clip, seconds: float) -> Clip:
    """The beginning of a clip, with its recording."""
    assert clip.natural is not None
    frames = round(seconds * voice.sample_rate_hz / voice.mel.hop)
    samples = clip.natural[: frames * voice.mel.hop]
    return voice.clip(clip.name, samples, voice.sample_rate_hz, clip.inputs[1][0, : len(samples) // voice.mel.hop])


def judged(references: list[ReferenceClip], made: list[NDArray[np.float32]]) -> Judgement:
    """All gates of profile transparent."""
    return judge_in_order(PROFILES["transparent"], references, made, stop_when_broken=False)


def print_row(name: str, found: Judgement) -> None:
    """One line, and one for each of the gates that are broken worst."""
    kept = sum(verdict.kept for verdict in found.verdicts)
    broken = sorted((v for v in found.verdicts if not v.kept), key=lambda v: v.margin / (abs(v.gate.threshold) or 1.0))
    print(f"{name}: {kept} of {len(found.verdicts)} gates kept")
    for verdict in broken[:5]:
        print(f"    {verdict.gate.metric} {verdict.gate.over}: {verdict.value:.4g}, {verdict.gate.threshold:g} allowed")


if __name__ == "__main__":
    main()
