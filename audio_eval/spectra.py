"""Spectra: distances between magnitudes, and the noise floor in pauses.

All are 0 for identical clips and grow with damage. All take `reference` and `degraded` as float32 or float64 [time]
in -1..1 (or Clips), of one length, and raise `UndefinedScore` for NaN, Inf, a silent reference, lengths that differ
or clips shorter than one window. A bin counts down to a floor 80 dB under the reference's strongest bin, so that
what is far below hearing does not decide.
"""

import functools

import librosa
import numpy as np
import numpy.typing as npt

from audio_eval.clip import Clip, Real, Samples, UndefinedScore, pair

RESOLUTIONS = (512, 1024, 2048)
"""FFT sizes in samples; the hop is a quarter. Source: Yamamoto et al., arXiv 1910.11480 (several at once)."""
LSD_FFT = 1024
FLOOR_DB = 80.0
BAND_EDGES_HZ = (4000.0, 8000.0)
"""PESQ, STOI and ViSQOL hear nothing above the second edge."""
MELS = 80
MEL_FFT = 2048
QUIET_SHARE = 0.1
QUIET_FRAME_SECONDS = 0.02


def _floor(reference: Clip, n_fft: int) -> np.float32:
    peak = reference.once(("peak bin", n_fft), lambda: np.max(reference.magnitude(n_fft)))
    return np.float32(peak * 10.0 ** (-FLOOR_DB / 20.0))


def _log_magnitude(reference: Clip, clip: Clip, n_fft: int) -> Real:
    floor = _floor(reference, n_fft)
    return clip.once(("log magnitude", n_fft, float(floor)), lambda: np.log(np.maximum(clip.magnitude(n_fft), floor)))


def spectral_convergence(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Frobenius norm of the magnitude difference over that of the reference; mean over RESOLUTIONS, a bare ratio.

    Source: Arik et al., arXiv 1808.06719, eq. 2.
    """
    first, second = pair(reference, degraded, sample_rate_hz)
    ratios = [
        np.linalg.norm(first.magnitude(n) - second.magnitude(n)) / np.linalg.norm(first.magnitude(n))
        for n in RESOLUTIONS
    ]
    return float(np.mean(ratios))


def log_magnitude(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Mean absolute difference of log magnitudes, in nepers; mean over RESOLUTIONS.

    Source: Arik et al., arXiv 1808.06719, eq. 3, with the floor of this module.
    """
    first, second = pair(reference, degraded, sample_rate_hz)
    means = [np.mean(np.abs(_log_magnitude(first, first, n) - _log_magnitude(first, second, n))) for n in RESOLUTIONS]
    return float(np.mean(means))


def _squared_db(reference: Clip, degraded: Clip) -> Real:
    """Squared difference of levels in dB [frames, bins]."""

    def compute() -> Real:
        nepers = _log_magnitude(reference, reference, LSD_FFT) - _log_magnitude(reference, degraded, LSD_FFT)
        squared: Real = np.square(nepers * np.float32(20.0 / np.log(10.0)))
        return squared

    return degraded.once(("squared db", reference), compute)


def _band_distance(reference: Clip, degraded: Clip, low_hz: float, high_hz: float) -> float:
    bin_hz = reference.sample_rate_hz / LSD_FFT
    start, stop = int(np.ceil(low_hz / bin_hz)), int(np.ceil(high_hz / bin_hz))
    squared = _squared_db(reference, degraded)[:, start:stop]
    if squared.shape[1] == 0:
        raise UndefinedScore(
            f"there is no band from {low_hz:.0f} Hz up at a sample rate of {reference.sample_rate_hz} Hz"
        )
    return float(np.mean(np.sqrt(np.mean(squared, axis=1, dtype=np.float64))))


def lsd_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Log-spectral distance in dB: root mean square over all bins of a frame, mean over frames (FFT 1024).

    Source: Gray and Markel, "Distance measures for speech processing", IEEE TASSP 24(5), 1976.
    """
    first, second = pair(reference, degraded, sample_rate_hz)
    return _band_distance(first, second, 0.0, sample_rate_hz)


def lsd_low_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Log-spectral distance of 0 to 4 kHz, dB."""
    first, second = pair(reference, degraded, sample_rate_hz)
    return _band_distance(first, second, 0.0, BAND_EDGES_HZ[0])


def lsd_mid_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Log-spectral distance of 4 to 8 kHz, dB; undefined at sample rates of 8 kHz."""
    first, second = pair(reference, degraded, sample_rate_hz)
    _above(sample_rate_hz, BAND_EDGES_HZ[0])
    return _band_distance(first, second, *BAND_EDGES_HZ)


def lsd_high_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Log-spectral distance of 8 kHz to Nyquist, dB; undefined at sample rates of 16 kHz and below."""
    first, second = pair(reference, degraded, sample_rate_hz)
    _above(sample_rate_hz, BAND_EDGES_HZ[1])
    return _band_distance(first, second, BAND_EDGES_HZ[1], sample_rate_hz)


def _above(sample_rate_hz: int, edge_hz: float) -> None:
    # The Nyquist bin itself is no band.
    if sample_rate_hz <= 2 * edge_hz:
        raise UndefinedScore(f"there is no band above {edge_hz:.0f} Hz at a sample rate of {sample_rate_hz} Hz")


@functools.cache
def _mel_filters(sample_rate_hz: int, n_fft: int) -> npt.NDArray[np.float32]:
    filters: npt.NDArray[np.float32] = librosa.filters.mel(sr=sample_rate_hz, n_fft=n_fft, n_mels=MELS)
    return filters


def log_mel_l1(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Mean absolute difference of log mel amplitudes, in nepers: 80 Slaney bands from 0 to Nyquist, FFT 2048."""
    first, second = pair(reference, degraded, sample_rate_hz)
    n_fft = MEL_FFT
    while sample_rate_hz / n_fft > 24.0:  # the narrowest of 80 bands must hold a bin
        n_fft *= 2
    filters = _mel_filters(sample_rate_hz, n_fft)
    clean = first.once(("mel", n_fft), lambda: first.magnitude(n_fft) @ filters.T)
    found = second.once(("mel", n_fft), lambda: second.magnitude(n_fft) @ filters.T)
    floor = np.max(clean) * np.float32(10.0 ** (-FLOOR_DB / 20.0))
    return float(np.mean(np.abs(np.log(np.maximum(clean, floor)) - np.log(np.maximum(found, floor)))))


def pause_excess_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """How much louder the quietest tenth of the reference's frames became, dB; 0 where they did not.

    Frames of 20 ms are chosen on the reference. Levels count down to 80 dB under its loudest frame; the mean over
    frames of the difference in dB, cut at 0 so that quieter pauses in one clip do not pay for hiss in another.
    """
    first, second = pair(reference, degraded, sample_rate_hz)
    size = round(QUIET_FRAME_SECONDS * sample_rate_hz)
    count = len(first) // size
    if count < 1 / QUIET_SHARE:
        raise UndefinedScore(f"{first.seconds:.3f} s are too short to find pauses in; use at least 0.2 s")

    def power(clip: Clip) -> npt.NDArray[np.float64]:
        frames = clip.samples[: count * size].reshape(count, size)
        means: npt.NDArray[np.float64] = np.mean(np.square(frames, dtype=np.float64), axis=1)
        return means

    quiet, noisy = power(first), power(second)
    floor = np.max(quiet) * 10.0 ** (-FLOOR_DB / 10.0)
    chosen = np.argsort(quiet, kind="stable")[: max(1, round(count * QUIET_SHARE))]
    rise = 10.0 * np.log10(np.maximum(noisy[chosen], floor) / np.maximum(quiet[chosen], floor))
    return max(0.0, float(np.mean(rise)))
