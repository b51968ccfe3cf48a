"""The search with evaluations, on synthetic models whose damage only nearly adds."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest

from precision.search.budget import BudgetError
from precision.search.driver import repair, search
from precision.search.outcome import Evaluation
from precision.search.problem import Choice, Problem


@dataclass
class Model:
    """Power adds, but for noise of each choice, a hidden pair that interacts, and a gate that saturates."""

    seed: int
    sites: int
    noise: float = 0.03
    interaction: float = 0.5
    bias: float = 1.0
    saturating: bool = True
    metrics: int = 1
    strict: float = 0.3

    def __post_init__(self):
        generator = np.random.default_rng(self.seed)
        speeds, errors = np.array([1.0, 0.55, 0.3]), np.array([0.01, 0.15, 1.0])
        cost = generator.lognormal(0, 0.8, (self.sites, 1)) * speeds
        shape = (self.metrics, self.sites, 3)
        damage = generator.lognormal(0, 1, (self.metrics, self.sites, 1)) * errors * generator.lognormal(0, 0.2, shape)
        self.problem = Problem(
            sites=tuple(f"site{i}" for i in range(self.sites)),
            options=(("full", "half", "low"),) * self.sites,
            cost=cost,
            metrics=tuple(f"m{i}" for i in range(self.metrics)),
            damage=damage,
        )
        ceiling = self.problem.predicted((2,) * self.sites)
        self.budgets = {name: self.strict * value for name, value in ceiling.items()}
        self.pair = tuple(generator.choice(self.sites, 2, replace=False))
        self.asked: list[Choice] = []

    def evaluate(self, choice: Choice) -> Evaluation:
        self.asked.append(choice)
        generator = np.random.default_rng([self.seed, *choice])
        ratio = {}
        for row, (name, amplitude) in enumerate(self.problem.predicted(choice).items()):
            one, other = (self.problem.damage[row, site, choice[site]] for site in self.pair)
            power = amplitude**2 + self.interaction * one * other
            ratio[name] = math.sqrt(power) * self.bias**row * (1 + self.noise * generator.normal()) / self.budgets[name]
        worst = max(value - 1.0 for value in ratio.values())
        if self.saturating:  # a score that is flat for little damage and falls fast beyond
            score = 4.5 - 3.5 / (1.0 + math.exp(-6.0 * (max(ratio.values()) - 1.4)))
            worst = max(worst, (4.15 - score) / 4.15)
        return Evaluation(worst <= 0.0, worst, ratio)

    def optimum(self) -> float:
        every = itertools.product(range(3), repeat=self.sites)
        return min(self.problem.total_cost(choice) for choice in every if self.evaluate(choice).kept)


@pytest.mark.parametrize("seed", range(4))
def test_small_spaces_come_close_to_the_optimum_of_enumeration(seed):
    model = Model(seed, 6)
    outcome = search(model.problem, model.budgets, model.evaluate, candidates=10, evaluations=60)
    assert outcome.best is not None
    assert outcome.best.cost <= 1.03 * model.optimum()
    assert len(outcome.tried) <= 60


def test_additive_damage_reaches_the_optimum():
    model = Model(7, 6, noise=0.0, interaction=0.0, saturating=False)
    outcome = search(model.problem, model.budgets, model.evaluate, candidates=10, evaluations=60)
    assert outcome.best.cost == pytest.approx(model.optimum())


@pytest.mark.parametrize("seed", range(11, 15))
def test_one_optimal_is_said_where_every_cheaper_change_was_tried(seed):
    model = Model(seed, 5, noise=0.2)
    outcome = search(model.problem, model.budgets, model.evaluate, candidates=60, evaluations=120)
    tried = {trial.choice: trial.evaluation.kept for trial in outcome.tried}
    best = outcome.best
    lower = [
        (*best.choice[:site], other, *best.choice[site + 1 :])
        for site, option in enumerate(best.choice)
        for other in range(option + 1, 3)
    ]
    assert outcome.one_optimal == all(choice in tried for choice in lower)
    assert not any(tried.get(choice, False) for choice in lower)


@pytest.mark.parametrize("evaluations", [1, 2, 7, 60])
def test_evaluations_are_bounded_and_never_repeated(evaluations):
    model = Model(2, 40, metrics=2, bias=1.5)
    seen = []
    outcome = search(
        model.problem, model.budgets, model.evaluate, candidates=5, evaluations=evaluations, on_progress=seen.append
    )
    assert len(model.asked) == len(set(model.asked)) == len(outcome.tried) <= evaluations
    assert [step.spent for step in seen] == list(range(1, len(outcome.tried) + 1))
    assert seen[-1].best == outcome.best
    if evaluations >= 7:
        assert outcome.best is not None
        assert outcome.best.evaluation.kept


def test_a_resumed_search_goes_the_same_way():
    whole = Model(5, 20)
    full = search(whole.problem, whole.budgets, whole.evaluate, evaluations=40)
    known = {trial.choice: trial.evaluation for trial in full.tried[: len(full.tried) // 2]}
    again = Model(5, 20)
    resumed = search(again.problem, again.budgets, again.evaluate, evaluations=40, known=known)
    assert resumed == full
    assert len(again.asked) == len(full.tried) - len(known) > 5


def test_metrics_that_are_foretold_wrongly_are_corrected():
    model = Model(8, 30, metrics=2, bias=2.5, noise=0.01, interaction=0.0, saturating=False)
    outcome = search(model.problem, model.budgets, model.evaluate, candidates=0, evaluations=14)
    assert outcome.best is not None
    assert max(outcome.best.evaluation.ratio.values()) > 0.93


def test_gates_that_nothing_keeps_are_said_to_be_unreachable():
    model = Model(1, 8)

    def evaluate(choice: Choice) -> Evaluation:
        return Evaluation(False, 0.25 + sum(choice) / 100)

    outcome = search(model.problem, model.budgets, evaluate, evaluations=60)
    assert (outcome.best, outcome.reason, outcome.one_optimal) == (None, "unreachable", False)
    assert outcome.nearest.choice == (0,) * 8
    assert "25 % beyond" in outcome.message
    assert len(outcome.tried) < 20


def test_a_threshold_below_the_predicted_floor_is_measured_before_it_is_believed():
    model = Model(1, 8)
    budgets = dict.fromkeys(model.budgets, 1e-06)
    outcome = search(model.problem, budgets, model.evaluate, evaluations=60)
    assert outcome.best is not None
    assert outcome.best.cost < model.problem.total_cost((0,) * 8)


def test_gates_that_bind_nothing_give_the_cheapest_at_once():
    model = Model(1, 8)
    budgets = dict.fromkeys(model.budgets, 100.0)
    outcome = search(model.problem, budgets, lambda _: Evaluation(True, -0.5))
    assert (outcome.best.choice, outcome.reason, outcome.one_optimal) == ((2,) * 8, "cheapest", True)
    assert len(outcome.tried) == 1


def test_a_gate_without_a_value_is_broken_and_the_search_goes_on():
    model = Model(1, 6)

    def evaluate(choice: Choice) -> Evaluation:
        return Evaluation(False, math.nan) if sum(choice) > 4 else Evaluation(True, -0.1)

    outcome = search(model.problem, model.budgets, evaluate, evaluations=60)
    assert outcome.best is not None
    assert sum(outcome.best.choice) <= 4


@pytest.mark.parametrize("budgets", [{}, {"m0": 0.0}, {"m0": math.inf}])
def test_a_scale_of_no_budget_raises(budgets):
    with pytest.raises(ValueError, match="at least one finite budget above 0"):
        search(Model(1, 3).problem, budgets, lambda _: Evaluation(True, 0.0))


def test_a_budget_that_is_no_number_raises():
    with pytest.raises(BudgetError, match="must be >= 0"):
        search(Model(1, 3).problem, {"m0": math.nan}, lambda _: Evaluation(True, 0.0))


def test_what_evaluate_raises_is_not_swallowed():
    def evaluate(choice: Choice) -> Evaluation:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(Model(1, 3).problem, Model(1, 3).budgets, evaluate)


def test_repair_raises_the_fewest_that_help():
    model = Model(4, 20)
    found = search(model.problem, model.budgets, model.evaluate, evaluations=60).best

    def stricter(choice: Choice) -> Evaluation:
        ratio = {name: value * 1.05 for name, value in model.evaluate(choice).ratio.items()}
        worst = max(ratio.values()) - 1.0
        return Evaluation(worst <= 0.0, worst, ratio)

    outcome = repair(model.problem, model.budgets, found.choice, stricter, evaluations=30)
    assert outcome.reason == "repaired"
    assert outcome.tried[-1] == outcome.best
    changed = sum(a != b for a, b in zip(outcome.best.choice, found.choice, strict=True))
    assert changed <= len(outcome.tried) - 1 <= 8
    assert outcome.best.cost < 1.2 * found.cost


def test_repair_exchanges_sites_where_a_limit_leaves_no_room():
    cost = np.array([[2.0, 1.0]] * 3)
    problem = Problem(("a", "b", "c"), (("high", "low"),) * 3, cost, ("m",), [[[0, 1], [0, 3], [0, 2]]])

    def evaluate(choice):
        power = problem.predicted(choice)["m"]
        return Evaluation(power <= 2.3, power / 2.3 - 1.0, {"m": power / 2.3})

    outcome = repair(problem, {"m": 2.3}, (0, 1, 1), evaluate, limits={"cost": 4.0})
    assert (outcome.reason, outcome.best.choice) == ("repaired", (1, 0, 1))
    assert all(problem.total_cost(trial.choice) <= 4.0 for trial in outcome.tried)


def test_repair_of_a_kept_choice_changes_nothing():
    model = Model(4, 5)
    outcome = repair(model.problem, model.budgets, (2,) * 5, lambda _: Evaluation(True, -0.1))
    assert (outcome.best.choice, len(outcome.tried)) == ((2,) * 5, 1)


@pytest.mark.parametrize(("evaluations", "reason"), [(1, "evaluations"), (3, "unreachable"), (200, "unreachable")])
def test_repair_ends_at_the_safest_choice(evaluations, reason):
    model = Model(4, 9, metrics=2)
    outcome = repair(
        model.problem,
        model.budgets,
        (2,) * 9,
        lambda choice: Evaluation(False, 1.0, {"m0": 1.0 + 0.1 * sum(choice), "m1": 0.5}),
        evaluations=evaluations,
    )
    assert (outcome.best, outcome.reason) == (None, reason)
    assert len(outcome.tried) <= evaluations
    if reason == "unreachable":
        assert (0,) * 9 in [trial.choice for trial in outcome.tried]


def test_a_choice_of_another_problem_is_refused():
    model = Model(4, 5)
    with pytest.raises(ValueError, match="one option for each of 5 sites, got 2"):
        repair(model.problem, model.budgets, (0, 0), model.evaluate)
