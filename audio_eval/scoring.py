"""Scoring: several metrics of several clips, over threads.

What is found does not depend on the number of threads: each pair of clips is scored by one of them at a time. Threads
are enough, since transforms are compiled code outside of Python's lock and PESQ runs in processes of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

from audio_eval.clip import Clip, Samples, UndefinedScore
from audio_eval.output import Output, as_output
from audio_eval.suite import ReferenceClip, known_metrics

Degraded: TypeAlias = Samples | Clip | Output
"""What a model made of one clip."""
Mapped: TypeAlias = Callable[..., Iterable[Any]]
"""Python's `map`, or one over threads."""
Told: TypeAlias = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Undefined:
    """A score that a clip does not have; the gates on the metric count as broken."""

    metric: str
    clip: int
    reason: str


@contextmanager
def threads(workers: int) -> Iterator[Mapped]:
    """`map` over so many threads; what has not begun when an error or Ctrl-C comes is not begun any more.

    Raises:
        ValueError: no worker.
    """
    if workers < 1:
        raise ValueError(f"at least 1 worker is needed, got {workers}")
    if workers == 1:
        yield map
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="scoring")
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def remembering(degraded: Degraded, sample_rate_hz: int) -> Output:
    """What a model made, as an Output of a Clip: each metric finds there what the last one computed.

    Raises:
        UndefinedScore: no sound: no samples, not mono, not floating point.
    """
    return as_output(degraded).remembering(sample_rate_hz)


def score_each(
    reference: ReferenceClip, degraded: Degraded, metrics: Iterable[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Score of every metric, NaN where it is undefined; and for those that are, why.

    Raises:
        ValueError: an unknown metric.
    """
    names = [metric.name for metric in known_metrics(metrics)]
    try:
        heard = remembering(degraded, reference.sample_rate_hz)
    except UndefinedScore as fault:
        return dict.fromkeys(names, float("nan")), {name: f"{name}: {fault}" for name in names}
    scores: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name in names:
        try:
            scores.update(reference.score(heard, (name,)))
        except UndefinedScore as fault:
            scores[name] = float("nan")
            reasons[name] = str(fault)
    return scores, reasons


def score_clips(
    metrics: Iterable[str],
    pairs: Iterable[tuple[ReferenceClip, Degraded]],
    *,
    mapped: Mapped = map,
    told: Told | None = None,
) -> tuple[list[dict[str, float]], list[Undefined]]:
    """Score pairs of clips with several metrics, each pair by one thread.

    Nothing that was computed of a pair is kept here: where references are made as they are asked for, memory is needed
    for as many of them as there are threads, 2 MB a second of audio each.

    Args:
        metrics: names, of the suite.
        pairs: reference and degraded clip; a reference that stands in several pairs may be worked on twice.
        mapped: as `threads` gives it.
        told: called in this thread with the index of each pair that is done, in their order.

    Returns:
        By pair: metric -> score, NaN where undefined; and those, metric by metric.

    Raises:
        ValueError: an unknown metric.
    """
    names = tuple(metric.name for metric in known_metrics(metrics))
    scores: list[dict[str, float]] = []
    undefined: dict[str, list[Undefined]] = {name: [] for name in names}
    for index, (found, reasons) in enumerate(mapped(partial(_of_pair, names), pairs)):
        scores.append(found)
        for name, reason in reasons.items():
            undefined[name].append(Undefined(name, index, reason))
        if told is not None:
            told(index)
    return scores, list(chain.from_iterable(undefined.values()))


def _of_pair(names: tuple[str, ...], pair: tuple[ReferenceClip, Degraded]) -> tuple[dict[str, float], dict[str, str]]:
    return score_each(*pair, names)
