"""Measured: times of an engine on the card, whole and layer by layer, and runs captured as a CUDA graph."""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

WARM_RUNS = 10
"""Runs that come before those that are timed."""


def times_ms(engine: Any, inputs: Mapping[str, Any], runs: int) -> list[float]:
    """Times of `runs` runs on the card alone, by CUDA events, after ten that are not counted; states stand still.

    Copies to and from the card are not in it.

    Args:
        engine: an `engine.Engine`.
        inputs: as of its `step`, whose errors are those here.
        runs: how many.
    """
    cuda, times = engine.torch.cuda, []
    with engine.bound(inputs):
        for _ in range(WARM_RUNS):
            engine.launch()
        for _ in range(runs):
            begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
            begin.record(engine.stream)
            engine.launch()
            end.record(engine.stream)
            end.synchronize()
            times.append(float(begin.elapsed_time(end)))
    return times


def layer_times_ms(engine: Any, inputs: Mapping[str, Any], runs: int) -> dict[str, float]:
    """Median time of every layer over `runs` runs, by TensorRT's profiler, in the order in which they ran first.

    Profiling keeps layers from overlapping, so that they may add up to more than a run takes. Arguments and errors are
    those of `times_ms`.
    """
    times: dict[str, list[float]] = {}

    class Profiler(engine.trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            engine.trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(layer_name, []).append(ms)

    kept, profiler = engine.context, Profiler()
    engine.context = engine.handle.create_execution_context()  # a profiler can't be taken off a context
    try:
        with engine.bound(inputs):
            for _ in range(WARM_RUNS):
                engine.launch()
            engine.stream.synchronize()
            engine.context.profiler = profiler  # from now on a launch waits, and reports
            for _ in range(runs):
                engine.launch()
    finally:
        engine.context = kept
    return {name: median(held) for name, held in times.items()}


def captured(engine: Any, inputs: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Capture a run as a CUDA graph, with the update of the states, which begin as the engine's are now.

    Args:
        engine: an `engine.Engine`. Its own states stay as they are; the graph has its own from now on.
        inputs: of the shapes that every later run has.

    Returns:
        A function as the engine's `step`, whose results its next call writes over. Not to be used while the engine
        itself runs: both have one memory.

    Raises:
        RuntimeError: as `step`; or it can't be captured, for a layer of it waits for the host.
    """
    torch, context = engine.torch, engine.context
    graph = torch.cuda.CUDAGraph()
    # Copies, for a replay writes to what it reads.
    own = {name: tensor.to(engine.place).clone() for name, tensor in {**engine.states, **inputs}.items()}
    with engine.bound(own) as made:
        fixed = dict(engine.given)
        begin = {name: fixed[name].clone() for name in engine.updates}
        engine.launch()  # TensorRT settles what hangs on shapes in a first run, which can't be captured
        engine.stream.synchronize()
        with torch.cuda.graph(graph, stream=engine.stream):
            engine.launch()
            for name, update in engine.updates.items():
                fixed[name].copy_(made[update])
        for name, tensor in begin.items():
            fixed[name].copy_(tensor)
    results = {name: tensor for name, tensor in made.items() if name not in engine.updates.values()}

    def replay(given: Mapping[str, Any]) -> dict[str, Any]:
        assert context is not None  # its memory is what the graph computes in
        for name, tensor in given.items():
            fixed[name].copy_(tensor)
        graph.replay()
        torch.cuda.current_stream(engine.device).synchronize()
        return results

    return replay
