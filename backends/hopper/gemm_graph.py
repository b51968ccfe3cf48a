"""CapturedStep: a step, its states in place, as a CUDA graph; Timing: medians of runs, by CUDA events on a card."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

WARM_UP = 3
"""Runs before a capture, as torch asks for: libraries choose their kernels and allocate in them."""


class InPlaceStep(Protocol):
    """A step of a stream that keeps its states in tensors of its own, and writes to them."""

    def __call__(self, **inputs: Tensor) -> Sequence[Tensor]:
        """Compute one step; inputs and results have the same shapes every time."""

    def states(self) -> Sequence[Tensor]:
        """All that it writes to."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long runs took."""

    seconds: tuple[float, ...]
    """Of each run."""
    clock: Literal["cuda events", "wall clock"]

    @property
    def median_us(self) -> float:
        """Median of the runs, microseconds."""
        return statistics.median(self.seconds) * 1e6


def median_time(run: Callable[[], object], device: torch.device, runs: int = 100, warm_up: int = 10) -> Timing:
    """Time runs one after another.

    Args:
        run: what to time.
        device: a CUDA device is timed by events in its current stream, anything else by the wall clock.
        runs: how many to time, 1 at least.
        warm_up: how many to run before.

    Raises:
        ValueError: no runs.
    """
    if runs < 1:
        raise ValueError(f"a timing needs 1 run or more, got {runs}")
    for _ in range(warm_up):
        run()
    if device.type != "cuda":
        seconds = []
        for _ in range(runs):
            begin = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begin)
        return Timing(tuple(seconds), "wall clock")
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(2 * runs)]  # type: ignore[no-untyped-call]
    pairs = list(zip(marks[::2], marks[1::2], strict=True))
    for first, last in pairs:
        first.record()
        run()
        last.record()
    torch.cuda.synchronize(device)
    return Timing(tuple(first.elapsed_time(last) / 1e3 for first, last in pairs), "cuda events")


class CapturedStep:
    """A step as a CUDA graph: all its kernels are launched at once, over the same memory every time."""

    def __init__(self, step: InPlaceStep, inputs: Mapping[str, Tensor], device: torch.device) -> None:
        """Warm up and capture; states are afterwards what they were before.

        Args:
            step: computes under whatever contexts are active now.
            inputs: of one step, by name; their shapes and types are fixed by it.
            device: a CUDA device.
        """
        self._inputs = {name: values.to(device).clone() for name, values in inputs.items()}
        kept = [state.clone() for state in step.states()]
        aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                step(**self._inputs)
        torch.cuda.current_stream(device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = tuple(step(**self._inputs))
        for state, before in zip(step.states(), kept, strict=True):
            state.copy_(before)
        # Replayed kernels read the weights and write the states where they lie.
        self._step = step

    def __call__(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        """Copy the inputs in and replay; the results are overwritten by the next call.

        Raises:
            ValueError: an input is missing, unknown, or of another shape or type than at the capture.
        """
        check_inputs(self._inputs, inputs)
        for name, values in inputs.items():
            self._inputs[name].copy_(values)
        self._graph.replay()
        return self._outputs


def check_inputs(captured: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Refuse inputs that do not fit a captured graph, naming all of them; ValueError."""
    faults = [f"{name} is missing" for name in captured if name not in given]
    faults += [f"{name} is not one of {', '.join(captured)}" for name in given if name not in captured]
    for name, held in captured.items():
        values = given.get(name)
        if values is not None and (values.shape != held.shape or values.dtype != held.dtype):
            faults.append(
                f"{name} is {values.dtype} {list(values.shape)} and was captured as {held.dtype} {list(held.shape)}"
            )
    if faults:
        raise ValueError("inputs do not fit the captured step: " + "; ".join(faults))
