"""Guards: plain faults of a waveform that perceptual metrics do not hear.

PESQ and STOI are blind to polarity and gain, and align lags away; none of them counts samples. Clips are float32 or
float64 [time]; unless said, they must be finite, of one length and the reference not silent, or `UndefinedScore` is
raised.
"""

import numpy as np
import numpy.typing as npt
from scipy import fft

from audio_eval.clip import SILENT_PEAK, Clip, Samples, UndefinedScore, as_clip, pair, sounding_pair

FULL_SCALE = 1.0 - 2.0**-15
"""The largest value that 16-bit audio can hold."""
LAG_SECONDS = 0.1
"""How far a lag is looked for."""
RAIL_STEP = 2.0**-9
"""Samples this near to the outermost one lie with it at the rail: half the distance of two bf16 numbers."""
CUT, STUCK = 1.01, 0.9
"""Shares of the rail beyond which, and under which, the reference shows a sample there to be a fault."""
DC_SECONDS = 0.5
LEVEL_SECONDS = 1.0
LEVEL_RANGE_DB = 10.0
"""Stretches this far under the loudest say nothing about level."""
STRETCH_SECONDS = 0.5
CORRELATED, UPSIDE_DOWN = 0.1, -0.5
"""Least correlation of clips whose polarity can be told, and that of a stretch below which its sign is another."""


def finite(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Share of the degraded clip's samples that are neither NaN nor Inf (0..1). Lengths may differ."""
    as_clip(reference, sample_rate_hz)
    return float(np.mean(np.isfinite(as_clip(degraded, sample_rate_hz).samples)))


def length_samples(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """By how many samples the lengths differ, without sign. NaN and Inf do not matter."""
    return float(abs(len(as_clip(reference, sample_rate_hz)) - len(as_clip(degraded, sample_rate_hz))))


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
    first, second = sounding_pair(reference, degraded, sample_rate_hz)
    reach = min(round(LAG_SECONDS * sample_rate_hz), len(first) - 1)
    size = fft.next_fast_len(len(first) + reach, real=True)
    spectrum = first.once(("lag", size), lambda: fft.rfft(_centred(first), size))
    correlation = np.abs(fft.irfft(fft.rfft(_centred(second), size) * np.conj(spectrum), size))
    found = np.concatenate([correlation[: reach + 1], correlation[size - reach :]])
    if correlation[0] >= found.max() * (1.0 - 1e-9):
        return 0.0
    best = int(np.argmax(found))
    return float(best if best <= reach else len(found) - best)


def _stretches(products: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Sum over every stretch of `size` samples, a tenth of it apart."""
    running = np.concatenate([[0.0], np.cumsum(products)])
    starts = np.arange(0, len(products) - size + 1, max(1, size // 10))
    sums: npt.NDArray[np.float64] = running[starts + size] - running[starts]
    return sums


def polarity(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Sign of the correlation at lag 0: +1, or -1 where the waveform, or half a second of it, is upside down.

    Stretches of 0.5 s count from 20 dB under the loudest, and are upside down where they correlate below -0.5.

    Raises:
        UndefinedScore: the clips correlate by less than 0.1, as when all phases were turned by 90 degrees.
    """
    first, second = sounding_pair(reference, degraded, sample_rate_hz)
    clean, found = _centred(first), _centred(second)

    def correlation(size: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        powers = [_stretches(np.square(each), size) for each in (clean, found)]
        scale = np.sqrt(np.maximum(powers[0] * powers[1], np.finfo(np.float64).tiny))
        return _stretches(clean * found, size) / scale, powers[0]

    whole = float(correlation(len(clean))[0][0])
    if abs(whole) < CORRELATED:
        raise UndefinedScore(f"the clips correlate by {whole:.2f} only, so there is no polarity to compare")
    parts, power = correlation(min(len(clean), round(STRETCH_SECONDS * sample_rate_hz)))
    turned = bool(np.any(parts[power >= 0.01 * power.max()] < UPSIDE_DOWN))
    return -1.0 if whole < 0.0 or turned else 1.0


def gain_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Change of level (root mean square) in dB, without sign."""
    first, second = sounding_pair(reference, degraded, sample_rate_hz)
    return float(abs(20.0 * np.log10(_level(second) / _level(first))))


def _level(clip: Clip) -> float:
    return clip.once("level", lambda: float(np.sqrt(np.mean(np.square(clip.samples, dtype=np.float64)))))


def gain_drift_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """How far the change of level differs between two seconds of the clip, dB: what `gain_db` averages away.

    Stretches of 1 s, or of half the clip where that is shorter, no more than 10 dB under the loudest.
    """
    first, second = sounding_pair(reference, degraded, sample_rate_hz)
    size = max(1, min(round(LEVEL_SECONDS * sample_rate_hz), len(first) // 2))
    before, after = (_stretches(np.square(clip.samples, dtype=np.float64), size) for clip in (first, second))
    loud = before >= before.max() * 10.0 ** (-LEVEL_RANGE_DB / 10.0)
    # A stretch that became silent is as far down as a sound can be.
    change = 10.0 * np.log10(np.maximum(after[loud] / before[loud], SILENT_PEAK**2))
    return float(np.ptp(change))


def dc(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Largest shift of the mean over any 0.5 s (or the clip, where shorter), in parts of full scale, without sign."""
    first, second = pair(reference, degraded, sample_rate_hz)
    size = min(len(first), round(DC_SECONDS * sample_rate_hz))
    shift = second.samples.astype(np.float64) - first.samples
    return float(np.max(np.abs(_stretches(shift, size)))) / size


def clipping(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Share of samples (0..1) that a rail has cut off or holds fast, which the reference's own are not.

    The rails are the clip's own highest and lowest value, at most full scale, or the reference's end where that lies
    beyond, so that a flat top is seen at any level. A sample there is cut off where the reference, brought to the same
    level, goes more than 1 % beyond, and stuck where the reference stays 10 % inside. One sample a side is free, as
    every waveform has a highest.
    """
    first, second = pair(reference, degraded, sample_rate_hz)
    clean = first.samples * (_level(second) / _level(first))
    count = 0
    for sign in (1.0, -1.0):
        found, wanted = sign * second.samples, sign * clean
        rail = min(float(np.max(found)), max(FULL_SCALE, float(np.max(sign * first.samples))))
        if rail <= 0.0:
            continue
        there = wanted[found >= rail * (1.0 - RAIL_STEP)]
        count += max(0, int(np.sum((there > CUT * rail) | (there < STUCK * rail))) - 1)
    return count / len(second)
