"""Workers: auditions spread over local processes; what they find does not depend on how many there are.

Torch computes with one thread in each process: how a sum is split over threads changes its last bits, and a policy must
not depend on the number of cores.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from audio_eval.output import Output
from backends.emulation.audition import Scores
from backends.tenstorrent.exact.threads import set_threads
from calibrate.calibration import Calibration
from calibrate.moments import Moments, StoredMoments, save_moments
from precision.candidate import Split
from precision.policy import Policy, Scheme
from precision_search.auditions import Auditions
from precision_search.setting import Setting
from precision_search.wire import load_setting, read_text

WATCH_SECONDS = 2.0


class WorkerError(RuntimeError):
    """A worker process died; what is in the study is not lost."""


class Workers:
    """Asks auditions, here or in processes of their own."""

    def __init__(
        self,
        setting: Setting,
        calibration: Calibration | None,
        count: int,
        moments: Mapping[str, Moments],
        adapted: Path | None = None,
    ) -> None:
        """Start `count` processes; 1 computes in this one. Processes read the moments from a temporary file."""
        self.local = Auditions(setting, calibration, moments, adapted)
        self._pool: ProcessPoolExecutor | None = None
        self._folder: TemporaryDirectory[str] | None = None
        stored: Path | None = None
        if count > 1 and moments:
            self._folder = TemporaryDirectory(prefix="precision-search-")
            stored = Path(self._folder.name) / "moments.safetensors"
            save_moments(moments, stored)
        if count > 1:
            self._pool = ProcessPoolExecutor(
                count,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(setting.recipe.to_yaml(), calibration, stored, adapted, os.getpid(), count),
            )

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            processes = list((self._pool._processes or {}).values())  # shutdown forgets them
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
        if self._folder is not None:
            self._folder.cleanup()

    def damage(self, tasks: Sequence[tuple[str, Scheme]], metrics: Sequence[str]) -> Iterator[dict[str, float]]:
        """Damage of each (site, scheme), in their order, as they are measured."""
        yield from self._each("damage", [(site, scheme, metrics) for site, scheme in tasks])

    def render(self, split: Split, policy: Policy, count: int, metrics: Sequence[str]) -> list[tuple[Output, Scores]]:
        """Render and score each of the split's `count` clips."""
        return list(self._each("render", [(split, policy, index, metrics) for index in range(count)]))

    def render_exactly(self, policy: Policy, paths: Sequence[Path | None]) -> Iterator[Output]:
        """Render the clips held back in the exact arithmetic, in their order, as they are made.

        Each is stored in its path by the process that made it, so that a stop loses no more than the clips in work;
        one that is there already is read.
        """
        yield from self._each("render_exactly", [(policy, index, path) for index, path in enumerate(paths)])

    def score(self, split: Split, rendered: Sequence[Output], metrics: Sequence[str]) -> list[Scores]:
        """Score renders of all clips of a split."""
        tasks = [(split, index, output, metrics) for index, output in enumerate(rendered)]
        return list(self._each("score", tasks))

    def yardstick(self, name: str, count: int, metrics: Sequence[str]) -> list[Scores]:
        """Score the `count` clips held back as a yardstick renders them."""
        return list(self._each("yardstick", [(name, index, metrics) for index in range(count)]))

    def _each(self, method: str, tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        if self._pool is None:
            call: Callable[..., Any] = getattr(self.local, method)
            for task in tasks:
                yield call(*task)
            return
        try:
            waiting: list[Future[Any]] = [self._pool.submit(_ask, method, task) for task in tasks]
            for future in waiting:
                yield future.result()
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker process died (out of memory, most often); go on by the same command with --resume --workers 1"
            ) from error


_auditions: Auditions | None = None


def _begin(
    recipe: str, calibration: Calibration | None, moments: Path | None, adapted: Path | None, parent: int, count: int
) -> None:
    """Set a worker process up: it leaves Ctrl-C to its parent, and ends with it."""
    global _auditions
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    held = {} if moments is None else StoredMoments(moments)
    _auditions = Auditions(load_setting(read_text(recipe)), calibration, held, adapted)
    # All workers render a clip each; where there are more workers than clips, kernels use the cores of the idle ones.
    set_threads(max(1, count // len(_auditions.setting.held_back_clips)))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def _ask(method: str, task: tuple[Any, ...]) -> Any:
    assert _auditions is not None
    return getattr(_auditions, method)(*task)
