"""Spectrogram: what of two clips differs over time and frequency, in level and in phase.

Both clips are taken through the same short-time Fourier transform (Hann window). Its bins are gathered into cells of a
few neighbours, since a picture on a phone has fewer points than the transform; a cell's level is that of its mean
power, its phase error the angle of its summed cross-spectrum, in which strong bins count most.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Levels = NDArray[np.float64]
Bins = NDArray[np.complex128]
Number = TypeVar("Number", np.float64, np.complex128)

RANGE_DB = 80.0
"""Levels, and with them their difference, are cut off so far below the peak of the two clips."""
PHASE_FLOOR_DB = 60.0
"""Where the reference is further below that peak, its phase means nothing."""
ROWS, COLUMNS = 256, 640
"""Cells of a map, at most."""


@dataclass(frozen=True, slots=True)
class Transform:
    """The short-time Fourier transform of a clip: window and hop, in samples."""

    window: int
    hop: int
    sample_rate_hz: int

    @classmethod
    def of(cls, samples: int, sample_rate_hz: int) -> "Transform":
        """The transform of a clip: 1024 samples, 2048 from 32 kHz up, hops of an eighth or, where it is long, more."""
        window = 1024 if sample_rate_hz < 32000 else 2048
        hop = window // 8
        while hop < window // 2 and samples > COLUMNS * hop:
            hop *= 2
        return cls(window, hop, sample_rate_hz)

    def bins(self, samples: Samples) -> Bins:
        """[frequencies, frames] without the Nyquist frequency; at least one frame, padded with silence."""
        frames = 1 + max(len(samples) - self.window, 0) // self.hop
        padded = np.zeros((frames - 1) * self.hop + self.window, np.float64)
        kept = samples[: len(padded)]
        padded[: len(kept)] = kept
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.window)[:: self.hop]
        found: Bins = np.fft.rfft(windows * np.hanning(self.window + 1)[:-1], axis=1)[:, :-1].T
        return found

    def __str__(self) -> str:
        milliseconds = 1000 * self.window / self.sample_rate_hz
        return f"Hann window of {self.window} samples ({milliseconds:.0f} ms), hop {self.hop}"


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Two clips over frequency (rising) and time; every array is [rows, columns]."""

    transform: Transform
    seconds: float
    reference: Levels
    """dB under the peak of the two, -80 to 0."""
    candidate: Levels
    """The same of the candidate."""
    difference: Levels
    """Candidate less reference, dB; 0 where both are at the floor."""
    heard: NDArray[np.bool_]
    """Where either is above the floor."""
    phase: Levels
    """Phase of the candidate less that of the reference, wrapped into [-pi, pi], rad."""
    phased: NDArray[np.bool_]
    """Where the reference has energy enough for a phase."""

    @property
    def difference_db(self) -> tuple[float, float]:
        """Median and 95 % quantile of the size of the difference where either is heard; 0 where nothing is."""
        return _middle_and_most(self.difference[self.heard])

    @property
    def phase_rad(self) -> tuple[float, float]:
        """Median and 95 % quantile of the size of the phase error where there is energy; 0 where there is none."""
        return _middle_and_most(self.phase[self.phased])

    @property
    def phased_share(self) -> float:
        """Share of the cells that have a phase error."""
        return float(np.mean(self.phased))

    def below_hz(self, share: float) -> float:
        """The frequency under which so much of the reference's energy lies; 0 for silence."""
        power = np.where(self.reference > -RANGE_DB, 10 ** (self.reference / 10), 0.0).sum(axis=1)
        if not power.any():
            return 0.0
        row = int(np.searchsorted(np.cumsum(power), share * power.sum()))
        return (min(row, len(power) - 1) + 1) / len(power) * self.transform.sample_rate_hz / 2


def maps(reference: Samples, candidate: Samples, sample_rate_hz: int) -> Maps:
    """Compare two clips of one rate; the longer one is cut to the shorter."""
    length = min(len(reference), len(candidate))
    transform = Transform.of(length, sample_rate_hz)
    ours, theirs = transform.bins(reference[:length]), transform.bins(candidate[:length])
    powers = [_cells(np.square(np.abs(bins))) for bins in (ours, theirs)]
    peak = float(max(power.max() for power in powers))
    levels = [levels_db(power, peak) for power in powers]
    phase: Levels = np.angle(_cells(theirs * np.conj(ours)))
    return Maps(
        transform,
        length / sample_rate_hz,
        levels[0],
        levels[1],
        levels[1] - levels[0],
        np.maximum(levels[0], levels[1]) > -RANGE_DB,
        phase,
        levels[0] > -PHASE_FLOOR_DB,
    )


def levels_db(power: Levels, peak: float) -> Levels:
    """Levels in dB under a peak power, cut off 80 dB below it; all at the bottom for a peak of 0."""
    relative = power / peak if peak > 0 else np.zeros_like(power)
    return 10.0 * np.log10(np.clip(relative, 10 ** (-RANGE_DB / 10), 1.0))


def _cells(bins: NDArray[Number]) -> NDArray[Number]:
    """Means over a few neighbouring frequencies, and over time where there are more frames than columns."""
    high, wide = -(-bins.shape[0] // ROWS), -(-bins.shape[1] // COLUMNS)
    rows = np.add.reduceat(bins, np.arange(0, bins.shape[0], high), axis=0) / high
    starts = np.arange(0, bins.shape[1], wide)
    widths = np.diff(np.append(starts, bins.shape[1]))
    found: NDArray[Number] = np.add.reduceat(rows, starts, axis=1) / widths
    return found


def _middle_and_most(values: Levels) -> tuple[float, float]:
    if not len(values):
        return 0.0, 0.0
    middle, most = np.quantile(np.abs(values), (0.5, 0.95))
    return float(middle), float(most)
