"""The embedded voice's acoustic model: phones, durations and F0 to log-mel frames, all frames at once.

A feed-forward transformer with explicit durations and F0 (after FastSpeech 2, Ren et al. 2021, arXiv 2006.04558, and
FastPitch, Lancucki 2021, arXiv 2006.06873), rotary positions (Su et al. 2021, arXiv 2104.09864).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class AcousticConfig:
    """Sizes of the acoustic model."""

    phones: int = 48
    mels: int = 80
    width: int = 128
    heads: int = 4
    hidden: int = 384
    encoder_blocks: int = 3
    decoder_blocks: int = 3


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions; its two products are `torch.matmul`, hence sites."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map [batch, time, width] to the same shape; `mask` [batch, time] is True at real positions."""
        batch, time, width = x.shape
        size = width // self.heads

        def split(y: Tensor) -> Tensor:
            return y.view(batch, time, self.heads, size).transpose(1, 2)

        query, key = rotate(split(self.query(x))), rotate(split(self.key(x)))
        scores = torch.matmul(query, key.transpose(-1, -2)) * size**-0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], -1e9)
        mixed = torch.matmul(scores.softmax(dim=-1), split(self.value(x)))
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        return out


def rotate(x: Tensor) -> Tensor:
    """Rotary positions on [batch, heads, time, size]: pairs (i, i + size / 2) turn by time * 10000^(-2 i / size)."""
    time, size = x.shape[-2], x.shape[-1]
    rate = 10000.0 ** (-torch.arange(0, size, 2, device=x.device, dtype=torch.float32) / size)
    angle = torch.arange(time, device=x.device, dtype=torch.float32)[:, None] * rate
    low, high = x.chunk(2, dim=-1)
    cosine, sine = angle.cos(), angle.sin()
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], dim=-1)


class Block(nn.Module):
    """Pre-norm transformer block whose feed-forward part is a convolution of three taps and a projection."""

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads)
        self.norm_feed = nn.LayerNorm(config.width)
        self.conv = nn.Conv1d(config.width, config.hidden, 3, padding=1)
        self.project = nn.Linear(config.hidden, config.width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map [batch, time, width] to the same shape."""
        x = x + self.dropout(self.attention(self.norm_attention(x), mask))
        y = self.norm_feed(x)
        if mask is not None:
            y = y * mask[..., None]
        y = F.gelu(self.conv(y.transpose(1, 2)).transpose(1, 2))
        out: Tensor = x + self.dropout(self.project(y))
        return out


class Acoustic(nn.Module):
    """Phones to log-mel: `encode`, then durations stretch phones to frames, then F0 joins and they are decoded."""

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.phones, config.width)
        self.encoder = nn.ModuleList(Block(config) for _ in range(config.encoder_blocks))
        self.norm_encoder = nn.LayerNorm(config.width)
        self.place = nn.Linear(3, config.width)
        self.pitch_in = nn.Linear(2, config.width)
        self.decoder = nn.ModuleList(Block(config) for _ in range(config.decoder_blocks))
        self.norm_decoder = nn.LayerNorm(config.width)
        self.to_mel = nn.Linear(config.width, config.mels)

    def encode(self, phones: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map phone indices [batch, phones] to [batch, phones, width]."""
        x: Tensor = self.embedding(phones)
        for block in self.encoder:
            x = block(x, mask)
        out: Tensor = self.norm_encoder(x)
        return out

    def stretch(self, encoded: Tensor, places: Tensor, features: Tensor) -> Tensor:
        """Repeat phones as frames: `places` [batch, frames] phone indices, `features` [batch, frames, 3]."""
        frames = torch.gather(encoded, 1, places[..., None].expand(-1, -1, encoded.shape[-1]))
        out: Tensor = frames + self.place(features)
        return out

    def decode(self, frames: Tensor, octaves: Tensor, voiced: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map frames [batch, frames, width] and F0 to log-mel [batch, mels, frames]."""
        x = frames + self.pitch_in(torch.stack([octaves * voiced, voiced], dim=-1))
        for block in self.decoder:
            x = block(x, mask)
        out: Tensor = self.to_mel(self.norm_decoder(x)).transpose(1, 2)
        return out


def frame_places(durations: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the phone under each frame, and where in it the frame lies.

    Args:
        durations: [phones] frames of each phone, integers of at least 0, one at least positive.

    Returns:
        Indices [frames], and features [frames, 3]: share of the phone passed, share left, log of its length.
    """
    count = durations.shape[0]
    index = torch.repeat_interleave(torch.arange(count, device=durations.device), durations)
    starts = torch.cumsum(durations, 0) - durations
    inside = torch.arange(index.shape[0], device=durations.device) - starts[index]
    length = durations[index].float()
    passed = (inside.float() + 0.5) / length
    return index, torch.stack([passed, 1 - passed, torch.log(length) / 3], dim=-1)
