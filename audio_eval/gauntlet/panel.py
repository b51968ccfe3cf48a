"""Panel: a set of reference clips, spread over worker processes, that scores degraded sets."""

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from types import TracebackType

from audio_eval.clip import Clip, Samples, UndefinedScore
from audio_eval.suite import Material, ReferenceClip, common

Scores = tuple[Mapping[str, float], ...]
"""By clip: metric -> score, NaN where the clip has none."""

_held: list[ReferenceClip] = []
"""The share of the clips that this worker process scores."""


def _hold(clips: Sequence[tuple[Samples, int, Samples | None]]) -> None:
    _held.extend(ReferenceClip(*clip) for clip in clips)


def _score_held(index: int, degraded: Samples, metrics: Sequence[str]) -> dict[str, float]:
    return _score(_held[index], degraded, metrics)


def _score(reference: ReferenceClip, degraded: Samples, metrics: Sequence[str]) -> dict[str, float]:
    clip = Clip(degraded, reference.sample_rate_hz)
    scores: dict[str, float] = {}
    for name in metrics:
        try:
            scores.update(reference.score(clip, (name,)))
        except UndefinedScore:
            scores[name] = float("nan")
    return scores


class Panel:
    """Scores sets of clips against one set of references; what is computed of a reference is computed once.

    Args:
        originals: [time] of each clip in -1..1, what the defects are planted in.
        sample_rate_hz: of all.
        naturals: the recordings that they imitate, where there are such, of equal lengths.
        jobs: processes; 1 scores in this one.
    """

    def __init__(
        self,
        originals: Sequence[Samples],
        sample_rate_hz: int,
        naturals: Sequence[Samples] | None = None,
        jobs: int = 1,
    ) -> None:
        self.originals = tuple(originals)
        self.sample_rate_hz = sample_rate_hz
        beside = [None] * len(self.originals) if naturals is None else naturals
        clips = [(clip, sample_rate_hz, true) for clip, true in zip(self.originals, beside, strict=True)]
        self._references = [ReferenceClip(*clip) for clip in clips]
        jobs = min(jobs, len(clips))
        # A pool of one each: whoever scored a clip before still holds what it computed of the reference.
        self._pools = [
            ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), partial(_hold, clips[job::jobs]))
            for job in range(jobs if jobs > 1 else 0)
        ]

    @property
    def material(self) -> Material:
        """What there is to judge by."""
        return common([reference.material for reference in self._references])

    def score(self, degraded: Sequence[Samples], metrics: Sequence[str]) -> Scores:
        """Scores of one degraded clip a reference, in their order.

        Raises:
            ValueError: another number of clips, or an unknown metric.
        """
        pairs = tuple(zip(self._references, degraded, strict=True))
        if not self._pools:
            return tuple(_score(reference, samples, metrics) for reference, samples in pairs)
        jobs = len(self._pools)
        waiting = [
            self._pools[index % jobs].submit(_score_held, index // jobs, samples, tuple(metrics))
            for index, (_, samples) in enumerate(pairs)
        ]
        return tuple(result.result() for result in waiting)

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)

    def __enter__(self) -> "Panel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
