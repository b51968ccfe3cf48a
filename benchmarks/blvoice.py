"""How good BL-Voice mini is: its speech against the training voice, on the sentences that it never learned from.

`python benchmarks/blvoice.py` prints what the model card quotes; `--samples DIR` writes four of the sentences.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from audio_eval.free_running import dtw_mcd_db, duration_change, f0_mean_cents
from audio_eval.suite import METRICS, ReferenceClip
from voice.blvoice import BlVoice
from voice.model import Clip

ALIGNED = ("stoi", "estoi", "pesq_wb", "log_mel_l1", "lsd_db", "f0_cents", "voicing_error")
FREE = {"duration_change": duration_change, "f0_mean_cents": f0_mean_cents, "dtw_mcd_db": dtw_mcd_db}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    voice = BlVoice.load()
    clips = voice.clips()
    coded = [voice.render(clip) for clip in clips]
    own = [replace(clip, inputs=(clip.inputs[0], own_codes(voice, clip))) for clip in clips]
    chosen = [voice.render(clip) for clip in own]
    free = [voice.render(voice.unforced(clip)) for clip in clips]
    print(f"{len(clips)} sentences held back, against the training voice")
    columns = {
        "true codes": [score(clip, made.sound.numpy(), ALIGNED) for clip, made in zip(clips, coded, strict=True)],
        "own codes": [score(clip, made.sound.numpy(), ALIGNED) for clip, made in zip(clips, chosen, strict=True)],
    }
    show(columns, ALIGNED)
    print("nothing forced, timing its own")
    show({"free": [free_scores(clip, made.sound.numpy()) for clip, made in zip(clips, free, strict=True)]}, tuple(FREE))
    right = np.mean([agreement(clip, made.logits) for clip, made in zip(clips, coded, strict=True)], axis=0)
    print("likeliest token is the training voice's: " + ", ".join(f"{share:.3f}" for share in right))
    for clip, one, two, three in zip(clips[: 4 if arguments.samples else 0], coded, chosen, free, strict=False):
        arguments.samples.mkdir(parents=True, exist_ok=True)
        for kind, made in (("true_codes", one), ("own_codes", two), ("free", three)):
            path = arguments.samples / f"blvoice_{clip.name}_{kind}.flac"
            soundfile.write(path, made.sound.numpy(), voice.sample_rate_hz)


def own_codes(voice: BlVoice, clip: Clip) -> torch.Tensor:
    """Rows whose text tokens are those of the clip, and whose codes the model chooses itself."""
    prompt, rows = clip.inputs
    return voice.module.write(prompt, rows.shape[1], text=rows[0])


def agreement(clip: Clip, logits: dict[str, torch.Tensor]) -> list[float]:
    """Share of the rows, by head, whose likeliest token is the one that is forced: text, then each codebook."""
    rows, shares = clip.inputs[1], []
    for book, values in enumerate(logits.values()):
        begin = max(0, book - 1)
        shares.append(float((values.argmax(dim=1) == rows[book])[begin : begin + rows.shape[1] - 7].float().mean()))
    return shares


def score(clip: Clip, made: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Scores of a sound against the clip's recording."""
    assert clip.natural is not None
    return ReferenceClip(clip.natural, 16000).score(made, names)


def free_scores(clip: Clip, made: np.ndarray) -> dict[str, float]:
    """Scores of a sound of any length against the clip's recording."""
    return {name: metric(reference=clip.natural, degraded=made, sample_rate_hz=16000) for name, metric in FREE.items()}


def show(columns: dict[str, list[dict[str, float]]], names: tuple[str, ...]) -> None:
    """Print means and the worst of every metric."""
    print(f"{'metric':15}" + "".join(f"{name + ', mean':>18} {'worst':>8}" for name in columns))
    for metric in names:
        higher = METRICS[metric].better == "higher"
        values = [np.array([row[metric] for row in rows]) for rows in columns.values()]
        shown = "".join(f"{v.mean():18.4f} {v.min() if higher else v.max():8.4f}" for v in values)
        print(f"{metric:15}{shown}")


if __name__ == "__main__":
    main()
