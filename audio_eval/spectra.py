"""Spectra: distances between magnitudes.

All are 0 for identical clips and grow with damage. All take `reference` and `degraded` as float32 or float64 [time]
in -1..1 (or Clips), of one length, and raise `UndefinedScore` for NaN, Inf, a silent reference, lengths that differ
or clips shorter than one window. A bin counts down to a floor 80 dB under the reference's strongest bin, so that
what is far below hearing does not decide. Distances in dB or nepers end at UPPER_SHARE of Nyquist.
"""

import functools
import math

import librosa
import numpy as np
import numpy.typing as npt

from audio_eval.clip import Clip, Real, Samples, UndefinedScore, pair

RESOLUTIONS = (512, 1024, 2048)
"""FFT sizes in samples; the hop is a quarter. Source: Yamamoto et al., arXiv 1910.11480 (several at once)."""
UPPER_SHARE = 0.92
"""Share of Nyquist that is compared: above it begins the transition band of resamplers, where loss is no damage.

A round trip through 44.1 or 48 kHz by soxr loses 0.02 dB at 0.92 of Nyquist, 0.1 dB at 0.928 (HQ) or 0.931 (VHQ), 20 dB
at 0.96 and 80 dB at 0.98; measured on an impulse of 16, 22.05 and 24 kHz.
"""
LSD_FFT = 1024
FLOOR_DB = 80.0
DB_PER_NEPER = 20.0 / np.log(10.0)
BAND_EDGES_HZ = (4000.0, 8000.0)
"""PESQ, STOI and ViSQOL hear nothing above the second edge."""
MELS = 80
MEL_FFT = 2048
WIDEST_MEL_BIN_HZ = 24.0
"""With wider bins the narrowest of MELS bands would hold none."""


def log_magnitudes(reference: Clip, clip: Clip, n_fft: int) -> Real:
    """Log magnitude of every bin of `clip` [frames, bins], nepers, not below the floor under the reference's peak."""
    peak = reference.once(("peak bin", n_fft), lambda: np.max(reference.magnitude(n_fft)))
    floor = np.float32(peak * 10.0 ** (-FLOOR_DB / 20.0))
    return clip.once(("log magnitude", n_fft, float(floor)), lambda: np.log(np.maximum(clip.magnitude(n_fft), floor)))


def bin_at(frequency_hz: float, sample_rate_hz: int, n_fft: int) -> int:
    """The first bin at or above a frequency, and none beyond UPPER_SHARE of Nyquist."""
    highest = min(frequency_hz, UPPER_SHARE * sample_rate_hz / 2.0)
    return int(np.ceil(highest * n_fft / sample_rate_hz))


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
    """Mean absolute difference of log magnitudes up to Nyquist, in nepers; mean over RESOLUTIONS.

    Source: Arik et al., arXiv 1808.06719, eq. 3, with the floor of this module.
    """
    first, second = pair(reference, degraded, sample_rate_hz)
    means = [np.mean(np.abs(log_magnitudes(first, first, n) - log_magnitudes(first, second, n))) for n in RESOLUTIONS]
    return float(np.mean(means))


def squared_db(reference: Clip, degraded: Clip, n_fft: int) -> Real:
    """Squared difference of levels in dB [frames, bins]."""

    def compute() -> Real:
        nepers = log_magnitudes(reference, reference, n_fft) - log_magnitudes(reference, degraded, n_fft)
        squared: Real = np.square(nepers * np.float32(DB_PER_NEPER))
        return squared

    return degraded.once(("squared db", reference, n_fft), compute)


def _band_distance(reference: Clip, degraded: Clip, low_hz: float, high_hz: float) -> float:
    rate = reference.sample_rate_hz
    start, stop = bin_at(low_hz, rate, LSD_FFT), bin_at(high_hz, rate, LSD_FFT)
    if start >= stop:
        raise UndefinedScore(f"there is no band above {low_hz:.0f} Hz at a sample rate of {rate} Hz")
    squared = squared_db(reference, degraded, LSD_FFT)[:, start:stop]
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
    """Log-spectral distance of 4 to 8 kHz, dB; undefined at sample rates up to 8.7 kHz."""
    first, second = pair(reference, degraded, sample_rate_hz)
    return _band_distance(first, second, *BAND_EDGES_HZ)


def lsd_high_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Log-spectral distance of 8 kHz upwards, dB; undefined at sample rates up to 17.4 kHz."""
    first, second = pair(reference, degraded, sample_rate_hz)
    return _band_distance(first, second, BAND_EDGES_HZ[1], sample_rate_hz)


def mel_window(sample_rate_hz: int) -> int:
    """FFT size of 43 to 85 ms: the shortest power of two, of 256 up, whose bins fill the narrowest mel band."""
    return 1 << max(8, math.ceil(math.log2(sample_rate_hz / WIDEST_MEL_BIN_HZ)))


@functools.cache
def mel_filters(sample_rate_hz: int, n_fft: int) -> npt.NDArray[np.float32]:
    """Slaney's triangles of unit area, MELS of them from 0 to UPPER_SHARE of Nyquist [bands, bins]."""
    filters: npt.NDArray[np.float32] = librosa.filters.mel(
        sr=sample_rate_hz, n_fft=n_fft, n_mels=MELS, fmax=UPPER_SHARE * sample_rate_hz / 2.0
    )
    return filters


def top_rise_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """What was added above UPPER_SHARE of Nyquist, where images of an upsampler whistle, dB.

    The log-spectral distance of those bins, of which only rises count: a resampler takes away there, and adds nothing.
    """
    first, second = pair(reference, degraded, sample_rate_hz)
    start = bin_at(sample_rate_hz, sample_rate_hz, LSD_FFT)
    clean, found = (log_magnitudes(first, clip, LSD_FFT)[:, start:] for clip in (first, second))
    rise = np.maximum(found - clean, 0.0) * DB_PER_NEPER
    return float(np.mean(np.sqrt(np.mean(np.square(rise), axis=1, dtype=np.float64))))


def log_mel_l1(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Mean absolute difference of log mel amplitudes, in nepers: 80 Slaney bands, FFT 2048."""
    first, second = pair(reference, degraded, sample_rate_hz)
    n_fft = max(MEL_FFT, mel_window(sample_rate_hz))
    filters = mel_filters(sample_rate_hz, n_fft)
    clean = first.once(("mel", n_fft), lambda: first.magnitude(n_fft) @ filters.T)
    found = second.once(("mel", n_fft), lambda: second.magnitude(n_fft) @ filters.T)
    floor = np.max(clean) * np.float32(10.0 ** (-FLOOR_DB / 20.0))
    return float(np.mean(np.abs(np.log(np.maximum(clean, floor)) - np.log(np.maximum(found, floor)))))
