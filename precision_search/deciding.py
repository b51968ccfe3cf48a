"""Deciding: what the search found, held against the clips held back to the bit, and lowered as far as it holds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from precision.search.driver import repair
from precision.search.outcome import Evaluation, Outcome
from precision.search.outcome import Progress as SearchProgress
from precision.search.problem import Choice
from precision.search.prove import Proof, prove
from precision_search.adaptation import SLACKS, Trained, target_of
from precision_search.jury import Jury
from precision_search.problem import Posed
from precision_search.progress import Progress

REPAIRS = 24
"""Most policies tried in each arithmetic where the best of the search breaks on the clips held back."""
TRAINED_REPAIRS = 4
"""The same of a policy that weights were trained for: each site that is raised loses its training."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A choice that was held against the clips held back."""

    choice: Choice
    kept: bool
    """Whether every gate was kept there, in the exact arithmetic where the target has one."""
    fast_repairs: int
    exact_repairs: int
    trained: Trained | None = None
    """The weights it was heard with; None: the model's own."""


def decide(posed: Posed, jury: Jury, outcome: Outcome, progress: Progress) -> Decided:
    """The choice that is reported of a search: its best, repaired on the clips held back, or what came nearest.

    What did not hold on the search's own clips is heard exactly too, and not repaired.
    """
    start = outcome.best or outcome.nearest
    assert start is not None
    holds = outcome.best is not None and outcome.best.evaluation.kept
    # What is cheaper than the best audio is worse.
    return _held(posed, jury, start.choice, REPAIRS if holds else 0, progress, lower=outcome.goal == "cheapest")


def one_optimal(posed: Posed, jury: Jury, decided: Decided, progress: Progress) -> tuple[Decided, Proof | None]:
    """Lower single sites of what was decided until each that could be lower breaks a gate; the proof of it.

    No proof of a choice that does not hold.
    """
    if not decided.kept:
        return decided, None
    proof = _proof(posed, jury, decided.choice, progress, exactly=jury.exact is not None)
    return replace(decided, choice=proof.choice), proof


def _proof(posed: Posed, jury: Jury, choice: Choice, progress: Progress, *, exactly: bool) -> Proof:
    """Lower single sites of a choice that holds, as far as it holds."""
    ways = jury.trials_of(choice, problem=posed.whole, exactly=exactly)

    def evaluate(choice: Choice) -> Evaluation:
        """What is found where it first breaks."""
        found = ways[0](choice)
        for way in ways[1:]:
            if not found.kept:
                break
            found = way(choice)
        return found

    def tell(state: SearchProgress) -> None:
        progress.step(f"{state.spent} of {state.evaluations} at most")
        if state.best is state.trial:
            jury.near = jury.policy_of(posed.whole, state.trial.choice)

    with progress.aside("proving that no site can be lowered"):
        proof = prove(posed.whole, choice, evaluate, limits=posed.limits, on_progress=tell)
    jury.near = None
    return proof


def cheaper_by_training(
    posed: Posed, jury: Jury, untrained: Decided, train: Callable[..., Trained], progress: Progress
) -> Decided:
    """Train weights for choices a little beyond one that holds, until a cheaper one holds; the untrained if none does.

    Each training begins where the one before ended.
    """
    if not untrained.kept:
        progress.say("weights are not adapted: there is no policy that holds, from which to go on")
        return untrained
    problem = posed.problem
    held_cost, predicted = problem.total_cost(untrained.choice), problem.predicted(untrained.choice)
    damage = {metric: value for metric, value in predicted.items() if metric in jury.searching.budgets}
    trained: Trained | None = None
    last = untrained.choice
    for slack in SLACKS:
        target = target_of(problem, damage, slack, posed.limits)
        if target is None or target == last or problem.total_cost(target) >= held_cost:
            continue
        last, jury.trained = target, None
        trained = jury.trained = train(jury.policy_of(problem, target), start=trained)
        progress.begin("hearing what was trained")
        if not jury.evaluate(target, problem=problem, split="search", whole=True).kept:
            continue
        found = _held(posed, jury, target, TRAINED_REPAIRS, progress)
        if found.kept and problem.total_cost(found.choice) < held_cost:
            return found
    return untrained


def _held(posed: Posed, jury: Jury, choice: Choice, repairs: int, progress: Progress, *, lower: bool = True) -> Decided:
    """Repair a choice on the clips held back, first fast and then to the bit; 0 repairs: only hear it."""
    fast_repairs, kept = 0, repairs > 0
    if repairs:
        progress.begin("holding the best against the clips held back", repairs)
        choice, fast_repairs, kept = _repaired(posed, jury, choice, repairs, on_trial=lambda _: progress.step())
    if jury.exact is None:
        return Decided(choice, kept, fast_repairs, 0, jury.trained)
    before = choice
    if kept and lower:
        # Fast renders say first how low it can be: an exact one takes as long as twenty of them.
        choice = _proof(posed, jury, choice, progress, exactly=False).choice
    # Exact renders tell their progress by the clip.
    choice, exact_repairs, holds = _repaired(posed, jury, choice, repairs if kept else 1, exactly=True)
    if not holds and before != choice and lower and kept:
        # What it was lowered from costs more, and may hold to the bit.
        found, _, holds = _repaired(posed, jury, before, 1, exactly=True)
        if holds:
            choice, exact_repairs = found, exact_repairs + 1
    return Decided(choice, kept and holds, fast_repairs, exact_repairs, jury.trained)


def _repaired(
    posed: Posed,
    jury: Jury,
    choice: Choice,
    evaluations: int,
    *,
    exactly: bool = False,
    on_trial: Callable[[SearchProgress], None] | None = None,
) -> tuple[Choice, int, bool]:
    """Give the first choice that holds on the clips held back, or the nearest; the repairs it took; if it does hold."""
    repaired = repair(
        posed.problem,
        jury.held_back.budgets,
        choice,
        partial(jury.evaluate, problem=posed.problem, split="held_back", whole=True, exactly=exactly),
        limits=posed.limits,
        evaluations=evaluations,
        on_progress=on_trial,
    )
    final = repaired.best or repaired.nearest
    assert final is not None
    return final.choice, len(repaired.tried) - 1, repaired.best is not None
