"""Changes of one site, or two, of a choice: what they save and what they are foretold to damage."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from precision.search.budget import weights
from precision.search.outcome import Ledger, Stage, Trial
from precision.search.problem import Problem
from precision.search.unit import Array, Unit

_LIKELY = 1.1
"""Foretold value by threshold up to which a lowering is tried before the exchanges."""
_SWAP = 1.05
"""The same for an exchange of two sites: one that is foretold to break by more is not tried."""


@dataclass(frozen=True)
class Move:
    """Another option for one unit."""

    unit: int
    option: int
    saving: float
    """Cost that it saves; negative where it costs."""
    power: tuple[float, ...]
    """Of every metric, the power that it adds; negative where it relieves."""
    load: float
    """The power added, weighed over metrics."""


def moves(problem: Problem, selection: tuple[int, ...], weight: Array) -> Iterator[Move]:
    """Give every change of one unit to another efficient option, unit by unit."""
    for index, (unit, current) in enumerate(zip(problem.units, selection, strict=True)):
        for option in np.flatnonzero(unit.efficient):
            if option != current:
                power = unit.power[:, option] - unit.power[:, current]
                saving = float(unit.cost[current] - unit.cost[option])
                yield Move(index, int(option), saving, tuple(power.tolist()), float(weight @ power))


def moved(selection: tuple[int, ...], move: Move) -> tuple[int, ...]:
    """Apply a move."""
    return (*selection[: move.unit], move.option, *selection[move.unit + 1 :])


def lowerings(problem: Problem, selection: tuple[int, ...], weight: Array) -> list[Move]:
    """Give the moves that save, the largest saving per load first.

    Of a unit's moves those are left out that damage as much or more in every metric as another one that saves.
    """
    saving = [move for move in moves(problem, selection, weight) if move.saving > 0.0]
    least = [move for move in saving if not any(_milder(problem.units[move.unit], other, move) for other in saving)]
    return sorted(least, key=lambda move: (-_rate(move.saving, move.load), move.unit, move.option))


def raisings(problem: Problem, selection: tuple[int, ...], weight: Array) -> list[Move]:
    """Give the moves that relieve the load, the most relief per cost first."""
    relief = [move for move in moves(problem, selection, weight) if move.load < 0.0]
    return sorted(relief, key=lambda move: (-_rate(-move.load, -move.saving), move.load, move.unit, move.option))


def burden(problem: Problem, budgets: Mapping[str, float], trial: Trial) -> Array:
    """Weigh the metrics by what a trial found: squared budget, and the square of how much of it was used."""
    found = weights(problem, budgets)
    for row, name in enumerate(problem.metrics):
        used = trial.evaluation.ratio.get(name, 1.0)
        if name in budgets and math.isfinite(used):
            found[row] *= max(used, 0.1) ** 2
    return found


def improve(problem: Problem, budgets: Mapping[str, float], ledger: Ledger, best: Trial) -> None:
    """Lower single sites, and exchange two, until the best trial is one-optimal.

    Raises:
        OutOfEvaluations: before that.
    """
    while True:
        better = _round(problem, budgets, ledger, best)
        if better is None:
            return
        best = better


def _round(problem: Problem, budgets: Mapping[str, float], ledger: Ledger, best: Trial) -> Trial | None:
    """Try the changes of one choice: likely ones, exchanges, then the rest, which prove that none is left."""
    selection = problem.selection(best.choice)
    weight = weights(problem, budgets)
    broken: list[Move] = []
    singles = lowerings(problem, selection, weight)
    likely = [move for move in singles if _foretold(problem, budgets, best, move) <= _LIKELY]
    for move in likely:
        trial = _try(problem, ledger, moved(selection, move), "lower")
        if trial.evaluation.kept:
            return trial
        broken.append(move)
    for move in broken:
        lowered = moved(selection, move)
        after = _try(problem, ledger, lowered, "lower")
        back = [
            other
            for other in raisings(problem, lowered, burden(problem, budgets, after))
            if other.unit != move.unit and other.saving + move.saving > 0.0
        ]
        if back and _foretold(problem, budgets, best, move, back[0]) <= _SWAP:
            trial = _try(problem, ledger, moved(lowered, back[0]), "swap")
            if trial.evaluation.kept and trial.cost < best.cost:
                return trial
    for move in singles:
        trial = _try(problem, ledger, moved(selection, move), "prove")
        if trial.evaluation.kept:
            return trial
    return None


def _try(problem: Problem, ledger: Ledger, selection: tuple[int, ...], stage: Stage) -> Trial:
    return ledger.ask(problem.choice(selection), stage)


def _foretold(problem: Problem, budgets: Mapping[str, float], best: Trial, *changes: Move) -> float:
    """Foretell the largest value by threshold after `changes`, from what the best trial measured.

    The power added counts as much as the measured power of the trial did against its predicted one, within 4 times.
    """
    worst = 0.0
    for row, name in enumerate(problem.metrics):
        budget = budgets.get(name, math.inf)
        if not 0.0 < budget < math.inf:
            continue
        before = (best.predicted[name] / budget) ** 2
        used = best.evaluation.ratio.get(name, math.nan) ** 2
        used = used if math.isfinite(used) else before
        trust = min(max(used / before, 1.0 / 16.0), 16.0) if before > 0.0 else 1.0
        after = used + trust * math.fsum(move.power[row] for move in changes) / budget**2
        worst = max(worst, math.sqrt(max(after, 0.0)))
    return worst


def _milder(unit: Unit, other: Move, move: Move) -> bool:
    """Whether `other` is of the same unit and damages no more in any metric; of equal ones the one that saves more."""
    if other.unit != move.unit or other.option == move.option:
        return False
    mild = bool((unit.power[:, other.option] <= unit.power[:, move.option]).all())
    equal = bool((unit.power[:, other.option] == unit.power[:, move.option]).all())
    return mild and (not equal or (other.saving, -other.option) > (move.saving, -move.option))


def _rate(gain: float, price: float) -> float:
    """Gain per price; infinite, whatever the gain, where there is nothing to pay."""
    return gain / price if price > 0.0 else math.inf
