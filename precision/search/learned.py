"""Learned: what evaluations say of the power of choices beyond the sum of single sites.

The logarithm of measured by summed power of a choice is a Gaussian process over choices (Rasmussen and Williams,
"Gaussian Processes for Machine Learning", 2006, ch. 2): an error of the whole table, a slope (metrics that saturate),
an error of each unit's option in the share that it has of the sum, an interference of each pair of options in the
share that two errors which are correlated have (2 r sqrt(p q) beside p + q), and what fits none of these.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular

from precision.search.unit import Array

_DEFAULT = (0.5, 0.1, 0.3, 0.15, 0.03)
_SWEEPS = 3
_SPREAD = (2.0, 1.0, 0.7, 0.7, 0.7)


@dataclass(frozen=True, eq=False)
class Features:
    """What the process sees of choices."""

    share: Array
    """[choice, unit x option] share of the summed power; a row sums to 1."""
    level: Array
    """[choice] logarithm of the summed power by that of the threshold."""

    def __getitem__(self, places: NDArray[np.int64]) -> "Features":
        """Of some choices only."""
        return Features(self.share[places], self.level[places])


class Process:
    """A Gaussian process fitted to logarithms of measured by summed power."""

    def __init__(self, features: Features, values: Array, start: tuple[float, ...] = _DEFAULT) -> None:
        """Fit the deviations by coordinate ascent of their posterior, from `start`."""
        self._features = features
        self._values = values
        self._parts = _parts(features, features)
        self.deviations = start
        best, self._fitted = self._evidence(start)
        for _ in range(_SWEEPS if values.size else 0):
            before = self.deviations
            for place in range(len(start)):
                for factor in (0.5, 2.0):
                    tried = list(self.deviations)
                    tried[place] *= factor
                    evidence, fitted = self._evidence(tuple(tried))
                    if evidence > best:
                        best, self._fitted, self.deviations = evidence, fitted, tuple(tried)
            if self.deviations == before:
                break

    def predict(self, features: Features) -> tuple[Array, Array]:
        """Mean and standard deviation [choice] of the logarithm for new choices."""
        squares = np.square(self.deviations)
        own = np.sum(features.share**2, axis=1)
        prior = squares[0] + squares[1] * features.level**2 + squares[2] * own + squares[3] * (1.0 - own) / 2.0
        prior = prior + squares[4]
        if not self._values.size:
            return np.zeros(len(own)), np.sqrt(prior)
        factor, weights = self._fitted
        across = _kernel(_parts(features, self._features), squares)
        known = solve_triangular(factor, across.T, lower=True)
        return across @ weights, np.sqrt(np.maximum(prior - np.sum(known**2, axis=0), 1e-9))

    def corrections(self) -> tuple[float, Array]:
        """The mean error of the whole table, and of each unit's option [unit x option], as logarithms of power."""
        if not self._values.size:
            return 0.0, np.zeros(self._features.share.shape[1])
        _, weights = self._fitted
        common = self.deviations[0] ** 2 * float(weights.sum())
        return common, self.deviations[2] ** 2 * (weights @ self._features.share)

    def _evidence(self, deviations: tuple[float, ...]) -> tuple[float, tuple[Array, Array]]:
        kernel = _kernel(self._parts, np.square(deviations))
        kernel[np.diag_indices_from(kernel)] += deviations[-1] ** 2
        factor = cholesky(kernel, lower=True)
        weights = cho_solve((factor, True), self._values)
        fit = -0.5 * float(self._values @ weights) - float(np.log(np.diag(factor)).sum())
        far = zip(deviations, _DEFAULT, _SPREAD, strict=True)
        return fit - 0.5 * math.fsum((math.log(d / usual) / spread) ** 2 for d, usual, spread in far), (factor, weights)


def _parts(one: Features, other: Features) -> tuple[Array, Array, Array]:
    single = one.share @ other.share.T
    root = np.sqrt(one.share) @ np.sqrt(other.share).T
    return np.outer(one.level, other.level), single, np.maximum(root**2 - single, 0.0) / 2.0


def _kernel(parts: tuple[Array, Array, Array], squares: Array) -> Array:
    slope, single, pair = parts
    found: Array = squares[0] + squares[1] * slope + squares[2] * single + squares[3] * pair
    return found
