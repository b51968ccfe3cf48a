"""Clip: samples, their rate, and what was already computed from them."""

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import fft

Samples: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]
"""Mono audio [time] in -1..1."""
Spectrum: TypeAlias = npt.NDArray[np.complex64]
Real: TypeAlias = npt.NDArray[np.float32]
T = TypeVar("T")

SILENT_PEAK = 1e-5
"""A third of one step of 16-bit audio: no file holds speech below it."""
LARGEST_PEAK = 1e6
"""Beyond it float32 powers overflow; a sound that far outside -1..1 is a fault, not a sound."""


class UndefinedScore(ValueError):  # noqa: N818 - the noun the callers catch
    """A metric has no value for these clips; the text says why."""


class Clip:
    """One mono recording that remembers what metrics computed from it.

    Every metric takes a Clip wherever it takes an array, and then reuses spectra, pitch and resampled copies.

    Args:
        samples: float32 or float64 [time], nominally -1..1; copied. NaN and Inf are allowed here and refused by
            every metric but the checks of guards.py.
        sample_rate_hz: positive.

    Raises:
        UndefinedScore: not one-dimensional, not floating point, empty, or an impossible rate.
    """

    __slots__ = ("_memo", "sample_rate_hz", "samples")

    def __init__(self, samples: Samples, sample_rate_hz: int) -> None:
        array: Any = np.array(samples)
        if array.ndim != 1 or array.size == 0:
            raise UndefinedScore(f"audio is a mono array [time] with samples in it, got shape {array.shape}")
        if array.dtype not in (np.float32, np.float64):
            raise UndefinedScore(f"audio is float32 or float64 in -1..1, got {array.dtype}; divide by its full scale")
        if sample_rate_hz <= 0:
            raise UndefinedScore(f"sample_rate_hz must be positive, got {sample_rate_hz}")
        array.flags.writeable = False
        self.samples: Samples = array
        self.sample_rate_hz = int(sample_rate_hz)
        self._memo: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.sample_rate_hz

    @property
    def peak(self) -> float:
        """Largest magnitude; NaN where a sample is NaN."""
        return self.once("peak", lambda: float(np.max(np.abs(self.samples))))

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """`compute()`, or what it gave under this key before."""
        if key not in self._memo:
            self._memo[key] = compute()
        value: T = self._memo[key]
        return value

    def stft(self, n_fft: int) -> Spectrum:
        """Short-time Fourier transform [frames, bins]: periodic Hann window, hop n_fft / 4, reflected ends.

        Raises:
            UndefinedScore: the clip is shorter than one window.
        """
        return self.once(("stft", n_fft), lambda: self._transform(n_fft))

    def magnitude(self, n_fft: int) -> Real:
        """Magnitude of `stft` [frames, bins]."""
        return self.once(("magnitude", n_fft), lambda: np.abs(self.stft(n_fft)))

    def _transform(self, n_fft: int) -> Spectrum:
        if len(self) < n_fft:
            raise UndefinedScore(
                f"{len(self)} samples are shorter than one analysis window of {n_fft}; use a longer clip"
            )
        padded = np.pad(self.samples.astype(np.float32), n_fft // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: n_fft // 4]
        window = np.hanning(n_fft + 1)[:-1].astype(np.float32)
        spectrum: Spectrum = fft.rfft(frames * window, axis=-1)
        return spectrum


def as_clip(audio: Samples | Clip, sample_rate_hz: int) -> Clip:
    """`audio` as a Clip.

    Raises:
        UndefinedScore: a Clip of another rate, or what Clip refuses.
    """
    if not isinstance(audio, Clip):
        return Clip(audio, sample_rate_hz)
    if audio.sample_rate_hz != sample_rate_hz:
        raise UndefinedScore(f"the clip has {audio.sample_rate_hz} Hz, sample_rate_hz says {sample_rate_hz}")
    return audio


def pair(reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> tuple[Clip, Clip]:
    """Both clips, fit to be compared: finite, of one length, and a reference that is not silent.

    Raises:
        UndefinedScore: any of that does not hold; the text says which.
    """
    first, second = as_clip(reference, sample_rate_hz), as_clip(degraded, sample_rate_hz)
    for name, clip in (("reference", first), ("degraded", second)):
        if not np.isfinite(clip.peak):
            raise UndefinedScore(f"the {name} clip has NaN or Inf in it")
        if clip.peak > LARGEST_PEAK:
            raise UndefinedScore(f"the {name} clip peaks at {clip.peak:.3g}; audio is expected in -1..1")
    if len(first) != len(second):
        raise UndefinedScore(
            f"clips must have one length, got {len(first)} samples of reference and {len(second)} of degraded; "
            "a difference is a fault to find, not to align away"
        )
    if first.peak < SILENT_PEAK:
        raise UndefinedScore(f"the reference clip is silent (peak {first.peak:.3g}); nothing can be compared with it")
    return first, second


def sounding_pair(reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> tuple[Clip, Clip]:
    """Both clips as `pair` gives them, the degraded one not silent either.

    Raises:
        UndefinedScore: as `pair`, or the degraded clip is silent.
    """
    first, second = pair(reference, degraded, sample_rate_hz)
    if second.peak < SILENT_PEAK:
        raise UndefinedScore(f"the degraded clip is silent (peak {second.peak:.3g}): it can be matched with nothing")
    return first, second
