"""The embedded voice's vocoder: transposed convolutions, a pulse-and-noise source, an inverse-STFT head.

Of the family that Kokoro, StyleTTS 2 and CosyVoice 2 deploy (HiFTNet, Li et al. 2023, arXiv 2309.09493; iSTFTNet,
Kaneko et al. 2022, arXiv 2203.02395), written small. The waveform leaves the network as magnitude and direction of a
short spectrum, so an error inside the network is relative to the band and moment where it falls.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAKY_SLOPE = 0.1  # as HiFi-GAN has it


@dataclass(frozen=True, slots=True)
class VocoderConfig:
    """Sizes; `hop_samples` is the product of both upsampling rates and the hop of the head."""

    mels: int = 80
    sample_rate_hz: int = 16000
    channels: tuple[int, int, int] = (128, 64, 32)
    rates: tuple[int, int] = (8, 8)
    kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[int, ...] = (1, 3)
    head_fft: int = 16
    head_hop: int = 4

    @property
    def hop_samples(self) -> int:
        """Samples of audio a mel frame stands for."""
        return math.prod(self.rates) * self.head_hop


class ResidualBlock(nn.Module):
    """Dilated convolutions, each with a residual connection around it (HiFi-GAN's second kind)."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=(kernel - 1) * d // 2) for d in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, channels, time] to the same shape."""
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x, LEAKY_SLOPE))
        return x


class Stage(nn.Module):
    """One upsampling: transposed convolution, the source at the new rate added, residual blocks averaged."""

    def __init__(self, config: VocoderConfig, index: int) -> None:
        super().__init__()
        before, after = config.channels[index], config.channels[index + 1]
        rate = config.rates[index]
        source_rate = config.hop_samples // math.prod(config.rates[: index + 1])
        self.up = nn.ConvTranspose1d(before, after, 2 * rate, stride=rate, padding=rate // 2)
        self.source = nn.Conv1d(2, after, 4 * source_rate, stride=source_rate, padding=3 * source_rate // 2)
        self.blocks = nn.ModuleList(ResidualBlock(after, kernel, config.dilations) for kernel in config.kernels)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Map [batch, channels, time] and a source [batch, 2, samples] to [batch, fewer channels, rate * time]."""
        x = self.up(F.leaky_relu(x, LEAKY_SLOPE)) + self.source(source)
        return torch.stack([block(x) for block in self.blocks]).mean(dim=0)


class Head(nn.Module):
    """Log magnitude and a complex direction of each band, and the inverse STFT as a transposed convolution."""

    basis: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.bands = config.head_fft // 2 + 1
        self.hop = config.head_hop
        self.conv = nn.Conv1d(config.channels[-1], 3 * self.bands, 3, padding=1)
        self.register_buffer("basis", synthesis_basis(config.head_fft, config.head_hop), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, channels, frames] to a waveform [batch, frames * hop]."""
        log_magnitude, real, imaginary = self.conv(F.leaky_relu(x, LEAKY_SLOPE)).chunk(3, dim=1)
        magnitude = torch.exp(log_magnitude.clamp(max=6.0))
        spectrum = torch.cat([magnitude * real, magnitude * imaginary], dim=1)
        samples = F.conv_transpose1d(spectrum, self.basis, stride=self.hop)
        edge = (self.basis.shape[-1] - self.hop) // 2
        return samples[:, 0, edge : edge + x.shape[-1] * self.hop]


def synthesis_basis(fft: int, hop: int) -> Tensor:
    """Windowed inverse DFT, [2 * bands, 1, fft]; overlapping Hann windows sum to one."""
    bands = fft // 2 + 1
    n = torch.arange(fft, dtype=torch.float64)
    k = torch.arange(bands, dtype=torch.float64)[:, None]
    weight = torch.full((bands, 1), 2.0, dtype=torch.float64)
    weight[0] = weight[-1] = 1.0
    angle = 2 * math.pi * k * n / fft
    window = torch.hann_window(fft, dtype=torch.float64) * (2 * hop / fft)
    basis = torch.cat([weight * torch.cos(angle), -weight * torch.sin(angle)]) * window / fft
    return basis[:, None, :].float()


class Vocoder(nn.Module):
    """Log-mel frames and F0 to a waveform."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.pre = nn.Conv1d(config.mels, config.channels[0], 7, padding=3)
        self.stages = nn.ModuleList(Stage(config, i) for i in range(len(config.rates)))
        self.head = Head(config)

    def forward(self, mel: Tensor, source: Tensor) -> Tensor:
        """Map log-mel [batch, mels, frames] and a source [batch, 2, frames * hop] to [batch, frames * hop]."""
        x = self.pre(mel)
        for stage in self.stages:
            x = stage(x, source)
        waveform: Tensor = self.head(x)
        return waveform


def make_source(f0_hz: Tensor, config: VocoderConfig, seed: int = 0) -> Tensor:
    """Excitation of the vocoder: a band-limited pulse train where voiced, and white noise.

    The phase is summed in float64 and begins anew wherever voice begins: it is the one place where an error grows with
    time, so it is no site, is never lowered, and what comes before a pause has no say after it.

    Args:
        f0_hz: [batch, frames], 0 where unvoiced.
        config: rate and hop.
        seed: of the noise; the same length and seed give the same noise.

    Returns:
        [batch, 2, frames * hop] float32.
    """
    hop, rate = config.hop_samples, config.sample_rate_hz
    f0 = f0_hz.double().repeat_interleave(hop, dim=1)
    voiced = f0 > 0
    total = torch.cumsum(f0 / rate, dim=1)
    before = F.pad(total[:, :-1], (1, 0))
    onset = voiced & ~F.pad(voiced[:, :-1], (1, 0))
    cycles = total - torch.cummax(torch.where(onset, before, 0.0), dim=1).values
    half = math.pi * (cycles - torch.floor(cycles))
    harmonics = torch.floor((rate / 2) / f0.clamp(min=20.0))
    # Sum of cos(2 k half) for k = 1..harmonics in closed form (Dirichlet kernel); at a pulse it is the count itself.
    sine = torch.sin(half)
    safe = torch.where(sine.abs() < 1e-9, torch.ones_like(sine), sine)
    kernel = torch.where(sine.abs() < 1e-9, harmonics, (torch.sin((2 * harmonics + 1) * half) / safe - 1) / 2)
    pulses = torch.where(voiced, kernel / torch.sqrt(harmonics.clamp(min=1) / 2), torch.zeros_like(kernel))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(f0.shape[1], generator=generator, dtype=torch.float32).to(f0.device)
    return torch.stack([pulses.float(), noise.expand_as(pulses)], dim=1)
