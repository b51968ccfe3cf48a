"""Phase: how far its derivatives, which the ear follows, have moved.

Derivatives come from products of neighbouring bins with conjugates, so that nothing is unwrapped; angles lie in
-pi..pi, which is the anti-wrapping of Ai and Ling (arXiv 2211.15974). Means are weighted by the reference's
magnitude (FFT 1024, hop 256). In radians: 0 for identical clips, pi at most, about 1.1 for unrelated noises. Both
clips must be finite, of one length and not silent, or `UndefinedScore` is raised; a bin in which the degraded clip
is exactly zero has no phase and counts as pi.
"""

import numpy as np
import numpy.typing as npt

from audio_eval.clip import SILENT_PEAK, Clip, Real, Samples, Spectrum, UndefinedScore, pair

PHASE_FFT = 1024


def _sounding(reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> tuple[Clip, Clip]:
    first, second = pair(reference, degraded, sample_rate_hz)
    if second.peak < SILENT_PEAK:
        raise UndefinedScore(f"the degraded clip is silent (peak {second.peak:.3g}): it has no phase")
    return first, second


def _unit(clip: Clip) -> Spectrum:
    """Bins divided by their magnitude; zero stays zero. Keeps products of four bins inside float32."""

    def compute() -> Spectrum:
        unit: Spectrum = clip.stft(PHASE_FFT) / np.maximum(clip.magnitude(PHASE_FFT), np.finfo(np.float32).tiny)
        return unit

    return clip.once("unit bins", compute)


def _rotation(reference: Clip, degraded: Clip) -> Spectrum:
    """Phase by which each bin was turned, as unit numbers [frames, bins]."""
    return degraded.once(("rotation", reference), lambda: _unit(reference) * np.conj(_unit(degraded)))


def _weighted_angle(turned: Spectrum, weight: Real, lost: npt.NDArray[np.bool_]) -> float:
    angle = np.where(lost, np.float32(np.pi), np.abs(np.angle(turned)))
    return float(np.sum(angle * weight, dtype=np.float64) / np.sum(weight, dtype=np.float64))


def group_delay_rad(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Mean anti-wrapped difference of phase steps between neighbouring bins, radians."""
    first, second = _sounding(reference, degraded, sample_rate_hz)
    rotation, magnitude = _rotation(first, second), first.magnitude(PHASE_FFT)
    lost = second.magnitude(PHASE_FFT) == 0.0
    turned = rotation[:, 1:] * np.conj(rotation[:, :-1])
    weight = np.sqrt(magnitude[:, 1:] * magnitude[:, :-1])
    return _weighted_angle(turned, weight, lost[:, 1:] | lost[:, :-1])


def instantaneous_frequency_rad(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Mean anti-wrapped difference of phase steps between neighbouring frames, radians per hop."""
    first, second = _sounding(reference, degraded, sample_rate_hz)
    rotation, magnitude = _rotation(first, second), first.magnitude(PHASE_FFT)
    lost = second.magnitude(PHASE_FFT) == 0.0
    turned = rotation[1:] * np.conj(rotation[:-1])
    weight = np.sqrt(magnitude[1:] * magnitude[:-1])
    return _weighted_angle(turned, weight, lost[1:] | lost[:-1])


def absolute_phase_rad(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Mean anti-wrapped difference of phase, radians. For the report: a constant rotation is inaudible."""
    first, second = _sounding(reference, degraded, sample_rate_hz)
    lost = second.magnitude(PHASE_FFT) == 0.0
    return _weighted_angle(_rotation(first, second), first.magnitude(PHASE_FFT), lost)
