"""The cheapest choices under budgets of damage and limits of resources, exactly."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from precision.search.amount import taken, weighed
from precision.search.budget import caps, cheapest, check_budgets, fits, reach, safest, weights
from precision.search.conflict import conflict
from precision.search.formulation import Cut
from precision.search.problem import COST, Choice, Problem
from precision.search.program import Program, least


@dataclass(frozen=True)
class Solution:
    """A choice that meets the budgets, as far as the damages of single sites foretell."""

    choice: Choice
    cost: float
    damage: Mapping[str, float]
    """Predicted amplitude in every metric of the problem."""
    slack: bool
    """Whether budgets and limits bind nothing: nothing costs less than the cheapest choice that meets them. Of the best
    audio, whether the limits bind nothing."""


def solve(
    problem: Problem,
    budgets: Mapping[str, float],
    exclude: Collection[Choice] = (),
    k: int = 1,
    *,
    limits: Mapping[str, float] | None = None,
    apart: int = 1,
) -> list[Solution]:
    """Give the `k` cheapest choices within every limit whose predicted damage is within every budget.

    Exact over the choices of efficient options (see `Unit.efficient`), to one part in 1e9 of the range of costs, of
    powers and of what is limited. Of equal costs the lower predicted damage (the sum over metrics of power by squared
    budget) comes first, then the lexicographically first choice (where few options are in question: see
    `Program.best`). The same arguments give the same answer.

    Args:
        problem: sites, options, costs, damages, usages and boundaries.
        budgets: amplitude allowed in each metric, in its unit, >= 0; a metric left out is not limited, nor is one of
            inf.
        exclude: choices that are not to be given.
        k: how many choices.
        limits: the most that a choice may take of a usage, or of "cost", boundaries included, in its unit, >= 0.
        apart: in how many units at least (sites, or groups) solutions differ from each other and from `exclude`; each
            is the cheapest that is left. >= 1.

    Returns:
        At most `k` solutions, cheapest first; fewer, or none, where no more are left.

    Raises:
        ValueError: a budget for a metric, or a limit of a usage, that the problem has not; apart < 1.
        BudgetError: a budget or limit is NaN or negative, or no choice meets them.
    """
    return list(islice(solutions(problem, budgets, exclude, limits=limits, apart=apart), k))


def solutions(
    problem: Problem,
    budgets: Mapping[str, float],
    exclude: Collection[Choice] = (),
    *,
    limits: Mapping[str, float] | None = None,
    apart: int = 1,
) -> Iterator[Solution]:
    """Give the choices within budgets and limits one by one, cheapest first, each when it is asked for; see `solve`."""
    limits = limits or {}
    cuts = cuts_of(problem, exclude, apart)
    check_budgets(problem, budgets, limits)
    weight, cost = weights(problem, budgets), taken(problem, COST)
    program = Program(problem, caps(problem, budgets, limits), cost, weighed(problem, weight))
    free = None if cost.links else cheapest(problem, weight)
    if free is not None and not fits(problem, budgets, limits, problem.choice(free)):
        free = None
    found = free if free is not None and not cuts else program.best(cuts)
    first = program.best(()) if cuts and free is None else free or found
    if first is None:
        raise conflict(problem, budgets, limits)
    slack = cost.total(first) - least(problem, cost)[0] <= cost.resolution
    while found is not None:
        choice = problem.choice(found)
        yield Solution(choice, problem.total_cost(choice), problem.predicted(choice), slack)
        cuts.append((found, apart))
        found = program.best(cuts)


def cuts_of(problem: Problem, exclude: Collection[Choice], apart: int) -> list[Cut]:
    """Give the selections that a solution must differ from, and in how many units.

    Raises:
        ValueError: apart < 1, or a choice is not of the problem.
    """
    if apart < 1:
        raise ValueError(f"solutions differ in at least 1 unit, got apart = {apart}")
    return [(problem.selection(choice), apart) for choice in dict.fromkeys(exclude)]


def front(problem: Problem, metrics: Sequence[str], points: int = 16) -> list[Solution]:
    """Give the predicted Pareto front: from the safest choice to the cheapest, no point worse than another.

    Args:
        problem: sites, options, costs and damages.
        metrics: the metrics whose budgets grow together; one is a front in the plane.
        points: how many budgets are tried, from what the safest choice needs to what the cheapest does, evenly in the
            logarithm of power; >= 2.

    Returns:
        At most `points` solutions, cheapest first.
    """
    if points < 2 or not metrics:
        raise ValueError(f"a front needs a metric and at least 2 points, got {list(metrics)} and {points}")
    check_budgets(problem, dict.fromkeys(metrics, math.inf))
    plain = weights(problem, {name: reach(problem, name)[1] for name in metrics})
    low = problem.predicted(problem.choice(safest(problem, plain)))
    high = problem.predicted(problem.choice(cheapest(problem, plain)))
    found: dict[Choice, Solution] = {}
    for point in range(points):
        share = 10.0 ** (-4.0 * (1.0 - point / (points - 1))) if point else 0.0
        budgets = {
            name: math.sqrt(low[name] ** 2 + share * max(high[name] ** 2 - low[name] ** 2, 0.0)) for name in metrics
        }
        solution = solve(problem, budgets)[0]
        found.setdefault(solution.choice, solution)
    kept = [one for one in found.values() if not any(_beats(other, one, metrics) for other in found.values())]
    return sorted(kept, key=lambda one: (one.cost, one.choice))


def _beats(one: Solution, other: Solution, metrics: Sequence[str]) -> bool:
    pairs = [(one.cost, other.cost)] + [(one.damage[name], other.damage[name]) for name in metrics]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
