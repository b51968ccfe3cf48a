"""Cepstra: mel-cepstral distortion, the number that papers on speech synthesis report."""

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import fft

from audio_eval.clip import Clip, Samples, pair
from audio_eval.spectra import FLOOR_DB, MELS, mel_filters, mel_window

FloatT = TypeVar("FloatT", np.float32, np.float64)
ORDER = 24
SCALE_DB = 10.0 * math.sqrt(2.0) / math.log(10.0)


def _mel_powers(clip: Clip) -> npt.NDArray[np.float32]:
    """Power of every mel band [frames, bands]."""
    n_fft = mel_window(clip.sample_rate_hz)
    filters = mel_filters(clip.sample_rate_hz, n_fft)
    return clip.once(("mel powers", n_fft), lambda: np.square(clip.magnitude(n_fft)) @ filters.T)


def cepstra(log_powers: npt.NDArray[FloatT]) -> npt.NDArray[FloatT]:
    """c1 to c24 of the log powers of mel bands [frames, bands], or of differences of such, in nepers [frames, 24]."""
    # scipy's DCT-II doubles its sum.
    found: npt.NDArray[FloatT] = fft.dct(log_powers, type=2, axis=1)[:, 1 : ORDER + 1] / (2.0 * MELS)
    return found


def mcd_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Mel-cepstral distortion in dB: 10 / ln 10 * sqrt(2 * sum over c1..c24 of squared differences), mean over frames.

    Source: Kubichek, "Mel-cepstral distance measure for objective speech quality assessment", IEEE PACRIM 1993, on
    the scale on which it is reported since: order 24, c0 left out, so that gain is no damage. Coefficient m is
    (1 / 80) * sum over bands b of ln(power b) * cos(pi * m * (b + 0.5) / 80), the one-sided cepstrum of the log
    magnitude, over 80 Slaney bands up to 0.92 of Nyquist; SPTK's warped cepstra agree within 3 % on changes of the
    envelope and 16 % on added noise. Bands count down to 80 dB under the reference's strongest. Frames are compared
    as they lie: pauses count, nothing is warped in time. HiFi-GAN V2 on recorded mels scores 2.3 dB against the
    recording, the same network in bf16 0.8 dB against itself in fp32.

    0 for identical clips. NaN, Inf, a silent reference, lengths that differ and clips shorter than one window (43 to
    85 ms) raise `UndefinedScore`.
    """
    first, second = pair(reference, degraded, sample_rate_hz)
    clean, found = _mel_powers(first), _mel_powers(second)
    floor = np.max(clean) * np.float32(10.0 ** (-FLOOR_DB / 10.0))
    nepers = np.log(np.maximum(found, floor)) - np.log(np.maximum(clean, floor))
    return float(SCALE_DB * np.mean(np.sqrt(np.sum(np.square(cepstra(nepers), dtype=np.float64), axis=1))))
