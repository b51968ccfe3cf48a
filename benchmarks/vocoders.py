"""How good the small vocoders are: recordings resynthesised, on the sentences that they never learned from.

`python benchmarks/vocoders.py [vocos|nsf ...]` prints what their model cards quote; `--samples DIR` writes two of the
sentences.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile
import torch

from audio_eval.suite import METRICS, ReferenceClip
from voice.model import Clip
from voice.nsf_voice import NsfVoice
from voice.vocos import VocosVoice

NAMES = ("stoi", "estoi", "pesq_wb", "log_mel_l1", "lsd_db", "f0_cents", "voicing_error")
VOICES: Mapping[str, type[VocosVoice] | type[NsfVoice]] = {"vocos": VocosVoice, "nsf": NsfVoice}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("voices", nargs="*", default=list(VOICES), metavar="VOICE", choices=list(VOICES))
    parser.add_argument("--samples", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.voices:
        voice = VOICES[name].load()
        clips = voice.bundled_clips()
        rows = [score(voice, clip) for clip in clips]
        weights = sum(parameter.numel() for parameter in voice.module.parameters())
        print(f"{name}: {weights:,} weights; {len(clips)} sentences held back, against their recordings")
        print(f"{'metric':15} {'mean':>10} {'worst':>10}")
        for metric in NAMES:
            values = np.array([row[metric] for row in rows])
            worst = values.min() if METRICS[metric].better == "higher" else values.max()
            print(f"{metric:15} {values.mean():10.4f} {worst:10.4f}")
        for clip in clips[:2] if arguments.samples else ():
            arguments.samples.mkdir(parents=True, exist_ok=True)
            soundfile.write(
                arguments.samples / f"{clip.name}_{name}.flac", voice.render(clip).sound.numpy(), voice.sample_rate_hz
            )


def score(voice: VocosVoice | NsfVoice, clip: Clip) -> dict[str, float]:
    """Scores of a clip against its recording."""
    assert clip.natural is not None
    return ReferenceClip(clip.natural, voice.sample_rate_hz).score(voice.render(clip).sound.numpy(), NAMES)


if __name__ == "__main__":
    main()
