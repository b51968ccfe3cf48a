"""The embedded voice's prosody: phones to durations and F0.

A network of its own, apart from the one that makes the spectrum: what it says is summed up over time, durations to
places and F0 to phase, so a rounding error in it moves sound instead of adding noise. Apart, it can be kept precise for
a hundredth of the computation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice.acoustic import AcousticConfig, Block

F0_CENTRE_HZ = 180.0  # octaves are counted from here


@dataclass(frozen=True, slots=True)
class ProsodyConfig:
    """Sizes of the prosody network."""

    phones: int = 48
    width: int = 64
    heads: int = 2
    hidden: int = 192
    blocks: int = 2


class Predictor(nn.Module):
    """Two convolutions and a projection: a few numbers at each position."""

    def __init__(self, width: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.norm_first = nn.LayerNorm(width)
        self.second = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.norm_second = nn.LayerNorm(width)
        self.out = nn.Linear(width, outputs)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, time, width] to [batch, time, outputs]."""
        y = self.norm_first(F.gelu(self.first(x.transpose(1, 2)).transpose(1, 2)))
        y = self.norm_second(F.gelu(self.second(self.dropout(y).transpose(1, 2)).transpose(1, 2)))
        out: Tensor = self.out(self.dropout(y))
        return out


class Prosody(nn.Module):
    """Phones to durations; phones stretched by durations to F0 and voicing."""

    def __init__(self, config: ProsodyConfig) -> None:
        super().__init__()
        block = AcousticConfig(width=config.width, heads=config.heads, hidden=config.hidden)
        self.embedding = nn.Embedding(config.phones, config.width)
        self.blocks = nn.ModuleList(Block(block) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.duration = Predictor(config.width, 1, 3)
        self.place = nn.Linear(3, config.width)
        self.pitch = Predictor(config.width, 2, 5)

    def encode(self, phones: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map phone indices [batch, phones] to [batch, phones, width]."""
        x: Tensor = self.embedding(phones)
        for block in self.blocks:
            x = block(x, mask)
        out: Tensor = self.norm(x)
        return out

    def log_durations(self, encoded: Tensor) -> Tensor:
        """Natural logarithm of each phone's frames, [batch, phones]."""
        out: Tensor = self.duration(encoded)[..., 0]
        return out

    def contour(self, encoded: Tensor, places: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Octaves above the centre and voicing logit of each frame, each [batch, frames].

        Args:
            encoded: [batch, phones, width].
            places: [batch, frames] index of the phone under each frame.
            features: [batch, frames, 3] as `voice.acoustic.frame_places` has them.
        """
        frames = torch.gather(encoded, 1, places[..., None].expand(-1, -1, encoded.shape[-1]))
        out = self.pitch(frames + self.place(features))
        return out[..., 0], out[..., 1]
