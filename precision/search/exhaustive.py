"""Every choice of a small space, by the gates alone: the optimum, proved."""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from precision.search.amount import RESOLUTION
from precision.search.budget import ceiling
from precision.search.outcome import Evaluation, Goal, Ledger, Outcome, Progress
from precision.search.problem import COST, Choice, Problem
from precision.search.table import Table

LARGEST = 200_000
"""Choices that a space may have: as many as can be put in order at once, and more than can be heard in a day."""


class SpaceError(ValueError):
    """A space that cannot be gone through: it is too large, or nothing in it is within the limits."""


def exhaustive(
    problem: Problem,
    evaluate: Callable[[Choice], Evaluation],
    *,
    goal: Goal = "cheapest",
    limits: Mapping[str, float] | None = None,
    largest: int = LARGEST,
    on_progress: Callable[[Progress], None] | None = None,
    known: Mapping[Choice, Evaluation] | None = None,
) -> Outcome:
    """Evaluate choices until the optimum is proved; nothing is left out because it was foretold to damage much.

    For "cheapest" the choices are heard from the cheapest up, and the first that keeps every gate is the optimum:
    all that is cheaper has been heard and broke. For "best_audio" all that lies within the limits is heard, and the
    one of least `Evaluation.worst` is taken. Of equal costs the less damaging by prediction, then the first in order.

    Args:
        problem: costs, usages, boundaries and groups are exact; its damages only order what costs the same. Options
            of infinite damage are not chosen.
        evaluate: runs a choice through the gates; what it raises ends the search.
        goal: what is sought.
        limits: the most that may be used, by name of usage or "cost".
        largest: choices that the space may have.
        on_progress: told after every evaluation.
        known: evaluations of an earlier run, used in place of `evaluate`.

    Returns:
        The outcome, "optimal", or "unreachable" where every choice was heard and none keeps the gates.

    Raises:
        SpaceError: more than `largest` choices; the message has their number and the units that make it. Or none is
            within the limits; the message has the least that there is.
        ValueError: a limit on what is no usage.
    """
    ordered = list(in_order(problem, limits or {}, largest))
    ledger = Ledger(problem, evaluate, len(ordered), on_progress, known, goal)
    for choice in ordered:
        trial = ledger.ask(choice, "exhaustive")
        if goal == "cheapest" and trial.evaluation.kept:
            break
    return ledger.outcome("optimal" if ledger.best is not None else "unreachable")


def space_size(problem: Problem) -> int:
    """Count the choices: the product over units of their options."""
    return math.prod(len(unit.picks) for unit in problem.units)


def in_order(problem: Problem, limits: Mapping[str, float], largest: int = LARGEST) -> Iterator[Choice]:
    """Give every choice within the limits, cheapest first; errors as `exhaustive` has them."""
    size = space_size(problem)
    if size > largest:
        counts = sorted((len(unit.picks) for unit in problem.units), reverse=True)
        raise SpaceError(
            f"the space has {size} choices ({len(counts)} units of up to {counts[0]} options), and at most {largest}"
            " can be gone through; give sites fewer schemes, group sites, or search with method: exact"
        )
    unknown = sorted(set(limits) - {COST, *problem.usage})
    if unknown:
        raise ValueError(f"limits name {unknown}, but what adds up is {[COST, *problem.usage]}")
    shape = tuple(len(unit.picks) for unit in problem.units)
    selections = np.stack(np.unravel_index(np.arange(size), shape), axis=1)
    table = Table(problem)
    amounts = {name: table.total(name, selections) for name in (COST, *limits)}
    within = np.ones(size, dtype=np.bool_)
    for name, top in limits.items():
        met = amounts[name] <= ceiling(top)
        if not met.any():
            raise SpaceError(f"no choice takes as little {name} as {top:.6g}; the least is {amounts[name].min():.6g}")
        within &= met
    if not within.any():
        raise SpaceError(f"no choice meets the limits {dict(limits)} together, though each can be met by itself")
    power = np.zeros(size)
    for added in table.powers(selections).sum(axis=2):
        power += added / max(float(np.max(added)), 1e-300)
    cost = amounts[COST]
    span = max(float(cost.max() - cost.min()), 1e-300)
    steps = np.round((cost - cost.min()) / (span * RESOLUTION))
    places = np.flatnonzero(within)
    for place in places[np.lexsort((places, power[places], steps[places]))]:
        yield problem.choice(selections[place].tolist())
