"""Medians of calls: on a card through CUDA graphs and events, on a CPU by the clock."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

WARM_UPS = 3
RUNS = 11
GRAPH_US = 1000.0
"""A replay lasts about as long, so that starting it does not count."""
MOST_CALLS = 200


@dataclass(frozen=True, slots=True)
class Timed:
    """Microseconds a call."""

    us: float
    spread_us: float
    """90th less 10th percentile of the runs."""
    calls: int
    """Of a run, which one after the other take its operands in turn."""


def timed(calls: Sequence[Callable[[], object]], device: torch.device, runs: int = RUNS) -> Timed:
    """Time calls that do the same with other operands; taken in turn, so that no operand waits in a cache.

    On a card they are captured as one graph, whose kernels start without the host: what is left between them is the
    card's own, a microsecond or so.
    """
    return on_card(calls, device, runs) if device.type == "cuda" else _on_cpu(calls, runs)


def on_card(calls: Sequence[Callable[[], object]], device: torch.device, runs: int) -> Timed:
    """Replay a graph of the calls, between events."""
    count = _warm_up(calls, device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for index in range(count):
            calls[index % len(calls)]()
    events = [(_event(), _event()) for _ in range(runs)]
    graph.replay()
    for start, end in events:
        start.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize(device)
    return _median([1e3 * start.elapsed_time(end) / count for start, end in events], count)


def _warm_up(calls: Sequence[Callable[[], object]], device: torch.device) -> int:
    """Run beside the stream to be captured, as torch's notes on graphs have it; how many calls a graph should hold."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for index in range(WARM_UPS):
            calls[index % len(calls)]()
        start, end = _event(), _event()
        start.record()
        for index in range(WARM_UPS):
            calls[index % len(calls)]()
        end.record()
    torch.cuda.current_stream(device).wait_stream(side)
    torch.cuda.synchronize(device)
    # With the host's launches in it this is too long rather than too short; small calls get more of a graph.
    once_us: float = max(1e3 * start.elapsed_time(end) / WARM_UPS / 3, 0.5)
    return max(len(calls), min(MOST_CALLS, round(GRAPH_US / once_us)), 1)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _on_cpu(calls: Sequence[Callable[[], object]], runs: int) -> Timed:
    calls[0]()
    taken = []
    for run in range(min(runs, 5)):
        start = time.perf_counter()
        calls[run % len(calls)]()
        taken.append(1e6 * (time.perf_counter() - start))
    return _median(taken, 1)


def _median(taken: list[float], calls: int) -> Timed:
    tenths = statistics.quantiles(taken, n=10, method="inclusive")
    return Timed(statistics.median(taken), tenths[-1] - tenths[0], calls)
