"""Changes of one unit of a choice: what they save and what they are foretold to damage."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from precision.search.amount import RESOLUTION
from precision.search.budget import fits, weights
from precision.search.outcome import Trial
from precision.search.problem import Choice, Problem
from precision.search.unit import Array

Selection = tuple[int, ...]
_RAISED = 12
"""Raisings for each of which a lowering is sought."""


@dataclass(frozen=True)
class Move:
    """Another option for one unit."""

    unit: int
    option: int
    choice: Choice
    """What it makes."""
    saving: float
    """Cost that it saves in total, boundaries included; negative where it costs."""
    load: float
    """The power added, weighed over metrics; negative where it relieves."""


def moves(problem: Problem, selection: Selection, weight: Array) -> Iterator[Move]:
    """Give every change of one unit to another option, unit by unit."""
    before = problem.total_cost(problem.choice(selection))
    for index, (unit, current) in enumerate(zip(problem.units, selection, strict=True)):
        for option in range(len(unit.picks)):
            if option != current:
                after = problem.choice((*selection[:index], option, *selection[index + 1 :]))
                load = float(weight @ (unit.power[:, option] - unit.power[:, current]))
                yield Move(index, option, after, before - problem.total_cost(after), load)


def lowerings(problem: Problem, choice: Choice, weight: Array, limits: Mapping[str, float]) -> list[Move]:
    """Give every change of one unit that makes a choice cheaper and leaves it within the limits, the mildest first."""
    least = RESOLUTION * problem.total_cost(choice)
    found = [
        move
        for move in moves(problem, problem.selection(choice), weight)
        if move.saving > least and fits(problem, {}, limits, move.choice)
    ]
    return sorted(found, key=lambda move: (move.load, move.unit, move.option))


def raisings(problem: Problem, selection: Selection, weight: Array) -> list[Move]:
    """Give the moves to efficient options that relieve the load, the most relief per cost first."""
    relief = [
        move
        for move in moves(problem, selection, weight)
        if move.load < 0.0 and problem.units[move.unit].efficient[move.option]
    ]
    return sorted(relief, key=lambda move: (-_rate(-move.load, -move.saving), move.load, move.unit, move.option))


def swaps(problem: Problem, selection: Selection, weight: Array, limits: Mapping[str, float]) -> list[Choice]:
    """Give choices within the limits that raise one unit and lower another for it, the most relief first.

    For where limits leave no room to raise a unit alone; of the raisings the best few are tried.
    """
    found: dict[Choice, float] = {}
    for raised in raisings(problem, selection, weight)[:_RAISED]:
        after = problem.selection(raised.choice)
        for move in moves(problem, after, weight):
            load = raised.load + move.load
            if move.unit != raised.unit and load < 0.0 and fits(problem, {}, limits, move.choice):
                found[move.choice] = min(load, found.get(move.choice, math.inf))
    return sorted(found, key=lambda choice: (found[choice], choice))


def burden(problem: Problem, budgets: Mapping[str, float], trial: Trial) -> Array:
    """Weigh the metrics by what a trial found: squared budget, and the square of how much of it was used."""
    found = weights(problem, budgets)
    for row, name in enumerate(problem.metrics):
        used = trial.evaluation.ratio.get(name, 1.0)
        if name in budgets and math.isfinite(used):
            found[row] *= max(used, 0.1) ** 2
    return found


def _rate(gain: float, price: float) -> float:
    """Gain per price; infinite, whatever the gain, where there is nothing to pay."""
    return gain / price if price > 0.0 else math.inf
