"""Tolerance: how far an output may lie from the expected one before something is wrong."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

FACTOR = 2.0
BF16_SNR_DB = 48.0
"""SNR of values that each are one step of bf16 (2**-8 of the value, at most) off."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Bounds on one output, from two computations of it; a target says by which doubts the second was made."""

    DERIVATION: ClassVar[str] = f"The bounds are {FACTOR:g} times the difference of two computations."
    LEAST_SNR_DB: ClassVar[float] = BF16_SNR_DB
    """The ratio that is asked of an output where both computations are nearer to each other than this."""
    LEAST_STEP: ClassVar[float] = 2.0**-8
    """Of the largest value: what each value may be off in any case."""

    snr_db: float
    """The least ratio of the expected output's energy to that of the difference."""
    max_abs: float
    """The largest difference of any value."""
    seen_snr_db: float
    """Of the furthest computation against the expected one; infinite where all are the same."""
    seen_max_abs: float

    @classmethod
    def between(cls, expected: ArrayLike, *others: ArrayLike) -> Self:
        """Bounds from computations of one output, of the others the one that lies furthest.

        Raises:
            ValueError: other shapes, or values that are not finite: such an output tells nothing.
        """
        exact = np.asarray(expected, np.float64)
        seen, largest = math.inf, 0.0
        for other in others:
            apart = np.asarray(other, np.float64)
            if exact.shape != apart.shape:
                raise ValueError(f"both computations give one shape, got {exact.shape} and {apart.shape}")
            if not (np.isfinite(exact).all() and np.isfinite(apart).all()):
                raise ValueError(
                    "an output has Inf or NaN; take another clip, or find the site by `precision-search evaluate`"
                )
            seen, largest = min(seen, snr_db(exact, apart)), max(largest, float(np.abs(exact - apart).max(initial=0.0)))
        step = float(np.abs(exact).max(initial=0.0)) * cls.LEAST_STEP
        return cls(
            snr_db=min(seen - 20 * math.log10(FACTOR), cls.LEAST_SNR_DB),
            max_abs=max(FACTOR * largest, step),
            seen_snr_db=seen,
            seen_max_abs=largest,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data; an infinite ratio is null."""
        seen = self.seen_snr_db if math.isfinite(self.seen_snr_db) else None
        return {
            "snr_db": self.snr_db,
            "max_abs": self.max_abs,
            "seen_snr_db": seen,
            "seen_max_abs": self.seen_max_abs,
            "derivation": self.DERIVATION,
        }


def snr_db(expected: ArrayLike, other: ArrayLike) -> float:
    """Energy of the expected values over that of the difference, in dB; infinite where there is no difference."""
    exact, apart = np.asarray(expected, np.float64), np.asarray(other, np.float64)
    noise = float(np.square(exact - apart).sum())
    energy = float(np.square(exact).sum())
    if noise == 0.0:
        return math.inf
    return 10 * math.log10(energy / noise) if energy > 0 else -math.inf
