"""STOI and ESTOI: intelligibility by the correlation of band envelopes; both 1 for identical clips.

STOI: Taal et al., IEEE TASLP 19(7), 2011. ESTOI: Jensen and Taal, IEEE/ACM TASLP 24(11), 2016. The numbers are those of
`pystoi`, whose resampler and bands are used; the arithmetic is here because pystoi draws from numpy's global generator,
which threads share, and computes the reference anew for every clip. Both take `reference` and `degraded` as float32 or
float64 [time] (or Clips), of one length, and raise `UndefinedScore` for NaN, Inf, a silent reference, lengths that
differ and too little speech.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pystoi.utils import EPS, resample_oct, thirdoct

from audio_eval.clip import Clip, Samples, UndefinedScore, pair

RATE_HZ = 10000
SHORTEST_SECONDS = 0.4
FRAME = 256
HOP = FRAME // 2
FFT = 512
BANDS, LOWEST_BAND_HZ = 15, 150
SEGMENT = 30
"""Frames that are correlated at once: 384 ms."""
SPEECH_DB = 40.0
"""Frames this far under the loudest of the reference are left out of both clips."""
LOWEST_SDR_DB = -15.0

Array: TypeAlias = npt.NDArray[np.float64]
_WINDOW = np.hanning(FRAME + 2)[1:-1]


@dataclass(frozen=True, slots=True, eq=False)
class _Reference:
    """What of a reference serves every clip that is compared with it."""

    speech: npt.NDArray[np.bool_]
    """Which frames are not left out [frames]."""
    envelopes: Array
    """[bands, frames that are not left out]."""


@dataclass(frozen=True, slots=True, eq=False)
class _Normalized:
    """A reference's segments as ESTOI compares them [segments, bands, frames], and the generator after them."""

    segments: Array
    state: dict[str, Any]


def _resampled(clip: Clip) -> Array:
    samples = clip.samples.astype(np.float64)
    if clip.sample_rate_hz == RATE_HZ:
        return samples
    resampled: Array = resample_oct(samples, RATE_HZ, clip.sample_rate_hz)
    return resampled


def _frames(samples: Array) -> Array:
    """Windowed frames; the one that would end with the last sample is left out, as in pystoi."""
    frames: Array = np.lib.stride_tricks.sliding_window_view(samples[:-1], FRAME)[::HOP] * _WINDOW
    return frames


def _envelopes(frames: Array) -> Array:
    """Level of every third-octave band [bands, frames] after frames were joined again by overlap and add."""
    joined = np.zeros((len(frames) + 1) * HOP)
    joined[:-HOP] += frames[:, :HOP].reshape(-1)
    joined[HOP:] += frames[:, HOP:].reshape(-1)
    power = np.square(np.abs(np.fft.rfft(_frames(joined), n=FFT))).transpose()
    filters, _ = thirdoct(RATE_HZ, FFT, BANDS, LOWEST_BAND_HZ)
    envelopes: Array = np.sqrt(np.matmul(filters, power))
    return envelopes


def _reference(clip: Clip) -> _Reference:
    frames = _frames(_resampled(clip))
    level_db = 20.0 * np.log10(np.linalg.norm(frames, axis=1) + EPS)
    speech = np.max(level_db) - SPEECH_DB - level_db < 0.0
    # Joined again they give one frame less.
    if np.count_nonzero(speech) <= SEGMENT:
        raise UndefinedScore(
            f"STOI needs {SEGMENT + 1} frames of speech, 0.4 s, and found {np.count_nonzero(speech)} within "
            f"{SPEECH_DB:.0f} dB of the loudest; use a clip with more speech in it"
        )
    return _Reference(speech, _envelopes(frames[speech]))


def _segments(envelopes: Array) -> Array:
    """Every stretch of SEGMENT frames [segments, bands, SEGMENT]; in this order sums round as pystoi's do."""
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(envelopes, SEGMENT, axis=1).swapaxes(0, 1))


def _compared(reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> tuple[Clip, Array, Array]:
    """The reference, and the segments of both."""
    first, second = pair(reference, degraded, sample_rate_hz)
    if first.seconds < SHORTEST_SECONDS:
        raise UndefinedScore(f"STOI needs at least {SHORTEST_SECONDS} s of speech, got {first.seconds:.3f} s")
    true = first.once("stoi", lambda: _reference(first))
    found = second.once(("stoi", first), lambda: _envelopes(_frames(_resampled(second))[true.speech]))
    return first, _segments(true.envelopes), _segments(found)


def _unit(rows: Array) -> Array:
    """Rows without their mean, of length one; a constant row is left all but zero."""
    centred: Array = rows - np.mean(rows, axis=2, keepdims=True)
    centred /= np.linalg.norm(centred, axis=2, keepdims=True) + EPS
    return centred


def stoi(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Short-time objective intelligibility; higher is better, slightly negative is possible.

    Raises:
        UndefinedScore: also for less than about 0.4 s of speech.
    """
    _, true, found = _compared(reference, degraded, sample_rate_hz)
    gain = np.linalg.norm(true, axis=2, keepdims=True) / (np.linalg.norm(found, axis=2, keepdims=True) + EPS)
    clipped = np.minimum(found * gain, true * (1.0 + 10.0 ** (-LOWEST_SDR_DB / 20.0)))
    return float(np.sum(_unit(clipped) * _unit(true)) / (len(true) * BANDS))


def _normalized(segments: Array, generator: np.random.RandomState) -> Array:
    """Every row, then every column, without its mean and of length one.

    Noise of the size of rounding stands in for rows that are constant, as in pystoi.
    """
    for axis in (2, 1):
        segments = segments + EPS * generator.standard_normal(segments.shape)
        segments -= np.mean(segments, axis=axis, keepdims=True)
        segments *= 1.0 / np.sqrt(np.sum(np.square(segments), axis=axis, keepdims=True))
    return segments


def _normalized_reference(segments: Array) -> _Normalized:
    generator = np.random.RandomState(0)
    normalized = _normalized(segments, generator)
    return _Normalized(normalized, generator.get_state(legacy=False))


def estoi(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Extended STOI: all bands of a segment at once; spreads wider than STOI near the top.

    Equal to pystoi's after `np.random.seed(0)`; another seed moves it by about 1e-16.

    Raises:
        UndefinedScore: also for less than about 0.4 s of speech.
    """
    first, true, found = _compared(reference, degraded, sample_rate_hz)
    kept = first.once("estoi", lambda: _normalized_reference(true))
    generator = np.random.RandomState(0)
    generator.set_state(kept.state)
    return float(np.sum(kept.segments * _normalized(found, generator) / SEGMENT) / len(true))
