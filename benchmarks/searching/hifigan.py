"""HiFi-GAN V2, 78 sites on recordings: real evaluations, all methods with as many as ours used."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import yaml
from searching.contests import OutOfTurns, Turns
from searching.enumerated import MODELOPT, OURS, offers, sampler
from searching.modelopt_peer import auto_quantize, tensix_rounding
from searching.peers import Peer, mildest, one_pass_greedy, played, random_draws, steepest_greedy, threshold

from audio_eval.profiles import PROFILES
from audio_eval.suite import METRICS
from backends.emulation.audition import Bench, excess
from calibrate.moments import Moments
from precision.policy import Policy
from precision.recipe import Recipe
from precision.search.driver import search
from precision.search.outcome import Evaluation
from precision.search.problem import Choice, Problem
from precision_search.jury import bench_of
from precision_search.problem import pose
from precision_search.progress import Progress
from precision_search.run import calibrated, moments_of
from precision_search.setting import Setting
from precision_search.wire import make_setting, read_text
from precision_search.workers import Workers
from voice.model import AdaptableVoice

ALLOWED = ("bfp8_hifi3", "bfp8_hifi3_wide", "bfp8_lofi_wide", "bfp8_lofi")
CANDIDATES, EVALUATIONS = 20, 120
BITS = tuple(np.geomspace(2.0, 16.0, 60).tolist())
PEERS = ("greedy, one pass", "threshold", MODELOPT, "random", "TPE, cold", "NSGA-II, cold")
STEEPEST = "greedy, steepest"


@dataclass(frozen=True)
class Finish:
    """What one method reached."""

    method: str
    cost: float
    """inf where nothing that it tried kept the gates."""
    evaluations: int
    """Measurements of single sites included."""
    seconds: float
    course: Mapping[int, float]


@dataclass(frozen=True, eq=False)
class Race:
    """The problem that all methods get, and how to evaluate."""

    setting: Setting
    crew: Workers
    bench: Bench
    problem: Problem
    moments: Mapping[str, Moments]
    damage_seconds: float

    def evaluate(self, choice: Choice) -> Evaluation:
        """Render every clip under a policy, and hold it against the gates."""
        policy = self.policy(choice)
        made = self.crew.render("search", policy, len(self.setting.search_clips), self.bench.additive)
        verdicts = self.bench.verdicts([scores for _, scores in made], seed=0)
        budgets = self.bench.budgets
        ratio: dict[str, float] = {}
        for verdict in verdicts:
            metric = verdict.gate.metric
            used = METRICS[metric].amplitude(verdict.value) / budgets[metric]
            ratio[metric] = max(used, ratio.get(metric, 0.0))
        return Evaluation(all(verdict.kept for verdict in verdicts), max(map(excess, verdicts)), ratio)

    def policy(self, choice: Choice) -> Policy:
        """The policy of a choice."""
        schemes = self.setting.recipe.schemes
        return Policy(tuple((site, schemes[option]) for site, option in zip(self.problem.sites, choice, strict=True)))

    def remeasure(self, turns: Turns) -> Callable[[Choice, Sequence[tuple[int, int]]], list[Mapping[str, float]]]:
        """Changes of single sites around a choice; each counts as an evaluation."""

        def measure(choice: Choice, changes: Sequence[tuple[int, int]]) -> list[Mapping[str, float]]:
            turns.spent += len(changes)
            tasks = [(self.problem.sites[site], self.setting.recipe.schemes[option]) for site, option in changes]
            return list(self.crew.damage_around(self.policy(choice), tasks, self.bench.additive))

        return measure


def race(
    checkpoint: Path, audio: Path, clips: int, seconds: float, workers: int, *, peers: Sequence[str], factor: float
) -> list[Finish]:
    """Run all methods one after another, and tell what each reached.

    `factor`: for how many times as long as ours took steepest greedy lowering is let go on.
    """
    setting = make_setting(recipe_of(checkpoint, audio, clips, seconds))
    with begun(setting, workers) as found:
        options = np.isfinite(found.problem.cost).sum(axis=1)
        print(
            f"\n=== HiFi-GAN V2: {len(setting.sites)} sites, {options.min()} to {options.max()} schemes each,"
            f" {clips} recordings of {seconds:g} s, {workers} processes; {setting.device.title}; gates on"
            f" {', '.join(found.bench.additive)}",
            flush=True,
        )
        mine = run_ours(found)
        tell(mine, mine)
        finishes = [mine]
        for method in peers:
            finish = run_peer(found, method, mine.evaluations)
            tell(finish, mine)
            finishes.append(finish)
        finishes.append(run_steepest(found, mine, factor))
    better = [finish.method for finish in finishes[1:] if _after(finish, mine.evaluations) < mine.cost * (1 - 1e-9)]
    print(f"never worse than another at as many evaluations: {'MISSED: ' + ', '.join(better) if better else 'MET'}")
    return finishes


def recipe_of(checkpoint: Path, audio: Path, clips: int, seconds: float) -> Recipe:
    """The packaged recipe, with four schemes or more at every site and the profile's gates on metrics that add."""
    data = yaml.safe_load((files("recipes") / "hifigan_blackhole.yaml").read_text(encoding="utf-8"))
    data["model"]["checkpoint"] = str(checkpoint)
    data["data"] |= {"audio": str(audio), "search": clips, "held_back": 2, "seconds": seconds}
    del data["schemes"]["bfp8_lofi_ordered"]
    data["space"] = [{"match": "conv_*", "allow": ["fp32", *ALLOWED]}, {"match": "*", "allow": list(ALLOWED)}]
    data["gates"] = [
        {"metric": gate.metric, "over": gate.over, "max": gate.max}
        for gate in PROFILES["transparent"]
        if METRICS[gate.metric].additive and not METRICS[gate.metric].heads
    ]
    return read_text(yaml.safe_dump(data, sort_keys=False))


@contextmanager
def begun(setting: Setting, workers: int) -> Iterator[Race]:
    """Within, the race with its processes; the damage of every site under every scheme is measured."""
    progress = Progress()
    start = time.perf_counter()
    calibration, moments = calibrated(setting, progress), moments_of(setting, progress)
    with Workers(setting, calibration, workers, moments) as crew:
        bench = bench_of(setting, "search")
        tasks = [
            (site.name, scheme)
            for site in setting.sites
            for scheme in setting.space[site.name]
            if (site.name, scheme.name) not in setting.refused
        ]
        progress.begin("measuring damage")
        found = list(crew.damage(tasks, bench.additive))
        progress.end()
        damage = {(site, scheme.name): values for (site, scheme), values in zip(tasks, found, strict=True)}
        problem = pose(setting, damage).problem
        yield Race(setting, crew, bench, problem, moments, time.perf_counter() - start)


def run_ours(found: Race) -> Finish:
    """The search of this project."""
    turns = Turns(found.problem, found.evaluate, 10**9, spent=measurements(found.problem))
    start = time.perf_counter()
    search(
        found.problem,
        found.bench.budgets,
        turns,
        candidates=CANDIDATES,
        evaluations=EVALUATIONS,
        remeasure=found.remeasure(turns),
    )
    return _finish(OURS, turns, found.damage_seconds + time.perf_counter() - start)


def run_peer(found: Race, method: str, evaluations: int) -> Finish:
    """One of the others; those that ask for a table are given the seconds and the evaluations that it took."""
    tabled = {"greedy, one pass": one_pass_greedy, "threshold": threshold}
    drawn: dict[str, Peer] = {
        "random": random_draws(0),
        "TPE, cold": sampler("tpe", 0),
        "NSGA-II, cold": sampler("nsga2", 0),
    }
    spent = measurements(found.problem) if method in tabled else 0
    turns = Turns(found.problem, found.evaluate, evaluations, spent=spent)
    start = time.perf_counter()
    peer = offers(modelopt_choices(found)) if method == MODELOPT else (tabled | drawn)[method]
    played(peer, found.problem, found.bench.budgets, turns)
    taken = time.perf_counter() - start
    return _finish(method, turns, taken + (found.damage_seconds if method in tabled else 0.0))


def run_steepest(found: Race, mine: Finish, factor: float) -> Finish:
    """Steepest greedy lowering for `factor` times as long as ours took; tells how long it would need at least."""
    start = time.perf_counter()

    def evaluate(choice: Choice) -> Evaluation:
        if time.perf_counter() - start > factor * mine.seconds:
            raise OutOfTurns
        return found.evaluate(choice)

    turns = Turns(found.problem, evaluate, 10**9)
    played(steepest_greedy, found.problem, found.bench.budgets, turns)
    finish = _finish(STEEPEST, turns, time.perf_counter() - start)
    tell(finish, mine)
    steps, needed = least_evaluations(found.problem, mine.cost)
    least = needed * finish.seconds / max(finish.evaluations, 1)
    reached = finish.cost <= mine.cost * (1 + 1e-9)
    lasted = finish.seconds if reached else max(least, finish.seconds)
    print(
        f"greedy lowering {'reached our cost' if reached else 'had not reached our cost'} in"
        f" {finish.seconds / mine.seconds:.1f} times our seconds; the {steps} lowerings at least that it takes are"
        f" {needed} evaluations and {least:.0f} s: at least {lasted / mine.seconds:.1f} times ours (goal: 5):"
        f" {'MET' if lasted >= 5 * mine.seconds else 'MISSED'}"
    )
    return finish


def least_evaluations(problem: Problem, cost: float) -> tuple[int, int]:
    """Lowerings of single sites that come down from the mildest policy to a cost at the fewest, and their evaluations.

    Before each, every site that can be lowered is tried; the first so many savings are taken to be the largest of all,
    and to use up a site each.
    """
    start = problem.total_cost(mildest(problem))
    savings = []
    for row in problem.cost:
        allowed = np.sort(row[np.isfinite(row)])[::-1]
        savings += (allowed[:-1] - allowed[1:]).tolist()
    steps = 0
    for saving in sorted(savings, reverse=True):
        if start <= cost:
            break
        start -= saving
        steps += 1
    return steps, sum(max(len(problem.sites) - step, 1) for step in range(steps))


def modelopt_choices(found: Race) -> list[Choice]:
    """Solutions of auto_quantize.

    Bits stored are alike here, and of the passes that tell the schemes apart it knows nothing: so a weight counts 16
    bits times its scheme's share of the seconds of the dearest. Every layer is its own unit; what it leaves as it is
    stays at the site's mildest scheme.
    """
    setting, problem = found.setting, found.problem
    assert isinstance(setting.voice, AdaptableVoice)
    schemes = {scheme.name: scheme for scheme in setting.recipe.schemes}
    names = list(schemes)
    columns = {name: problem.cost[:, names.index(name)] for name in ALLOWED}
    whole = float(np.nanmax([column.sum() for column in columns.values()]))
    bits_of = {name: 16.0 * float(column.sum()) / whole for name, column in columns.items()}
    offered = [schemes[name] for name in ALLOWED if bits_of[name] < 16.0 - 1e-9]
    layers = {path: [path] for path in problem.sites}
    solved = auto_quantize(
        setting.voice,
        [setting.voice.excerpt(clip, 0.0, clip.seconds) for clip in setting.search_clips],
        layers,
        dict.fromkeys(layers, offered),
        tensix_rounding(found.moments),
        bits=BITS,
        bits_of=bits_of,
    )
    start = mildest(problem)
    return [
        tuple(
            start[row] if (scheme := solution[site]) is None else names.index(scheme.name)
            for row, site in enumerate(problem.sites)
        )
        for solution in solved.solutions
    ]


def measurements(problem: Problem) -> int:
    """Options whose damage was measured."""
    return int(np.isfinite(problem.cost).sum())


def tell(finish: Finish, mine: Finish) -> None:
    """One line."""
    if math.isinf(finish.cost):
        reached = "no policy that keeps the gates"
    else:
        reached = f"{finish.cost * 1e6:.3f} us a second of audio, {100 * (finish.cost / mine.cost - 1):+.2f} % to ours"
    print(f"{finish.method:30} {finish.evaluations:5} evaluations {finish.seconds:7.0f} s  {reached}", flush=True)


def _finish(method: str, turns: Turns, seconds: float) -> Finish:
    cost = math.inf if turns.best is None else turns.best[0]
    return Finish(method, cost, turns.spent, seconds, dict(turns.course))


def _after(finish: Finish, evaluations: int) -> float:
    return min((cost for spent, cost in finish.course.items() if spent <= evaluations), default=math.inf)
