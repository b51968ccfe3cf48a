"""Vocos: ConvNeXt blocks at frame rate and an inverse STFT of predicted magnitude and phase; and a Voice of it.

Source: Siuzdak 2023 (arXiv 2306.00814), written small. Nothing is upsampled: what the last layer gives for a frame, the
inverse STFT spreads over the samples of a window. So that layer's error in a phase is the error of the sound.
"""

import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice.checkpoint import load_into, load_state_dict
from voice.embedded import bundled_clips
from voice.mel import EMBEDDED_MEL, MelConfig
from voice.model import Clip
from voice.recorded import Resynthesis

LARGEST_LOG_MAGNITUDE = math.log(1e2)  # as Siuzdak has it: a safeguard, not reached by speech


@dataclass(frozen=True, slots=True)
class VocosConfig:
    """Sizes; frames in and frames of the inverse STFT are the same, those of `mel`."""

    channels: int = 160
    hidden: int = 384
    """Between the two layers of a block."""
    blocks: int = 5
    mel: MelConfig = EMBEDDED_MEL


class ConvNextBlock(nn.Module):
    """Depthwise convolution, norm, two layers with GELU between, scaled by channel, around a residual connection."""

    def __init__(self, channels: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.wide = nn.Linear(channels, hidden)
        self.narrow = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, channels, frames] to the same shape."""
        y = self.norm(self.depthwise(x).transpose(1, 2))
        y = self.narrow(F.gelu(self.wide(y)))
        scaled: Tensor = (self.scale * y).transpose(1, 2)
        return x + scaled


class SpectralHead(nn.Module):
    """Log magnitude and phase of each band, and the inverse STFT as a matrix product and a sum of what overlaps."""

    basis: Tensor

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.hop = config.mel.hop
        self.project = nn.Linear(config.channels, config.mel.fft + 2)
        self.register_buffer("basis", synthesis_basis(config.mel.fft, config.mel.hop), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, frames, channels] to a waveform [batch, frames * hop]."""
        log_magnitude, phase = self.project(x).chunk(2, dim=-1)
        magnitude = torch.exp(log_magnitude.clamp(max=LARGEST_LOG_MAGNITUDE))
        # Sine and cosine wrap: the phase need not be, and is predicted without a jump.
        spectrum = torch.cat([magnitude * torch.cos(phase), magnitude * torch.sin(phase)], dim=-1)
        windows = torch.unflatten(F.linear(spectrum, self.basis), 2, (-1, self.hop))
        count = windows.shape[2]
        # Overlapping windows are added up a hop at a time.
        hops = [F.pad(windows[:, :, place], (0, 0, place, count - 1 - place)) for place in range(count)]
        samples = torch.stack(hops).sum(dim=0).flatten(1)
        edge = (count - 1) * self.hop // 2
        return samples[:, edge : edge + x.shape[1] * self.hop]


def synthesis_basis(fft: int, hop: int) -> Tensor:
    """Inverse DFT under a Hann window, [fft, fft + 2]: of the STFT under a Hann window it gives the samples back.

    The first half of the columns takes real parts, the second imaginary ones. Overlapping squares of the window sum to
    3/8 fft / hop, where frames lie on both sides: at both ends of a clip it is less, and the sound fades in and out.
    """
    n = torch.arange(fft, dtype=torch.float64)
    k = torch.arange(fft // 2 + 1, dtype=torch.float64)[:, None]
    weight = torch.full_like(k, 2.0)
    weight[0] = weight[-1] = 1.0
    angle = 2 * math.pi * k * n / fft
    window = torch.hann_window(fft, dtype=torch.float64) / (3 / 8 * fft / hop)
    basis = torch.cat([weight * torch.cos(angle), -weight * torch.sin(angle)]) * window / fft
    return basis.T.contiguous().float()


class Vocos(nn.Module):
    """Log-mel frames to a waveform."""

    def __init__(self, config: VocosConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VocosConfig()
        self.embed = nn.Conv1d(config.mel.mels, config.channels, 7, padding=3)
        self.norm = nn.LayerNorm(config.channels, eps=1e-6)
        self.blocks = nn.ModuleList(
            ConvNextBlock(config.channels, config.hidden, 1 / config.blocks) for _ in range(config.blocks)
        )
        self.last_norm = nn.LayerNorm(config.channels, eps=1e-6)
        self.head = SpectralHead(config)

    def forward(self, mel: Tensor) -> Tensor:
        """Map log-mel [batch, mels, frames] to [batch, frames * hop], about -1..1."""
        x = self.norm(self.embed(mel).transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        waveform: Tensor = self.head(self.last_norm(x.transpose(1, 2)))
        return waveform


class VocosVoice(Resynthesis):
    """A Vocos as a Voice: speech to log-mel frames, and back."""

    name = "vocos"
    module: Vocos

    def __init__(self, module: Vocos) -> None:
        super().__init__(module.requires_grad_(False), module.config.mel)

    @classmethod
    def load(cls, checkpoint: Path | None = None) -> "VocosVoice":
        """Load the weights that the package brings, or a checkpoint of the same shape.

        Raises:
            CheckpointError: as `voice.checkpoint` has it.
        """
        path = checkpoint or Path(str(files("voice") / "data" / "vocos.safetensors"))
        module = Vocos()
        load_into(module, load_state_dict(path), path)
        return cls(module)

    def bundled_clips(self) -> tuple[Clip, ...]:
        """The recordings that the package brings; none was trained on."""
        found = [(clip.name, clip.natural) for clip in bundled_clips()]
        return tuple(self.clip(name, natural, self.sample_rate_hz) for name, natural in found if natural is not None)

    def sound(self, clip: Clip) -> Tensor:
        """Give the waveform that `render` gives, with gradients where they are wanted."""
        (mel,) = clip.inputs
        waveform: Tensor = self.module(mel.to(self.module.head.basis.device))[0]
        return waveform
