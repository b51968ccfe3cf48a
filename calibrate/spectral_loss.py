"""SpectralLoss: how far one waveform is from another, bin by bin, for training."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

RESOLUTIONS = (256, 512, 1024, 2048)
"""FFT sizes in samples; the hop is a quarter."""
FLOOR_DB = 80.0
"""How far under the loudest bin of all references a bin still counts."""
_MASKING = 120.0
"""Width in Hz over which neighbouring bins hide an error."""


class SpectralLoss:
    """Log magnitudes, spectral convergence and the error of each bin against the level around it; their mean.

    The first two are the usual pair (Yamamoto et al., arXiv 1910.11480). They say little of an error 20 dB under its
    bin, which is where a good policy's errors are: the third takes the complex difference, phase included, over the
    reference's level within about 120 Hz, so that hiss in a pause weighs as much as the same ratio in a vowel.
    """

    def __init__(self, references: Sequence[Tensor], sample_rate_hz: int) -> None:
        """Take the floor from the loudest bin of some references [time], -1..1, of one model.

        Raises:
            ValueError: all of them are silent, or one has Inf or NaN.
        """
        self._windows = {size: torch.hann_window(size) for size in RESOLUTIONS}
        self._rate = sample_rate_hz
        self._floors: dict[int, float] = {}
        for size in RESOLUTIONS:
            peak = max(float(self._spectrum(reference, size).abs().max()) for reference in references)
            if not 0 < peak < float("inf"):
                raise ValueError(f"the model's own sound is silent, or has Inf or NaN (strongest bin {peak})")
            self._floors[size] = peak * 10 ** (-FLOOR_DB / 20)

    def __call__(self, rendered: Tensor, reference: Tensor) -> Tensor:
        """Loss of a waveform [time] against its reference, >= 0, differentiable in the first."""
        parts = [self._at(rendered, reference, size) for size in RESOLUTIONS]
        return torch.stack(parts).mean()

    def _at(self, rendered: Tensor, reference: Tensor, size: int) -> Tensor:
        floor = self._floors[size]
        found, wanted = self._spectrum(rendered, size), self._spectrum(reference, size)
        level = wanted.abs()
        # The root of a zero has no gradient.
        loudness = (found.real.square() + found.imag.square() + (0.01 * floor) ** 2).sqrt()
        nepers = loudness.clamp_min(floor).log() - level.clamp_min(floor).log()
        convergence = torch.linalg.norm(level - loudness) / torch.linalg.norm(level).clamp_min(floor)
        difference = found - wanted
        power = difference.real.square() + difference.imag.square()
        width = 2 * round(_MASKING * size / self._rate / 2) + 1
        around = F.avg_pool1d(level.square().mT, width, 1, width // 2, count_include_pad=False).mT
        error = (power / (around + floor**2) + 1e-6).sqrt()
        total: Tensor = nepers.abs().mean() + convergence + error.mean()
        return total

    def _spectrum(self, samples: Tensor, size: int) -> Tensor:
        spectrum: Tensor = torch.stft(
            samples, size, size // 4, window=self._windows[size], pad_mode="constant", return_complex=True
        )
        return spectrum
