"""How good the embedded voice is: its speech against the training voice, on the sentences that it never learned from.

`python benchmarks/embedded_voice.py` prints what the model card quotes; `--samples DIR` writes four of the sentences.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from audio_eval.suite import METRICS, ReferenceClip
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.model import Clip

NAMES = ("stoi", "estoi", "pesq_wb", "log_mel_l1", "lsd_db", "f0_cents", "voicing_error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    voice = EmbeddedVoice.load()
    clips = bundled_clips()
    own = [score(voice, clip, clip.inputs[:2]) for clip in clips]
    forced = [score(voice, clip, clip.inputs) for clip in clips]
    print(f"{len(clips)} sentences held back, true durations, against the training voice")
    print(f"{'metric':15} {'own F0, mean':>14} {'worst':>8} {'true F0, mean':>14} {'worst':>8}")
    for metric in NAMES:
        columns = [np.array([row[metric] for row in rows]) for rows in (own, forced)]
        higher = METRICS[metric].better == "higher"
        shown = [f"{c.mean():14.4f} {c.min() if higher else c.max():8.4f}" for c in columns]
        print(f"{metric:15} {' '.join(shown)}")
    for clip in clips[:4] if arguments.samples else ():
        arguments.samples.mkdir(parents=True, exist_ok=True)
        for kind, samples in (("embedded", voice.module(*clip.inputs[:2]).numpy()), ("training_voice", clip.natural)):
            soundfile.write(arguments.samples / f"{clip.name}_{kind}.flac", samples, voice.sample_rate_hz)


def score(voice: EmbeddedVoice, clip: Clip, inputs: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """Scores of a clip rendered from these inputs, against its recording."""
    assert clip.natural is not None
    rendered = voice.render(replace(clip, inputs=inputs)).sound.numpy()
    return ReferenceClip(clip.natural, voice.sample_rate_hz).score(rendered, NAMES)


if __name__ == "__main__":
    main()
