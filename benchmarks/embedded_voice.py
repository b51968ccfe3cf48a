"""How good the embedded voice is: its speech against the training voice, on the sentences that it never learned from.

`python benchmarks/embedded_voice.py` prints what the model card quotes; `--samples DIR` writes four of the sentences.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from audio_eval.audio import write_wav
from audio_eval.suite import ReferenceClip
from voice.embedded import EmbeddedVoice, bundled_clips

METRICS = ("stoi", "estoi", "pesq_wb", "log_mel_l1", "lsd_db", "f0_cents", "voicing_error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    voice = EmbeddedVoice.load()
    rows = []
    for number, clip in enumerate(bundled_clips()):
        assert clip.natural is not None
        rendered = voice.render(clip).numpy()
        rows.append(ReferenceClip(clip.natural, voice.sample_rate_hz).score(rendered, METRICS))
        if arguments.samples and number < 4:
            arguments.samples.mkdir(parents=True, exist_ok=True)
            write_wav(arguments.samples / f"{clip.name}_embedded.wav", rendered, voice.sample_rate_hz)
            write_wav(arguments.samples / f"{clip.name}_training_voice.wav", clip.natural, voice.sample_rate_hz)
    print(f"{len(rows)} sentences held back, true durations, against the training voice")
    print(f"{'metric':15} {'mean':>8} {'worst':>8}")
    for metric in METRICS:
        values = np.array([row[metric] for row in rows])
        worst = values.min() if metric in ("stoi", "estoi", "pesq_wb") else values.max()
        print(f"{metric:15} {values.mean():8.4f} {worst:8.4f}")


if __name__ == "__main__":
    main()
