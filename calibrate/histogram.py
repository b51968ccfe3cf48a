"""MagnitudeHistogram: magnitudes of a stream of tensors, in bins by their bits."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MANTISSA_BITS = 6
_SHIFT = 23 - _MANTISSA_BITS
_BINS = (0x7F800000 >> _SHIFT) + 1


class MagnitudeHistogram:
    """Counts of magnitudes in bins 2**-6 wide relative to their power of two; 127 kB whatever the stream.

    Bins are the upper bits of a float32, so they never move, and the counts do not depend on the order of tensors.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self.amax = 0.0
        """Largest magnitude so far, exact."""

    def add(self, values: Tensor) -> None:
        """Count a tensor of any shape; empty ones count nothing.

        Raises:
            ValueError: it has NaN or Inf.
        """
        if not values.numel():
            return
        magnitude = values.detach().float().abs().flatten()
        amax = float(magnitude.amax())
        if not np.isfinite(amax):
            raise ValueError(
                f"activations have Inf or NaN ({int((~torch.isfinite(values)).sum())} of {values.numel()})"
            )
        self.amax = max(self.amax, amax)
        bins = magnitude.view(torch.int32) >> _SHIFT
        self._counts += torch.bincount(bins, minlength=_BINS).cpu().numpy()

    def percentile(self, percent: float) -> float:
        """Magnitude that `percent` of all values do not exceed, to the upper edge of its bin: up to 1.6 % too large.

        Zeros count as values. 100 gives `amax`; an empty histogram 0.
        """
        total = int(self._counts.sum())
        if total == 0:
            return 0.0
        reached = np.cumsum(self._counts) >= np.ceil(total * (percent / 100.0))
        return min(float(_edges(np.array([int(np.argmax(reached)) + 1]))[0]), self.amax)

    def bins(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Middles and counts of the bins that hold anything."""
        held = np.flatnonzero(self._counts)
        return (_edges(held) + _edges(held + 1)) / 2, self._counts[held]


def _edges(bins: NDArray[np.int64]) -> NDArray[np.float64]:
    return (bins.astype(np.uint32) << np.uint32(_SHIFT)).view(np.float32).astype(np.float64)
