"""Train the small Vocos on the made speech: spectral losses only, no adversary.

`python -m voice.training.vocos DATA OUT --minutes 17` ends after that many minutes and writes OUT/vocos.safetensors,
weights in fp16. One thread.
"""

import numpy as np
import torch
from torch import Tensor

from voice.training.acoustic import mels_of
from voice.training.segments import drawn, learn, parser_of, save_half
from voice.training.speech import load
from voice.training.vocoder import spectral_loss
from voice.vocos import Vocos

SEGMENT_FRAMES = 48
BATCH = 8


def main() -> None:
    """Train until the minutes are used up."""
    arguments = parser_of(__doc__, minutes=17, rate=2e-3).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    utterances = load(arguments.data / "train.npz")
    mels = mels_of(utterances)
    model = Vocos()
    arguments.out.mkdir(parents=True, exist_ok=True)

    def loss_of(_step: int) -> Tensor:
        mel, _, true = drawn(utterances, mels, SEGMENT_FRAMES, BATCH, draw)
        return spectral_loss(model(mel), true)

    learn(model, loss_of, arguments, told_every=200)
    save_half(model, arguments.out / "vocos.safetensors")


if __name__ == "__main__":
    main()
