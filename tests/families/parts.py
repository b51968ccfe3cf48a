"""What the tiny voices are made of: layers with seeded random weights, small enough to search in seconds."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice.noise import paired_noise

RATE_HZ = 16000
RATES = (8, 8, 10)
HOP = 640
"""Samples of a frame: 25 frames a second."""
Module = TypeVar("Module", bound=nn.Module)


def seeded(build: Callable[[], Module], seed: int, gain: float = 1.2) -> Module:
    """Make a model whose random weights are the same everywhere, and strong enough that it is no mere average."""
    with paired_noise(seed):
        module = build()
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
                nn.init.normal_(layer.weight, std=gain / layer.weight[0].numel() ** 0.5)
    return module.eval().requires_grad_(False)


class Attention(nn.Module):
    """Attention of two heads, of `x` [time, width] to itself or to a memory."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor | None = None, causal: bool = False) -> Tensor:
        source = x if memory is None else memory

        def heads(y: Tensor) -> Tensor:
            return y.view(y.shape[0], 2, -1).transpose(0, 1)

        mixed = F.scaled_dot_product_attention(
            heads(self.query(x)), heads(self.key(source)), heads(self.value(source)), is_causal=causal
        )
        out: Tensor = self.out(mixed.transpose(0, 1).reshape(x.shape))
        return out


class Block(nn.Module):
    """Pre-norm transformer block, causal, with a memory to look at where it is built for one."""

    def __init__(self, width: int, *, cross: bool = False) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 if cross else 2))
        self.attention = Attention(width)
        self.cross = Attention(width) if cross else None
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norms[0](x), causal=True)
        if self.cross is not None:
            x = x + self.cross(self.norms[2](x), memory)
        out: Tensor = x + self.down(F.gelu(self.up(self.norms[1](x))))
        return out


class Decoder(nn.Module):
    """Frames [channels, frames] to sound [frames * 640] in -0.5..0.5: a codec's decoder, or a vocoder."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (16, 12, 8, 6)
        self.first = nn.Conv1d(channels, widths[0], 3, padding=1)
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(before, after, 2 * rate, stride=rate, padding=rate // 2)
            for before, after, rate in zip(widths, widths[1:], RATES, strict=False)
        )
        self.last = nn.Conv1d(widths[-1], 1, 7, padding=3)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.first(frames[None])
        for up in self.ups:
            x = up(F.leaky_relu(x, 0.1))
        return 0.5 * torch.tanh(10 * self.last(F.leaky_relu(x, 0.1)))[0, 0]
