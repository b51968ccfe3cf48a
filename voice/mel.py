"""Log-mel frames as HiFi-GAN's front end makes them (Kong et al. 2020, arXiv 2010.05646)."""

from dataclasses import dataclass
from functools import cache

import librosa
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class MelConfig:
    """Parameters of the front end; frequencies in Hz, lengths in samples."""

    sample_rate_hz: int = 22050
    mels: int = 80
    fft: int = 1024
    hop: int = 256
    window: int = 1024
    low_hz: float = 0.0
    high_hz: float = 8000.0
    floor: float = 1e-5


EMBEDDED_MEL = MelConfig(sample_rate_hz=16000)


@cache
def _filters(config: MelConfig) -> Tensor:
    filters = librosa.filters.mel(
        sr=config.sample_rate_hz, n_fft=config.fft, n_mels=config.mels, fmin=config.low_hz, fmax=config.high_hz
    )
    with torch.inference_mode(False):  # cached: must serve training too
        return torch.from_numpy(filters).float()


def log_mel(samples: Tensor, config: MelConfig) -> Tensor:
    """Natural logarithm of mel amplitudes, clamped below at `config.floor`.

    Args:
        samples: [batch, time], in -1..1; NaN and Inf make NaN of the frames that they are in.
        config: parameters.

    Returns:
        [batch, mels, time // hop].

    Raises:
        ValueError: where `samples` has other axes, or is too short to be mirrored at its ends.
    """
    edge = (config.fft - config.hop) // 2
    shortest = max(edge + 1, config.hop)
    if samples.ndim != 2 or samples.shape[1] < shortest:
        raise ValueError(f"samples must be [batch, time] of at least {shortest} samples, got {tuple(samples.shape)}")
    padded = F.pad(samples[:, None], (edge, edge), mode="reflect")[:, 0]
    window = torch.hann_window(config.window, device=samples.device)
    spectrum = torch.stft(padded, config.fft, config.hop, config.window, window, center=False, return_complex=True)
    amplitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)
    return torch.log(torch.matmul(_filters(config).to(samples.device), amplitude).clamp(min=config.floor))
