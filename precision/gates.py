"""Gate and Verdict: a promise about a metric, and whether it was kept."""

from dataclasses import dataclass
from typing import Literal

Over = Literal["mean", "worst", "tail", "lower_bound", "upper_bound"]
"""How one number is made of the scores of several clips. The bad side is the low one where the gate sets a minimum and
the high one where it sets a maximum. `worst` is the last score on it, `tail` the 5 % quantile from it: between the
worst and the second worst of up to 21 clips. The bounds are one-sided 95 % confidence bounds of the mean."""
BOUNDS: tuple[Over, ...] = ("lower_bound", "upper_bound")
"""Those that need two clips: one says nothing of how clips scatter."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A promise: `metric`, aggregated over clips as `over` says, is at least `min` or at most `max`."""

    metric: str
    over: Over = "mean"
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        """Refuse a gate with no threshold or two."""
        if (self.min is None) == (self.max is None):
            raise ValueError(f"a gate sets either min or max, got min={self.min} max={self.max} for {self.metric!r}")

    @property
    def threshold(self) -> float:
        """The limit, in the metric's unit."""
        threshold = self.min if self.min is not None else self.max
        assert threshold is not None
        return threshold


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate found. `margin` is positive where the gate is kept: the distance to the threshold in its unit."""

    gate: Gate
    value: float

    @property
    def margin(self) -> float:
        """Distance to the threshold, in the metric's unit; negative where the gate is broken; NaN stays NaN."""
        distance = self.value - self.gate.threshold
        return distance if self.gate.min is not None else -distance

    @property
    def kept(self) -> bool:
        """Whether the promise held; a NaN never keeps a gate."""
        return self.margin >= 0.0
