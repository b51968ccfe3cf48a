"""A neural source-filter vocoder, harmonic plus noise: sines by F0, filtered by convolutions that hear the mel.

Source: Wang, Takaki, Yamagishi 2019 (arXiv 1904.12088, the source and the filters) and Wang, Yamagishi 2019 (arXiv
1908.10256, the two branches and their crossover), written small. The oscillator is part of the module, so it is
deployed with it: a running sum of F0 is the phase of every harmonic, and an error in it grows with time.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice.mel import EMBEDDED_MEL, MelConfig

LEAKY_SLOPE = 0.1
SINE_LEVEL = 0.1
"""Amplitude of a harmonic; of noise where there is no voice a third of it, as Wang et al. have it."""
HUM_LEVEL = 0.003
"""Standard deviation of the noise that goes with the sines."""
F0_CENTRE_HZ = 200.0
Kept = Literal["sum", "turn", "state"]
LEVEL = 1.35
"""Times the root of a mel frame's power, over the excitation's own: what a recording's level is in the mean, which the
filters need not learn. The paper's learn it."""


@dataclass(frozen=True, slots=True)
class NsfConfig:
    """Sizes."""

    harmonics: int = 8
    channels: int = 16
    """Of the filters, which run at the sample rate."""
    hidden: int = 128
    """Of the network that reads mel and F0, at frame rate."""
    harmonic_dilations: tuple[tuple[int, ...], ...] = ((1, 2, 4, 8, 16, 32),) * 2
    """Of each filter of the harmonic branch."""
    noise_dilations: tuple[int, ...] = (1, 4, 16, 64)
    crossover_hz: tuple[float, float] = (5000.0, 1500.0)
    """Below it the harmonic branch is heard, above it the noise: of voiced sound, and of unvoiced."""
    crossover_taps: int = 31
    mel: MelConfig = EMBEDDED_MEL


class SineSource(nn.Module):
    """Harmonics of F0 and noise, added up to one excitation."""

    def __init__(self, config: NsfConfig) -> None:
        super().__init__()
        self.rate, self.hop, self.harmonics = config.mel.sample_rate_hz, config.mel.hop, config.harmonics
        self.merge = nn.Linear(config.harmonics, 1)

    def forward(self, f0_hz: Tensor, noise: Tensor) -> Tensor:
        """Map F0 [batch, frames], 0 where unvoiced, and noise [batch, frames, hop] to [batch, 1, frames * hop]."""
        f0 = _held(f0_hz[:, None], self.hop)[:, 0]
        numbers = torch.arange(1, self.harmonics + 1, device=f0.device)
        audible = (f0[..., None] > 0) & (f0[..., None] * numbers < self.rate / 2)
        sines = SINE_LEVEL * torch.sin(2 * math.pi * numbers * self.turns(f0)[..., None])
        drawn = noise.flatten(1)[..., None]
        level = torch.where(f0[..., None] > 0, HUM_LEVEL, SINE_LEVEL / 3)
        merged: Tensor = torch.tanh(self.merge(torch.where(audible, sines, 0.0) + level * drawn))
        return merged.transpose(1, 2)

    def turns(self, f0: Tensor) -> Tensor:
        """Phase of the first harmonic in turns, 0 to 1, of F0 in Hz at each sample [batch, time]."""
        total = self.total(f0)
        return total - torch.floor(total)

    def total(self, f0: Tensor) -> Tensor:
        """The same unwrapped: turns since the beginning."""
        return torch.cumsum(f0 / self.rate, dim=1)


@contextmanager
def phase_kept_in(source: SineSource, dtype: torch.dtype, kept: Kept) -> Iterator[None]:
    """Within the context, let a source's phase lose what a type does not hold, as where results are stored in 16 bits.

    Args:
        source: of a model.
        dtype: as torch.bfloat16.
        kept: what is stored so: the running "sum", the "turn" of an exact sum, or the "state" of an oscillator that
            goes on from sample to sample within a turn.
    """
    name = "total" if kept == "sum" else "turns"
    exact = getattr(source, name)

    def stepped(f0: Tensor) -> Tensor:
        phase, phases = torch.zeros_like(f0[:, 0], dtype=dtype), []
        for step in (f0 / source.rate).to(dtype).unbind(1):
            phase = phase + step
            phase = phase - torch.floor(phase)
            phases.append(phase)
        return torch.stack(phases, dim=1).to(f0.dtype)

    setattr(source, name, stepped if kept == "state" else lambda f0: exact(f0).to(dtype).to(f0.dtype))
    try:
        yield
    finally:
        delattr(source, name)


def _held(x: Tensor, hop: int) -> Tensor:
    """Each frame of [batch, channels, frames] `hop` times."""
    return x[..., None].expand(-1, -1, -1, hop).flatten(2)


class FilterBlock(nn.Module):
    """Dilated convolutions that the condition gates, around which the excitation goes on."""

    def __init__(self, channels: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.spread = nn.Conv1d(1, channels, 1)
        self.convs = nn.ModuleList(
            nn.Conv1d(channels, 2 * channels, 3, dilation=dilation, padding=dilation) for dilation in dilations
        )
        self.merge = nn.Conv1d(channels, 1, 1)

    def forward(self, excitation: Tensor, gates: Sequence[Tensor]) -> Tensor:
        """Map [batch, 1, time] to the same, by a condition [batch, 2 * channels, time] for each convolution."""
        x = torch.tanh(self.spread(excitation))
        for conv, condition in zip(self.convs, gates, strict=True):
            signal, gate = (conv(x) + condition).chunk(2, dim=1)
            x = x + torch.tanh(signal) * torch.sigmoid(gate)
        filtered: Tensor = excitation + self.merge(x)
        return filtered


class Crossover(nn.Module):
    """Low-passes of the harmonic branch and high-passes of the noise, faded between voiced and unvoiced ones."""

    low: Tensor
    high: Tensor

    def __init__(self, config: NsfConfig) -> None:
        super().__init__()
        n = torch.arange(config.crossover_taps, dtype=torch.float64) - config.crossover_taps // 2
        width = 2 * torch.tensor(config.crossover_hz, dtype=torch.float64)[:, None] / config.mel.sample_rate_hz
        low = width * torch.sinc(width * n) * torch.hamming_window(config.crossover_taps, False, dtype=torch.float64)
        low = low / low.sum(dim=1, keepdim=True)
        impulse = (n == 0).double()
        self.register_buffer("low", low[:, None].float(), persistent=False)
        self.register_buffer("high", (impulse - low)[:, None].float(), persistent=False)

    def forward(self, harmonic: Tensor, noise: Tensor, voiced: Tensor) -> Tensor:
        """Map two branches [batch, 1, time] and a share of voice [batch, 1, time] in 0..1 to [batch, time]."""
        edge = self.low.shape[-1] // 2
        both = F.conv1d(harmonic, self.low, padding=edge) + F.conv1d(noise, self.high, padding=edge)
        of_voice, of_none = both.chunk(2, dim=1)
        return (of_none + voiced * (of_voice - of_none))[:, 0]


class Nsf(nn.Module):
    """Log-mel frames, F0 and noise to a waveform."""

    def __init__(self, config: NsfConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NsfConfig()
        self.source = SineSource(config)
        self.reads = nn.ModuleList(
            nn.Conv1d(before, config.hidden, kernel, padding=kernel // 2)
            for before, kernel in ((config.mel.mels + 2, 5), (config.hidden, 3), (config.hidden, 3))
        )
        blocks = (*config.harmonic_dilations, config.noise_dilations)
        self.gates = nn.Conv1d(config.hidden, sum(map(len, blocks)) * 2 * config.channels, 1)
        self.voicing = nn.Conv1d(config.hidden, 1, 1)
        self.filters = nn.ModuleList(FilterBlock(config.channels, dilations) for dilations in blocks)
        self.crossover = Crossover(config)

    def forward(self, mel: Tensor, f0_hz: Tensor, noise: Tensor) -> Tensor:
        """Speak.

        Args:
            mel: [batch, mels, frames].
            f0_hz: [batch, frames], 0 where unvoiced.
            noise: [batch, frames, hop], of a normal distribution.

        Returns:
            [batch, frames * hop], about -1..1.
        """
        voiced = (f0_hz > 0).to(mel.dtype)[:, None]
        octaves = torch.log2(f0_hz.clamp(min=1.0) / F0_CENTRE_HZ)[:, None] * voiced
        x = torch.cat([mel, octaves, voiced], dim=1)
        for conv in self.reads:
            x = F.leaky_relu(conv(x), LEAKY_SLOPE)
        hop = self.config.mel.hop
        gates = [_held(gate, hop) for gate in self.gates(x).split(2 * self.config.channels, dim=1)]
        harmonic, hiss = self.source(f0_hz, noise), SINE_LEVEL / 3 * noise.flatten(1)[:, None]
        *harmonic_blocks, noise_block = self.filters
        for block in harmonic_blocks:
            count = len(block.convs)  # type: ignore[arg-type]
            harmonic, gates = block(harmonic, gates[:count]), gates[count:]
        share = _held(torch.sigmoid(self.voicing(x)), hop)
        waveform: Tensor = self.crossover(harmonic, noise_block(hiss, gates), share) * self._level(mel)
        return waveform

    def _level(self, mel: Tensor) -> Tensor:
        """Amplitude of the frames at each sample [batch, time], in lines between frames; filters work at level 1."""
        frames = LEVEL * torch.sqrt(torch.exp(2 * mel).sum(dim=1))
        following = torch.cat([frames[:, 1:], frames[:, -1:]], dim=1)
        hop = self.config.mel.hop
        place = torch.arange(hop, device=mel.device) / hop
        lines: Tensor = (frames[..., None] + (following - frames)[..., None] * place).flatten(1)
        return lines
