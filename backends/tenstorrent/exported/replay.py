"""Sessions: an export loaded on a card, run once or in chunks, timed, or captured once and replayed."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

# The files beside this one, here and in an export.
import runtime  # type: ignore[import-not-found]
from chunks import cut  # type: ignore[import-not-found]
from planner import Watched  # type: ignore[import-not-found]
from runtime import Export, RuntimeFailure, ttnn

Array = np.ndarray[Any, Any]


class Session:
    """An export on an open card, with its weights and its state."""

    def __init__(self, export: Export, device: Any) -> None:
        self.export, self.device = export, device
        self.weights = export.load(device)
        self.state = export.initial_state(device)

    def begin(self) -> None:
        """Set the state of a stream that begins, in the tensors that it is kept in."""
        for name, zeros in self.export.initial_state(None).items():
            ttnn.copy_host_to_device_tensor(zeros, self.state[name])

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by part of one run; state moves on."""
        outputs: dict[str, Array] = self.export.run(self.device, self.weights, inputs, self.state)
        return outputs

    def stream(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run chunk after chunk from state zero.

        Args:
            inputs: Of a program that program.json says the timing of, those of an utterance of any length, masks left
                out. Else each either as the program takes it, the same for all chunks; or longer along one axis, by a
                whole number of chunks; or with one axis more in front, of chunks.

        Returns:
            The utterance, what means nothing cut off; else outputs joined along their last axis, or along a new first
            one where the chunks had their own.

        Raises:
            RuntimeFailure: inputs of other shapes; lengths that are no whole number of chunks, or of different numbers.
        """
        self.begin()
        chunks, join = cut(self.export.manifest, inputs)
        outputs: dict[str, Array] = join([self.run(chunk) for chunk in chunks])
        return outputs

    def time(self, inputs: Mapping[str, Array], runs: int) -> dict[str, Any]:
        """Seconds of whole runs, host included, and of every operation of one more run, each waited for.

        Of inputs of many chunks the first is run, over and over: in it, too, inputs that did not change stay where
        they are.

        Raises:
            RuntimeFailure: on a mock card, which takes no time that means anything.
        """
        if runtime.on_mock():
            raise RuntimeFailure("a mock card computes nothing, so its times mean nothing; time on a real card")
        inputs = next(cut(self.export.manifest, inputs)[0])
        Session.run(self, inputs)  # kernels are compiled, and weights of convolutions prepared
        operations = self._operations(inputs)  # before a trace: what is allocated after one it may write over
        for _ in range(2):
            self.run(inputs)
        seconds = [self._seconds(lambda: self.run(inputs)) for _ in range(runs)]
        timing = {
            "runs": runs,
            "median_seconds": statistics.median(seconds),
            "seconds": seconds,
            "operations": operations,
        }
        chunk_ms = self.export.manifest.get("stream", {}).get("chunk_ms")
        if chunk_ms is None:
            return timing
        factor = statistics.median(seconds) * 1000 / chunk_ms
        return {**timing, "chunk_ms": chunk_ms, "real_time_factor": factor}

    def _seconds(self, function: Callable[[], Any]) -> float:
        ttnn.synchronize_device(self.device)
        start = time.perf_counter()
        function()
        ttnn.synchronize_device(self.device)
        return time.perf_counter() - start

    def _operations(self, inputs: Mapping[str, Array]) -> list[dict[str, Any]]:
        taken: list[dict[str, Any]] = []

        def call(name: str, function: Any, arguments: Any, options: dict[str, Any]) -> Any:
            result: list[Any] = []
            seconds = self._seconds(lambda: result.append(function(*arguments, **options)))
            taken.append({"call": name, "seconds": seconds})
            return result[0]

        self._watched(call, lambda: Session.run(self, inputs))
        steps = [step for step in self.export.manifest["steps"] if step["op"] != "host"]
        return [{**one, "site": step["site"], "op": step["op"]} for one, step in zip(taken, steps, strict=False)]

    def _watched(self, call: Callable[..., Any], function: Callable[[], Any], module: Any = None) -> Any:
        """Do something while every operation of the model, and every transfer, goes through `call`."""
        model = self.export.model
        model.ttnn, runtime.observe = module or Watched("ttnn", ttnn, call), call
        try:
            return function()
        finally:
            model.ttnn, runtime.observe = ttnn, None


class Traced(Session):
    """A session whose second run the card captures, and replays from then on: no work of the host between operations.

    `forward` is gone through in each run all the same, for what it does with arrays: its uploads then write where the
    captured program reads, its operations do nothing, and its first download starts the program.
    """

    def __init__(self, export: Export, device: Any) -> None:
        super().__init__(export, device)
        self._trace: Any = None
        self._sources: list[Any] = []
        """Tensors that uploads go to."""
        self._sinks: list[Any] = []
        """Tensors that downloads come from."""
        self._compiled = False

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by part; state moves on.

        Raises:
            RuntimeFailure: the program goes back to the host in its midst.
        """
        run = super().run
        if not self._compiled:
            self._compiled = True
            outputs = self._watched(self._keep, lambda: run(inputs), _Keeping(self._is_kept))
            return dict(outputs)
        if self._trace is None:
            self._sinks = []
            self._trace = ttnn.begin_trace_capture(self.device, cq_id=0)
            held, self._uploaded = dict(self.weights), 0
            self._watched(
                self._capture,
                lambda: self.export.run(self.device, held, inputs, self.state),
                _Keeping(self._is_kept),
            )
            ttnn.end_trace_capture(self.device, self._trace, cq_id=0)
        self._uploaded = self._downloaded = 0
        weights, state = dict(self.weights), dict(self.state)
        outputs = self._watched(self._replay, lambda: self.export.run(self.device, weights, inputs, state), _Nothing())
        return dict(outputs)

    def _is_kept(self, tensor: Any) -> bool:
        held = (*self._sources, *self._sinks)
        where = place(tensor)
        return where is not None and where in map(place, held)

    def _keep(self, name: str, function: Any, arguments: Any, options: dict[str, Any]) -> Any:
        if name == "runtime.download":
            self._sinks.append(arguments[0])
            return function(*arguments, **options)
        if self._sinks:
            raise RuntimeFailure(
                "the program goes back to the host in its midst, which no trace can; run it without --trace"
            )
        if name == "runtime.hold":
            return function(*arguments, **options)
        self._sources.append(function(*arguments, **options))
        return self._sources[-1]

    def _capture(self, name: str, _: Any, arguments: Any, __: dict[str, Any]) -> Any:
        if name == "runtime.hold":
            state, held = arguments[:2]
            return state[held].tensor  # written before the trace is replayed
        if name == "runtime.upload":
            self._uploaded += 1
            return self._sources[self._uploaded - 1]
        self._sinks.append(arguments[0])
        return np.zeros(tuple(arguments[0].shape), np.float32)

    def _replay(self, name: str, function: Any, arguments: Any, _: dict[str, Any]) -> Any:
        if name == "runtime.hold":
            return function(*arguments)
        if name == "runtime.upload":
            target = self._sources[self._uploaded]
            ttnn.copy_host_to_device_tensor(function(arguments[0], target.dtype, target.layout, None), target)
            self._uploaded += 1
            return target
        if self._downloaded == 0:
            ttnn.execute_trace(self.device, self._trace, cq_id=0, blocking=True)
        self._downloaded += 1
        return function(self._sinks[self._downloaded - 1])


def place(tensor: Any) -> tuple[Any, int] | None:
    """Where the buffer of a tensor lies on the card, which views of it share; None: on the host, or given back."""
    if not (ttnn.is_tensor_storage_on_device(tensor) and tensor.is_allocated()):
        return None
    return tensor.memory_config().buffer_type, tensor.buffer_address()


class _Keeping:
    """ttnn, but that it deallocates no tensor that a trace reads or writes."""

    def __init__(self, kept: Callable[[Any], bool]) -> None:
        self._kept = kept

    def __getattr__(self, name: str) -> Any:
        if name == "deallocate":
            return lambda tensor, *_: None if self._kept(tensor) else ttnn.deallocate(tensor)
        return getattr(ttnn, name)


class _Nothing:
    """Stands for ttnn, its modules, operations and results while a trace is replayed: all it does is be there."""

    def __getattr__(self, name: str) -> "_Nothing":
        return self

    def __call__(self, *_: Any, **__: Any) -> "_Nothing":
        return self

    def __iter__(self) -> Iterator["_Nothing"]:
        return iter((self, self))  # a convolution's result, and the weights that it prepared


def report(timing: dict[str, Any]) -> str:
    """Times as text: whole runs, then operations, the longest first."""
    lines = [f"{timing['runs']} runs, median {timing['median_seconds'] * 1e3:.3f} ms"]
    if "real_time_factor" in timing:
        lines = [
            f"{timing['runs']} chunks of {timing['chunk_ms']:.1f} ms, median {timing['median_seconds'] * 1e3:.3f} ms:"
            f" a real-time factor of {timing['real_time_factor']:.4f}, which must stay below 1"
        ]
    longest = sorted(timing["operations"], key=lambda one: -one["seconds"])
    lines += [f"{one['seconds'] * 1e6:10.1f} us  {one['call']}  {one['site'] or ''}" for one in longest]
    return "\n".join(lines)
