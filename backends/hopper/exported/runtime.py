"""Runtime: the model of this folder, run after run, by whatever computes one.

Of program.json it reads `inputs`, `axes`, `states` and `outputs`, and `stream` by way of `chunks.py`.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from arrays import UseError  # type: ignore[import-not-found]  # the file beside this one in an export

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
Step = Callable[[Arrays], Arrays]
"""All inputs and states of one run by name -> all outputs."""

VERSION = 1


class RuntimeFailure(RuntimeError):  # noqa: N818
    """What keeps the model from running, in a line."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """program.json.

    Raises:
        UseError: it is not there, is damaged, or is of another version.
    """
    path = folder / "program.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UseError(f"{path}: {error.strerror}; this is no export, or not all of it") from error
    except ValueError as error:
        raise UseError(f"{path} is damaged ({error}); export again") from error
    if manifest.get("version") != VERSION:
        raise UseError(f"{path} has version {manifest.get('version')}, and this file reads {VERSION}; export again")
    return manifest


class Session(Protocol):
    """What computes runs, one after another, and keeps state between them."""

    def reset(self) -> None:
        """Begin a new utterance: states are zero."""

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs of one run by name; RuntimeFailure where it fails."""


class Stateful:
    """A session of what computes one run and keeps nothing; states go to it and come from it every time."""

    def __init__(self, manifest: Mapping[str, Any], step: Step) -> None:
        """State is zero."""
        self._states, self._step = manifest["states"], step
        self.reset()

    def reset(self) -> None:
        """See `Session`."""
        self._held = {name: np.zeros(spec["shape"], spec["dtype"]) for name, spec in self._states.items()}

    def run(self, inputs: Arrays) -> Arrays:
        """See `Session`."""
        made = self._step({**inputs, **self._held})
        self._held = {name: made[spec["update"]] for name, spec in self._states.items()}
        return made


class Program:
    """A model, run after run."""

    def __init__(self, manifest: Mapping[str, Any], session: Session) -> None:
        """Nothing has run."""
        self._manifest, self._session = manifest, session

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Outputs of one run; state is kept for the next.

        Raises:
            UseError: inputs do not fit.
            RuntimeFailure: the runtime fails.
        """
        made = self._session.run(checked(self._manifest, inputs))
        return {part: made[spec["name"]] for part, spec in self._manifest["outputs"].items()}

    def utterance(self, inputs: Arrays) -> dict[str, Array]:
        """Outputs of an utterance from zero state, in as many runs as it takes; errors as those of `run`."""
        self._session.reset()
        if not self._manifest["streaming"]:
            return self.run(inputs)
        import chunks  # type: ignore[import-not-found]  # the file beside this one, here and in an export

        runs, join = chunks.cut(self._manifest, inputs)
        joined: dict[str, Array] = join([self.run(run) for run in runs])
        return joined

    def times_ms(self, inputs: Arrays, count: int) -> list[float]:
        """Wall times of `count` runs after three that are not counted, copies to and from the card included.

        Of a stream they are those of its chunks, from its begin again where it is shorter.
        """
        runs = [inputs]
        if self._manifest["streaming"]:
            import chunks

            runs = list(chunks.cut(self._manifest, inputs)[0])
        times = []
        for index in range(count + 3):
            if index % len(runs) == 0:
                self._session.reset()
            begin = time.perf_counter()
            self.run(runs[index % len(runs)])
            times.append(1e3 * (time.perf_counter() - begin))
        return times[3:]


def checked(manifest: Mapping[str, Any], inputs: Arrays) -> dict[str, Array]:
    """Inputs of the types that the model reads.

    Raises:
        UseError: some are missing, unknown, of another shape, outside of an axis' limits or of another kind of number;
            all are named.
    """
    specs, sizes = {spec["name"]: spec for spec in manifest["inputs"]}, sizes_of(manifest, inputs)
    wrong = [f"{name} is none of its inputs" for name in inputs if name not in specs]
    taken = {}
    for name, spec in specs.items():
        if name not in inputs:
            wrong.append(f"{name} {_told(spec['shape'])} is missing")
            continue
        values, wanted = inputs[name], [extent(axis, sizes) for axis in spec["shape"]]
        fits = values.ndim == len(wanted)
        if not fits or any(size not in (axis, None) for axis, size in zip(values.shape, wanted, strict=True)):
            wrong.append(f"{name} must have shape {_told(spec['shape'])}, got {_told(values.shape)}")
        elif not np.can_cast(values.dtype, spec["dtype"], "same_kind"):
            wrong.append(f"{name} must hold {spec['dtype']}, got {values.dtype}")
        else:
            taken[name] = np.ascontiguousarray(values, spec["dtype"])
    for axis, limits in manifest["axes"].items():
        if axis in sizes and not limits["min"] <= sizes[axis] <= limits["max"]:
            wrong.append(f"{axis} must be {limits['min']} to {limits['max']}, got {sizes[axis]}")
    if wrong:
        raise UseError("inputs do not fit the model: " + "; ".join(wrong))
    return taken


def sizes_of(manifest: Mapping[str, Any], inputs: Arrays) -> dict[str, int]:
    """Sizes of the axes that have names, by the first input that has one."""
    sizes: dict[str, int] = {}
    for spec in manifest["inputs"]:
        if spec["name"] in inputs:
            for axis, size in zip(spec["shape"], inputs[spec["name"]].shape, strict=False):
                if axis in manifest["axes"]:
                    sizes.setdefault(axis, size)
    return sizes


def extent(axis: int | str, sizes: Mapping[str, int]) -> int | None:
    """The size of an axis; of one that is a sum or product of names (`2*frames + 1`), too. None: no input tells it."""
    if isinstance(axis, int) or axis in sizes:
        return axis if isinstance(axis, int) else sizes[axis]
    import facts  # type: ignore[import-not-found]  # the file beside this one, here and in an export

    try:
        shape = facts.profile({"axis": [axis]}, {name: dict.fromkeys(facts.SIZES, n) for name, n in sizes.items()})
    except facts.FactError:
        return None
    return int(shape["axis"][0][0])


def _told(shape: Any) -> str:
    return f"[{', '.join(str(axis) for axis in shape)}]"


def drawn(manifest: Mapping[str, Any], inputs: Arrays, seed: int) -> dict[str, Array]:
    """Inputs, and what is missing of those that are noise; the same seed gives the same numbers.

    Raises:
        UseError: noise is as long as an axis that no given input has.
    """
    sizes, generator, taken = sizes_of(manifest, inputs), np.random.default_rng(seed), dict(inputs)
    for spec in manifest["inputs"]:
        if spec["name"] in inputs or "noise" not in spec:
            continue
        extents = [extent(axis, sizes) for axis in spec["shape"]]
        shape = [size for size in extents if size is not None]
        if len(shape) < len(extents):
            raise UseError(f"{spec['name']} can't be drawn: no input says how long {_told(spec['shape'])} is; give it")
        draw = generator.standard_normal if spec["noise"] == "normal" else generator.random
        taken[spec["name"]] = draw(shape).astype(spec["dtype"])
    return taken
