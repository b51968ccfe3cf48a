"""Settling: what an option damages, told from a gradient's forecast where that leaves no doubt; the rest is measured.

Over the options of a model, the logarithm of measured damage is a line of the logarithm of what was foretold, with a
spread. A part of the options is measured first, spread over what is foretold; the line through them, several spreads
wide, bounds the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import theilslopes

FEWEST = 60
"""Options; with fewer the first part is most of them."""
FIRST_SHARE = 0.15
FIRST_OF_SCHEME = 4
FEWEST_POINTS = 12
SLOPES = (0.6, 1.5)
"""Of the line; outside, what was foretold is of something else."""
SPREADS = 4.0
BEYOND_WORST = 1.25
"""At least as many spreads as the worst of the measured ones lies off, and a quarter."""
HARMLESS = 0.01
"""Share of each budget's power that all harmless options together may have, were one taken at every site."""
HOPELESS = 1.25
"""Of a budget: what is at least so large alone is in no policy that keeps it."""

Array = npt.NDArray[np.float64]
Key = tuple[str, str]
"""Site and scheme, by name."""


@dataclass(frozen=True, slots=True)
class Settled:
    """An option that needs no rendering."""

    why: str
    """`harmless` or `hopeless`."""
    damage: Mapping[str, float]
    """Metric -> amplitude: the upper bound of a harmless one, the middle of the line for a hopeless one."""


@dataclass(frozen=True, slots=True)
class _Line:
    view: int
    intercept: float
    slope: float
    width: float

    def at(self, foretold: Array) -> float:
        return float(np.exp(self.intercept + self.slope * np.log(foretold[self.view])))


def first_part(foretold: Mapping[Key, Sequence[float]]) -> list[Key]:
    """Options to be measured first: of every scheme some, from the least to the most foretold; in the given order."""
    chosen: set[Key] = set()
    for scheme in dict.fromkeys(scheme for _, scheme in foretold):
        keys = [key for key in foretold if key[1] == scheme and foretold[key][0] > 0]
        keys.sort(key=lambda key: foretold[key][0])  # stable
        count = min(len(keys), max(FIRST_OF_SCHEME, round(FIRST_SHARE * len(keys))))
        chosen.update(keys[place] for place in np.linspace(0, len(keys) - 1, count).round().astype(int))
    return [key for key in foretold if key in chosen]


def settle(
    foretold: Mapping[Key, Sequence[float]],
    measured: Mapping[Key, Mapping[str, float]],
    budgets: Mapping[str, float],
    sites: int,
) -> dict[Key, Settled]:
    """The options beyond doubt, of those that were not measured.

    Args:
        foretold: (site, scheme) -> what the gradient probe found, of every option.
        measured: of the first part, metric -> amplitude.
        budgets: metric -> amplitude that a policy may have.
        sites: how many the model has.

    Returns:
        Harmless options: whose upper bound in every metric is so small that a policy of nothing else takes no more than
        HARMLESS of any budget's power. Hopeless ones: whose lower bound alone is HOPELESS times some budget, where the
        site has another option that keeps every budget. Empty where the measured ones make no line in some metric.
    """
    lines = {metric: _line(foretold, measured, metric) for metric in budgets}
    if not budgets or any(line is None for line in lines.values()):
        return {}
    values = {key: np.asarray(found, dtype=np.float64) for key, found in foretold.items()}
    sure = {key: found for key, found in values.items() if np.isfinite(found).all() and (found > 0).any()}
    bounds: dict[Key, dict[str, tuple[float, float, float]]] = {}
    for key, found in sure.items():
        if key in measured or any(line is None or found[line.view] <= 0 for line in lines.values()):
            continue
        bounds[key] = {
            metric: (line.at(found) / np.exp(line.width), line.at(found), line.at(found) * float(np.exp(line.width)))
            for metric, line in lines.items()
            if line is not None
        }
    share = float(np.sqrt(HARMLESS / sites))
    settled: dict[Key, Settled] = {}
    for key, bound in bounds.items():
        if all(bound[metric][2] <= share * budget for metric, budget in budgets.items()):
            settled[key] = Settled("harmless", {metric: bound[metric][2] for metric in budgets})
        elif any(bound[metric][0] > HOPELESS * budget for metric, budget in budgets.items()) and any(
            _keeps(other, measured, bounds, budgets) for other in foretold if other[0] == key[0] and other != key
        ):
            settled[key] = Settled("hopeless", {metric: bound[metric][1] for metric in budgets})
    return settled


def _keeps(
    key: Key,
    measured: Mapping[Key, Mapping[str, float]],
    bounds: Mapping[Key, Mapping[str, tuple[float, float, float]]],
    budgets: Mapping[str, float],
) -> bool:
    """Whether an option is sure to keep every budget alone."""
    if key in measured:
        return all(measured[key][metric] <= budget for metric, budget in budgets.items())
    return key in bounds and all(bounds[key][metric][2] <= budget for metric, budget in budgets.items())


def _line(
    foretold: Mapping[Key, Sequence[float]], measured: Mapping[Key, Mapping[str, float]], metric: str
) -> _Line | None:
    """The line of the view that foretells a metric best; None where none does."""
    views = np.array([foretold[key] for key in measured], dtype=np.float64)
    found = np.array([measured[key][metric] for key in measured], dtype=np.float64)
    best: _Line | None = None
    for view in range(views.shape[1] if len(measured) else 0):
        usable = (views[:, view] > 0) & (found > 0) & np.isfinite(views[:, view]) & np.isfinite(found)
        if usable.sum() < FEWEST_POINTS or usable.sum() < 0.5 * len(found):
            continue
        x, y = np.log(views[usable, view]), np.log(found[usable])
        if np.ptp(x) == 0:
            continue
        slope = float(theilslopes(y, x).slope)
        rest = y - slope * x
        intercept = float(np.median(rest))
        off = np.abs(rest - intercept)
        width = max(SPREADS * float(np.sqrt(np.mean(off**2))), BEYOND_WORST * float(off.max()))
        if SLOPES[0] <= slope <= SLOPES[1] and (best is None or width < best.width):
            best = _Line(view, intercept, slope, width)
    return best
