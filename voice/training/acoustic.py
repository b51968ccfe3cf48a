"""Train the embedded voice's acoustic model on the made speech.

`python -m voice.training.acoustic DATA OUT --minutes 60` keeps the newest weights in OUT/acoustic.pt. At the end it
writes OUT/mels.npz, its own mels of the training sentences with true durations and F0, for the vocoder to learn on.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from voice.acoustic import F0_CENTRE_HZ, Acoustic, AcousticConfig, frame_places
from voice.mel import EMBEDDED_MEL, log_mel
from voice.phones import index_of
from voice.training.speech import Utterance, load

BATCH = 16


class Batch:
    """Utterances padded to one length, with masks."""

    def __init__(self, utterances: list[Utterance], mels: list[Tensor]) -> None:
        phones = max(len(u.phones) for u in utterances)
        frames = max(len(u.f0_hz) for u in utterances)
        size = len(utterances)
        self.phones = torch.zeros(size, phones, dtype=torch.long)
        self.phone_mask = torch.zeros(size, phones, dtype=torch.bool)
        self.durations = torch.ones(size, phones)
        self.places = torch.zeros(size, frames, dtype=torch.long)
        self.features = torch.zeros(size, frames, 3)
        self.frame_mask = torch.zeros(size, frames, dtype=torch.bool)
        self.octaves = torch.zeros(size, frames)
        self.voiced = torch.zeros(size, frames)
        self.mel = torch.zeros(size, mels[0].shape[0], frames)
        for row, (u, mel) in enumerate(zip(utterances, mels, strict=True)):
            p, f = len(u.phones), len(u.f0_hz)
            durations = torch.from_numpy(u.durations.astype(np.int64))
            self.phones[row, :p] = torch.tensor([index_of(phone) for phone in u.phones])
            self.phone_mask[row, :p] = True
            self.durations[row, :p] = durations.clamp(min=1).float()
            self.places[row, :f], self.features[row, :f] = frame_places(durations)
            self.frame_mask[row, :f] = True
            f0 = torch.from_numpy(u.f0_hz)
            self.voiced[row, :f] = (f0 > 0).float()
            self.octaves[row, :f] = torch.where(f0 > 0, torch.log2(f0.clamp(min=1) / F0_CENTRE_HZ), 0)
            self.mel[row, :, :f] = mel


def losses(model: Acoustic, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """L1 of mel, squared error of log durations and of octaves, cross entropy of voicing."""
    encoded = model.encode(batch.phones, batch.phone_mask)
    log_durations = model.log_durations(encoded.detach() * 0.9 + encoded * 0.1)
    duration = F.mse_loss(log_durations[batch.phone_mask], torch.log(batch.durations[batch.phone_mask]))
    frames = model.stretch(encoded, batch.places, batch.features)
    frames = frames * batch.frame_mask[..., None]
    octaves, logits = model.predict_pitch(frames)
    sounding = batch.voiced.bool() & batch.frame_mask
    pitch = F.mse_loss(octaves[sounding], batch.octaves[sounding])
    voicing = F.binary_cross_entropy_with_logits(logits[batch.frame_mask], batch.voiced[batch.frame_mask])
    mel = model.decode(frames, batch.octaves, batch.voiced, batch.frame_mask)
    spectrum = (mel - batch.mel).abs().mean(dim=1)[batch.frame_mask].mean()
    return spectrum, duration, pitch, voicing


def main() -> None:
    """Train until the minutes are used up, then write the predicted mels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    train, held_back = load(arguments.data / "train.npz"), load(arguments.data / "held_back.npz")
    with torch.no_grad():
        mels = [log_mel(torch.from_numpy(u.samples)[None], EMBEDDED_MEL)[0] for u in train]
        held_mels = [log_mel(torch.from_numpy(u.samples)[None], EMBEDDED_MEL)[0] for u in held_back]
    judged = Batch(held_back, held_mels)
    model = Acoustic(AcousticConfig())
    every = torch.cat([mel.mean(dim=1) for mel in mels]).view(len(mels), -1).mean(dim=0)
    with torch.no_grad():
        model.to_mel.bias.copy_(every)
    path = arguments.out / "acoustic.pt"
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.resume:
        model.load_state_dict(torch.load(path, weights_only=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.rate, betas=(0.9, 0.98), weight_decay=1e-2)
    begun = time.monotonic()
    limit = arguments.minutes * 60
    order: list[int] = []
    step = 0
    by_length = np.argsort([len(u.f0_hz) for u in train])
    recent = []
    while (elapsed := time.monotonic() - begun) < limit:
        share = max(0.02, 0.5 * (1 + np.cos(np.pi * elapsed / limit))) * min(1, (step + 1) / 300)
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * share
        if not order:  # neighbours in length share a batch, batches come in random order
            starts = draw.permutation(np.arange(int(draw.integers(BATCH)), len(train) - BATCH + 1, BATCH))
            order = [int(s) for s in starts]
        chosen = by_length[(s := order.pop()) : s + BATCH]
        batch = Batch([train[i] for i in chosen], [mels[i] for i in chosen])
        model.train()
        parts = losses(model, batch)
        loss = parts[0] + 0.3 * parts[1] + 1.0 * parts[2] + 0.2 * parts[3]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append([part.item() for part in parts])
        step += 1
        if step % 100 == 0:
            model.eval()
            with torch.no_grad():
                held = [part.item() for part in losses(model, judged)]
            shown = "  ".join(f"{a:.4f}/{b:.4f}" for a, b in zip(np.mean(recent[-100:], axis=0), held, strict=True))
            print(f"{elapsed / 60:6.1f} min  step {step}  mel dur pitch voicing train/held {shown}", flush=True)
            torch.save(model.state_dict(), path)
    torch.save(model.state_dict(), path)
    model.eval()
    with torch.no_grad():
        predicted = []
        for u, mel in zip(train, mels, strict=True):
            one = Batch([u], [mel])
            frames = model.stretch(model.encode(one.phones), one.places, one.features)
            predicted.append(model.decode(frames, one.octaves, one.voiced)[0].numpy())
    np.savez(arguments.out / "mels.npz", mels=np.concatenate(predicted, axis=1))


if __name__ == "__main__":
    main()
