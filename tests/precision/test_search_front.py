"""The whole front and the best audio, against enumeration and against formulations of their own."""

import math
from itertools import islice, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from precision.search.best_audio import best_audio, best_audios
from precision.search.boundary import Boundary
from precision.search.budget import BudgetError
from precision.search.pareto import Front, pareto_front
from precision.search.problem import Choice, Problem
from precision.search.solve import front, solve
from precision.search.sweep import TangledError
from tests.precision.enumeration import SETTINGS, anchored, every_choice, power, problems, taken, within

UNLIKE = np.array([0, 0, 1, 1, 2])[:, None] != np.array([0, 0, 1, 1, 2])[None, :]
"""Of five options, which pairs are stored unlike."""


def network(seed: int, sites: int, *, metrics: int = 1) -> Problem:
    """Costs and damages as layers have them; every sixth site reads what the sixth before it wrote, others the last."""
    generator = np.random.default_rng(seed)
    speed, error = np.array([1.0, 0.55, 0.5, 0.3, 0.25]), np.array([0.003, 0.02, 0.12, 0.3, 1.0])
    cost = generator.lognormal(0, 0.8, (sites, 1)) * speed * generator.lognormal(0, 0.05, (sites, 5))
    damage = generator.lognormal(0, 1, (metrics, sites, 1)) * error * generator.lognormal(0, 0.2, (metrics, sites, 5))
    boundaries = [
        Boundary(site - 1 if site % 6 else max(site - 6, 0), site, UNLIKE * generator.lognormal(-2.5, 0.5))
        for site in range(1, sites)
    ]
    return Problem(
        sites=tuple(f"s{i}" for i in range(sites)),
        options=(tuple("abcde"),) * sites,
        cost=cost,
        metrics=tuple(f"m{i}" for i in range(metrics)),
        damage=damage,
        boundaries=tuple(boundaries),
    )


def merged(points: list[tuple[float, float]], width: float, height: float) -> list[tuple[float, float]]:
    """Points that no other beats, cheapest first; of those within a width and a height of each other one."""
    found: list[tuple[float, float]] = []
    for cost, harm in sorted(points):
        if found and harm >= found[-1][1] - height:
            continue
        if found and cost <= found[-1][0] + width:
            found[-1] = (found[-1][0], harm)
        else:
            found.append((cost, harm))
    return found


@SETTINGS
@given(problems(metrics=2))
def test_the_front_is_that_of_enumeration(problem):
    points = [(taken(problem, "cost", choice), power(problem, "m1", choice)) for choice in every_choice(problem)]
    expected = merged(points, 1e-7, 1e-7)
    whole = pareto_front(problem, "m1")
    assert whole.error == 0.0
    assert [one.cost for one in whole] == pytest.approx([cost for cost, _ in expected], abs=1e-6)
    assert [one.damage["m1"] ** 2 for one in whole] == pytest.approx([harm for _, harm in expected], abs=1e-6)
    for index, one in enumerate(whole):
        assert one.cost == pytest.approx(taken(problem, "cost", one.choice)) == pytest.approx(whole.cost[index])
        assert one.damage["m1"] == pytest.approx(whole.damage[index], abs=1e-9)
        assert problem.choice(problem.selection(one.choice)) == one.choice
        assert one.slack == (index == 0)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_point_of_a_large_front_is_the_cheapest_of_its_damage(seed):
    problem = network(seed, 40)
    whole = pareto_front(problem, "m0")
    assert whole.error == 0.0
    assert len(whole) > 500
    for index in np.linspace(0, len(whole) - 1, 7).astype(int):
        (found,) = solve(problem, {"m0": float(whole.damage[index])})
        assert found.choice == whole[int(index)].choice
    between = math.sqrt((whole.damage[100] ** 2 + whole.damage[101] ** 2) / 2)
    assert solve(problem, {"m0": between})[0].choice == whole[101].choice


def test_a_front_that_is_cut_short_says_by_how_much():
    problem = network(2, 30)
    exact, short = pareto_front(problem, "m0"), pareto_front(problem, "m0", points=60)
    assert 0.0 == exact.error < short.error < 0.5 * (exact.cost[-1] - exact.cost[0])
    assert len(short) <= 60 < len(exact)
    for cost, damage in zip(exact.cost, exact.damage, strict=True):
        covers = short.cost[short.damage <= damage * (1 + 1e-9)].min()
        assert covers <= cost + short.error + 1e-9


def test_a_front_is_a_sequence_and_can_be_thinned():
    whole = pareto_front(network(3, 12), "m0")
    assert isinstance(whole, Front)
    assert whole[-1] == whole[len(whole) - 1] == list(whole)[-1]
    assert whole[1:3] == [whole[1], whole[2]]
    thinned = whole.thinned(5)
    assert [thinned[0], thinned[-1], len(thinned)] == [whole[0], whole[-1], 5]
    assert whole.thinned(10**6) == list(whole)


def test_the_front_of_several_metrics_lies_on_the_whole_front_where_it_has_one():
    problem = network(6, 20)
    whole = {one.choice for one in pareto_front(problem, "m0")}
    few = front(problem, ["m0"], 6)
    assert len(few) == 6
    assert all(one.choice in whole for one in few)


def test_a_front_of_what_does_no_damage_is_one_point():
    problem = Problem(("a",), (("x", "y"),), np.array([[2.0, 1.0]]), ("m0",), np.zeros((1, 1, 2)))
    assert [one.choice for one in pareto_front(problem, "m0")] == [(1,)]


def test_a_front_refuses_what_it_cannot_make():
    with pytest.raises(ValueError, match="did you mean 'm0'"):
        pareto_front(network(0, 2), "m")
    with pytest.raises(ValueError, match="at least 2 points, got 1"):
        pareto_front(network(0, 2), "m0", points=1)
    sites, generator = 60, np.random.default_rng(0)
    groups = tuple((site, site + 20, site + 40) for site in range(20))  # three random reads of each unit
    tangled = Problem(
        sites=tuple(f"s{i}" for i in range(sites)),
        options=(tuple("abcde"),) * sites,
        cost=np.ones((sites, 5)),
        metrics=("m0",),
        damage=generator.random((1, sites, 5)),
        groups=groups,
        boundaries=tuple(
            Boundary(int(generator.integers(site)), site, generator.random((5, 5))) for site in range(1, sites)
        ),
    )
    with pytest.raises(TangledError, match="combinations of options"):
        pareto_front(tangled, "m0")


@SETTINGS
@given(st.data())
def test_the_best_audio_is_that_of_enumeration(data):
    problem = data.draw(problems(metrics=3))
    _, limits = anchored(data.draw, problem, ("joules", "cost"))
    budgets = {"m0": data.draw(st.sampled_from([0.5, 1.0])), "m1": 2.0, "m2": math.inf}
    fitting = [choice for choice in every_choice(problem) if within(problem, {}, limits, choice)]

    def share(choice: Choice) -> float:
        return max(power(problem, name, choice) / top**2 for name, top in budgets.items())

    least = min(share(choice) for choice in fitting)
    equal = [taken(problem, "cost", choice) for choice in fitting if share(choice) <= least * (1 + 1e-9)]
    found = best_audio(problem, budgets, limits)
    assert found.choice in fitting
    assert share(found.choice) == pytest.approx(least, rel=1e-6)
    assert found.cost == pytest.approx(min(equal), abs=1e-6)
    assert found.slack == (least <= min(share(choice) for choice in every_choice(problem)) * (1 + 1e-8))


@settings(SETTINGS, max_examples=8)
@given(problems(sites=4), st.integers(1, 2))
def test_the_best_audios_come_in_order_and_skip_none(problem, apart):
    budgets = {"m0": 1.0, "m1": 0.5}

    def share(choice: Choice) -> float:
        return max(power(problem, name, choice) / top**2 for name, top in budgets.items())

    found = list(islice(best_audios(problem, budgets, {}, apart=apart), 4))
    left = [problem.choice(one) for one in product(*(np.flatnonzero(unit.efficient) for unit in problem.units))]
    for one in found:
        assert share(one.choice) == pytest.approx(min(map(share, left)), rel=1e-6, abs=1e-12)
        selection = problem.selection(one.choice)
        left = [c for c in left if sum(a != b for a, b in zip(problem.selection(c), selection, strict=True)) >= apart]
    assert not left or len(found) == 4
    again = islice(best_audios(problem, budgets, {}, exclude=[found[0].choice], apart=apart), 3)
    assert [one.choice for one in again] == [one.choice for one in found[1:]]


@pytest.mark.parametrize("share", [0.35, 0.6])
def test_a_large_best_audio_is_that_of_another_formulation(share):
    problem = network(4, 40, metrics=2)
    limit = share * problem.total_cost((0,) * 40)
    ceiling = problem.predicted((4,) * 40)
    found = best_audio(problem, ceiling, {"cost": limit})
    worst = max(found.damage[name] ** 2 / ceiling[name] ** 2 for name in ceiling)
    assert worst == pytest.approx(one_variable_a_pair(problem, ceiling, limit), rel=1e-5)
    assert found.cost <= limit * (1 + 1e-9)


def one_variable_a_pair(problem: Problem, ceiling, limit: float) -> float:
    """The same by the plain product form: a pair of options costs where both are chosen, x_a + x_b - 1 <= z_ab."""
    count = problem.cost.size
    pairs = [
        (5 * one.first + a, 5 * one.second + b, one.cost[a, b])
        for one in problem.boundaries
        for a in range(5)
        for b in range(5)
        if one.cost[a, b] > 0.0
    ]
    width = count + len(pairs) + 1
    rows, lower, upper = [], [], []

    def add(entries: dict[int, float], low: float, high: float) -> None:
        row = np.zeros(width)
        row[list(entries)] = list(entries.values())
        rows.append(row)
        lower.append(low)
        upper.append(high)

    for site in range(len(problem.sites)):
        add({5 * site + option: 1.0 for option in range(5)}, 1.0, 1.0)
    for index, (a, b, _) in enumerate(pairs):
        add({a: 1.0, b: 1.0, count + index: -1.0}, -np.inf, 1.0)
    costs = dict(enumerate(problem.cost.ravel().tolist()))
    add(costs | {count + index: cost for index, (_, _, cost) in enumerate(pairs)}, -np.inf, limit)
    for row, name in enumerate(problem.metrics):
        shares = 1e6 * (problem.damage[row].ravel() / ceiling[name]) ** 2
        add(dict(enumerate(shares.tolist())) | {width - 1: -1.0}, -np.inf, 0.0)
    whole = np.arange(width) < count
    result = milp(
        (np.arange(width) == width - 1).astype(float),
        integrality=whole.astype(int),
        bounds=Bounds(0.0, np.where(np.arange(width) == width - 1, np.inf, 1.0)),
        constraints=LinearConstraint(np.array(rows), lower, upper),
        options={"mip_rel_gap": 1e-7},
    )
    return float(result.fun) / 1e6


def test_the_best_audio_needs_budgets_and_limits_that_can_be_met():
    problem = network(5, 2)
    with pytest.raises(ValueError, match="finite budget above 0"):
        best_audio(problem, {"m0": math.inf}, {})
    with pytest.raises(BudgetError, match=r"limit of cost is 0\.1, but no choice takes less than") as caught:
        best_audio(problem, {"m0": 1.0}, {"cost": 0.1})
    assert caught.value.reachable == pytest.approx(min(taken(problem, "cost", one) for one in every_choice(problem)))
    with pytest.raises(ValueError, match="no choice is left"):
        best_audio(problem, {"m0": 1.0}, {}, exclude=every_choice(problem))


def test_limits_that_can_only_be_met_apart_are_told_from_those_that_cannot_be_met():
    problem = Problem(
        sites=("a",),
        options=(("x", "y"),),
        cost=np.ones((1, 2)),
        metrics=("m0",),
        damage=np.zeros((1, 1, 2)),
        usage={"seconds": np.array([[1.0, 4.0]]), "joules": np.array([[6.0, 2.0]])},
    )
    with pytest.raises(BudgetError, match=r"together, though each can be met alone.*seconds 1, joules 2") as caught:
        best_audio(problem, {"m0": 1.0}, {"seconds": 2.0, "joules": 3.0})
    assert (caught.value.metric, caught.value.reachable, caught.value.least) == (
        None,
        2.0,
        {"seconds": 1.0, "joules": 2.0},
    )
    with pytest.raises(
        BudgetError, match=r"no choice takes less than 1\.0; .*no choice takes less than 2\.0"
    ) as caught:
        best_audio(problem, {"m0": 1.0}, {"seconds": 0.5, "joules": 1.0})
    assert (caught.value.metric, caught.value.budget, caught.value.reachable) == ("seconds", 0.5, 1.0)
