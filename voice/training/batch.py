"""Batch: utterances padded to one length, and the loop that learns from them."""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from voice.acoustic import frame_places
from voice.phones import index_of
from voice.prosody import F0_CENTRE_HZ
from voice.training.speech import Utterance

BATCH = 16


class Batch:
    """Utterances padded to one length, with masks."""

    def __init__(self, utterances: Sequence[Utterance], mels: Sequence[Tensor] = ()) -> None:
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
        self.mel = torch.zeros(size, mels[0].shape[0] if mels else 0, frames)
        for row, u in enumerate(utterances):
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
            if mels:
                self.mel[row, :, :f] = mels[row]


Model = TypeVar("Model", bound=nn.Module)


def schedule(utterances: list[Utterance], seed: int) -> Iterator[list[int]]:
    """Indices of batch after batch, without end: neighbours in length share one, and they come in random order."""
    draw = np.random.default_rng(seed)
    by_length = np.argsort([len(u.f0_hz) for u in utterances])
    while True:
        first = int(draw.integers(BATCH))
        for start in draw.permutation(np.arange(first, len(utterances) - BATCH + 1, BATCH)):
            yield [int(i) for i in by_length[start : start + BATCH]]


def arguments_of(description: str | None) -> argparse.Namespace:
    """Arguments that every trainer takes: data, out, minutes, rate, resume."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--resume", action="store_true", help="begin with the weights in OUT")
    return parser.parse_args()


def train(
    model: Model,
    losses: Callable[[Model, Batch], dict[str, Tensor]],
    learned: list[Utterance],
    judged: Batch,
    arguments: argparse.Namespace,
    path: Path,
    mels: Sequence[Tensor] = (),
) -> None:
    """Learn until the minutes are used up, at a rate that falls along a cosine; keep the newest weights in `path`."""
    torch.manual_seed(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    if arguments.resume:
        model.load_state_dict(torch.load(path, weights_only=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.rate, betas=(0.9, 0.98), weight_decay=1e-2)
    begun, limit = time.monotonic(), arguments.minutes * 60
    for step, chosen in enumerate(schedule(learned, seed=int(arguments.resume)), 1):
        elapsed = time.monotonic() - begun
        if elapsed > limit:
            break
        share = max(0.02, 0.5 * (1 + math.cos(math.pi * elapsed / limit))) * min(1.0, step / 300)
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * share
        model.train()
        batch = Batch([learned[i] for i in chosen], [mels[i] for i in chosen] if mels else ())
        loss = torch.stack(list(losses(model, batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            model.eval()
            with torch.no_grad():
                held = {name: round(value.item(), 4) for name, value in losses(model, judged).items()}
            print(f"{elapsed / 60:6.1f} min  step {step}  loss {loss.item():.4f}  held back {held}", flush=True)
            torch.save(model.state_dict(), path)
    torch.save(model.state_dict(), path)
