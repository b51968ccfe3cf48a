"""Budgets: the damage allowed in each metric, and what can be reached."""

import difflib
import math
from collections.abc import Mapping

import numpy as np

from precision.search.problem import Problem
from precision.search.unit import Array, Unit

RESOLUTION = 1e-9
"""Powers, costs and loads closer than this share of their range are taken as equal."""


class BudgetError(ValueError):
    """A budget that means nothing, or that no choice meets."""

    def __init__(self, message: str, metric: str | None, budget: float, reachable: float) -> None:
        """Keep the numbers beside the message.

        Args:
            message: what held, what was got, what to do.
            metric: the metric, or None where the budgets cannot be met together.
            budget: what was asked, in the metric's unit (1.0, the common scale, where metric is None).
            reachable: the least that any choice reaches, in the same unit.
        """
        super().__init__(message)
        self.metric = metric
        self.budget = budget
        self.reachable = reachable


def check_budgets(problem: Problem, budgets: Mapping[str, float]) -> None:
    """Refuse budgets that name no metric, mean nothing or lie below what any choice reaches on its own.

    Raises:
        ValueError: a name that is no metric of the problem.
        BudgetError: NaN or negative, or below the floor.
    """
    check_meaning(problem, budgets)
    for name, budget in budgets.items():
        low, high = reach(problem, name)
        if limit(budget) < low**2 * (1.0 - RESOLUTION):
            raise BudgetError(
                f"the budget of {name} is {budget}, but no choice is predicted below {low} (and none above {high}); "
                "raise the budget or allow options of higher precision",
                name,
                budget,
                low,
            )


def check_meaning(problem: Problem, budgets: Mapping[str, float]) -> None:
    """Refuse budgets that name no metric (ValueError), or are NaN or negative (BudgetError)."""
    for name, budget in budgets.items():
        if name not in problem.metrics:
            near = difflib.get_close_matches(name, problem.metrics, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"a budget names {name!r}, but the metrics are {list(problem.metrics)}{hint}")
        if math.isnan(budget) or budget < 0.0:
            low, high = reach(problem, name)
            message = f"the budget of {name} must be >= 0, got {budget}; choices reach from {low} to {high}"
            raise BudgetError(message, name, budget, low)


def limit(budget: float) -> float:
    """Give the most power that a budget allows: its square, and the resolution on top."""
    return budget**2 * (1.0 + RESOLUTION)


def reach(problem: Problem, metric: str) -> tuple[float, float]:
    """Give the least and the most damage of one metric over all choices of efficient options."""
    row = problem.metrics.index(metric)
    powers = [unit.power[row, unit.efficient] for unit in problem.units]
    low, high = math.fsum(p.min() for p in powers), math.fsum(p.max() for p in powers)
    return math.sqrt(low), math.sqrt(high)


def weights(problem: Problem, budgets: Mapping[str, float]) -> Array:
    """Give the weight [metric] that turns power into load: 1 where a metric uses up its budget.

    Metrics with no budget, or an infinite one, weigh as their share of their own highest reach does, a million times
    less: they only part what is equal otherwise. A budget of 0 weighs as 1e-6 of that reach.
    """
    found = np.zeros(len(problem.metrics))
    for row, name in enumerate(problem.metrics):
        ceiling = reach(problem, name)[1] ** 2
        budget = budgets.get(name, math.inf)
        if ceiling > 0.0:
            power = max(budget**2, ceiling * 1e-12)
            found[row] = 1e-6 / ceiling if math.isinf(power) else 1.0 / power
    return found


def load(unit: Unit, weight: Array) -> Array:
    """Weigh the power of a unit's options into one number each [option]."""
    return np.asarray(weight @ unit.power, dtype=np.float64)


def safest(problem: Problem, weight: Array) -> tuple[int, ...]:
    """Select the option of least load in every unit; the cheaper, then the earlier of equal ones."""
    return tuple(_least(unit, load(unit, weight), unit.cost) for unit in problem.units)


def cheapest(problem: Problem, weight: Array) -> tuple[int, ...]:
    """Select the option of least cost in every unit; the one of less load, then the earlier of equal ones."""
    return tuple(_least(unit, unit.cost, load(unit, weight)) for unit in problem.units)


def _least(unit: Unit, first: Array, second: Array) -> int:
    return min((float(first[i]), float(second[i]), i) for i in range(len(unit.picks)) if unit.efficient[i])[2]
