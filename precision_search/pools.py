"""Pools: where auditions are asked, in this process or in others of this machine; all give the same answers.

Torch computes with one thread in each process: how a sum is split over threads changes its last bits, and a policy must
not depend on the number of cores.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch

from backends.tenstorrent.exact.threads import set_threads
from calibrate.adapted import StoredAdaptations
from calibrate.calibration import Calibration
from calibrate.moments import Moments, StoredMoments, save_moments
from precision_search.auditions import Auditions
from precision_search.setting import Setting
from precision_search.wire import load_setting, read_text

WATCH_SECONDS = 2.0

Task = tuple[Any, ...]
"""Arguments of a method of `Auditions`."""
Made = Callable[[int, Any], None]
"""Told of each task's place and result in the process that asked, as soon as there is one, in whatever order."""


class WorkerError(RuntimeError):
    """Workers cannot be had, or died; what is in the study is not lost."""


class Pool(Protocol):
    """Somewhere to ask auditions."""

    def each(self, method: str, tasks: Sequence[Task], made: Made | None = None) -> Iterator[Any]:
        """Results of a method of `Auditions` for each task, in the order of the tasks.

        Raises:
            WorkerError: no worker is left to do them.
        """

    def close(self) -> None:
        """Stop what is in work and let all workers go."""


class Here:
    """This process."""

    def __init__(self, auditions: Auditions) -> None:
        """Ask these."""
        self._auditions = auditions

    def each(self, method: str, tasks: Sequence[Task], made: Made | None = None) -> Iterator[Any]:
        """As `Pool` has it."""
        for place, task in enumerate(tasks):
            result = getattr(self._auditions, method)(*task)
            if made is not None:
                made(place, result)
            yield result

    def close(self) -> None:
        """Nothing is to be let go."""


class Processes:
    """Processes of this machine, which end with it however it ends."""

    def __init__(
        self,
        setting: Setting,
        calibration: Calibration | None,
        count: int,
        moments: Mapping[str, Moments],
        adapted: Path | None,
    ) -> None:
        """Start `count` of them; they read the moments from a temporary file, and trained weights from a folder."""
        self._folder: TemporaryDirectory[str] | None = None
        stored: Path | None = None
        if moments:
            self._folder = TemporaryDirectory(prefix="precision-search-")
            stored = Path(self._folder.name) / "moments.safetensors"
            save_moments(moments, stored)
        self._pool = ProcessPoolExecutor(
            count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(setting.recipe.to_yaml(), calibration, stored, adapted, os.getpid(), count),
        )

    def each(self, method: str, tasks: Sequence[Task], made: Made | None = None) -> Iterator[Any]:
        """As `Pool` has it."""
        try:
            waiting = [self._pool.submit(_ask, method, task) for task in tasks]
            places = {future: place for place, future in enumerate(waiting)}
            told: set[Future[Any]] = set()
            for future in waiting:
                while future not in told:
                    told |= (done := wait(places.keys() - told, return_when=FIRST_COMPLETED).done)
                    for other in sorted(done, key=places.__getitem__):
                        if made is not None:
                            made(places[other], other.result())
                yield future.result()
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker process died (out of memory, most often); go on by the same command with --resume --workers 1"
            ) from error

    def close(self) -> None:
        """End the processes, also in the middle of something."""
        processes = list((self._pool._processes or {}).values())  # shutdown forgets them
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        if self._folder is not None:
            self._folder.cleanup()


def kernel_threads(workers: int, setting: Setting) -> int:
    """Threads of the exact arithmetic's kernels in each worker.

    All workers render a clip each; where there are more workers than clips, kernels use the cores of the idle ones.
    """
    return max(1, workers // len(setting.held_back_clips))


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
    trained = None if adapted is None else StoredAdaptations(adapted)
    _auditions = Auditions(load_setting(read_text(recipe)), calibration, held, trained)
    set_threads(kernel_threads(count, _auditions.setting))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def _ask(method: str, task: Task) -> Any:
    assert _auditions is not None
    return getattr(_auditions, method)(*task)
