"""Proving that no single site of a choice can be made cheaper: each is tried."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from precision.search.budget import fits
from precision.search.exchange import Move, lowerings
from precision.search.outcome import Evaluation, Progress, Trial
from precision.search.problem import Choice, Problem


@dataclass(frozen=True)
class Proof:
    """One-optimality of a choice, with its evidence."""

    choice: Choice
    """The choice that keeps every gate, none of whose units can be changed to make it cheaper."""
    trial: Trial
    """Its evaluation."""
    refuted: Mapping[tuple[int, int], Evaluation]
    """(index of a unit of the problem, index of its option) -> how the choice did with that change alone: every change
    that makes the choice cheaper and leaves it within the limits is here, and none was kept. The mildest come first."""
    moved: tuple[Trial, ...]
    """The cheaper choices that were found kept on the way, in order; the last is `trial`. Empty where the choice that
    was given is proved."""
    evaluations: int
    """How many choices were evaluated."""


def prove(
    problem: Problem,
    choice: Choice,
    evaluate: Callable[[Choice], Evaluation],
    *,
    limits: Mapping[str, float] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Proof:
    """Evaluate every cheaper change of one unit, moving down where one is kept, until none is.

    Cheaper is what costs less in total, boundaries with neighbours included; options are tried whatever they are
    foretold to damage, the mildest first, so that what is kept is met early. Each move makes the choice cheaper, so it
    ends. Nothing is asked twice; where `evaluate` answers from a cache, a proof that was cut off costs nothing anew.

    Args:
        problem: sites, options, costs; its damages only order what is tried.
        choice: what keeps every gate.
        evaluate: runs a choice through the gates; what it raises ends the proof.
        limits: the most that a choice may take of a usage, or of "cost": changes beyond are no part of the proof.
        on_progress: told after every evaluation; its `evaluations` are those of this round at most.

    Returns:
        The proof, of the choice given or of a cheaper one.

    Raises:
        ValueError: the choice is not of the problem, or breaks a gate.
    """
    # weighed as shares of what each metric can reach: there is no budget here, and any order is as good a proof
    weight = np.array(
        [1.0 / (sum(unit.power[row].max() for unit in problem.units) or 1.0) for row in range(len(problem.metrics))]
    )
    answers: dict[Choice, Trial] = {}
    most = 1

    def ask(asked: Choice, best: Trial | None) -> Trial:
        if asked not in answers:
            cost, predicted = problem.total_cost(asked), problem.predicted(asked)
            trial = answers[asked] = Trial("prove", asked, cost, predicted, evaluate(asked))
            if on_progress is not None:
                better = trial if trial.evaluation.kept else best
                on_progress(Progress(trial, len(answers), max(most, len(answers)), better))
        return answers[asked]

    problem.selection(choice)
    best = ask(choice, None)
    if not best.evaluation.kept:
        raise ValueError(
            f"only a choice that keeps every gate can be proved cheapest, but {choice} is "
            f"{100.0 * best.evaluation.worst:.4g} % beyond its worst threshold; repair it first"
        )
    moved: list[Trial] = []
    together = 1
    while True:
        refuted: dict[tuple[int, int], Evaluation] = {}
        lower = lowerings(problem, best.choice, weight, limits or {})
        most = len(answers) + len(lower)
        # Where single changes hold one after the other, several are made at once: twice as many as held the last time.
        joint = _joint(problem, best.choice, lower, together, limits or {})
        if joint is not None:
            trial = ask(joint, best)
            if trial.evaluation.kept:
                best, together = trial, 2 * together
                moved.append(trial)
                continue
        together = 1
        for move in lower:
            trial = ask(move.choice, best)
            if trial.evaluation.kept:
                best, together = trial, 2 if move is lower[0] and joint is None else 1
                moved.append(trial)
                break
            refuted[move.unit, move.option] = trial.evaluation
        else:
            return Proof(best.choice, best, refuted, tuple(moved), len(answers))


def _joint(
    problem: Problem, choice: Choice, lower: Sequence[Move], count: int, limits: Mapping[str, float]
) -> Choice | None:
    """Change so many units at once, each by its mildest lowering; None where that is one, or nothing is saved."""
    mildest: dict[int, int] = {}
    for move in lower:
        mildest.setdefault(move.unit, move.option)
    units = list(mildest)[:count]
    selection = problem.selection(choice)
    after = problem.choice([mildest[unit] if unit in units else option for unit, option in enumerate(selection)])
    cheaper = problem.total_cost(after) < problem.total_cost(choice)
    return after if len(units) > 1 and cheaper and fits(problem, {}, limits, after) else None
