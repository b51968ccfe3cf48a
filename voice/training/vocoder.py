"""Train the embedded voice's vocoder on the made speech: spectral losses only, no adversary.

`python -m voice.training.vocoder DATA OUT --minutes 60` ends after that many minutes and keeps the newest weights in
OUT/vocoder.pt all along, so that it can be stopped and taken up again (`--resume`). With `--mels FILE` (written by
`voice.training.acoustic`) it goes on with mels as the acoustic model predicts them.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from voice.mel import EMBEDDED_MEL, log_mel
from voice.training.acoustic import mels_of
from voice.training.segments import drawn, learn, parser_of
from voice.training.speech import load
from voice.vocoder import Vocoder, VocoderConfig, make_source

SEGMENT_FRAMES = 40
BATCH = 8
RESOLUTIONS = ((2048, 512), (1024, 256), (512, 128), (256, 64), (64, 16))


def magnitude(samples: Tensor, fft: int, hop: int) -> Tensor:
    """STFT magnitude, [batch, bins, frames], with a floor that keeps its gradient finite."""
    spectrum = torch.stft(samples, fft, hop, window=torch.hann_window(fft), return_complex=True)
    return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)


def spectral_loss(made: Tensor, true: Tensor) -> Tensor:
    """Spectral convergence and log magnitude at five resolutions, and log-mel L1."""
    total = F.l1_loss(log_mel(made, EMBEDDED_MEL), log_mel(true, EMBEDDED_MEL)) * 2
    for fft, hop in RESOLUTIONS:
        a, b = magnitude(made, fft, hop), magnitude(true, fft, hop)
        convergence = torch.linalg.norm(b - a) / torch.linalg.norm(b)
        total = total + convergence + F.l1_loss(torch.log(a + 1e-4), torch.log(b + 1e-4))
    return total


def main() -> None:
    """Train until the minutes are used up."""
    parser = parser_of(__doc__, minutes=60, rate=1e-3)
    parser.add_argument("--mels", type=Path)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    draw = np.random.default_rng(1 if arguments.resume else 0)
    config = VocoderConfig()
    utterances = load(arguments.data / "train.npz")
    if arguments.mels:
        every = torch.from_numpy(np.load(arguments.mels, allow_pickle=False)["mels"])
        mels = list(torch.split(every, [len(u.f0_hz) for u in utterances], dim=1))
    else:
        mels = mels_of(utterances)
    model = Vocoder(config)
    path = arguments.out / "vocoder.pt"
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.resume:
        model.load_state_dict(torch.load(path, weights_only=True))

    def loss_of(step: int) -> Tensor:
        mel, f0, true = drawn(utterances, mels, SEGMENT_FRAMES, BATCH, draw)
        return spectral_loss(model(mel, make_source(f0, config, seed=step)), true)

    learn(model, loss_of, arguments, path=path)


if __name__ == "__main__":
    main()
