"""Exact solutions for a sampler to begin at: under one scale of the budgets after another, apart from each other."""

from collections.abc import Mapping, Sequence

from precision.search.best_audio import best_audio
from precision.search.budget import BudgetError
from precision.search.outcome import Goal
from precision.search.problem import Choice, Problem
from precision.search.solve import solve

SCALES = (1.0, 0.7, 1.4, 0.5, 2.0, 0.35)
"""Of the budgets, as predictions are seldom exact; the likeliest first."""
_APART = 2


def warm_starts(
    problem: Problem,
    budgets: Mapping[str, float],
    limits: Mapping[str, float],
    count: int,
    goal: Goal = "cheapest",
) -> Sequence[Choice]:
    """Give up to `count` choices within the limits that the predictions speak for, each once, the likeliest first.

    Args:
        problem: costs and predicted damages.
        budgets: damage that the gates allow, by metric.
        limits: the most that may be used.
        count: of choices, >= 1.
        goal: what is sought; of the best audio its own solution is the likeliest.
    """
    best = best_audio(problem, budgets, limits).choice
    found: dict[Choice, None] = {best: None} if goal == "best_audio" else {}
    each = -(-count // len(SCALES))
    for scale in SCALES:
        scaled = {metric: budget * scale for metric, budget in budgets.items()}
        try:
            solutions = solve(problem, scaled, k=each, limits=limits, apart=_APART)
        except BudgetError:  # nothing is foretold to damage so little
            continue
        found.update(dict.fromkeys(solution.choice for solution in solutions))
    found.setdefault(best)
    return tuple(found)[:count]
