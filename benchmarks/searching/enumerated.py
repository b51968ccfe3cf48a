"""All methods on an enumerated space: every evaluation is looked up, and the gap to the optimum is exact."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from searching.contests import BUDGETS, TOGETHER, Contest, Turns, contests
from searching.enumeration import Table
from searching.modelopt_peer import auto_quantize, tensix_rounding
from searching.peers import Budgets, Peer, one_pass_greedy, played, random_draws, steepest_greedy, threshold
from searching.spaces import make_space

from precision.blocks import stored_bits
from precision.search.driver import search
from precision.search.problem import Choice, Problem
from precision.search.sampled import Method, sampled

OURS = "ours"
MODELOPT = "ModelOpt auto_quantize"
TO_ITS_END = "greedy, steepest, to its end"
CANDIDATES = 20
WIDE_BITS = 16
BITS = tuple(np.geomspace(4.5, 16.0, 40).tolist())
"""Budgets of auto_quantize, mean bits of a weight."""


@dataclass(frozen=True)
class Result:
    """What one method did in one contest, under one seed."""

    method: str
    seed: int
    metric: str
    step: int
    cost: float
    """Of the best that it found; of the mildest policy where it found none."""
    gap: float
    evaluations: int
    last_better: int
    """Evaluations used when the best was found."""
    own_seconds: float
    """CPU time beside the evaluations."""
    course: Mapping[int, float]


def compete(table: Table, evaluations: int, seeds: int, offered: Sequence[Choice]) -> list[Result]:
    """Every method in every contest, each with so many evaluations; those that draw, under each seed.

    A measurement of one unit's damage is an evaluation of those methods that ask for a table. `offered` is what
    auto_quantize found.
    """
    results = []
    measured = table.cost.size
    for contest in contests(table):
        play = partial(_play, contest, evaluations)
        results.append(play(OURS, 0, ours, measured))
        results.append(play("greedy, one pass", 0, one_pass_greedy, measured))
        results.append(play("threshold", 0, threshold, measured))
        results.append(play(MODELOPT, 0, offers(offered), 0))
        results.append(play("greedy, steepest", 0, steepest_greedy, 0))
        whole = _play(contest, 10**9, TO_ITS_END, 0, steepest_greedy, 0)
        results.append(whole)
        for seed in range(seeds):
            results.append(play("random", seed, random_draws(seed), 0))
            results.append(play("TPE, cold", seed, sampler("tpe", seed), 0))
            results.append(play("NSGA-II, cold", seed, sampler("nsga2", seed), 0))
    return results


def _play(contest: Contest, evaluations: int, method: str, seed: int, peer: Peer, measured: int) -> Result:
    turns = Turns(contest.problem, contest.evaluate, evaluations, spent=measured)
    begun = time.process_time()
    played(peer, contest.problem, contest.budgets, turns)
    spent = time.process_time() - begun
    cost = contest.problem.total_cost(contest.mildest) if turns.best is None else turns.best[0]
    return Result(
        method,
        seed,
        contest.metric,
        contest.step,
        cost,
        contest.gap(cost),
        turns.spent,
        max(turns.course, default=turns.spent),
        spent,
        dict(turns.course),
    )


def ours(problem: Problem, budgets: Budgets, turns: Turns) -> None:
    """The search of this project, as a recipe runs it."""
    search(problem, budgets, turns, candidates=CANDIDATES, evaluations=max(turns.left, 1))


def sampler(method: Method, seed: int) -> Peer:
    """A sampler of Optuna that knows nothing before."""

    def draw(problem: Problem, budgets: Budgets, turns: Turns) -> None:
        sampled(problem, turns, method=method, evaluations=turns.left, seed=seed)

    return draw


def offers(choices: Sequence[Choice]) -> Peer:
    """Evaluate what another tool found, one after another."""

    def ask(problem: Problem, budgets: Budgets, turns: Turns) -> None:
        for choice in choices:
            turns(choice)

    return ask


def modelopt_on(name: str, folder: Path) -> tuple[tuple[Choice, ...], float]:
    """What auto_quantize offers on a space, and its seconds; kept in a file of the folder, as the table is.

    Units are its groups. What it leaves as it is stays at the unit's mildest scheme; products of two activations and
    the inverse STFT, which are no layers of torch, follow their unit.
    """
    path = folder / f"modelopt_{name}.json"
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        return tuple(map(tuple, stored["choices"])), stored["seconds"]
    space = make_space(name)
    layers = {site for site, layer in space.voice.module.named_modules() if hasattr(layer, "weight")}
    solved = auto_quantize(
        space.voice,
        [space.clip],
        {unit: [site for site in sites if site in layers] for unit, sites in space.units},
        # It saves bits of weights, and none between 16 and 32.
        {
            unit: [scheme for scheme in schemes if stored_bits(scheme.weight) < WIDE_BITS]
            for (unit, _), schemes in zip(space.units, space.schemes, strict=True)
        },
        tensix_rounding(),
        bits=BITS,
    )
    choices = [
        tuple(
            0 if (scheme := solution[unit]) is None else schemes.index(scheme)
            for (unit, _), schemes in zip(space.units, space.schemes, strict=True)
        )
        for solution in solved.solutions
    ]
    save(path, {"choices": choices, "seconds": solved.seconds})
    return tuple(choices), solved.seconds


def report(table: Table, results: Sequence[Result], modelopt_seconds: float, evaluations: int) -> list[str]:
    """The comparison as lines of text."""
    columns = (*table.metrics, TOGETHER)
    short = [
        name.removesuffix("_db").removesuffix("_rad").replace("instantaneous_frequency", "inst_freq")
        for name in columns
    ]
    lines = [
        "gap to the optimum, %: mean / worst of 7 budgets",
        f"{'method':30} {'evaluations':>11} {'seconds':>8}" + "".join(f"{name:>16}" for name in short),
    ]
    methods = dict.fromkeys(result.method for result in results)
    for method in methods:
        mine = [result for result in results if result.method == method]
        used = np.mean([result.evaluations for result in mine])
        own = np.mean([result.own_seconds for result in mine])
        own += modelopt_seconds if method == MODELOPT else 0.0
        cells = []
        for metric in columns:
            gaps = [result.gap for result in mine if result.metric == metric]
            cells.append(f"{np.mean(gaps):.2f} / {max(gaps):.2f}")
        seconds = own + used * table.policy_seconds
        lines.append(f"{method:30} {used:11.0f} {seconds:8.1f}" + "".join(f"{cell:>16}" for cell in cells))
    lines += ["", *verdict(results, evaluations)]
    return lines


def verdict(results: Sequence[Result], evaluations: int) -> list[str]:
    """Whether the goals are met: no gap, and never worse than another at as many evaluations as ours used."""
    mine = {(result.metric, result.step): result for result in results if result.method == OURS}
    missed = [result for result in mine.values() if result.gap > 1e-6]
    most = max(result.evaluations for result in mine.values())
    late = max(result.last_better for result in mine.values())
    lines = [
        f"ours: gap 0 at {len(mine) - len(missed)} of {len(mine)} budgets; at most {most} evaluations, the best found"
        f" after {late} at the latest (goal: gap 0 at every budget within {evaluations}):"
        f" {'MET' if not missed and most <= evaluations else 'MISSED'}"
    ]
    lines += [f"  {result.metric}, budget {result.step} of {BUDGETS}: {result.gap:.3f} %" for result in missed]
    better: dict[str, list[str]] = {}
    for result in results:
        own = mine[result.metric, result.step]
        reached = min((cost for spent, cost in result.course.items() if spent <= own.evaluations), default=math.inf)
        if result.method != OURS and reached < own.cost * (1 - 1e-9):
            better.setdefault(result.method, []).append(f"{result.metric} {result.step}")
    lines.append(
        "never worse than another at as many evaluations: "
        + ("MET" if not better else "MISSED: " + "; ".join(f"{name} at {', '.join(at)}" for name, at in better.items()))
    )
    return lines


def rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """Plain data, less the course."""
    return [{key: value for key, value in vars(result).items() if key != "course"} for result in results]


def save(path: Path, data: object) -> None:
    """Write JSON."""
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
