"""Train the small Vocos on the made speech: spectral losses only, no adversary.

`python -m voice.training.vocos DATA OUT --minutes 17` ends after that many minutes and writes OUT/vocos.safetensors,
weights in fp16. One thread.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from voice.mel import EMBEDDED_MEL, log_mel
from voice.training.speech import load
from voice.training.vocoder import spectral_loss
from voice.vocos import Vocos

SEGMENT_FRAMES = 48
BATCH = 8
HOP = EMBEDDED_MEL.hop


def learning_rate(peak: float, elapsed: float, step: int, warm_up: int = 200) -> float:
    """Rate after a share 0..1 of the time: so many steps of warming up, then a cosine down to a fiftieth."""
    return float(peak * max(0.02, 0.5 * (1 + np.cos(np.pi * elapsed))) * min(1, (step + 1) / warm_up))


def main() -> None:
    """Train until the minutes are used up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=17)
    parser.add_argument("--rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    utterances = load(arguments.data / "train.npz")
    with torch.no_grad():
        mels = [log_mel(torch.from_numpy(u.samples)[None], EMBEDDED_MEL)[0] for u in utterances]
    model = Vocos()
    arguments.out.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.rate, betas=(0.8, 0.99), weight_decay=1e-4)
    begun = time.monotonic()
    limit = arguments.minutes * 60
    step, recent = 0, []
    while (elapsed := time.monotonic() - begun) < limit:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(arguments.rate, elapsed / limit, step)
        mel, true = [], []
        for i in draw.integers(len(utterances), size=BATCH):
            u = utterances[i]
            start = int(draw.integers(len(u.f0_hz) - SEGMENT_FRAMES + 1))
            mel.append(mels[i][:, start : start + SEGMENT_FRAMES])
            true.append(torch.from_numpy(u.samples[start * HOP : (start + SEGMENT_FRAMES) * HOP]))
        loss = spectral_loss(model(torch.stack(mel)), torch.stack(true))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        recent.append(loss.item())
        step += 1
        if step % 200 == 0:
            print(f"{elapsed / 60:6.1f} min  step {step}  loss {np.mean(recent[-200:]):.4f}", flush=True)
    save_file(
        {key: tensor.half().contiguous() for key, tensor in model.state_dict().items()},
        arguments.out / "vocos.safetensors",
    )


if __name__ == "__main__":
    main()
