"""Refitting: new values of weights, such as the scales of a new calibration, in an engine that is built already."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class RefitError(RuntimeError):
    """An engine can't be refitted; the message says why."""


def refit(engine: Any, log: Any, changed: Mapping[str, Array], held: Callable[[str], Array | None]) -> dict[str, str]:
    """Put new values of weights into an engine, without a build; memory and states stay as they are.

    Args:
        engine: an `engine.Loaded`, which every `engine.Engine` is.
        log: `engine.journal()`.
        changed: initializer of the model -> its new values, in its type.
        held: gives an initializer as the model has it (None: it has none); asked for what TensorRT folded together
            with a changed one and so needs again.

    Returns:
        Name -> why it could not be changed, for those that could not; all others are.

    Raises:
        RefitError: the engine was not built to be refitted, or TensorRT refuses; it may be changed in part then.
    """
    if not engine.handle.refittable:
        raise RefitError("the engine was built without refit: build it again (build.py --refit)")
    mark, refitter = len(log.said), engine.trt.Refitter(engine.handle, log)
    known = set(refitter.get_all_weights())
    kept: list[Array] = []  # TensorRT reads them as late as it refits
    refused: dict[str, str] = {}
    for name, values in changed.items():
        if name not in known:
            refused[name] = "it was folded into a kernel when the engine was built; build again"
        elif why := _give(engine.trt, refitter, name, values, kept):
            refused[name] = why
    for name in refitter.get_missing_weights():
        again = held(name)
        if again is None:
            raise RefitError(
                f"TensorRT needs weight {name!r} again, for it is folded with a changed one; there is none"
            )
        if why := _give(engine.trt, refitter, name, again, kept):
            raise RefitError(f"weight {name!r}, which is folded with a changed one, can't be given again: {why}")
    if kept and not refitter.refit_cuda_engine():
        said = "; ".join(text for kind, text in log.said[mark:] if kind == "error")
        raise RefitError(f"TensorRT does not refit the engine: {said or 'it says no reason'}")
    return refused


def _give(trt: Any, refitter: Any, name: str, values: Array, kept: list[Array]) -> str | None:
    prototype, array = refitter.get_weights_prototype(name), np.asarray(values, order="C")
    if prototype.size != array.size or prototype.nbytes != array.nbytes:
        return (
            f"the engine holds {prototype.size} values in {prototype.nbytes} bytes,"
            f" and {array.size} in {array.nbytes} were given"
        )
    kept.append(array)
    given = trt.Weights(prototype.dtype, array.ctypes.data, array.size)
    return None if refitter.set_named_weights(name, given) else f"TensorRT refuses it as {prototype.dtype}"
