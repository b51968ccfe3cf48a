"""The choices of least predicted damage that are within limits of time, bytes, energy or money, exactly."""

import math
from collections.abc import Collection, Iterator, Mapping

from precision.search.amount import RESOLUTION, power, taken, weighed
from precision.search.budget import caps, check_budgets, check_meaning, weights
from precision.search.conflict import conflict
from precision.search.minimax import tightest
from precision.search.problem import COST, Choice, Problem
from precision.search.program import Program
from precision.search.solve import Solution, cuts_of


def best_audio(
    problem: Problem, budgets: Mapping[str, float], limits: Mapping[str, float], exclude: Collection[Choice] = ()
) -> Solution:
    """Give the choice whose largest predicted damage over its budget is least, of those within the limits.

    The largest power over squared budget is minimised as a continuous variable of the 0-1 program, to one part in 1e9
    of itself (see `tightest`); of choices that share it the cheapest is given, then as in `solve`. That the damage is
    within the budgets is not said: they only weigh the metrics against each other.

    Args:
        problem: sites, options, costs, damages, usages and boundaries.
        budgets: amplitude that each metric is measured by, in its unit; at least one that is finite and above 0. A
            metric left out does not count, nor does one of inf; one of 0 may not be damaged at all.
        limits: the most that the choice may take of a usage, or of "cost", boundaries included, in its unit, >= 0.
        exclude: choices that are not to be given.

    Returns:
        The solution; its `slack` says that the limits bind nothing, so that no choice at all is foretold to be better.

    Raises:
        ValueError: no finite budget above 0, or a name that the problem has not; or nothing is left beside `exclude`.
        BudgetError: a budget or limit is NaN or negative, or no choice is within the limits; with the least reachable.
    """
    found = next(best_audios(problem, budgets, limits, exclude), None)
    if found is None:
        raise ValueError(f"no choice is left within the limits beside the {len(exclude)} that are excluded")
    return found


def best_audios(
    problem: Problem,
    budgets: Mapping[str, float],
    limits: Mapping[str, float],
    exclude: Collection[Choice] = (),
    *,
    apart: int = 1,
) -> Iterator[Solution]:
    """Give the choices within the limits one by one, the least damaging first, each when it is asked for.

    Arguments and errors are those of `best_audio`; `apart` as in `solve`.
    """
    check_meaning(problem, budgets)
    parts = [(power(problem, name), budget**2) for name, budget in budgets.items() if 0.0 < budget < math.inf]
    if not parts:
        raise ValueError(f"the best audio needs a finite budget above 0 to measure by, got {dict(budgets)}")
    cuts = cuts_of(problem, exclude, apart)
    intact = {name: 0.0 for name, budget in budgets.items() if budget == 0.0}
    check_budgets(problem, intact, limits)
    held = caps(problem, intact, limits)
    first = tightest(problem, parts, held)
    if first is None:
        raise conflict(problem, intact, limits)
    free = tightest(problem, parts, caps(problem, intact, {}))
    slack = free is None or first[0] <= free[0] * (1.0 + 2.0 * RESOLUTION)
    cost, load = taken(problem, COST), weighed(problem, weights(problem, budgets))
    found = tightest(problem, parts, held, cuts) if cuts else first
    while found is not None:
        share, selection = found
        within = [(amount, share * top * (1.0 + RESOLUTION)) for amount, top in parts]
        # the selection itself stays where HiGHS, at the edge of a row, says that nothing fits
        selection = Program(problem, [*held, *within], cost, load).best(cuts) or selection
        choice = problem.choice(selection)
        yield Solution(choice, problem.total_cost(choice), problem.predicted(choice), slack)
        cuts.append((selection, apart))
        found = tightest(problem, parts, held, cuts)
