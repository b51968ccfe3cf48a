"""Searching with real evaluations: budgets from the gates, corrected by what is measured."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from precision.search.budget import BudgetError, check_meaning, safest, weights
from precision.search.exchange import burden, improve, moved, raisings
from precision.search.outcome import Evaluation, Ledger, Outcome, OutOfEvaluations, Progress, Trial
from precision.search.problem import Choice, Problem
from precision.search.solve import Solution, solutions, solve

_FIRST_STEP = 1.25
_STEPS = 8
"""How often the scale is raised or lowered, by a factor that squares up to 4 each time: 1 to about 10^4."""
_WIDTH = 1.01
_CORRECTION = 8.0
"""The most by which a measurement corrects the prediction of a metric, either way."""


@dataclass
class _Bracket:
    """The largest scale of the budgets known to be kept, the smallest known to break."""

    kept: tuple[float, Trial] | None = None
    broken: tuple[float, Trial] | None = None

    def note(self, scale: float, trial: Trial) -> None:
        if trial.evaluation.kept:
            self.kept = (scale, trial)
        else:
            self.broken = (scale, trial)


def search(
    problem: Problem,
    budgets: Mapping[str, float],
    evaluate: Callable[[Choice], Evaluation],
    *,
    candidates: int = 20,
    evaluations: int = 120,
    on_progress: Callable[[Progress], None] | None = None,
    known: Mapping[Choice, Evaluation] | None = None,
) -> Outcome:
    """Find the cheapest choice that keeps every gate.

    Budgets of predicted damage stand in for the gates. Their common scale is bisected until the best solutions just
    inside and just outside are known; the next cheapest outside are verified; single sites and pairs of sites are then
    changed until nothing cheaper is one change away. Gates whose metrics do not add act through `evaluate` alone.
    The same arguments give the same outcome.

    Args:
        problem: sites, options, costs and damages of single sites.
        budgets: thresholds of the gates whose metrics add in power, in their units; at least one that is finite and
            above 0, or the scale would mean nothing.
        evaluate: runs a choice through the gates; asked once for each choice. What it raises ends the search.
        candidates: how many solutions beside the best are verified once the scale is known, >= 0.
        evaluations: the most choices to evaluate, >= 1.
        on_progress: told after every evaluation.
        known: evaluations of an earlier run; used in place of `evaluate`, and counted like it, so that a search that
            was cut off goes the same way again.

    Returns:
        The outcome; its `best` is None where nothing was kept, even the choice of least predicted damage (`reason` is
        "unreachable"), or the evaluations were used up before.

    Raises:
        ValueError: no finite positive budget, an unknown metric, counts out of range.
        BudgetError: a budget is NaN or negative. One below the predicted floor raises nothing: the choice of least
            damage is measured.
    """
    if candidates < 0:
        raise ValueError(f"candidates must be >= 0, got {candidates}")
    check_meaning(problem, budgets)
    if not any(0.0 < budget < math.inf for budget in budgets.values()):
        raise ValueError(f"a search needs at least one finite budget above 0, got {dict(budgets)}")
    ledger = Ledger(problem, evaluate, evaluations, on_progress, known)
    try:
        shape, bracket, slack = _bracket(problem, budgets, ledger)
        if ledger.best is None:
            return ledger.outcome("unreachable")
        if slack:
            return ledger.outcome("cheapest", one_optimal=True)
        bracket = _bisect(problem, shape, ledger, bracket)
        if bracket.broken is not None:
            _neighbours(problem, _times(shape, bracket.broken[0]), ledger, candidates)
        improve(problem, budgets, ledger, ledger.best)
    except OutOfEvaluations:
        return ledger.outcome("evaluations")
    return ledger.outcome("one_optimal", one_optimal=True)


def repair(
    problem: Problem,
    budgets: Mapping[str, float],
    choice: Choice,
    evaluate: Callable[[Choice], Evaluation],
    *,
    evaluations: int = 40,
    on_progress: Callable[[Progress], None] | None = None,
    known: Mapping[Choice, Evaluation] | None = None,
) -> Outcome:
    """Raise sites of a choice one at a time, most relief per cost first, until the gates are kept.

    Relief is weighed by how far each metric is beyond its threshold. The last evaluation is of the choice of least
    predicted damage, if none before was kept, so that the outcome says whether the gates can be kept at all.

    Args:
        problem: sites, options, costs and damages of single sites.
        budgets: thresholds as for `search`; they only weigh the metrics against each other.
        choice: where to start; evaluated first.
        evaluate: runs a choice through the gates, on held-back clips for instance.
        evaluations: the most choices to evaluate, >= 1.
        on_progress: told after every evaluation.
        known: as for `search`.

    Returns:
        The outcome: "repaired" with the first choice that was kept, "evaluations" where they ran out, or "unreachable".

    Raises:
        ValueError: the choice is not of the problem, or counts are out of range.
        BudgetError: a budget is NaN or negative.
    """
    check_meaning(problem, budgets)
    ledger = Ledger(problem, evaluate, evaluations, on_progress, known)
    selection = problem.selection(choice)
    last = problem.choice(safest(problem, weights(problem, budgets)))
    seen = {selection}
    trial = ledger.ask(choice, "repair")
    while not trial.evaluation.kept:
        raised = [
            after
            for after in (
                moved(selection, move) for move in raisings(problem, selection, burden(problem, budgets, trial))
            )
            if after not in seen
        ]
        ended = any(tried.choice == last for tried in ledger.tried)
        if ledger.left == 0 or (ended and not raised):
            return ledger.outcome("unreachable" if ended else "evaluations")
        raise_one = raised and (ledger.left > 1 or ended)
        selection = raised[0] if raise_one else problem.selection(last)
        seen.add(selection)
        trial = ledger.ask(problem.choice(selection), "repair" if raise_one else "safest")
    return ledger.outcome("repaired")


def _bracket(
    problem: Problem, budgets: Mapping[str, float], ledger: Ledger
) -> tuple[Mapping[str, float], _Bracket, bool]:
    """Find a scale that is kept and one that breaks; the flag says that the cheapest choice of all is kept."""
    shape = budgets
    first = _at(problem, shape, 1.0)
    if first is not None:
        trial = ledger.ask(first.choice, "bracket")
        if trial.evaluation.kept and first.slack:
            return shape, _Bracket(), True
        shape = _corrected(budgets, trial)
    bracket = _Bracket()
    scale, step = 1.0, _FIRST_STEP
    for _ in range(_STEPS):
        found = _at(problem, shape, scale)
        last_chance = ledger.best is None and ledger.left <= 1 and ledger.tried
        if found is None or last_chance:
            break
        trial = ledger.ask(found.choice, "bracket")
        bracket.note(scale, trial)
        if trial.evaluation.kept and found.slack:
            return shape, bracket, True
        if bracket.kept is not None and bracket.broken is not None:
            return shape, bracket, False
        scale = scale * step if bracket.kept is not None else scale / step
        step = min(step * step, 4.0)
    if bracket.kept is None:
        last = problem.choice(safest(problem, weights(problem, budgets)))
        trial = ledger.ask(last, "safest")
        if trial.evaluation.kept:
            bracket.kept = (scale, trial)
            if bracket.broken is None:
                _climb(problem, shape, ledger, bracket)
    return shape, bracket, False


def _climb(problem: Problem, shape: Mapping[str, float], ledger: Ledger, bracket: _Bracket) -> None:
    """Raise the scale from one that no choice was foretold to meet, until a choice breaks."""
    scale, step = 1.0, _FIRST_STEP
    for _ in range(_STEPS):
        scale, step = scale * step, min(step * step, 4.0)
        found = _at(problem, shape, scale)
        if found is None:
            continue
        trial = ledger.ask(found.choice, "bracket")
        bracket.note(scale, trial)
        if not trial.evaluation.kept or found.slack:
            return


def _bisect(problem: Problem, shape: Mapping[str, float], ledger: Ledger, bracket: _Bracket) -> _Bracket:
    """Narrow a bracket geometrically, to 1 %."""
    while bracket.kept is not None and bracket.broken is not None and bracket.broken[0] > bracket.kept[0] * _WIDTH:
        scale = math.sqrt(bracket.kept[0] * bracket.broken[0])
        found = _at(problem, shape, scale)
        trial = bracket.kept[1] if found is None else ledger.ask(found.choice, "bracket")
        if found is None:
            bracket.kept = (scale, trial)
        else:
            bracket.note(scale, trial)
    return bracket


def _neighbours(problem: Problem, budgets: Mapping[str, float], ledger: Ledger, candidates: int) -> None:
    """Verify the cheapest solutions that were not tried, until one is kept: all others would be dearer."""
    tried = [trial.choice for trial in ledger.tried]
    for count, found in enumerate(solutions(problem, budgets, tried)):
        if count >= candidates or (ledger.best is not None and found.cost >= ledger.best.cost):
            return
        if ledger.ask(found.choice, "neighbours").evaluation.kept:
            return


def _at(problem: Problem, shape: Mapping[str, float], scale: float) -> Solution | None:
    """Give the cheapest choice under scaled budgets; None where none is foretold to meet them."""
    try:
        return solve(problem, _times(shape, scale))[0]
    except BudgetError:
        return None


def _times(shape: Mapping[str, float], scale: float) -> dict[str, float]:
    return {name: budget * scale for name, budget in shape.items()}


def _corrected(budgets: Mapping[str, float], trial: Trial) -> dict[str, float]:
    """Scale each budget by predicted over measured damage, so that scale 1 is where the threshold should be met."""
    corrected = {}
    for name, budget in budgets.items():
        measured = trial.evaluation.ratio.get(name, math.nan) * budget
        predicted = trial.predicted[name]
        factor = predicted / measured if measured > 0.0 and predicted > 0.0 and math.isfinite(measured) else 1.0
        corrected[name] = budget * min(max(factor, 1.0 / _CORRECTION), _CORRECTION)
    return corrected
