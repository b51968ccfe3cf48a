"""Every policy of a space, rendered and scored: a walk down the tree of units, so that each prefix is computed once."""

import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from searching.spaces import Space, State, make_space
from torch import Tensor

from audio_eval.suite import METRICS, ReferenceClip
from backends.emulation.preparation import Preparation
from precision.policy import Scheme
from precision.search.problem import Choice
from voice.intercept import intercept
from voice.site_call import SiteCall

ADDITIVE = tuple(metric for metric in METRICS.values() if metric.additive and not metric.heads)
PART = 4
"""Units whose options part the work: what a process takes at a time, and what a stop loses at most."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """What every policy of a space does, and what each unit does alone."""

    space: str
    units: tuple[str, ...]
    options: tuple[tuple[str, ...], ...]
    """Names of those of each unit."""
    metrics: tuple[str, ...]
    cost: Values
    """[unit, option], seconds a second of audio."""
    alone: Values
    """[metric, unit, option]: one unit lowered, all else in fp32."""
    scores: Values
    """[option of unit 0, of unit 1, ..., metric]."""
    cpu_seconds: float
    """Of all renders and scores."""
    policy_seconds: float
    """CPU time of one policy by no shortcut, its scores included."""

    def policy_costs(self) -> Values:
        """Cost of every policy, in the shape of `scores` less its metrics."""
        total = np.zeros(())
        for row in self.cost:
            total = total[..., None] + row
        return total

    def save(self, path: Path) -> None:
        """Write to an .npz file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **{field.name: np.asarray(getattr(self, field.name)) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Table":
        """Read what `save` wrote."""
        with np.load(path) as stored:
            found = {field.name: stored[field.name] for field in fields(cls)}
        named: dict[str, tuple[Any, ...]] = {name: tuple(map(str, found[name])) for name in ("units", "metrics")}
        named["options"] = tuple(tuple(map(str, names)) for names in found["options"])
        plain = {name: found[name].item() for name in ("space", "cpu_seconds", "policy_seconds")}
        return cls(**{**found, **named, **plain})


class Walker:
    """Renders and scores the policies of a space."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._preparation = Preparation(space.backend.arithmetic)
        self._schemes: dict[str, Scheme] = {}
        rate = space.voice.sample_rate_hz
        self._reference = ReferenceClip(space.voice.render(space.clip).sound.numpy(), rate)
        self.metrics = tuple(metric.name for metric in ADDITIVE if metric.above_hz < rate)

    def under(self, prefix: Sequence[int]) -> Values:
        """Scores [policy, metric] of all policies that begin so, in lexicographic order."""
        rows: list[list[float]] = []
        with self._lowering():
            state = self.space.start()
            for unit, option in enumerate(prefix):
                state = self._step(unit, option, state)
            self._walk(len(prefix), state, rows)
        return np.array(rows)

    def alone(self, unit: int, option: int) -> list[float]:
        """Scores with one unit lowered and all else in fp32."""
        sites = self.space.units[unit][1]
        return self._score(self.space.render(dict.fromkeys(sites, self.space.schemes[unit][option]), self._preparation))

    def whole(self, choice: Choice) -> list[float]:
        """Scores of a policy by no shortcut."""
        return self._score(self.space.render(dict(self.space.policy(choice)), self._preparation))

    @contextmanager
    def _lowering(self) -> Iterator[None]:
        def handle(call: SiteCall) -> Tensor:
            if call.site in self._schemes:
                return self._preparation.compute(call, self._schemes, None)
            return call.compute()

        self._schemes.clear()
        with torch.inference_mode(), intercept(self.space.voice.module, handle):
            yield

    def _walk(self, unit: int, state: State, rows: list[list[float]]) -> None:
        for option in range(len(self.space.schemes[unit])):
            after = self._step(unit, option, state)
            if unit + 1 == len(self.space.steps):
                rows.append(self._score(after.numpy()))
            else:
                self._walk(unit + 1, after, rows)

    def _step(self, unit: int, option: int, state: State) -> State:
        for site in self.space.units[unit][1]:
            self._schemes[site] = self.space.schemes[unit][option]
        return self.space.steps[unit](state, option)

    def _score(self, samples: npt.NDArray[np.float32]) -> list[float]:
        found = self._reference.score(samples, self.metrics)
        return [found[name] for name in self.metrics]


def enumerate_space(name: str, folder: Path, workers: int, *, checks: int = 12) -> Table:
    """The table of a space, from a file of the folder, or made; parts that a stopped run left there are taken over.

    `checks` policies, drawn by a fixed seed, are rendered anew by no shortcut.

    Raises:
        ValueError: one of them does not come to what the walk found.
    """
    path = folder / f"{name}.npz"
    if path.is_file():
        return Table.load(path)
    space = make_space(name)
    walker = Walker(space)
    options, units = len(space.schemes[0]), len(space.units)
    begun = time.process_time()
    alone = np.array([[walker.alone(u, o) for o in range(options)] for u in range(units)]).transpose(2, 0, 1)
    parts = list(product(range(options), repeat=PART))
    paths = [folder / "parts" / name / f"{''.join(map(str, part))}.npz" for part in parts]
    with multiprocessing.get_context("spawn").Pool(workers, _begin, (name,)) as pool:
        for done, _ in enumerate(pool.imap_unordered(_enumerate_part, zip(parts, paths, strict=True)), 1):
            print(f"{name}: {done} of {len(parts)} parts", file=sys.stderr, flush=True)
    found = [np.load(part) for part in paths]
    scores = np.concatenate([part["scores"] for part in found])
    spent = time.process_time() - begun + sum(float(part["seconds"]) for part in found)
    scores = scores.reshape(*[options] * units, len(walker.metrics))
    policy_seconds = _check(walker, scores, checks)
    table = Table(
        space=name,
        units=tuple(unit for unit, _ in space.units),
        options=tuple(tuple(scheme.name for scheme in schemes) for schemes in space.schemes),
        metrics=walker.metrics,
        cost=space.cost,
        alone=alone,
        scores=scores,
        cpu_seconds=spent,
        policy_seconds=policy_seconds,
    )
    table.save(path)
    return table


def _check(walker: Walker, scores: Values, checks: int) -> float:
    """CPU seconds of a policy."""
    generator = np.random.default_rng(0)
    begun = time.process_time()
    for _ in range(checks):
        choice = tuple(int(option) for option in generator.integers(scores.shape[0], size=scores.ndim - 1))
        direct = np.array(walker.whole(choice))
        if not np.allclose(direct, scores[choice], rtol=1e-6):
            raise ValueError(f"policy {choice} comes to {direct} by itself, and to {scores[choice]} in the walk")
    return (time.process_time() - begun) / checks


_walker: Walker | None = None


def _begin(name: str) -> None:
    global _walker
    _walker = Walker(make_space(name))


def _enumerate_part(task: tuple[tuple[int, ...], Path]) -> None:
    prefix, path = task
    assert _walker is not None
    if path.is_file():
        return
    begun = time.process_time()
    scores = _walker.under(prefix)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp.npz")
    np.savez(unfinished, scores=scores, seconds=time.process_time() - begun)
    unfinished.replace(path)
