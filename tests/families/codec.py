"""A neural codec: sound to frames, frames to the codes of two codebooks, codes to sound."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.families.parts import HOP, RATE_HZ, Decoder, seeded
from voice.family import Family
from voice.model import Clip, Rendering

ENTRIES, WIDTH, BOOKS = 16, 8, 2


class Codebook(nn.Module):
    """Entries of a stage of the residual quantizer."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = nn.Parameter(torch.randn(ENTRIES, WIDTH))

    def forward(self, frames: Tensor) -> Tensor:
        """Negative squared distance [frames, entries] of each frame [frames, width] from each entry."""
        squares = frames.square().sum(1, keepdim=True) + self.entries.square().sum(1)
        return 2 * F.linear(frames, self.entries) - squares


class Model(nn.Module):
    """Encoder, residual vector quantizer, decoder."""

    def __init__(self) -> None:
        super().__init__()
        widths, rates = (1, 8, 12, WIDTH), (10, 8, 8)
        self.encoder = nn.ModuleList(
            nn.Conv1d(before, after, 2 * rate, stride=rate, padding=rate // 2)
            for before, after, rate in zip(widths, widths[1:], rates, strict=False)
        )
        self.quantizer = nn.ModuleList(Codebook() for _ in range(BOOKS))
        self.decoder = Decoder(WIDTH)

    def forward(self, sound: Tensor, codes: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Sound of forced codes [books, frames], or of its own; distances by codebook, each given the code before."""
        x = sound[None, None]
        for conv in self.encoder:
            x = F.leaky_relu(conv(x), 0.1)
        rest = F.layer_norm(x[0].T, (WIDTH,))
        logits, sums = {}, torch.zeros_like(rest)
        for index, book in enumerate(self.quantizer):
            logits[f"audio.{index}"] = book(rest)
            chosen = logits[f"audio.{index}"].argmax(1) if codes is None else codes[index]
            rest, sums = rest - book.entries[chosen], sums + book.entries[chosen]
        return self.decoder(sums.T), logits


@dataclass(frozen=True)
class CodecVoice:
    """The model; a clip's inputs are its recording, and forced codes."""

    module: Model = field(default_factory=lambda: seeded(Model, 2))
    name: str = "tiny_codec"
    family: Family = "codec"
    sample_rate_hz: int = RATE_HZ
    protected: Mapping[str, str] = field(default_factory=dict)

    def unforced(self, clip: Clip) -> Clip:
        return Clip(clip.name, clip.inputs[:1], clip.seconds)

    def reseeded(self, clip: Clip, seed: int) -> None:
        return None

    def render(self, clip: Clip) -> Rendering:
        with torch.inference_mode():
            return Rendering(*self.module(*clip.inputs))

    def clips(self, count: int) -> tuple[Clip, ...]:
        """Recordings, and the codes that the model itself gives them."""
        found = []
        for number in range(count):
            sound = recording(20 + 2 * number, number)
            logits = self.render(Clip("", (torch.from_numpy(sound),), 1.0)).logits
            codes = torch.stack([values.argmax(1) for values in logits.values()])
            found.append(Clip(f"clip{number}", (torch.from_numpy(sound), codes), len(sound) / RATE_HZ, sound))
        return tuple(found)


def recording(frames: int, seed: int) -> np.ndarray:
    """Something that a codec could hear: a gliding buzz that comes and goes, in a little noise."""
    draw = np.random.default_rng(seed)
    time = np.arange(frames * HOP) / RATE_HZ
    phase = 2 * math.pi * np.cumsum(120 + 30 * seed + 40 * np.sin(2 * math.pi * 1.5 * time)) / RATE_HZ
    buzz = sum(np.sin(k * phase) / k for k in range(1, 12))
    loudness = 0.2 * np.abs(np.sin(2 * math.pi * 2.2 * time + seed))
    sound: np.ndarray = (loudness * buzz + 0.01 * draw.standard_normal(len(time))).astype(np.float32)
    return sound
