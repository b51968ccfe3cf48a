"""Train the small source-filter vocoder on the made speech: spectral losses only, no adversary.

`python -m voice.training.nsf DATA OUT --minutes 19` ends after that many minutes and writes OUT/nsf.safetensors,
weights in fp16. One thread.
"""

import numpy as np
import torch
from torch import Tensor

from voice.nsf import Nsf
from voice.training.acoustic import mels_of
from voice.training.segments import HOP, cut, learn, parser_of, place, save_half, stacked
from voice.training.speech import Utterance, load
from voice.training.vocoder import spectral_loss

SEGMENT_FRAMES = 20
BATCH = 2
WARM_UP = 40  # steps
LEAST_VOICED = 0.3
"""Share of a segment's frames: of a pause alone spectral convergence is all and nothing."""


def main() -> None:
    """Train until the minutes are used up."""
    arguments = parser_of(__doc__, minutes=19, rate=2e-3).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    utterances = load(arguments.data / "train.npz")
    model = Nsf()
    arguments.out.mkdir(parents=True, exist_ok=True)

    def loss_of(_step: int) -> Tensor:
        mel, f0, true = _voiced(utterances, draw)
        return spectral_loss(model(mel, f0, torch.randn(BATCH, SEGMENT_FRAMES, HOP)), true)

    learn(model, loss_of, arguments, warm_up=WARM_UP)
    save_half(model, arguments.out / "nsf.safetensors")


def _voiced(utterances: list[Utterance], draw: np.random.Generator) -> tuple[Tensor, ...]:
    found: list[tuple[Tensor, ...]] = []
    while len(found) < BATCH:
        u = utterances[int(draw.integers(len(utterances)))]
        start = place(u, SEGMENT_FRAMES, draw)
        if np.mean(u.f0_hz[start : start + SEGMENT_FRAMES] > 0) >= LEAST_VOICED:
            found.append(cut(u, mels_of([u])[0], start, SEGMENT_FRAMES))
    return stacked(found)


if __name__ == "__main__":
    main()
