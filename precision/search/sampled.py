"""Searches that assume nothing of how damages add: TPE and NSGA-II, by Optuna, begun at the exact solutions."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from precision.search.amount import RESOLUTION
from precision.search.outcome import Evaluation, Goal, Ledger, Outcome, OutOfEvaluations, Progress, Trial
from precision.search.problem import Choice, Problem

Method = Literal["tpe", "nsga2"]
METHODS: tuple[Method, ...] = ("tpe", "nsga2")
BROKEN = 1e9
"""Stands for a value that is not a number, or was not asked for: samplers take finite ones alone."""
_REPEATS = 100
"""Draws in a row that bring nothing new, after which a sampler is stopped."""


def sampled(
    problem: Problem,
    evaluate: Callable[[Choice], Evaluation],
    *,
    method: Method,
    evaluations: int,
    seed: int,
    goal: Goal = "cheapest",
    limits: Mapping[str, float] | None = None,
    warm: Sequence[Choice] = (),
    on_progress: Callable[[Progress], None] | None = None,
    known: Mapping[Choice, Evaluation] | None = None,
) -> Outcome:
    """Draw choices by TPE (Bergstra et al. 2011) or NSGA-II (Deb et al. 2002) and evaluate each once.

    A unit is a categorical parameter. Gates and limits are constraints; for "cheapest" TPE minimizes the cost and
    NSGA-II cost and `Evaluation.worst` at once, for "best_audio" both look for the least `worst`, NSGA-II beside the
    cost. What is drawn again is answered from before and costs no evaluation; what is beyond the limits is not heard.
    The same arguments give the same outcome.

    Args:
        problem: units, costs, usages and boundaries; its damages are not looked at.
        evaluate: runs a choice through the gates; what it raises ends the search.
        method: the sampler.
        evaluations: the most choices to evaluate, >= 1, the warm ones among them.
        seed: of the sampler, >= 0.
        goal: what is sought.
        limits: the most that may be used, by name of usage or "cost".
        warm: choices that are evaluated first and from which the sampler learns, the exact solutions for instance.
        on_progress: told after every evaluation.
        known: evaluations of an earlier run, used in place of `evaluate`.

    Returns:
        The outcome: "evaluations", also where the sampler only repeated itself; "unreachable" never, since not all was
        heard. Its `tried` has every point of which a front can be made.

    Raises:
        ModuleNotFoundError: Optuna is not installed; the message names the extra.
    """
    optuna = require_optuna()
    ledger = Ledger(problem, evaluate, evaluations, on_progress, known, goal)
    sampler: Any
    if method == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(1, min(10, evaluations // 4)))
    else:
        sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, min(50, evaluations // 4)))
    values = 1 if method == "tpe" else 2
    study = optuna.create_study(directions=["minimize"] * values, sampler=sampler)
    names = [problem.sites[unit.sites[0]] for unit in problem.units]
    for choice in warm:
        study.enqueue_trial(dict(zip(names, problem.selection(choice), strict=True)))
    try:
        fresh = 0
        for count in itertools.count():
            if count - fresh > _REPEATS + len(warm):
                break
            asked = study.ask()
            selection = [
                asked.suggest_categorical(name, list(range(len(unit.picks))))
                for name, unit in zip(names, problem.units, strict=True)
            ]
            choice = problem.choice(selection)
            beyond, heard = _beyond(problem, limits or {}, choice), len(ledger.tried)
            trial = None if beyond > 0.0 else ledger.ask(choice, "warm" if count < len(warm) else "sampled")
            fresh = count if len(ledger.tried) > heard else fresh
            asked.set_constraint("limits", beyond)
            if goal == "cheapest":
                asked.set_constraint("gates", BROKEN if trial is None else _violation(trial.evaluation))
            study.tell(asked, _objectives(problem, choice, trial, goal)[:values])
    except OutOfEvaluations:
        pass
    return ledger.outcome("evaluations")


def _objectives(problem: Problem, choice: Choice, trial: Trial | None, goal: Goal) -> list[float]:
    worst = BROKEN if trial is None else trial.evaluation.worst
    worst = BROKEN if math.isnan(worst) else min(worst, BROKEN)
    cost = problem.total_cost(choice)
    return [cost, worst] if goal == "cheapest" else [worst, cost]


def _violation(evaluation: Evaluation) -> float:
    """Above 0 where a gate is broken: by how much."""
    if evaluation.kept:
        return 0.0
    return BROKEN if math.isnan(evaluation.worst) else max(evaluation.worst, 1e-12)


def _beyond(problem: Problem, limits: Mapping[str, float], choice: Choice) -> float:
    """By how much of it a choice is beyond the limit it exceeds most; 0 within all."""
    shares = [problem.total(name, choice) / top - 1.0 for name, top in limits.items() if top > 0.0]
    return max([0.0, *(share for share in shares if share > RESOLUTION)])


def require_optuna() -> Any:
    """Import Optuna, quiet; ModuleNotFoundError naming the extra where it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "search.method tpe and nsga2 need Optuna: pip install 'precision-search[optuna]'", name="optuna"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
