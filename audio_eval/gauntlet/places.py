"""Places: where in a clip a fault is planted, found on the clip itself and drawn with a seed.

All take mono samples [time], float32 or float64 in -1..1, finite, of at least 0.2 s.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from audio_eval.clip import Clip, Samples
from audio_eval.pitch import HOP_SECONDS, track

FRAME_SECONDS = 0.02
RAMP_SECONDS = 0.01
LOUD_DB = 20.0
"""Frames at most this far under the loudest are speech that a fault is heard in."""
PAUSE_DB = 45.0
"""Frames at least this far under the loudest are pauses."""
PAUSE_SHARE = 0.1
"""The quietest frames, at least as many, count as pauses where the speaker makes none."""
SIBILANT_HZ = 3000.0
SOFT_DB = (15.0, 45.0)
"""How far under the loudest frame a fricative is soft."""
VOWEL_FRAMES = 7
"""Of 10 ms, all voiced and loud, in whose middle a vowel is sure to go on."""
INNER = (0.1, 0.85)
"""The part of a clip in which one fault falls."""

Float = npt.NDArray[np.float64]


def levels_db(samples: Samples, sample_rate_hz: int) -> Float:
    """Level of each whole frame of 20 ms [frames], dB of full scale; -200 where it is silent."""
    size = round(FRAME_SECONDS * sample_rate_hz)
    frames = samples[: len(samples) // size * size].astype(np.float64).reshape(-1, size)
    levels: Float = 10.0 * np.log10(np.maximum(np.mean(np.square(frames), axis=1), 1e-20))
    return levels


def high_band(samples: Samples, sample_rate_hz: int, above_hz: float) -> Float:
    """What of the samples lies above a frequency: they minus this are what lies below, with no delay."""
    taps = round(0.01 * sample_rate_hz) | 1
    high = signal.firwin(taps, above_hz, pass_zero=False, fs=sample_rate_hz)
    filtered: Float = signal.fftconvolve(samples.astype(np.float64), high, mode="same")
    return filtered


def loud_moment(samples: Samples, sample_rate_hz: int, seed: int) -> int:
    """Index of the sample at which a loud frame in the inner part of the clip begins."""
    levels = levels_db(samples, sample_rate_hz)
    chosen = _inner(levels >= levels.max() - LOUD_DB)
    return int(np.random.default_rng(seed).choice(chosen)) * round(FRAME_SECONDS * sample_rate_hz)


def voiced_moment(samples: Samples, sample_rate_hz: int, seed: int) -> tuple[int, float]:
    """Index of a sample inside a loud vowel, and the fundamental frequency there in Hz.

    Raises:
        ValueError: no frame is voiced.
    """
    found = track(Clip(samples, sample_rate_hz))
    starts = np.round(np.arange(len(found.voiced)) * HOP_SECONDS * sample_rate_hz).astype(int)
    levels = levels_db(samples, sample_rate_hz)
    frames = np.minimum(starts // round(FRAME_SECONDS * sample_rate_hz), len(levels) - 1)
    vowel = found.voiced & (levels[frames] >= levels.max() - LOUD_DB)
    # Where voice begins or ends there is no phase to go on from, and nobody hears a slip.
    inside = ndimage.binary_erosion(vowel, np.ones(VOWEL_FRAMES, bool))
    chosen = _inner(inside, found.voiced)
    frame = int(np.random.default_rng(seed).choice(chosen))
    return int(starts[frame]), float(found.f0_hz[frame])


def _inner(wanted: npt.NDArray[np.bool_], otherwise: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.intp]:
    """Frames that are wanted, inside the clip where there are such."""
    place = np.arange(len(wanted)) / len(wanted)
    within = (place >= INNER[0]) & (place < INNER[1])
    for mask in (wanted & within, wanted, otherwise):
        if mask is not None and mask.any():
            return np.flatnonzero(mask)
    raise ValueError("no frame of the clip is voiced: there is no oscillator whose phase could slip")


def pauses(samples: Samples, sample_rate_hz: int) -> npt.NDArray[np.bool_]:
    """Which frames of 20 ms are pauses [frames]: 45 dB under the loudest, and the quietest tenth in any case."""
    levels = levels_db(samples, sample_rate_hz)
    quiet: npt.NDArray[np.bool_] = levels <= max(levels.max() - PAUSE_DB, np.quantile(levels, PAUSE_SHARE))
    return quiet


def soft_fricatives(samples: Samples, sample_rate_hz: int) -> npt.NDArray[np.bool_]:
    """Which frames of 20 ms are soft fricatives [frames]: most power above 3 kHz, 15 to 45 dB under the loudest."""
    levels = levels_db(samples, sample_rate_hz)
    high = levels_db(high_band(samples, sample_rate_hz, SIBILANT_HZ), sample_rate_hz)
    under = levels.max() - levels
    soft: npt.NDArray[np.bool_] = (high > levels - 3.0) & (under >= SOFT_DB[0]) & (under <= SOFT_DB[1])
    return soft


def curve(frames: npt.NDArray[np.bool_], count: int, sample_rate_hz: int) -> Float:
    """1 in the frames that are set, 0 in others [count], with ramps of 10 ms between."""
    steps = np.repeat(frames, round(FRAME_SECONDS * sample_rate_hz)).astype(np.float64)[:count]
    steps = np.pad(steps, (0, count - len(steps)))
    ramp = signal.windows.hann(round(RAMP_SECONDS * sample_rate_hz) | 1, sym=True)
    smooth: Float = signal.fftconvolve(np.pad(steps, len(ramp), mode="edge"), ramp / ramp.sum(), mode="same")
    return np.clip(smooth[len(ramp) : -len(ramp)], 0.0, 1.0)
