"""Harmless: changes that nobody hears and no gate may refuse.

Functions take samples [time] float32 or float64 in -1..1, the rate in Hz and a seed; they return float32 [time] of
equal length.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import soxr

from audio_eval.clip import Samples
from audio_eval.gauntlet.sound import Planted

DITHER_DB = -90.0
ROUND_TRIP_HZ = 48000


@dataclass(frozen=True, slots=True)
class Harmless:
    """One harmless change."""

    name: str
    what: str
    apply: Callable[[Samples, int, int], Planted]
    """(samples, sample_rate_hz, seed) -> samples."""


def _sixteen_bits(samples: Samples, sample_rate_hz: int, seed: int) -> Planted:
    del sample_rate_hz, seed
    steps = np.clip(np.rint(samples * 32768.0), -32768, 32767)
    return np.asarray(steps / 32768.0, dtype=np.float32)


def _half_precision(samples: Samples, sample_rate_hz: int, seed: int) -> Planted:
    del sample_rate_hz, seed
    return samples.astype(np.float16).astype(np.float32)


def _level(samples: Samples, sample_rate_hz: int, seed: int, *, change_db: float) -> Planted:
    del sample_rate_hz, seed
    return np.asarray(samples * 10.0 ** (change_db / 20.0), dtype=np.float32)


def _dither(samples: Samples, sample_rate_hz: int, seed: int) -> Planted:
    """Triangular noise: the sum of two uniform ones over -half..half has a variance of two thirds of half squared."""
    del sample_rate_hz
    half = 10.0 ** (DITHER_DB / 20.0) * np.sqrt(1.5)
    noise = np.random.default_rng(seed).uniform(-half, half, (2, len(samples))).sum(axis=0)
    return np.asarray(samples + noise, dtype=np.float32)


def _round_trip(samples: Samples, sample_rate_hz: int, seed: int, *, quality: str) -> Planted:
    del seed
    there = soxr.resample(samples.astype(np.float64), sample_rate_hz, ROUND_TRIP_HZ, quality=quality)
    back = soxr.resample(there, ROUND_TRIP_HZ, sample_rate_hz, quality=quality)[: len(samples)]
    return np.asarray(np.pad(back, (0, len(samples) - len(back))), dtype=np.float32)


_TABLE = (
    Harmless("16_bit", "rounded to 16 bits, as a file holds it", _sixteen_bits),
    Harmless("fp16_samples", "samples stored in fp16", _half_precision),
    Harmless("quieter", "0.1 dB quieter", partial(_level, change_db=-0.1)),
    Harmless("louder", "0.1 dB louder", partial(_level, change_db=0.1)),
    Harmless("dither", f"triangular dither of {DITHER_DB:.0f} dB of full scale", _dither),
    Harmless("soxr_hq", "through 48 kHz and back by soxr HQ", partial(_round_trip, quality="HQ")),
    Harmless("soxr_vhq", "through 48 kHz and back by soxr VHQ", partial(_round_trip, quality="VHQ")),
)
HARMLESS: MappingProxyType[str, Harmless] = MappingProxyType({change.name: change for change in _TABLE})
"""Every harmless change by name."""
