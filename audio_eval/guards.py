"""Guards: plain faults of a waveform that perceptual metrics do not hear.

PESQ and STOI are blind to polarity and gain, and align lags away; none of them counts samples. Clips are float32 or
float64 [time]; unless said, they must be finite, of one length and the reference not silent, or `UndefinedScore` is
raised.
"""

import numpy as np
import numpy.typing as npt
from scipy import fft

from audio_eval.clip import SILENT_PEAK, Clip, Samples, UndefinedScore, as_clip, pair

FULL_SCALE = 1.0 - 2.0**-15
"""The largest value that 16-bit audio can hold."""
LAG_SECONDS = 0.1
"""How far a lag is looked for."""


def finite(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Share of the degraded clip's samples that are neither NaN nor Inf (0..1). Lengths may differ."""
    as_clip(reference, sample_rate_hz)
    return float(np.mean(np.isfinite(as_clip(degraded, sample_rate_hz).samples)))


def length_samples(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """By how many samples the lengths differ, without sign. NaN and Inf do not matter."""
    return float(abs(len(as_clip(reference, sample_rate_hz)) - len(as_clip(degraded, sample_rate_hz))))


def _sounding(reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> tuple[Clip, Clip]:
    first, second = pair(reference, degraded, sample_rate_hz)
    if second.peak < SILENT_PEAK:
        raise UndefinedScore(f"the degraded clip is silent (peak {second.peak:.3g})")
    return first, second


def _centred(clip: Clip) -> npt.NDArray[np.float64]:
    samples = clip.samples.astype(np.float64)
    centred: npt.NDArray[np.float64] = samples - samples.mean()
    if not centred.any():
        raise UndefinedScore("a clip is constant: it can be matched at any lag")
    return centred


def lag_samples(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """By how many samples the clip is late or early, without sign: the peak of the correlation's magnitude.

    Looked for within 0.1 s; 0 wins a tie, so that a periodic sound is not late by a period.
    """
    first, second = _sounding(reference, degraded, sample_rate_hz)
    reach = min(round(LAG_SECONDS * sample_rate_hz), len(first) - 1)
    size = fft.next_fast_len(len(first) + reach, real=True)
    spectrum = first.once(("lag", size), lambda: fft.rfft(_centred(first), size))
    correlation = np.abs(fft.irfft(fft.rfft(_centred(second), size) * np.conj(spectrum), size))
    found = np.concatenate([correlation[: reach + 1], correlation[size - reach :]])
    if correlation[0] >= found.max() * (1.0 - 1e-9):
        return 0.0
    best = int(np.argmax(found))
    return float(best if best <= reach else len(found) - best)


def polarity(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Sign of the correlation at lag 0: +1, or -1 where the waveform is upside down.

    Raises:
        UndefinedScore: the clips do not correlate at all.
    """
    first, second = _sounding(reference, degraded, sample_rate_hz)
    sign = float(np.sign(np.dot(_centred(first), _centred(second))))
    if sign == 0.0:
        raise UndefinedScore("the clips do not correlate, so there is no polarity to compare")
    return sign


def gain_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Change of level (root mean square) in dB, without sign."""
    first, second = _sounding(reference, degraded, sample_rate_hz)
    before, after = (np.mean(np.square(clip.samples, dtype=np.float64)) for clip in (first, second))
    return float(abs(10.0 * np.log10(after / before)))


def dc(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Shift of the mean, in parts of full scale, without sign."""
    first, second = pair(reference, degraded, sample_rate_hz)
    return float(abs(np.mean(second.samples, dtype=np.float64) - np.mean(first.samples, dtype=np.float64)))


def clipping(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Share of samples at full scale or beyond (0..1) above the reference's own share; never negative."""
    first, second = pair(reference, degraded, sample_rate_hz)
    before, after = (float(np.mean(np.abs(clip.samples) >= FULL_SCALE)) for clip in (first, second))
    return max(0.0, after - before)
