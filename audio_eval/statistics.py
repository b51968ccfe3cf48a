"""Statistics: one-sided confidence bounds of a mean over clips.

Bias-corrected and accelerated bootstrap (Efron, JASA 82(397), 1987), written out here so that a seed gives the same
bound under every version of scipy and numpy's generator protocol.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

CONFIDENCE = 0.95
RESAMPLES = 9999


def lower_bound(scores: Sequence[float], *, seed: int = 0) -> float:
    """Value that the mean is above with 95 % confidence; see `_bound`."""
    return _bound(scores, 1.0 - CONFIDENCE, seed)


def upper_bound(scores: Sequence[float], *, seed: int = 0) -> float:
    """Value that the mean is below with 95 % confidence; see `_bound`."""
    return _bound(scores, CONFIDENCE, seed)


def _bound(scores: Sequence[float], level: float, seed: int) -> float:
    """One end of the BCa interval of the mean. Equal scores give that score; a NaN gives NaN.

    Raises:
        ValueError: fewer than two scores: nothing is known of how they scatter.
    """
    values = np.asarray(scores, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"a confidence bound needs at least 2 clips, got {len(values)}; hold more clips back")
    if not np.all(np.isfinite(values)):
        return float("nan")
    if np.ptp(values) == 0.0:
        return float(values[0])
    draws = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    means = np.sort(values[draws].mean(axis=1))
    bias = ndtri(_share_below(means, values.mean()))
    # Leaving one out moves the mean by its distance over n - 1: the jackknife in closed form.
    deviation = values - values.mean()
    acceleration = np.sum(deviation**3) / (6.0 * np.sum(deviation**2) ** 1.5)
    shifted = bias + ndtri(level)
    corrected = float(ndtr(bias + shifted / (1.0 - acceleration * shifted)))
    return float(np.quantile(means, corrected))


def _share_below(means: npt.NDArray[np.float64], mean: float) -> float:
    """Share of resampled means under the mean, ties by half; kept off 0 and 1, which have no normal quantile."""
    below = np.count_nonzero(means < mean) + 0.5 * np.count_nonzero(means == mean)
    return float(np.clip(below / len(means), 0.5 / len(means), 1.0 - 0.5 / len(means)))
