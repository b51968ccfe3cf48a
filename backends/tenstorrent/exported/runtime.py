"""What `model.py` calls beside ttnn: a device, host arrays to the card and back, weights, state, and the run itself.

Beside `model.py` this is the only file that imports ttnn. It reads `program.json`, the manifest: inputs, outputs and
states with shapes and types, constants with their files, and every step with the call that it is.
"""

import contextlib
import importlib.util
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("LOGURU_LEVEL", "ERROR")  # or ttnn prints its configuration, and a warning at each capture
os.environ.setdefault("TT_LOGGER_LEVEL", "OFF")  # what goes wrong is raised, too

import numpy as np
import ttnn
from checked import read_manifest, stopped  # type: ignore[import-not-found]  # the file beside this one, here and in an export

DTYPES = {
    "bf16": ttnn.bfloat16,
    "fp32": ttnn.float32,
    "bfp8_b": ttnn.bfloat8_b,
    "bfp4_b": ttnn.bfloat4_b,
    "uint32": ttnn.uint32,
    "int32": ttnn.int32,
}
"""ttnn's types by the names that manifests have."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LAYOUTS = {"tile": ttnn.TILE_LAYOUT, "row_major": ttnn.ROW_MAJOR_LAYOUT}
L1_SMALL_BYTES = 65536  # convolutions keep the indices of their windows there

LIBRARY_ERRORS = (RuntimeError, AttributeError, IndexError, TypeError, ValueError)
"""What ttnn and torch raise where a call does not suit them."""
_numbers = itertools.count()
observe: Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any] | None = None
"""Where set, every call of `upload` and `download` goes through it: name, function, arguments."""


class RuntimeFailure(RuntimeError):  # noqa: N818 - it is what happened to a run, whoever made the error
    """An export, an input or a device does not fit; the message says what held and what to do."""


def on_mock() -> bool:
    """Whether the card is one that `mock_card` made."""
    return "TT_METAL_MOCK_CLUSTER_DESC_PATH" in os.environ


@contextlib.contextmanager
def opened(device: int = 0, mesh: tuple[int, int] | None = None, trace_region_bytes: int = 0) -> Iterator[Any]:
    """Open a card, or a mesh of them with the same on each, and close it in the end."""
    options = {"l1_small_size": L1_SMALL_BYTES, "trace_region_size": trace_region_bytes}
    try:
        if mesh is None:
            handle = ttnn.open_device(device_id=device, **options)
        else:
            handle = ttnn.open_mesh_device(ttnn.MeshShape(*mesh), **options)
    except RuntimeError as error:
        raise RuntimeFailure(
            f"no card could be opened: {reason(error)}\nIs one there (/dev/tenstorrent)? --plan needs none"
        ) from error
    try:
        yield handle
    finally:
        (ttnn.close_device if mesh is None else ttnn.close_mesh_device)(handle)


def reason(error: BaseException) -> str:
    """What the library says, in its own words, without the trace of its calls: at most six lines."""
    text = str(error).split("backtrace:")[0].strip()
    where, _, info = text.partition("\ninfo:\n")
    lines = [line.strip() for line in (info or where).splitlines() if line.strip()]
    if info:
        lines.append(f"({where.removeprefix('TT_FATAL @ ').removeprefix('TT_THROW @ ').removeprefix('/project/')})")
    return "\n".join(lines[:6]) or type(error).__name__


def upload(array: Any, dtype: Any, layout: Any, device: Any, memory_config: Any = None) -> Any:
    """Make a host array a tensor on the card; `device=None` leaves it on the host.

    Args:
        array: numpy, or a torch tensor on the CPU, of at most four axes. NaN and infinities go as they are, but for
            block formats, whose packing has neither.
        dtype: One of ttnn's types, or a key of DTYPES.
        layout: One of ttnn's layouts, or a key of LAYOUTS.
        device: What `opened` gives.
        memory_config: ttnn's; None is DRAM, interleaved.
    """
    return _observed("runtime.upload", _upload, array, dtype, layout, device, memory_config)


def hold(
    state: dict[str, Any], name: str, array: Any, dtype: Any, layout: Any, device: Any, memory_config: Any = None
) -> Any:
    """Make a host array a tensor on the card that stays there, and is written to only where the array has changed.

    `state` is what stays from run to run, in which the tensor is kept by its name in the program; an array always has
    the same shape, and the rest is as of `upload`.
    """
    return _observed("runtime.hold", _hold, state, name, array, dtype, layout, device, memory_config)


class Held:
    """A tensor that stays on the card, and the bytes of the host array that is in it."""

    def __init__(self, tensor: Any, array: np.ndarray[Any, Any]) -> None:
        self.tensor, self._bytes = tensor, array.tobytes()

    def write(self, array: np.ndarray[Any, Any]) -> None:
        """Bring it up to date, in the place where it lies."""
        if array.tobytes() != self._bytes:
            ttnn.copy_host_to_device_tensor(_upload(array, self.tensor.dtype, self.tensor.layout, None), self.tensor)
            self._bytes = array.tobytes()


def _hold(state: dict[str, Any], name: str, array: Any, *how: Any) -> Any:
    if name in state:
        state[name].write(np.asarray(array))
    else:
        state[name] = Held(_upload(array, *how), np.asarray(array))
    return state[name].tensor


def download(tensor: Any) -> np.ndarray[Any, Any]:
    """Make a tensor of the card a host array: float32, or its own type for integers; of a mesh, the first card's."""
    array: np.ndarray[Any, Any] = _observed("runtime.download", read_back, tensor)
    return array


def _observed(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments) if observe is None else observe(name, function, arguments, {})


def _upload(array: Any, dtype: Any, layout: Any, device: Any, memory_config: Any = None) -> Any:
    dtype = DTYPES[dtype] if isinstance(dtype, str) else dtype
    layout = LAYOUTS[layout] if isinstance(layout, str) else layout
    kind = {ttnn.uint32: np.uint32, ttnn.int32: np.int32}.get(dtype, np.float32)
    values = np.ascontiguousarray(np.asarray(array), dtype=kind)
    if device is None:
        return ttnn.Tensor(values, dtype, layout=layout)
    return ttnn.Tensor(values, dtype, device, layout, memory_config or ttnn.DRAM_MEMORY_CONFIG)


def read_back(tensor: Any) -> np.ndarray[Any, Any]:
    """Values of a tensor, of the card or the host, as the format holds them: float32, or its own type for integers."""
    if ttnn.is_tensor_storage_on_device(tensor):
        tensor = ttnn.get_device_tensors(tensor.cpu())[0]
    if tensor.dtype not in (ttnn.float32, ttnn.uint32, ttnn.int32):
        tensor = ttnn.to_dtype(tensor, ttnn.float32)  # on the host; exact
    return np.asarray(tensor.to_numpy())


class Export:
    """A folder that `precision-search export` wrote: its manifest, and its model once it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = read_manifest(folder)
        self.model = _module(folder / "model.py")

    def load(self, device: Any) -> dict[str, Any]:
        """Weights by name, on the card (those that ttnn prepares itself on the host)."""
        try:
            weights: dict[str, Any] = self.model.load(device, self.folder)
        except LIBRARY_ERRORS as error:
            raise RuntimeFailure(f"weights of {self.folder} can't be loaded: {reason(error)}") from error
        return weights

    def initial_state(self, device: Any) -> dict[str, Any]:
        """State of a stream that begins: zeros, by name."""
        return {
            name: _upload(np.zeros(spec["shape"], np.float32), spec["dtype"], spec.get("layout", "tile"), device)
            for name, spec in self.manifest["states"].items()
        }

    def check_inputs(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """The inputs that the program takes, in its types.

        Raises:
            RuntimeFailure: one is missing or has another shape; all are named at once.
        """
        wrong, taken = [], {}
        for spec in self.manifest["inputs"]:
            name, shape = spec["name"], tuple(spec["shape"])
            if name not in inputs:
                wrong.append(f"{name} {shape} is missing; there are {', '.join(inputs) or 'none'}")
            elif inputs[name].shape != shape:
                wrong.append(f"{name} must have shape {shape}, got {inputs[name].shape}")
            else:
                taken[name] = inputs[name].astype(spec["dtype"])
        if wrong:
            raise RuntimeFailure("the program was made for other inputs: " + "; ".join(wrong))
        return taken

    def run(
        self, device: Any, weights: dict[str, Any], inputs: Mapping[str, np.ndarray[Any, Any]], state: dict[str, Any]
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Compute the outputs by part; `state` is brought up to date in place.

        Raises:
            RuntimeFailure: inputs do not fit, or ttnn or host.py stops; the message is theirs.
        """
        given = self.check_inputs(inputs)
        try:
            with _beside(self.folder):
                outputs = self.model.forward(device, weights, given, state)
        except RuntimeFailure:
            raise
        except ImportError as error:  # of host.py's torch
            raise RuntimeFailure(f"{error}; pip install -r requirements.txt") from error
        except LIBRARY_ERRORS as error:
            raise RuntimeFailure(f"{stopped(error)}: {reason(error)}") from error
        return {part: np.asarray(value) for part, value in outputs.items()}


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """`import host` in a model means the host.py beside it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _module(file: Path) -> ModuleType:
    sys.modules.setdefault("runtime", sys.modules[__name__])  # a model's `import runtime` is this one
    sys.modules.pop("host", None)
    spec = importlib.util.spec_from_file_location(f"model_{next(_numbers)}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise RuntimeFailure(f"{file} is missing; export again")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (AttributeError, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise RuntimeFailure(f"{file} can't be read by ttnn {version('ttnn')}: {reason(error)}") from error
    return module
