"""Measuring damages anew around a choice, where what single sites foretold and what was measured part."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from precision.search.budget import weights
from precision.search.outcome import Trial
from precision.search.problem import Choice, Problem

Remeasure = Callable[[Choice, Sequence[tuple[int, int]]], list[Mapping[str, float]]]
"""(choice, [(site, option), ...]) -> of each change of one site of the choice, the damage amplitude of the whole
changed choice in every metric of the problem that adds."""

TRIALS = 6
"""Fewest trials on which it is said that prediction and measurement part."""
DISPERSION = 0.25
"""Deviation of measured by believed amplitude, as a share, beyond which they do."""
RANK = 0.7
"""Rank correlation below which they do."""
_RANGE = math.log(1.5)
"""Trials that were measured within a factor of 1.5 of each other are told apart by noise: their ranks say nothing."""
CHANGES = 48
"""Most changes that are measured anew at a time."""
_MATTERS = 1e-3
"""Share of a budget's power under which a change is not worth a measurement."""
_RUIN = 1e3
"""Budgets that a change counts as if what came out is no number: an option must stay in the table."""


@dataclass(frozen=True)
class Surprise:
    """What was believed of a choice just before it was evaluated, and what was measured: logarithms of power."""

    metric: str
    believed: float
    measured: float


def parted(surprises: Sequence[Surprise]) -> str | None:
    """Say why prediction and measurement part, with the numbers; None where they do not.

    Of each metric the last trials count, at least six: the deviation of measured by believed amplitude, and the rank
    correlation (Spearman's, ties shared) where the trials differ enough to be ranked.
    """
    for metric in dict.fromkeys(surprise.metric for surprise in surprises):
        of = [surprise for surprise in surprises if surprise.metric == metric][-2 * TRIALS :]
        if len(of) < TRIALS:
            continue
        believed = np.array([surprise.believed for surprise in of]) / 2.0
        measured = np.array([surprise.measured for surprise in of]) / 2.0
        dispersion = math.expm1(float(np.sqrt(np.mean((measured - believed) ** 2))))
        if dispersion > DISPERSION:
            return f"{metric}: measured and predicted differ by {100.0 * dispersion:.3g} % over {len(of)} trials"
        if np.ptp(measured) > _RANGE and np.ptp(believed) > 0.0:
            rank = float(np.corrcoef(rankdata(believed), rankdata(measured))[0, 1])
            if rank < RANK:
                return f"{metric}: rank correlation of measured and predicted is {rank:.2f} over {len(of)} trials"
    return None


def worthwhile(problem: Problem, budgets: Mapping[str, float], choice: Choice) -> list[tuple[int, int]]:
    """Give the changes (site, option) whose damage could matter at a choice, in order; at most `CHANGES`.

    Those whose power differs from the chosen option's by a thousandth of a budget's or more; of too many those near a
    whole budget, which decide, before those far above or below it.
    """
    weight = weights(problem, budgets)
    found = []
    for unit, current in zip(problem.units, problem.selection(choice), strict=True):
        for option in range(len(unit.picks)):
            load = abs(float(weight @ (unit.power[:, option] - unit.power[:, current])))
            if option != current and load >= _MATTERS:
                far = abs(math.log(load))
                found += [(far, site, pick) for site, pick in zip(unit.sites, unit.picks[option], strict=True)]
    return sorted((site, option) for _, site, option in sorted(found)[:CHANGES])


def retabled(
    problem: Problem,
    budgets: Mapping[str, float],
    at: Trial,
    changes: Sequence[tuple[int, int]],
    found: Sequence[Mapping[str, float]],
) -> Problem:
    """Make the table around a choice: its own powers scaled to what it measured, each change by what it added.

    damage'^2 = own^2 + (whole changed)^2 - (whole)^2, not below 0, where own^2 is the old table's at the choice times
    (whole)^2 by the sum of them; options that were not measured are scaled alike. The choice, and its single changes,
    are then foretold as they were measured.

    Args:
        problem: the table so far.
        budgets: thresholds by which the trial's ratios are amplitudes.
        at: the choice, as it was evaluated.
        changes: (site, option) that were measured.
        found: of each, the amplitude of the whole changed choice; NaN and inf count as a thousand budgets.

    Returns:
        The problem with the new damages; a metric that the trial has no value of stays as it was.
    """
    damage = np.array(problem.damage)
    for row, name in enumerate(problem.metrics):
        whole = (at.evaluation.ratio.get(name, math.nan) * budgets.get(name, math.nan)) ** 2
        before = sum(float(problem.damage[row, site, option]) ** 2 for site, option in enumerate(at.choice))
        if not (math.isfinite(whole) and whole > 0.0 and before > 0.0):
            continue
        scale = whole / before
        damage[row] *= math.sqrt(scale)
        for (site, option), amplitudes in zip(changes, found, strict=True):
            amplitude = amplitudes.get(name, math.nan)
            power = amplitude**2 if math.isfinite(amplitude) else (_RUIN * budgets[name]) ** 2
            own = float(problem.damage[row, site, at.choice[site]]) ** 2 * scale
            damage[row, site, option] = math.sqrt(max(own + power - whole, 0.0))
    return replace(problem, damage=damage)
