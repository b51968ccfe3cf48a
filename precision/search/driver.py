"""Searching with real evaluations: what is believed of choices picks the next one, and is corrected by it."""

import math
from collections.abc import Callable, Mapping

from precision.search.best_audio import best_audio
from precision.search.budget import check_meaning, weights
from precision.search.exchange import lowerings
from precision.search.hunt import Hunt
from precision.search.outcome import Evaluation, Goal, Ledger, Outcome, OutOfEvaluations, Progress
from precision.search.problem import Choice, Problem
from precision.search.remeasure import Remeasure
from precision.search.repair import repair
from precision.search.solve import solve

__all__ = ["repair", "search"]


def search(
    problem: Problem,
    budgets: Mapping[str, float],
    evaluate: Callable[[Choice], Evaluation],
    *,
    goal: Goal = "cheapest",
    limits: Mapping[str, float] | None = None,
    candidates: int = 20,
    evaluations: int = 120,
    on_progress: Callable[[Progress], None] | None = None,
    known: Mapping[Choice, Evaluation] | None = None,
    remeasure: Remeasure | None = None,
) -> Outcome:
    """Find the cheapest choice that keeps every gate, or the choice of best audio within limits.

    The table of single sites' damages foretells a choice; evaluations correct it, site by site (see `Belief`). Each
    evaluation is of the choice with the most to gain: its saving, times the probability that it keeps the gates; for
    the best audio what is expected to be gained in `worst`. Choices come from the exact solver under the corrected
    table, and from changes of one and two units of its solutions and of the best so far. Gates whose metrics do not
    add are learned from what they said. The same arguments give the same outcome.

    Where even the choice of least predicted damage breaks, one option at every site, and solutions unlike each other,
    are tried before the gates are said to be unreachable: gates that do not add may be kept by a mixture.

    Args:
        problem: sites, options, costs, damages of single sites; boundaries and usages.
        budgets: thresholds of the gates whose metrics add in power, in their units; at least one that is finite and
            above 0, or nothing would foretell anything.
        evaluate: runs a choice through the gates; asked once for each choice. What it raises ends the search.
        goal: what is sought.
        limits: the most that a choice may take of a usage, or of "cost"; nothing beyond is evaluated.
        candidates: how many evaluations in a row may better nothing before the search ends, >= 0.
        evaluations: the most choices to evaluate, >= 1.
        on_progress: told after every evaluation.
        known: evaluations of an earlier run; used in place of `evaluate`, and counted like it, so that a search that
            was cut off goes the same way again.
        remeasure: measures changes of single sites around a choice; asked, twice at most, where prediction and
            measurement part (`precision.search.remeasure.parted`). Its answers must be the same whenever it is asked.

    Returns:
        The outcome. Its `best` is None where nothing was kept and the goal is the cheapest: `reason` is "unreachable",
        with the nearest choice in `nearest`, or the evaluations were used up before. "cheapest" says that no choice
        (within the limits) costs less, "settled" that none better is likely.

    Raises:
        ValueError: no finite positive budget, an unknown metric or usage, counts out of range.
        BudgetError: a budget is NaN or negative, or no choice is within the limits. A budget below the predicted floor
            raises nothing: the choice of least damage is measured.
    """
    if candidates < 0:
        raise ValueError(f"candidates must be >= 0, got {candidates}")
    check_meaning(problem, budgets)
    if not any(0.0 < budget < math.inf for budget in budgets.values()):
        raise ValueError(f"a search needs at least one finite budget above 0, got {dict(budgets)}")
    limits = limits or {}
    ledger = Ledger(problem, evaluate, evaluations, on_progress, known, goal)
    floor = solve(problem, {}, limits=limits)[0].cost
    safe = best_audio(problem, budgets, limits).choice
    hunt = Hunt(problem, budgets, limits, ledger, goal, safe, remeasure)
    try:
        reason = hunt.run(candidates, floor)
    except OutOfEvaluations:
        reason = "evaluations"
    best = ledger.best
    proved = (
        goal == "cheapest"
        and best is not None
        and {trial.choice for trial in ledger.tried}.issuperset(_lower(problem, budgets, best.choice, limits))
    )
    return ledger.outcome(reason, proved, hunt.remeasured)


def _lower(problem: Problem, budgets: Mapping[str, float], choice: Choice, limits: Mapping[str, float]) -> list[Choice]:
    """The cheaper changes of one unit of a choice."""
    return [move.choice for move in lowerings(problem, choice, weights(problem, budgets), limits)]
