"""Pitch: error of the fundamental frequency, and of the choice between voiced and unvoiced.

YIN (de Cheveigné and Kawahara, JASA 111(4), 2002) with its own aperiodicity as the measure of voicing: 25 ms of
integration every 10 ms, 60 to 500 Hz. Fast and without a model that could decide differently on equal evidence.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from audio_eval.clip import Clip, Samples, UndefinedScore, pair

LOWEST_HZ = 60.0
HIGHEST_HZ = 500.0
WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.01
TROUGH = 0.15
"""The first dip of the normalized difference below this is the period; YIN's absolute threshold."""
VOICED_BELOW = 0.25
"""Aperiodicity under which a frame is voiced."""
QUIET_DB = 45.0
"""Frames this far under the loudest are unvoiced."""
STRETCH_FRAMES = 30
"""Voiced frames whose median is a drift: 0.3 s of voice, in which a few odd periods do not decide."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """Pitch of a clip, frame by frame [frames]."""

    f0_hz: npt.NDArray[np.float64]
    voiced: npt.NDArray[np.bool_]


def _normalized_difference(frames: npt.NDArray[np.float32], window: int) -> npt.NDArray[np.float64]:
    """YIN's cumulative mean normalized difference [frames, lags]; 1 where a frame is silent."""
    lags = frames.shape[1] - window
    size = fft.next_fast_len(frames.shape[1], real=True)
    whole = fft.rfft(frames, size, axis=-1)
    start = fft.rfft(frames[:, :window], size, axis=-1)
    correlation = fft.irfft(whole * np.conj(start), size, axis=-1)[:, :lags].astype(np.float64)
    energy = np.cumsum(np.square(frames, dtype=np.float64), axis=1)
    energy = np.concatenate([np.zeros((len(frames), 1)), energy], axis=1)
    moving = energy[:, window : window + lags] - energy[:, :lags]
    difference = np.maximum(moving[:, :1] + moving - 2.0 * correlation, 0.0)
    running = np.cumsum(difference[:, 1:], axis=1)
    normalized: npt.NDArray[np.float64] = np.ones_like(difference)
    np.divide(difference[:, 1:] * np.arange(1, lags), running, out=normalized[:, 1:], where=running > 0.0)
    return normalized


def track(clip: Clip) -> Track:
    """Fundamental frequency and voicing of every frame.

    Raises:
        UndefinedScore: the clip is shorter than one frame of 25 ms plus the longest period.
    """
    return clip.once("pitch", lambda: _track(clip))


def _track(clip: Clip) -> Track:
    rate = clip.sample_rate_hz
    shortest, longest = int(rate / HIGHEST_HZ), int(np.ceil(rate / LOWEST_HZ))
    window, hop = round(WINDOW_SECONDS * rate), round(HOP_SECONDS * rate)
    size = window + longest + 2
    if len(clip) < size:
        raise UndefinedScore(f"{clip.seconds:.3f} s are too short to find a pitch in; use at least 0.05 s")
    frames = np.lib.stride_tricks.sliding_window_view(clip.samples.astype(np.float32), size)[::hop]
    normalized = _normalized_difference(frames, window)
    inner = normalized[:, shortest:-1]
    dips = (inner <= normalized[:, shortest - 1 : -2]) & (inner < normalized[:, shortest + 1 :])
    deep = dips & (inner < TROUGH)
    best = np.argmin(inner, axis=1)
    lag = np.where(deep.any(axis=1), np.argmax(deep, axis=1), best) + shortest
    row = np.arange(len(lag))
    before, here, after = normalized[row, lag - 1], normalized[row, lag], normalized[row, lag + 1]
    curve = before - 2.0 * here + after
    shift = np.divide(0.5 * (before - after), curve, out=np.zeros_like(curve), where=curve > 0.0)
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    loud = power > np.max(power) * 10.0 ** (-QUIET_DB / 10.0)
    return Track(f0_hz=rate / (lag + np.clip(shift, -0.5, 0.5)), voiced=loud & (here < VOICED_BELOW))


def _cents(reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> npt.NDArray[np.float64]:
    """Signed error of the fundamental frequency in cents [frames voiced in both]; one 0 where there was no voice."""
    first, second = pair(reference, degraded, sample_rate_hz)

    def compute() -> npt.NDArray[np.float64]:
        true, found = track(first), track(second)
        if not true.voiced.any():
            return np.zeros(1)
        both = true.voiced & found.voiced
        if not both.any():
            raise UndefinedScore("no frame is voiced in both clips, so their pitch cannot be compared")
        cents: npt.NDArray[np.float64] = 1200.0 * np.log2(found.f0_hz[both] / true.f0_hz[both])
        return cents

    return second.once(("cents", first), compute)


def f0_cents(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Mean absolute error of the fundamental frequency in cents, over frames voiced in both clips.

    The mean, not the median: one octave jump is what is heard. 0 where no frame of the reference is voiced, as there
    was no pitch to lose; that a voice was added, `voicing_error` tells.

    Raises:
        UndefinedScore: what `pair` refuses, or frames are voiced in the reference and none of them in the other clip.
    """
    return float(np.mean(np.abs(_cents(reference, degraded, sample_rate_hz))))


def f0_drift_cents(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Largest drift of pitch, in cents, without sign: the median of the signed error over 30 successive voiced frames.

    Frames are those voiced in both clips, pauses skipped; where there are fewer than 30, the median of all. Errors
    of single frames cancel, a drift does not, so it is resolved to about a cent where single frames are not; one that
    changes its sign within 0.3 s of voice is left to `f0_cents`. 0 where the reference has no voice, as there.

    Raises:
        UndefinedScore: as `f0_cents`.
    """
    cents = _cents(reference, degraded, sample_rate_hz)
    stretches = np.lib.stride_tricks.sliding_window_view(cents, min(STRETCH_FRAMES, len(cents)))
    return float(np.max(np.abs(np.median(stretches, axis=1))))


def voicing_error(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Share of frames (0..1) that are voiced in one clip and unvoiced in the other."""
    first, second = pair(reference, degraded, sample_rate_hz)
    return float(np.mean(track(first).voiced != track(second).voiced))
