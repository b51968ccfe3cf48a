"""Proofs that no single site can be made cheaper: against every change, on models whose damage only nearly adds."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precision.search.outcome import Evaluation
from precision.search.problem import Boundary, Choice, Problem
from precision.search.prove import prove


def random_problem(seed: int, *, boundaries: bool = False, groups: bool = False) -> Problem:
    generator = np.random.default_rng(seed)
    sites = 5
    cost = generator.uniform(0.1, 1.0, (sites, 3))
    usage = {"bytes": generator.uniform(0.1, 1.0, (sites, 3))}
    return Problem(
        sites=tuple("abcde"),
        options=(("full", "half", "low"),) * sites,
        cost=cost,
        metrics=("m",),
        damage=generator.uniform(0.0, 1.0, (1, sites, 3)),
        groups=((1, 3),) if groups else (),
        usage=usage,
        boundaries=tuple(
            Boundary(site, site + 1, generator.uniform(0.0, 1.0, (3, 3)) * (1 - np.eye(3)))
            for site in (range(sites - 1) if boundaries else ())
        ),
    )


def judged(problem: Problem, seed: int, threshold: float):
    """Gates that follow the damages only loosely, and let some dear choices break and cheap ones pass."""

    def evaluate(choice: Choice) -> Evaluation:
        noise = np.random.default_rng([seed, *choice]).normal()
        worst = problem.predicted(choice)["m"] * math.exp(0.3 * noise) / threshold - 1.0
        return Evaluation(worst <= 0.0, worst)

    return evaluate


def neighbours(problem: Problem, choice: Choice):
    """Every choice that differs in one unit, by brute force."""
    for other in itertools.product(range(3), repeat=len(problem.sites)):
        try:
            selections = problem.selection(choice), problem.selection(other)
        except ValueError:
            continue
        if sum(a != b for a, b in zip(*selections, strict=True)) == 1:
            yield other


@given(
    seed=st.integers(0, 10_000),
    threshold=st.floats(0.8, 1.8),
    boundaries=st.booleans(),
    groups=st.booleans(),
    limited=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_every_cheaper_change_of_one_unit_is_refuted(seed, threshold, boundaries, groups, limited):
    problem = random_problem(seed, boundaries=boundaries, groups=groups)
    evaluate = judged(problem, seed, threshold)
    start = next(
        problem.choice(selection)
        for selection in itertools.product(range(3), repeat=len(problem.units))
        if evaluate(problem.choice(selection)).kept
    )
    limits = {"bytes": problem.total("bytes", start)} if limited else {}
    asked: list[Choice] = []

    def counted(choice: Choice) -> Evaluation:
        asked.append(choice)
        return evaluate(choice)

    proof = prove(problem, start, counted, limits=limits)
    assert len(asked) == len(set(asked)) == proof.evaluations
    assert proof.trial.evaluation.kept
    assert proof.trial.cost <= problem.total_cost(start)
    assert (proof.moved[-1].choice if proof.moved else start) == proof.choice == proof.trial.choice
    expected = {
        other: evaluate(other)
        for other in neighbours(problem, proof.choice)
        if problem.total_cost(other) < proof.trial.cost * (1 - 1e-9)
        and all(problem.total(name, other) <= most for name, most in limits.items())
    }
    assert not any(found.kept for found in expected.values())
    selection = problem.selection(proof.choice)
    shown = {
        problem.choice((*selection[:unit], option, *selection[unit + 1 :])): found
        for (unit, option), found in proof.refuted.items()
    }
    assert shown == expected


def test_the_mildest_changes_come_first():
    problem = random_problem(3)
    proof = prove(problem, (0,) * 5, lambda choice: Evaluation(choice == (0,) * 5, 0.0 if not any(choice) else 0.5))
    added = [problem.units[unit].power[0, option] - problem.units[unit].power[0, 0] for unit, option in proof.refuted]
    assert len(added) > 2
    assert added == sorted(added)


def test_boundaries_that_make_a_dear_option_cheaper_are_tried():
    problem = Problem(
        sites=("a", "b"),
        options=(("x", "y"),) * 2,
        cost=np.array([[1.0, 1.0], [1.0, 1.1]]),
        metrics=("m",),
        damage=np.zeros((1, 2, 2)),
        boundaries=(Boundary(0, 1, np.array([[0.5, 0.0], [0.5, 0.5]])),),
    )
    proof = prove(problem, (0, 0), lambda choice: Evaluation(True, -0.1))
    assert proof.choice == (0, 1)
    assert [trial.choice for trial in proof.moved] == [(0, 1)]


def test_progress_counts_every_evaluation_and_names_the_best_so_far():
    problem = random_problem(5)
    steps = []
    proof = prove(problem, (0,) * 5, judged(problem, 5, 10.0), on_progress=steps.append)
    assert [step.spent for step in steps] == list(range(1, proof.evaluations + 1))
    assert all(step.spent <= step.evaluations for step in steps)
    assert steps[-1].best is not None
    assert steps[-1].best.cost == proof.trial.cost < problem.total_cost((0,) * 5)


def test_a_proof_that_was_cut_off_asks_the_same_again():
    problem = random_problem(9)
    known: dict[Choice, Evaluation] = {}
    fresh: list[Choice] = []

    def cached(choice: Choice, stop: int) -> Evaluation:
        if choice not in known:
            if len(fresh) == stop:
                raise KeyboardInterrupt
            fresh.append(choice)
            known[choice] = judged(problem, 9, 1.2)(choice)
        return known[choice]

    start = next(c for c in itertools.product(range(3), repeat=5) if judged(problem, 9, 1.2)(c).kept)
    whole = prove(problem, start, judged(problem, 9, 1.2))
    with pytest.raises(KeyboardInterrupt):
        prove(problem, start, lambda choice: cached(choice, 4))
    assert prove(problem, start, lambda choice: cached(choice, 10_000)) == whole
    assert len(fresh) == whole.evaluations


def test_a_choice_that_breaks_is_not_proved():
    with pytest.raises(ValueError, match="25 % beyond its worst threshold; repair it first"):
        prove(random_problem(1), (0,) * 5, lambda choice: Evaluation(False, 0.25))
