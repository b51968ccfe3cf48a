"""GradientProbe: what an option will do to the sound, foretold without rendering it.

To first order an error e in a site's result changes the spectrum of the sound by J e, J being the Jacobian. For a
random direction v over the bins, (v J e)^2 is the power of that change on average (Hutchinson 1989), and v J is one
backward pass, which gives it for all sites at once. The error itself is had on the spot: the site's call under the
scheme, less the call in fp32.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from backends.emulation.preparation import Preparation
from calibrate.calibration import Calibration
from precision.policy import Scheme
from voice.intercept import intercept
from voice.model import AdaptableVoice, Clip
from voice.site_call import SiteCall

EXCERPT_SECONDS = 1.0
CLIPS = 2
"""How many are heard: more do not foretell better by as much as they take."""
SEGMENTS = 64
"""Stretches of time whose errors are taken for independent: that many draws of v in one backward pass."""
BANDS_HZ = ((0.0, 1e9), (0.0, 4000.0), (4000.0, 8000.0), (8000.0, 1e9))
VIEWS = len(BANDS_HZ) + 1
"""Log magnitudes of each band; then the complex spectrum, in which what is loud counts."""
_FFT = 1024
_UPPER_SHARE = 0.92
"""Of Nyquist, as the metrics of spectra end there."""
_FLOOR = 1e-4
"""Of the loudest bin: 80 dB under it a bin counts no more."""

Foretold = tuple[float, ...]
"""Root mean square change [VIEWS], in nepers, and of the complex spectrum as a share of its mean magnitude; >= 0."""


class GradientProbe:
    """Foretells the damage of options from gradients of the sound, which are taken once."""

    def __init__(
        self, voice: AdaptableVoice, clips: Sequence[Clip], preparation: Preparation, calibration: Calibration | None
    ) -> None:
        """Hear a stretch from the middle of the first clips.

        Args:
            voice: deterministic.
            clips: at least one; of a clip shorter than the stretch all is heard.
            preparation: computes the schemes; what it prepares, it keeps.
            calibration: for static scales.
        """
        torch.set_num_threads(1)
        self._voice, self._preparation, self._calibration = voice, preparation, calibration
        chance = torch.Generator().manual_seed(0)
        excerpts = [voice.excerpt(clip, 0.5, EXCERPT_SECONDS) for clip in clips[:CLIPS]]
        self._heard = [(excerpt, self._directions(excerpt, chance)) for excerpt in excerpts]

    def foretell(self, options: Sequence[tuple[str, Scheme]]) -> list[Foretold]:
        """Change of the sound by each scheme of a site, all other sites in fp32; to first order.

        Where an error is large, what is foretold is larger than what comes. What a gradient does not see (a length or a
        decision that is rounded) is not foretold; all 0 for a site that the sound does not hear. Inf or NaN where the
        scheme gives such values. What is found of an option does not depend on the others that are asked.
        """
        powers = {option: torch.zeros(VIEWS, dtype=torch.float64) for option in options}
        asked: dict[str, list[Scheme]] = {}
        for site, scheme in powers:
            asked.setdefault(site, []).append(scheme)
        for excerpt, directions in self._heard:
            self._add_powers(excerpt, directions, asked, powers)
        return [tuple((powers[option] / len(self._heard)).sqrt().tolist()) for option in options]

    def _directions(self, excerpt: Clip, chance: torch.Generator) -> list[Tensor]:
        """Of every call, v J of each view [VIEWS, *result]; in bf16, for an estimate needs no more."""
        results: list[Tensor] = []

        def handle(call: SiteCall) -> Tensor:
            result = call.compute()
            results.append(result if result.requires_grad else result.requires_grad_())
            return results[-1].clone()  # the model may write into what it gets

        with torch.enable_grad(), intercept(self._voice.module, handle):
            sound = self._voice.sound(excerpt)
            views = _views(sound, self._voice.sample_rate_hz)
            sums = [
                (bins * torch.randn(bins.shape, generator=chance)).sum() / max(bins.numel(), 1) ** 0.5 for bins in views
            ]
            found = [torch.autograd.grad(total, results, retain_graph=True, allow_unused=True) for total in sums]
        return [
            torch.stack([torch.zeros_like(result) if part is None else part for part in parts]).bfloat16()
            for result, parts in zip(results, zip(*found, strict=True), strict=True)
        ]

    def _add_powers(
        self,
        excerpt: Clip,
        directions: Sequence[Tensor],
        asked: Mapping[str, Sequence[Scheme]],
        powers: Mapping[tuple[str, Scheme], Tensor],
    ) -> None:
        def handle(call: SiteCall) -> Tensor:
            exact = call.compute()
            for scheme in asked.get(call.site, ()):
                error = self._preparation.compute(call, {call.site: scheme}, self._calibration) - exact
                moved = (directions[call.index].float() * error).sum_to_size(VIEWS, *_times(call, exact))
                powers[call.site, scheme].add_(_segments(moved.flatten(1)).square().sum(1))
            return exact

        with torch.no_grad(), intercept(self._voice.module, handle):
            self._voice.sound(excerpt)


def _views(sound: Tensor, sample_rate_hz: int) -> list[Tensor]:
    """Bins of every view; none of a band that the rate does not reach."""
    size = min(_FFT, sound.shape[-1])
    spectrum = torch.stft(
        sound, size, size // 4, window=torch.hann_window(size), pad_mode="constant", return_complex=True
    )
    spectrum = spectrum[: int(_UPPER_SHARE * (size // 2)) + 1]
    power = spectrum.real.square() + spectrum.imag.square()
    floor = (power.detach().max() * _FLOOR**2).clamp_min(torch.finfo(power.dtype).tiny)
    nepers = 0.5 * (power + floor).log()
    hz = torch.arange(len(spectrum)) * (sample_rate_hz / size)
    bands = [nepers[(hz >= low) & (hz < high)] for low, high in BANDS_HZ]
    level = power.detach().sqrt().mean().clamp_min(torch.finfo(power.dtype).tiny)
    return [*bands, torch.stack([spectrum.real, spectrum.imag]) / level]


def _times(call: SiteCall, result: Tensor) -> list[int]:
    """Shape of a result with one value a position in time: the last axis of convolutions, else the one before."""
    axis = result.ndim - (1 if call.options is not None else 2)
    return [size if index == axis else 1 for index, size in enumerate(result.shape)]


def _segments(values: Tensor) -> Tensor:
    """Sums over SEGMENTS stretches of about one length [views, segments]."""
    count = values.shape[1]
    places = torch.arange(count) * min(SEGMENTS, count) // count
    sums = torch.zeros(len(values), min(SEGMENTS, count), dtype=torch.float64)
    return sums.index_add_(1, places, values.double())
