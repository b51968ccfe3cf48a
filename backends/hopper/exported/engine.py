"""Engine: a TensorRT engine loaded, run and inspected; of all these files only this one imports TensorRT.

Names and signatures are those of TensorRT 11.4's own Python bindings. Tensors are torch's, on the card; numpy goes in
and out where that is wanted. Nothing of TensorRT or torch is imported before it is needed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class EngineError(RuntimeError):
    """TensorRT, torch or a card is not there, or TensorRT refuses; the message says what it said and what to do."""


class NotInstalledError(EngineError):
    """A package is not there."""


def library() -> Any:
    """Give TensorRT's module.

    Raises:
        NotInstalledError: it is not installed, or does not start.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:  # the latter where a library of it lacks another
        raise NotInstalledError(
            f"TensorRT can't be imported ({error}): pip install -r requirements-tensorrt.txt, which names the version;"
            " its libraries come from NVIDIA's own package index"
        ) from error
    return tensorrt


@lru_cache(maxsize=1)
def journal() -> Any:
    """TensorRT's logger, one a process as it wants it; `said` holds warnings and errors."""
    trt = library()
    kept = {trt.ILogger.INTERNAL_ERROR: "error", trt.ILogger.ERROR: "error", trt.ILogger.WARNING: "warning"}

    class Journal(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: list[tuple[str, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in kept:
                self.said.append((kept[severity], msg))

    return Journal()


def errors_since(mark: int) -> str:
    """What TensorRT's logger had of errors after `mark` entries, each once, in lines."""
    said = [text for kind, text in journal().said[mark:] if kind == "error"]
    return "\n".join(dict.fromkeys(said)) or "TensorRT says no reason"


class Loaded:
    """An engine as TensorRT holds it, without memory to run in; torch is not needed."""

    def __init__(self, plan: Path | bytes) -> None:
        """Load an engine from its file, or from what is in it.

        Raises:
            EngineError: there is no TensorRT or card, or the engine was built by another TensorRT or for another card.
        """
        self.trt = library()
        mark = len(journal().said)
        try:
            self.runtime = self.trt.Runtime(journal())
        except TypeError as error:  # pybind's, where TensorRT gives nothing
            raise EngineError(f"TensorRT {self.trt.__version__} does not start: {errors_since(mark)}") from error
        self.handle = self.runtime.deserialize_cuda_engine(plan.read_bytes() if isinstance(plan, Path) else plan)
        if self.handle is None:
            raise EngineError(
                f"TensorRT {self.trt.__version__} does not take the engine: {errors_since(mark)}\nAn engine runs with"
                " the TensorRT that built it, on the kind of card it was built on: build it there"
            )

    def account(self) -> dict[str, Any]:
        """What TensorRT's inspector says of every layer; `inspected.py` reads it."""
        text = self.handle.create_engine_inspector().get_engine_information(self.trt.LayerInformationFormat.JSON)
        account: dict[str, Any] = json.loads(text, strict=False)  # names of nodes are joined by control characters
        return account


class Engine(Loaded):
    """An engine with its memory on the card; states stay there from run to run."""

    def __init__(self, plan: Path | bytes, states: Mapping[str, str] | None = None, device: int = 0) -> None:
        """Load an engine.

        Args:
            plan: its file, or what is in it.
            states: input -> output that it is from then on; they begin with zeros and are not among results. An
                input named here may be given all the same.
            device: number of the card.

        Raises:
            EngineError: as `Loaded`; or there is no torch, or no memory on the card.
        """
        library()  # what is to be installed first is said first
        self.torch, self.device = _torch(), device
        self.place = self.torch.device("cuda", device)
        with self.torch.cuda.device(device):
            super().__init__(plan)
            mark = len(journal().said)
            self.context = self.handle.create_execution_context()
            if self.context is None:
                raise EngineError(f"the engine's memory can't be had: {errors_since(mark)}")
        names = [self.handle.get_tensor_name(index) for index in range(self.handle.num_io_tensors)]
        modes = {name: self.handle.get_tensor_mode(name) for name in names}
        self.inputs = tuple(name for name in names if modes[name] == self.trt.TensorIOMode.INPUT)
        self.outputs = tuple(name for name in names if modes[name] == self.trt.TensorIOMode.OUTPUT)
        self.updates = dict(states or {})
        """State -> output that it is from the next run on."""
        self.stream = self.torch.cuda.Stream(device)
        self.states: dict[str, Any] = {}
        """On the card."""
        self.given: dict[str, Any] = {}
        """What the last run read."""
        self.reset()

    def reset(self) -> None:
        """Begin a new utterance: states are zero."""
        shapes = {name: tuple(self.handle.get_tensor_shape(name)) for name in self.updates}
        # A state whose size varies has no zeros before it is given once.
        self.states = {name: self._new(name, shape) for name, shape in shapes.items() if min(shape, default=0) >= 0}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute from numpy to numpy; errors are those of `step`."""
        made = self.step({name: self.torch.from_numpy(np.asarray(held, order="C")) for name, held in inputs.items()})
        narrow = (self.torch.bfloat16, self.torch.float8_e4m3fn)  # numpy has neither
        return {
            name: (tensor.float() if tensor.dtype in narrow else tensor).cpu().numpy() for name, tensor in made.items()
        }

    def step(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Compute once, and wait for it.

        Args:
            inputs: torch tensors by name, anywhere; of the types that the engine has they go as they are.

        Returns:
            Tensors on the card, by name, without those that are states from now on.

        Raises:
            EngineError: an input is missing, or its shape is outside of what the engine was built for; TensorRT fails.
        """
        with self.bound(inputs) as made:
            self.launch()
        self.states.update({name: made.pop(update) for name, update in self.updates.items()})
        return made

    def launch(self) -> None:
        """Run what is bound, on the engine's stream, and do not wait."""
        mark = len(journal().said)
        if not self.context.execute_async_v3(self.stream.cuda_stream):
            raise EngineError(f"TensorRT stopped: {errors_since(mark)}")

    @contextmanager
    def bound(self, inputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Put inputs, states and new outputs where the engine finds them; at the end, what was launched is done."""
        cuda, given = self.torch.cuda, {**self.states, **inputs}
        before = cuda.current_stream(self.device)
        if wrong := _unfit(self.inputs, given):
            raise EngineError(wrong)
        with cuda.device(self.device), cuda.stream(self.stream):
            self.stream.wait_stream(before)
            self.given = {name: self._placed(name, given[name]) for name in self.inputs}
            for name, tensor in self.given.items():
                if not self.context.set_input_shape(name, tuple(tensor.shape)):
                    raise EngineError(f"input {name} has shape {tuple(tensor.shape)}, and {self._limits(name)}")
                self.context.set_tensor_address(name, tensor.data_ptr())
            if unknown := self.context.infer_shapes():
                raise EngineError(f"shapes of {', '.join(unknown)} can't be told from those of the inputs")
            made = {name: self._new(name, tuple(self.context.get_tensor_shape(name))) for name in self.outputs}
            for name, tensor in made.items():
                self.context.set_tensor_address(name, tensor.data_ptr())
            yield made
            self.stream.synchronize()

    def _limits(self, name: str) -> str:
        least, _, most = self.handle.get_tensor_profile_shape(name, 0)
        return f"the engine was built for {tuple(least)} to {tuple(most)}"

    def _placed(self, name: str, tensor: Any) -> Any:
        return tensor.to(self.place, self._dtype(name)).contiguous()

    def _new(self, name: str, shape: Sequence[int]) -> Any:
        if min(shape, default=0) < 0:
            raise EngineError(f"how large {name} gets hangs on values, {tuple(shape)}; such outputs are not supported")
        return self.torch.zeros(tuple(shape), dtype=self._dtype(name), device=self.place)

    def _dtype(self, name: str) -> Any:
        trt, torch, kind = self.trt, self.torch, self.handle.get_tensor_dtype(name)
        types = {
            trt.DataType.FLOAT: torch.float32,
            trt.DataType.HALF: torch.float16,
            trt.DataType.BF16: torch.bfloat16,
            trt.DataType.FP8: torch.float8_e4m3fn,
            trt.DataType.INT64: torch.int64,
            trt.DataType.INT32: torch.int32,
            trt.DataType.INT8: torch.int8,
            trt.DataType.UINT8: torch.uint8,
            trt.DataType.BOOL: torch.bool,
        }
        if kind not in types:
            raise EngineError(f"{name} is {kind}, which torch has no type for")
        return types[kind]


def _unfit(names: Sequence[str], given: Mapping[str, Any]) -> str:
    missing, unknown = [name for name in names if name not in given], [name for name in given if name not in names]
    wrong = [f"inputs {', '.join(missing)} are missing"] if missing else []
    wrong += [f"{', '.join(unknown)} are none of its inputs ({', '.join(names)})"] if unknown else []
    return "; ".join(wrong)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise NotInstalledError(f"{error}: pip install torch; memory on the card is had through it") from error
    if not torch.cuda.is_available():
        raise EngineError(f"torch {torch.__version__} sees no GPU: a card, its driver and a torch with CUDA are needed")
    return torch
