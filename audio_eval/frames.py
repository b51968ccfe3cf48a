"""Frames: faults that are loud in a few places of a clip and vanish in its mean.

The worst stretch, soft fricatives, and pauses. All are 0 for identical clips and grow with damage. All take
`reference` and `degraded` as float32 or float64 [time] in -1..1 (or Clips), of one length, and raise
`UndefinedScore` for NaN, Inf, a silent reference, lengths that differ or clips shorter than one window.
"""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter, uniform_filter1d

from audio_eval.clip import SILENT_PEAK, Clip, Samples, UndefinedScore, pair
from audio_eval.spectra import FLOOR_DB, bin_at, squared_db

SHORT_SECONDS = 0.008
"""Window of a short frame, its hop a quarter: a missing 10 ms shows, neighbours do not fill it in."""
STRETCH_SECONDS = 0.015
SURROUNDING_SECONDS = 0.06
FORGIVEN_DB = 5.0
"""How much of a stretch's distance its surroundings can excuse: the most that bf16 everywhere does to any 60 ms of two
vocoders (4.7 and 5.0 dB, 20 clips)."""

FRICATIVE_FROM_HZ = 3000.0
FRICATIVE_SECONDS = 0.02
FRICATIVE_RANGE_DB = (20.0, 55.0)
"""Under the loudest frame: softer than a sibilant that no precision loses, louder than a pause."""

QUIET_SHARE = 0.1
QUIET_FRAME_SECONDS = 0.02
PAUSE_FLOOR_DBFS = -80.0
PAUSE_FLOOR_UNDER_SPEECH_DB = 60.0

Levels = npt.NDArray[np.float64]


def _short_window(sample_rate_hz: int) -> int:
    return 4 * max(1, round(SHORT_SECONDS * sample_rate_hz / 4))


def _odd_frames(seconds: float) -> int:
    hop_seconds = SHORT_SECONDS / 4
    return 2 * int(seconds / hop_seconds / 2) + 1


def _short_powers(clip: Clip, low_hz: float, high_hz: float) -> Levels:
    """Power of a band in every short frame [frames]."""

    def compute() -> Levels:
        n_fft = _short_window(clip.sample_rate_hz)
        start, stop = (bin_at(edge, clip.sample_rate_hz, n_fft) for edge in (low_hz, high_hz))
        powers: Levels = np.sum(np.square(clip.magnitude(n_fft)[:, start:stop]), axis=1, dtype=np.float64)
        return powers

    return clip.once(("short powers", low_hz, high_hz), compute)


def _db(ratio: Levels) -> Levels:
    decibels: Levels = 10.0 * np.log10(np.maximum(ratio, np.finfo(np.float64).tiny))
    return decibels


def worst_lsd_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Log-spectral distance of the worst stretch of 15 ms above that of its surroundings, dB.

    Per frame of 8 ms the distance of `spectra.lsd_db`, weighted by the level of the louder clip there: 1 at the
    reference's loudest frame, falling with the level in dB to 0 at 80 dB under it, so that soft frames, where a
    small error is a large ratio, do not decide. From its mean over 15 ms the median over 60 ms around is taken, but
    no more than 5 dB: what low precision does lasts as long as a vowel, a lost frame is over in 30 ms; yet nothing is
    excused by being bad for long. The largest value of the clip. Blind to a repeated period of a steady vowel and
    to what happens below -80 dB.
    """
    first, second = pair(reference, degraded, sample_rate_hz)
    n_fft = _short_window(sample_rate_hz)
    stop = bin_at(sample_rate_hz, sample_rate_hz, n_fft)
    distance = np.sqrt(np.mean(squared_db(first, second, n_fft)[:, :stop], axis=1, dtype=np.float64))
    clean, found = (_short_powers(clip, 0.0, sample_rate_hz) for clip in (first, second))
    weight = np.clip(1.0 + _db(np.maximum(clean, found) / np.max(clean)) / FLOOR_DB, 0.0, 1.0)
    stretch = uniform_filter1d(distance * weight, _odd_frames(STRETCH_SECONDS), mode="nearest")
    surroundings = median_filter(stretch, _odd_frames(SURROUNDING_SECONDS), mode="reflect")
    return float(np.max(stretch - np.minimum(surroundings, FORGIVEN_DB)))


def fricative_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Mean absolute change of the level of soft fricatives above 3 kHz, dB; 0 where the reference has none.

    Low precision lets low-energy fricatives collapse (Lightning V2, arXiv 2604.03279). A frame of 20 ms counts where
    the reference has more power above 3 kHz than below and lies 20 to 55 dB under its loudest frame. A clip without
    one has nothing to lose and scores 0. Levels count down to 80 dB under the loudest frame. At a sample rate of
    8 kHz the band is 3 to 3.7 kHz, and few fricatives fill it.
    """
    first, second = pair(reference, degraded, sample_rate_hz)

    def level(clip: Clip, low_hz: float, high_hz: float) -> Levels:
        mean: Levels = uniform_filter1d(
            _short_powers(clip, low_hz, high_hz), _odd_frames(FRICATIVE_SECONDS), mode="nearest"
        )
        return mean

    low, high = level(first, 0.0, FRICATIVE_FROM_HZ), level(first, FRICATIVE_FROM_HZ, sample_rate_hz)
    loudest = np.max(low + high)
    below = -_db((low + high) / loudest)
    chosen = (high > low) & (below >= FRICATIVE_RANGE_DB[0]) & (below <= FRICATIVE_RANGE_DB[1])
    if not chosen.any():
        return 0.0
    floor = loudest * 10.0 ** (-FLOOR_DB / 10.0)
    found = np.maximum(level(second, FRICATIVE_FROM_HZ, sample_rate_hz)[chosen], floor)
    return float(np.mean(np.abs(_db(found / np.maximum(high[chosen], floor)))))


def pause_excess_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """How much louder the quietest tenth of the reference's frames became, dB; 0 where they did not.

    Frames of 20 ms are chosen on the reference. Levels count down to -80 dBFS (root mean square), so that dither at
    -90 dBFS in digital silence costs nothing, but to 60 dB under the loudest frame at least and 80 dB at most: a
    clip that is soft as a whole keeps its pauses. The mean over frames of the difference in dB, cut at 0 so that
    quieter pauses in one clip do not pay for hiss in another. In a clip without pauses these are its softest sounds,
    and what is measured is their rise: hiss that lies under them costs little.
    """
    first, second = pair(reference, degraded, sample_rate_hz)
    size = max(1, round(QUIET_FRAME_SECONDS * sample_rate_hz))
    count = len(first) // size
    if count < 1 / QUIET_SHARE:
        raise UndefinedScore(f"{first.seconds:.3f} s are too short to find pauses in; use at least 0.2 s")

    def power(clip: Clip) -> Levels:
        frames = clip.samples[: count * size].reshape(count, size)
        means: Levels = np.mean(np.square(frames, dtype=np.float64), axis=1)
        return means

    quiet, noisy = power(first), power(second)
    # The peak that `pair` asked for may lie behind the last whole frame.
    loudest_dbfs = 10.0 * np.log10(np.max(quiet, initial=SILENT_PEAK**2))
    floor_dbfs = np.clip(PAUSE_FLOOR_DBFS, loudest_dbfs - FLOOR_DB, loudest_dbfs - PAUSE_FLOOR_UNDER_SPEECH_DB)
    floor = 10.0 ** (floor_dbfs / 10.0)
    chosen = np.argsort(quiet, kind="stable")[: max(1, round(count * QUIET_SHARE))]
    rise = 10.0 * np.log10(np.maximum(noisy[chosen], floor) / np.maximum(quiet[chosen], floor))
    return max(0.0, float(np.mean(rise)))
