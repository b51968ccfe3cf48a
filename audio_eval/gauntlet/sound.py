"""Sound: planted faults of level, spectrum and noise; none moves anything in time.

Every function takes samples [time] float32 or float64 in -1..1, the rate in Hz, a strength in the unit that the table
gives, and a seed for what is drawn; it returns float32 [time] of equal length. Strengths go from slight to gross.
"""

import numpy as np
import numpy.typing as npt
from scipy import signal
from scipy.ndimage import uniform_filter1d

from audio_eval.clip import Samples
from audio_eval.gauntlet.places import (
    FRAME_SECONDS,
    SIBILANT_HZ,
    Float,
    curve,
    high_band,
    levels_db,
    loud_moment,
    pauses,
    soft_fricatives,
)

Planted = npt.NDArray[np.float32]

BAND_HZ = 8000.0
WHISTLE_SHARE = 0.96
TAIL_SECONDS = 0.3
"""T60 of the smear: a small office."""


def _ratio(level_db: float) -> float:
    return float(10.0 ** (level_db / 20.0))


def hiss_in_pauses(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """White noise of `strength` dB of full scale (RMS) added where the speaker pauses."""
    noise = np.random.default_rng(seed).standard_normal(len(samples)) * _ratio(strength)
    return (samples + noise * curve(pauses(samples, sample_rate_hz), len(samples), sample_rate_hz)).astype(np.float32)


def fricative_collapse(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """Soft fricatives lose `strength` dB above 3 kHz; nothing else changes."""
    del seed
    place = curve(soft_fricatives(samples, sample_rate_hz), len(samples), sample_rate_hz)
    lost = 1.0 - _ratio(-strength)
    return (samples - lost * place * high_band(samples, sample_rate_hz, SIBILANT_HZ)).astype(np.float32)


def band_lost(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """All above 8 kHz is `strength` dB weaker."""
    del seed
    lost = 1.0 - _ratio(-strength)
    return (samples - lost * high_band(samples, sample_rate_hz, BAND_HZ)).astype(np.float32)


def whistle(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """A tone at 0.96 of Nyquist, where no perceptual metric listens, `strength` dB under the speech as it goes."""
    del seed
    power = uniform_filter1d(np.square(samples, dtype=np.float64), round(FRAME_SECONDS * sample_rate_hz))
    tone = np.sqrt(2.0 * power.clip(min=0.0)) * np.sin(WHISTLE_SHARE * np.pi * np.arange(len(samples)))
    planted: Planted = (samples + _ratio(strength) * tone).astype(np.float32)
    return planted


def gain_loss(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """Amplitudes are `strength` per cent smaller."""
    del sample_rate_hz, seed
    return (samples * (1.0 - strength / 100.0)).astype(np.float32)


def clipping(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """The upper `strength` per cent of the peak are cut off flat, above and below."""
    del sample_rate_hz, seed
    limit = np.max(np.abs(samples)) * (1.0 - strength / 100.0)
    return np.clip(samples, -limit, limit).astype(np.float32)


def polarity_flip(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """The waveform upside down; it knows one strength."""
    del sample_rate_hz, strength, seed
    return (-samples).astype(np.float32)


def reverberant_smear(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """A tail of noise, 0.3 s to -60 dB, is convolved in; its power is `strength` dB over the direct sound's."""
    time = np.arange(1, round(TAIL_SECONDS * sample_rate_hz)) / sample_rate_hz
    tail = np.random.default_rng(seed).standard_normal(len(time)) * 10.0 ** (-3.0 * time / TAIL_SECONDS)
    tail *= _ratio(strength) / np.sqrt(np.sum(np.square(tail)))
    smeared: Float = signal.fftconvolve(samples.astype(np.float64), np.concatenate([[1.0], tail]))
    return smeared[: len(samples)].astype(np.float32)


def rail_pinned(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """`strength` per cent of the clip, one stretch from a loud moment on, stuck at full scale."""
    count = max(1, round(len(samples) * strength / 100.0))
    start = min(loud_moment(samples, sample_rate_hz, seed), len(samples) - count)
    stuck = samples.astype(np.float32)
    stuck[start : start + count] = 1.0 if samples[start] >= 0.0 else -1.0
    return stuck


def nan_in_silence(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """`strength` samples of the quietest 20 ms, or as many as these hold, are NaN."""
    size = round(FRAME_SECONDS * sample_rate_hz)
    start = int(np.argmin(levels_db(samples, sample_rate_hz))) * size
    places = np.random.default_rng(seed).choice(size, min(round(strength), size), replace=False)
    broken = samples.astype(np.float32)
    broken[start + places] = np.nan
    return broken
