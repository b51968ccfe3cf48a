"""Train the small source-filter vocoder on the made speech: spectral losses only, no adversary.

`python -m voice.training.nsf DATA OUT --minutes 19` ends after that many minutes and writes OUT/nsf.safetensors,
weights in fp16. One thread.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from voice.mel import EMBEDDED_MEL, log_mel
from voice.nsf import Nsf
from voice.training.speech import load
from voice.training.vocoder import spectral_loss
from voice.training.vocos import learning_rate

SEGMENT_FRAMES = 20
BATCH = 2
HOP = EMBEDDED_MEL.hop
WARM_UP = 40  # steps
LEAST_VOICED = 0.3
"""Share of a segment's frames: of a pause alone spectral convergence is all and nothing."""


def main() -> None:
    """Train until the minutes are used up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=19)
    parser.add_argument("--rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    utterances = load(arguments.data / "train.npz")
    model = Nsf()
    arguments.out.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.rate, betas=(0.8, 0.99), weight_decay=1e-4)
    begun = time.monotonic()
    limit = arguments.minutes * 60
    step, recent = 0, []
    while (elapsed := time.monotonic() - begun) < limit:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(arguments.rate, elapsed / limit, step, WARM_UP)
        mel: list[Tensor] = []
        f0: list[Tensor] = []
        true: list[Tensor] = []
        while len(true) < BATCH:
            u = utterances[int(draw.integers(len(utterances)))]
            start = int(draw.integers(len(u.f0_hz) - SEGMENT_FRAMES + 1))
            pitch = u.f0_hz[start : start + SEGMENT_FRAMES]
            if np.mean(pitch > 0) < LEAST_VOICED:
                continue
            with torch.no_grad():
                whole = log_mel(torch.from_numpy(u.samples)[None], EMBEDDED_MEL)[0]
            mel.append(whole[:, start : start + SEGMENT_FRAMES])
            f0.append(torch.from_numpy(pitch))
            true.append(torch.from_numpy(u.samples[start * HOP : (start + SEGMENT_FRAMES) * HOP]))
        made = model(torch.stack(mel), torch.stack(f0), torch.randn(BATCH, SEGMENT_FRAMES, HOP))
        loss = spectral_loss(made, torch.stack(true))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        recent.append(loss.item())
        step += 1
        if step % 100 == 0:
            print(f"{elapsed / 60:6.1f} min  step {step}  loss {np.mean(recent[-100:]):.4f}", flush=True)
            print(f"        {time.process_time() / 60:.1f} min of CPU", flush=True)
    state = {key: tensor.half().contiguous() for key, tensor in model.state_dict().items()}
    save_file(state, arguments.out / "nsf.safetensors")


if __name__ == "__main__":
    main()
