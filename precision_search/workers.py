"""Workers: auditions asked of many at once; what they find depends neither on how many there are nor on where."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import ModuleType

from audio_eval.output import Output
from backends.emulation.audition import Scores
from backends.emulation.gradient_probe import Foretold
from calibrate.adapted import StoredAdaptations
from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.candidate import Split
from precision.policy import Policy, Scheme
from precision_search.auditions import Auditions
from precision_search.pools import Here, Made, Pool, Processes, WorkerError
from precision_search.renders import load_render, store_render
from precision_search.setting import Setting

__all__ = ["Where", "WorkerError", "Workers", "reach"]

FORETOLD_AT_ONCE = 32
"""Options of one task: each runs the model over a short excerpt again."""
Where = int | str
"""A number of processes here, or the address of a Ray cluster: `ray` for this machine's, or ray://HOST:PORT."""


def reach(where: Where) -> None:
    """Refuse workers that cannot be had, before anything is measured for them; WorkerError says what to do."""
    if isinstance(where, str):
        _cluster().connect(where)


def _cluster() -> ModuleType:
    # Late: Ray is an extra, and nothing else needs it.
    from precision_search import cluster

    return cluster


class Workers:
    """Asks auditions, here, in processes of their own, or on the machines of a cluster."""

    def __init__(
        self,
        setting: Setting,
        calibration: Calibration | None,
        where: Where,
        moments: Mapping[str, Moments],
        adapted: Path | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Start the workers.

        Args:
            setting: of the recipe.
            calibration: for static scales.
            where: 1 computes in this process.
            moments: of the inputs of sites, for levers that ask for them.
            adapted: folder of the study's trained weights; need not have them before a policy asks for them.
            say: told in a line of what happens to the workers, as when one is lost.

        Raises:
            WorkerError: the cluster cannot be had, or is not fit; the message says what to do.
        """
        trained = None if adapted is None else StoredAdaptations(adapted)
        self.local = Auditions(setting, calibration, moments, trained)
        self._pool: Pool
        if isinstance(where, str):
            self._pool = _cluster().Cluster(self.local, where, say or (lambda _: None))
        elif where > 1:
            self._pool = Processes(setting, calibration, where, moments, adapted)
        else:
            self._pool = Here(self.local)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def damage(
        self, tasks: Sequence[tuple[str, Scheme]], metrics: Sequence[str], made: Made | None = None
    ) -> list[dict[str, float]]:
        """Damage of each (site, scheme), in their order; `made` is told of each as soon as it is measured."""
        return list(self._pool.each("damage", [(site, scheme, metrics) for site, scheme in tasks], made))

    def foretell(self, tasks: Sequence[tuple[str, Scheme]]) -> list[Foretold]:
        """What a gradient foretells of each (site, scheme), in their order; those of one site side by side."""
        parts = [tasks[start : start + FORETOLD_AT_ONCE] for start in range(0, len(tasks), FORETOLD_AT_ONCE)]
        return list(chain.from_iterable(self._pool.each("foretell", [(tuple(part),) for part in parts])))

    def damage_around(
        self, policy: Policy, tasks: Sequence[tuple[str, Scheme]], metrics: Sequence[str], made: Made | None = None
    ) -> list[dict[str, float]]:
        """Damage of a whole policy with one site of it under another scheme, likewise."""
        asked = [(policy, site, scheme, metrics) for site, scheme in tasks]
        return list(self._pool.each("damage_around", asked, made))

    def render(
        self, split: Split, policy: Policy, count: int, metrics: Sequence[str], near: Policy | None = None
    ) -> list[tuple[Output, Scores]]:
        """Render and score each of the split's `count` clips; the same, and sooner, by way of a policy it is near."""
        return list(self._pool.each("render", [(split, policy, index, metrics, near) for index in range(count)]))

    def render_exactly(self, policy: Policy, paths: Sequence[Path | None]) -> Iterator[Output]:
        """Render the clips held back in the exact arithmetic, in their order, as they are made.

        Each is stored in its path as soon as it is made, so that a stop loses no more than the clips in work; one that
        is there already is read.
        """
        missing = [index for index, path in enumerate(paths) if path is None or not path.is_file()]

        def store(place: int, rendered: Output) -> None:
            path = paths[missing[place]]
            if path is not None:
                store_render(path, rendered)

        made = self._pool.each("render_exactly", [(policy, index) for index in missing], store)
        for index, path in enumerate(paths):
            if index in missing:
                yield next(made)
            else:
                assert path is not None
                yield load_render(path)

    def score(self, split: Split, rendered: Sequence[Output], metrics: Sequence[str]) -> list[Scores]:
        """Score renders of all clips of a split."""
        tasks = [(split, index, output, metrics) for index, output in enumerate(rendered)]
        return list(self._pool.each("score", tasks))

    def yardstick(self, name: str, count: int, metrics: Sequence[str]) -> list[Scores]:
        """Score the `count` clips held back as a yardstick renders them."""
        return list(self._pool.each("yardstick", [(name, index, metrics) for index in range(count)]))
