"""segments: short stretches of the made speech, and the loop in which a vocoder learns from them."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from voice.mel import EMBEDDED_MEL
from voice.training.speech import Utterance

HOP = EMBEDDED_MEL.hop
KEPT_EVERY = 500  # steps


def parser_of(description: str | None, minutes: float, rate: float) -> argparse.ArgumentParser:
    """Arguments that every vocoder's trainer takes: data, out, minutes, rate."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--rate", type=float, default=rate)
    return parser


def place(utterance: Utterance, frames: int, draw: np.random.Generator) -> int:
    """The first frame of a stretch, drawn at random."""
    return int(draw.integers(len(utterance.f0_hz) - frames + 1))


def cut(utterance: Utterance, mel: Tensor, start: int, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """A stretch: log-mel [mels, frames], F0 [frames] in Hz and samples [frames * HOP]."""
    f0 = torch.from_numpy(utterance.f0_hz[start : start + frames])
    return mel[:, start : start + frames], f0, torch.from_numpy(utterance.samples[start * HOP : (start + frames) * HOP])


def stacked(found: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """A batch of stretches: each of their tensors [batch, ...]."""
    return tuple(torch.stack(tensors) for tensors in zip(*found, strict=True))


def drawn(
    utterances: Sequence[Utterance], mels: Sequence[Tensor], frames: int, count: int, draw: np.random.Generator
) -> tuple[Tensor, ...]:
    """A batch of `count` stretches at random, as `cut` gives each."""
    chosen = draw.integers(len(utterances), size=count)
    return stacked([cut(utterances[i], mels[i], place(utterances[i], frames, draw), frames) for i in chosen])


def learning_rate(peak: float, elapsed: float, step: int, warm_up: int = 200) -> float:
    """Rate after a share 0..1 of the time: so many steps of warming up, then a cosine down to a fiftieth."""
    return float(peak * max(0.02, 0.5 * (1 + np.cos(np.pi * elapsed))) * min(1, (step + 1) / warm_up))


def learn(
    model: nn.Module,
    loss_of: Callable[[int], Tensor],
    arguments: argparse.Namespace,
    *,
    warm_up: int = 200,
    told_every: int = 100,
    path: Path | None = None,
) -> None:
    """Learn until the minutes are used up.

    Args:
        model: what learns.
        loss_of: draws the batch of a step, and gives its loss.
        arguments: of `parser_of`.
        warm_up: steps.
        told_every: steps between lines about the loss.
        path: where the newest weights are kept all along; None keeps none.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.rate, betas=(0.8, 0.99), weight_decay=1e-4)
    begun, limit = time.monotonic(), arguments.minutes * 60
    recent: list[float] = []
    while (elapsed := time.monotonic() - begun) < limit:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(arguments.rate, elapsed / limit, len(recent), warm_up)
        loss = loss_of(len(recent))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        recent.append(loss.item())
        step = len(recent)
        if step % told_every == 0:
            told = f"{elapsed / 60:6.1f} min  step {step}  loss {np.mean(recent[-told_every:]):.4f}"
            print(f"{told}  {time.process_time() / 60:.1f} min of CPU", flush=True)
        if path is not None and step % KEPT_EVERY == 0:
            torch.save(model.state_dict(), path)
    if path is not None:
        torch.save(model.state_dict(), path)


def save_half(model: nn.Module, path: Path) -> None:
    """Write the weights in fp16, as safetensors."""
    save_file({key: tensor.half().contiguous() for key, tensor in model.state_dict().items()}, path)
