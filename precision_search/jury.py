"""Jury: policies rendered and held against the gates, fast ones by the hundred and the last ones to the bit."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from audio_eval.output import Output
from audio_eval.suite import METRICS
from backends.emulation.adaptation import adapted_policy
from backends.emulation.audition import Bench, Scores, excess
from precision.candidate import Candidate, Split, floats, numbers
from precision.gates import Verdict
from precision.policy import Policy
from precision.search.outcome import Evaluation
from precision.search.problem import Choice, Problem
from precision.study import Study, evaluation_key
from precision_search.adaptation import Trained
from precision_search.costing import cost_model_of
from precision_search.progress import Progress
from precision_search.renders import render_paths
from precision_search.setting import Setting
from precision_search.workers import Workers
from precision_search.yardsticks import yardsticks_of


@dataclass(frozen=True, slots=True)
class Heard:
    """What was found of one policy on one split, in one arithmetic."""

    verdicts: tuple[Verdict, ...]
    scores: Mapping[str, Scores]
    """Clip -> metric -> value."""

    @property
    def kept(self) -> bool:
        """Whether every gate that was asked was kept."""
        return all(verdict.kept for verdict in self.verdicts)

    @property
    def worst(self) -> float:
        """The largest relative excess over a threshold; NaN where a gate has no value.

        Where all are kept, over those whose metrics add: others end at their thresholds or just within (nothing is more
        than finite, or nearer than in step), and of two renders that keep them do not tell the better.
        """
        told = [v for v in self.verdicts if METRICS[v.gate.metric].additive] if self.kept else self.verdicts
        found = [excess(verdict) for verdict in told or self.verdicts]
        return math.nan if any(map(math.isnan, found)) else max(found)


class Jury:
    """Hears policies, asking the study before and telling it afterwards."""

    def __init__(self, setting: Setting, study: Study, crew: Workers, progress: Progress) -> None:
        self._setting = setting
        self._study = study
        self._crew = crew
        self._progress = progress
        self.near: Policy | None = None
        """A policy that those to be heard differ from in a site or two: what lies before these is not rendered anew."""
        self.trained: Trained | None = None
        """Weights that policies of choices have, where a site runs the scheme they were trained for."""
        self._heard: set[tuple[str, Split, str]] = set()
        self.searching, self.held_back = (bench_of(setting, split) for split in ("search", "held_back"))
        self.fast = setting.backend.arithmetic.name
        exact = setting.backend.exact
        self.exact = None if exact is None else exact.name
        """Name of the exact arithmetic; None where the target has none."""
        model = cost_model_of(setting.recipe, setting.device, setting.sites)
        self._cost = partial(model.policy_seconds, setting.sites)

    @property
    def evaluations(self) -> int:
        """Policies heard, those that the study already had included; a policy counts in each arithmetic."""
        return len(self._heard)

    def policy_of(self, problem: Problem, choice: Choice) -> Policy:
        """The policy of a choice of option indices."""
        schemes = self._setting.recipe.schemes
        policy = Policy(tuple((site, schemes[option]) for site, option in zip(problem.sites, choice, strict=True)))
        trained = self.trained
        return policy if trained is None else adapted_policy(policy, trained.weights, trained.targets)

    def evaluate(
        self, choice: Choice, *, problem: Problem, split: Split, whole: bool, exactly: bool = False
    ) -> Evaluation:
        """Evaluate a choice for the search, or for a repair; `exactly` hears it on the clips held back."""
        budgets = (self.searching if split == "search" else self.held_back).budgets
        policy = self.policy_of(problem, choice)
        predicted = {metric: METRICS[metric].of_amplitude(found) for metric, found in problem.predicted(choice).items()}
        if exactly:
            heard = self.hear_exactly(policy, predicted=predicted)
        else:
            heard = self.hear(policy, split, whole=whole, predicted=predicted)
        ratio: dict[str, float] = {}
        for verdict in heard.verdicts:
            metric = verdict.gate.metric
            if metric in budgets:
                value = METRICS[metric].amplitude(verdict.value)
                ratio[metric] = max(value / budgets[metric], ratio.get(metric, 0.0))
        return Evaluation(heard.kept, heard.worst, ratio)

    def trials_of(self, choice: Choice, *, problem: Problem, exactly: bool) -> list[Callable[[Choice], Evaluation]]:
        """Ways to evaluate another choice by what this one keeps, the quick first; the last it must keep.

        The search's clips, those held back, and these in the exact arithmetic where that is asked. A choice that was
        repaired on the clips held back need not keep every gate on the others.
        """
        ask = partial(self.evaluate, problem=problem, whole=False)
        quick = [partial(ask, split="search"), partial(ask, split="held_back")]
        last = partial(ask, split="held_back", exactly=True) if exactly else quick.pop()
        return [*(way for way in quick if way(choice).kept), last]

    def remeasure(
        self, choice: Choice, changes: Sequence[tuple[int, int]], *, problem: Problem
    ) -> list[Mapping[str, float]]:
        """Damage, as amplitudes on the search clips, of a choice with one site of it changed: for each (site, option).

        What the study holds is not measured again.
        """
        base, schemes = self.policy_of(problem, choice), self._setting.recipe.schemes
        asked = [(problem.sites[site], schemes[option]) for site, option in changes]
        keys = [[base.digest, evaluation_key(site, scheme)] for site, scheme in asked]
        held = {tuple(record["key"]): floats(record["damage"]) for record in self._study.records("around")}
        todo = [index for index, key in enumerate(keys) if tuple(key) not in held]

        def log(place: int, found: Mapping[str, float]) -> None:
            index = todo[place]
            site, scheme = asked[index]
            line = {"kind": "around", "key": keys[index], "site": site, "scheme": scheme.name, "damage": numbers(found)}
            self._study.append(line)
            held[tuple(keys[index])] = dict(found)
            self._progress.step(f"{site} as {scheme.name}")

        with self._progress.aside(f"measuring changes of policy {base.digest}", len(todo)):
            self._crew.damage_around(base, [asked[index] for index in todo], self.searching.additive, log)
        return [held[tuple(key)] for key in keys]

    def hear(
        self, policy: Policy, split: Split, *, whole: bool = True, predicted: Mapping[str, float] | None = None
    ) -> Heard:
        """Hear a policy in the fast arithmetic: all gates, or no dear ones once a cheap one is broken."""
        return self._asked(
            policy,
            split,
            self.fast,
            predicted,
            lambda: hear(self._setting, self._crew, policy, split, whole=whole, near=self.near),
        )

    def hear_exactly(self, policy: Policy, *, predicted: Mapping[str, float] | None = None) -> Heard:
        """Hear a policy in the exact arithmetic on the clips held back, all gates; the target must have one."""
        assert self.exact is not None
        return self._asked(policy, "held_back", self.exact, predicted, partial(self._judge_exactly, policy))

    def yardsticks(self) -> dict[str, tuple[Verdict, ...]]:
        """Verdicts of each yardstick on the clips held back; what the study holds is not rendered again."""
        bench, names = self.held_back, yardsticks_of(self._setting)
        clips = self._setting.held_back_clips
        held = {record["name"]: record["scores"] for record in self._study.records("yardstick")}
        self._progress.begin("hearing the model's own bf16 and fp16", len([name for name in names if name not in held]))
        found = {}
        for name in names:
            if name not in held:
                scores = self._crew.yardstick(name, len(clips), bench.metrics)
                held[name] = {clip.name: numbers(values) for clip, values in zip(clips, scores, strict=True)}
                self._study.append({"kind": "yardstick", "name": name, "scores": held[name]})
                self._progress.step(name)
            values = [floats(scores) for scores in held[name].values()]
            found[name] = bench.verdicts(values, seed=self._setting.recipe.search.seed)
        return found

    def render_exactly(self, policy: Policy) -> list[Output]:
        """Render the clips held back in the exact arithmetic; those that the study's folder has are read."""
        paths = self.paths_of(policy)
        stored = [path.is_file() for path in paths]
        made = self._crew.render_exactly(policy, paths)
        if all(stored):
            return list(made)
        rendered = []
        with self._progress.aside(f"rendering policy {policy.digest} in exact arithmetic, clips", len(paths)):
            for path, there, output in zip(paths, stored, made, strict=True):
                rendered.append(output)
                self._progress.step(path.stem, skipped=there)
        return rendered

    def paths_of(self, policy: Policy) -> list[Path]:
        """Where the exact renders of a policy are kept, by clip."""
        assert self.exact is not None
        names = [clip.name for clip in self._setting.held_back_clips]
        return render_paths(self._study.folder, self.exact, policy.digest, names)

    def _judge_exactly(self, policy: Policy) -> Heard:
        rendered = self.render_exactly(policy)
        return hear(self._setting, self._crew, policy, "held_back", whole=True, rendered=rendered)

    def _asked(
        self,
        policy: Policy,
        split: Split,
        arithmetic: str,
        predicted: Mapping[str, float] | None,
        judged: Callable[[], Heard],
    ) -> Heard:
        """What the study has of a policy, or what is found of it and told to the study."""
        self._heard.add((policy.digest, split, arithmetic))
        held = self._study.candidate(policy.digest, split, arithmetic)
        if held is not None:
            return Heard(held.gates, held.scores)
        begun = time.monotonic()
        heard = judged()
        self._study.add_candidate(
            Candidate.of(
                policy,
                split,
                predicted=predicted or {},
                scores=heard.scores,
                gates=heard.verdicts,
                seconds_cost=self._cost(policy),
                elapsed_seconds=round(time.monotonic() - begun, 3),
                arithmetic=arithmetic,
            )
        )
        return heard


def hear(
    setting: Setting,
    crew: Workers,
    policy: Policy,
    split: Split,
    *,
    whole: bool,
    rendered: Sequence[Output] | None = None,
    near: Policy | None = None,
) -> Heard:
    """Render a policy on the clips of a split and judge it.

    The gates whose metrics add are always asked, all of them: a search corrects itself by them. The others are asked
    from cheap to dear, all of them where `whole` says so, else until one breaks. Renders that are given, one a clip,
    are judged as they are; the others are made in the fast arithmetic, by way of a policy that they are `near`.
    """
    clips = setting.clips_of(split)
    bench = bench_of(setting, split)
    seed = setting.recipe.search.seed
    if rendered is None:
        made = crew.render(split, policy, len(clips), bench.additive, near)
    else:
        made = list(zip(rendered, crew.score(split, rendered, bench.additive), strict=True))
    scores: list[Scores] = [found for _, found in made]
    verdicts = bench.verdicts(scores, seed=seed) if bench.additive else ()
    for metrics in (tuple(chain.from_iterable(bench.others)),) if whole else bench.others:
        if not (whole or all(verdict.kept for verdict in verdicts)):
            break
        rest = crew.score(split, [output for output, _ in made], metrics)
        scores = [{**first, **second} for first, second in zip(scores, rest, strict=True)]
        verdicts = bench.verdicts(scores, seed=seed)
    return Heard(verdicts, {clip.name: found for clip, found in zip(clips, scores, strict=True)})


def bench_of(setting: Setting, split: Split) -> Bench:
    """The gates that can be judged on the clips of a split."""
    return Bench.of(setting.recipe.gates, setting.material(split), len(setting.clips_of(split)))
