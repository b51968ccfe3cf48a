"""Phase: how far its derivatives, which the ear follows, have moved.

Derivatives come from products of neighbouring bins with conjugates, so that nothing is unwrapped; angles lie in
-pi..pi, which is the anti-wrapping |x - 2 pi round(x / 2 pi)| of Ai and Ling (arXiv 2211.15974). Means are weighted
by the reference's magnitude (FFT 1024, hop 256). In radians: 0 for identical clips, pi at most, about 1.1 for
unrelated noises. Both clips must be finite, of one length and not silent, or `UndefinedScore` is raised; a bin in
which the degraded clip is exactly zero has no phase and counts as pi.
"""

import numpy as np
import numpy.typing as npt

from audio_eval.clip import Clip, Real, Samples, Spectrum, sounding_pair

PHASE_FFT = 1024
LOUD = 0.5
"""A step counts in full from this share of the power at which the clip's energy sits: 3 dB under its vowels."""


def _unit(clip: Clip, n_fft: int) -> Spectrum:
    """Bins divided by their magnitude; zero stays zero. Keeps products of four bins inside float32."""

    def compute() -> Spectrum:
        unit: Spectrum = clip.stft(n_fft) / np.maximum(clip.magnitude(n_fft), np.finfo(np.float32).tiny)
        return unit

    return clip.once(("unit bins", n_fft), compute)


def _rotation(reference: Clip, degraded: Clip, n_fft: int = PHASE_FFT) -> Spectrum:
    """Phase by which each bin was turned, as unit numbers [frames, bins]."""
    return degraded.once(
        ("rotation", reference, n_fft), lambda: _unit(reference, n_fft) * np.conj(_unit(degraded, n_fft))
    )


def _weighted_angle(turned: Spectrum, weight: Real, lost: npt.NDArray[np.bool_]) -> float:
    angle = np.where(lost, np.float32(np.pi), np.abs(np.angle(turned)))
    return float(np.sum(angle * weight, dtype=np.float64) / np.sum(weight, dtype=np.float64))


def group_delay_rad(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Mean anti-wrapped difference of phase steps between neighbouring bins, radians."""
    first, second = sounding_pair(reference, degraded, sample_rate_hz)
    rotation, magnitude = _rotation(first, second), first.magnitude(PHASE_FFT)
    lost = second.magnitude(PHASE_FFT) == 0.0
    turned = rotation[:, 1:] * np.conj(rotation[:, :-1])
    weight = np.sqrt(magnitude[:, 1:] * magnitude[:, :-1])
    return _weighted_angle(turned, weight, lost[:, 1:] | lost[:, :-1])


def instantaneous_frequency_rad(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Mean anti-wrapped difference of phase steps between neighbouring frames, radians per hop."""
    first, second = sounding_pair(reference, degraded, sample_rate_hz)
    rotation, magnitude = _rotation(first, second), first.magnitude(PHASE_FFT)
    lost = second.magnitude(PHASE_FFT) == 0.0
    turned = rotation[1:] * np.conj(rotation[:-1])
    weight = np.sqrt(magnitude[1:] * magnitude[:-1])
    return _weighted_angle(turned, weight, lost[1:] | lost[:-1])


def _worst_fft(sample_rate_hz: int) -> int:
    """FFT size of the worst step: 21 to 32 ms at the rates of speech."""
    return 512 if sample_rate_hz <= 32000 else 1024


def _steps(reference: Clip) -> tuple[Real, npt.NDArray[np.float64]]:
    """Power of the steps between neighbouring frames: weight of each bin [steps, bins], and what to divide by [steps].

    A step is divided by its own power, or, where it is soft, by LOUD of the power at which the clip's energy sits
    (the mean of power weighted by itself, which pauses do not lower), so that soft steps count less.
    """

    def compute() -> tuple[Real, npt.NDArray[np.float64]]:
        magnitude = reference.magnitude(_worst_fft(reference.sample_rate_hz))
        weight: Real = magnitude[1:] * magnitude[:-1]
        power = np.sum(weight, axis=1, dtype=np.float64)
        floor = LOUD * np.sum(np.square(power)) / np.sum(power)
        return weight, np.maximum(power, floor)

    return reference.once("steps", compute)


def worst_instantaneous_frequency_rad(
    *, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int
) -> float:
    """Largest anti-wrapped difference of phase steps between any two neighbouring frames, radians per hop.

    FFT 512 up to 32 kHz, 1024 above; the hop is a quarter. Weighted by the reference's power, and soft steps count
    less, so that one moment of a vowel decides: a slip of phase, a frame repeated or lost, a dropout, all of which
    a mean over the clip hides.
    """
    first, second = sounding_pair(reference, degraded, sample_rate_hz)
    n_fft = _worst_fft(sample_rate_hz)
    weight, divisor = _steps(first)
    rotation = _rotation(first, second, n_fft)
    lost = second.magnitude(n_fft) == 0.0
    angle = np.abs(np.angle(rotation[1:] * np.conj(rotation[:-1])))
    angle[lost[1:] | lost[:-1]] = np.pi
    return float(np.max(np.sum(angle * weight, axis=1, dtype=np.float64) / divisor))


def absolute_phase_rad(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Mean anti-wrapped difference of phase, radians. For the report: a constant rotation is inaudible."""
    first, second = sounding_pair(reference, degraded, sample_rate_hz)
    lost = second.magnitude(PHASE_FFT) == 0.0
    return _weighted_angle(_rotation(first, second), first.magnitude(PHASE_FFT), lost)
