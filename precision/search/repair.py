"""Repairing a choice that breaks a gate: sites are raised until it is kept."""

from collections.abc import Callable, Mapping

from precision.search.best_audio import best_audio
from precision.search.budget import check_meaning, fits, safest, weights
from precision.search.exchange import burden, raisings, swaps
from precision.search.outcome import Evaluation, Ledger, Outcome, Progress
from precision.search.problem import Choice, Problem


def repair(
    problem: Problem,
    budgets: Mapping[str, float],
    choice: Choice,
    evaluate: Callable[[Choice], Evaluation],
    *,
    limits: Mapping[str, float] | None = None,
    evaluations: int = 40,
    on_progress: Callable[[Progress], None] | None = None,
    known: Mapping[Choice, Evaluation] | None = None,
) -> Outcome:
    """Raise sites of a choice one at a time, most relief per cost first, until the gates are kept.

    Where limits leave no room to raise one, another is lowered for it.
    Relief is weighed by how far each metric is beyond its threshold. The last evaluation is of the choice of least
    predicted damage, if none before was kept, so that the outcome says whether the gates can be kept at all.

    Args:
        problem: sites, options, costs and damages of single sites.
        budgets: thresholds as for `search`; they only weigh the metrics against each other.
        choice: where to start; evaluated first.
        evaluate: runs a choice through the gates, on held-back clips for instance.
        limits: the most that a choice may take of a usage, or of "cost": what is beyond is not tried.
        evaluations: the most choices to evaluate, >= 1.
        on_progress: told after every evaluation.
        known: as for `search`.

    Returns:
        The outcome: "repaired" with the first choice that was kept, "evaluations" where they ran out, or "unreachable".

    Raises:
        ValueError: the choice is not of the problem, or counts are out of range.
        BudgetError: a budget is NaN or negative, or nothing is within the limits.
    """
    check_meaning(problem, budgets)
    ledger = Ledger(problem, evaluate, evaluations, on_progress, known)
    selection = problem.selection(choice)
    last = problem.choice(safest(problem, weights(problem, budgets)))
    if limits:
        last = best_audio(problem, budgets, limits).choice
    seen = {selection}
    trial = ledger.ask(choice, "repair")
    while not trial.evaluation.kept:
        weight = burden(problem, budgets, trial)
        within = [m.choice for m in raisings(problem, selection, weight) if fits(problem, {}, limits or {}, m.choice)]
        raised = [after for after in map(problem.selection, within) if after not in seen]
        if limits and not raised:
            swapped = swaps(problem, selection, weight, limits)
            raised = [after for after in map(problem.selection, swapped) if after not in seen]
        ended = any(tried.choice == last for tried in ledger.tried)
        if ledger.left == 0 or (ended and not raised):
            return ledger.outcome("unreachable" if ended else "evaluations")
        raise_one = raised and (ledger.left > 1 or ended)
        selection = raised[0] if raise_one else problem.selection(last)
        seen.add(selection)
        trial = ledger.ask(problem.choice(selection), "repair" if raise_one else "safest")
    return ledger.outcome("repaired")
