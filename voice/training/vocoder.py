"""Train the embedded voice's vocoder on the made speech: spectral losses only, no adversary.

`python -m voice.training.vocoder DATA OUT --minutes 60` ends after that many minutes and keeps the newest weights in
OUT/vocoder.pt all along, so that it can be stopped and taken up again (`--resume`). With `--mels FILE` (written by
`voice.training.acoustic`) it goes on with mels as the acoustic model predicts them.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from voice.mel import EMBEDDED_MEL, log_mel
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--mels", type=Path)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    draw = np.random.default_rng(1 if arguments.resume else 0)
    config = VocoderConfig()
    hop = config.hop_samples
    utterances = load(arguments.data / "train.npz")
    if arguments.mels:
        every = torch.from_numpy(np.load(arguments.mels, allow_pickle=False)["mels"])
        mels = torch.split(every, [len(u.f0_hz) for u in utterances], dim=1)
    else:
        with torch.no_grad():
            mels = tuple(log_mel(torch.from_numpy(u.samples)[None], EMBEDDED_MEL)[0] for u in utterances)
    model = Vocoder(config)
    path = arguments.out / "vocoder.pt"
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.resume:
        model.load_state_dict(torch.load(path, weights_only=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.rate, betas=(0.8, 0.99), weight_decay=1e-4)
    begun = time.monotonic()
    limit = arguments.minutes * 60
    step, recent = 0, []
    while (elapsed := time.monotonic() - begun) < limit:
        for group in optimizer.param_groups:
            group["lr"] = (
                arguments.rate * max(0.02, 0.5 * (1 + np.cos(np.pi * elapsed / limit))) * min(1, (step + 1) / 200)
            )
        chosen = draw.integers(len(utterances), size=BATCH)
        mel, f0, true = [], [], []
        for i in chosen:
            u = utterances[i]
            start = int(draw.integers(len(u.f0_hz) - SEGMENT_FRAMES + 1))
            mel.append(mels[i][:, start : start + SEGMENT_FRAMES])
            f0.append(torch.from_numpy(u.f0_hz[start : start + SEGMENT_FRAMES]))
            true.append(torch.from_numpy(u.samples[start * hop : (start + SEGMENT_FRAMES) * hop]))
        made = model(torch.stack(mel), make_source(torch.stack(f0), config, seed=step))
        loss = spectral_loss(made, torch.stack(true))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        recent.append(loss.item())
        step += 1
        if step % 100 == 0:
            print(f"{elapsed / 60:6.1f} min  step {step}  loss {np.mean(recent[-100:]):.4f}", flush=True)
        if step % 500 == 0:
            torch.save(model.state_dict(), path)
    torch.save(model.state_dict(), path)


if __name__ == "__main__":
    main()
