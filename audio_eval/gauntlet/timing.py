"""Timing: planted faults of phase, pitch and buffers.

Every function takes samples [time] float32 or float64 in -1..1, the rate in Hz, a strength in the unit that the table
gives, and a seed for what is drawn; it returns float32 [time] of equal length. Strengths go from slight to gross.
"""

import numpy as np
from scipy import fft, ndimage, signal

from audio_eval.clip import Samples
from audio_eval.gauntlet.places import Float, loud_moment, voiced_moment
from audio_eval.gauntlet.sound import Planted

SLIP_SECONDS = 0.005
"""One phase fades into the other over this: about a period, as a vocoder's filters do."""
DRIFT_SECONDS = 0.5
OVERSAMPLING = 4


def phase_slip(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """The oscillator's phase jumps by `strength` radians in voiced speech and stays there.

    Its k-th harmonic jumps by k times as much, so all from there on is late by strength / (2 pi F0).
    """
    moment, f0_hz = voiced_moment(samples, sample_rate_hz, seed)
    late = _delayed(samples.astype(np.float64), strength / (2.0 * np.pi * f0_hz) * sample_rate_hz)
    ramp = (np.arange(len(samples)) - moment) / (SLIP_SECONDS * sample_rate_hz)
    share = 0.5 - 0.5 * np.cos(np.pi * np.clip(ramp, 0.0, 1.0))
    slipped: Planted = (samples + share * (late - samples)).astype(np.float32)
    return slipped


def _delayed(samples: Float, delay: float) -> Float:
    """The samples late by a number of samples that need not be whole, of equal length."""
    size = fft.next_fast_len(len(samples) + int(np.ceil(delay)) + 1024, real=True)
    turned = fft.rfft(samples, size) * np.exp(-2j * np.pi * fft.rfftfreq(size) * delay)
    late: Float = fft.irfft(turned, size)[: len(samples)]
    return late


def pitch_drift(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """Pitch is `strength` cents too high for half a second, then as many Hz too low, and so on: nothing gets late."""
    del seed
    time = np.arange(len(samples)) / sample_rate_hz
    change = 2.0 ** (strength / 1200.0) - 1.0
    speed = 1.0 + np.where(np.floor(time / DRIFT_SECONDS) % 2 == 0, change, -change)
    places = np.concatenate([[0.0], np.cumsum(speed)[:-1]])
    fine = signal.resample(np.pad(samples.astype(np.float64), (0, 1024)), (len(samples) + 1024) * OVERSAMPLING)
    warped: Float = ndimage.map_coordinates(fine, [places * OVERSAMPLING], order=5, mode="constant")
    return warped.astype(np.float32)


def repeated_frame(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """A buffer of `strength` ms is played twice; what follows is late, and as much of the end is missing."""
    moment, count = _buffer(samples, sample_rate_hz, strength, seed)
    longer = np.concatenate([samples[: moment + count], samples[moment:]])
    return np.asarray(longer[: len(samples)], dtype=np.float32)


def dropped_frame(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """A buffer of `strength` ms is left out; what follows is early, and as much silence is at the end."""
    moment, count = _buffer(samples, sample_rate_hz, strength, seed)
    shorter = np.concatenate([samples[:moment], samples[moment + count :], np.zeros(count)])
    return np.asarray(shorter, dtype=np.float32)


def dropout(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """`strength` ms of silence in the place of speech."""
    moment, count = _buffer(samples, sample_rate_hz, strength, seed)
    silenced = samples.astype(np.float32)
    silenced[moment : moment + count] = 0.0
    return silenced


def _buffer(samples: Samples, sample_rate_hz: int, milliseconds: float, seed: int) -> tuple[int, int]:
    """Where a buffer begins and how many samples it holds: one at least, and none beyond the end."""
    moment = loud_moment(samples, sample_rate_hz, seed)
    return moment, min(max(1, round(milliseconds / 1000.0 * sample_rate_hz)), len(samples) - moment)


def delay(samples: Samples, sample_rate_hz: int, strength: float, seed: int) -> Planted:
    """All is late by `strength` whole samples, and as much of the end is missing."""
    del sample_rate_hz, seed
    late = np.concatenate([np.zeros(round(strength)), samples])
    return np.asarray(late[: len(samples)], dtype=np.float32)
