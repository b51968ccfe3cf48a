"""Planning: one run of an export's `forward`, in which every call is checked, captured, and read back from the library.

Nothing is computed on a mock card, so all that is read is what the library says of an operation: types of its operands
and its result, the kernel configuration that the device operation got, the constants of the kernels made for it, and
the memory that it took.
"""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# The files beside this one, here and in an export.
import runtime  # type: ignore[import-not-found]
from captured import ListedKernels, captured, described, device_facts, first, tensors  # type: ignore[import-not-found]
from runtime import Export, ttnn


class SequenceError(runtime.RuntimeFailure):  # type: ignore[misc]
    """The calls of model.py are not those that program.json lists."""


def plan(folder: Path, device: Any, card: str | None = None) -> dict[str, Any]:
    """Run a program once on zeros and say what the library made of every step.

    Args:
        folder: An export.
        device: An open card, mock or real.
        card: Its name; None is that of the card the export was made for.

    Returns:
        `card`, `architecture`, `grid`, `l1_bytes_per_core`, `weights_dram_bytes`, and `steps`, each as `Planner.call`
        makes it.

    Raises:
        SequenceError: model.py and program.json do not tell the same program.
        RuntimeFailure: the folder is no export, or its weights can't be loaded.
    """
    export = Export(folder)
    device.disable_and_clear_program_cache()  # a cached program makes no kernels, which are read
    before = dram_bytes(device)
    weights = export.load(device)
    state = export.initial_state(device)
    held = dram_bytes(device) - before
    planner = Planner(export.manifest["steps"], device, before)
    inputs = {spec["name"]: np.zeros(spec["shape"], spec["dtype"]) for spec in export.manifest["inputs"]}
    export.model.ttnn = Watched("ttnn", ttnn, planner.call)
    runtime.observe = planner.transfer
    sys.modules["host"] = planner.host
    try:
        export.model.forward(device, weights, inputs, state)
    finally:
        runtime.observe = None
        sys.modules.pop("host", None)
    planner.finish()
    grid = device.compute_with_storage_grid_size()
    return {
        "card": card or export.manifest["card"],
        "architecture": "blackhole" if ttnn.device.is_blackhole(device) else "wormhole",
        "grid": [grid.x, grid.y],
        "l1_bytes_per_core": l1_bytes_per_core(device),
        "weights_dram_bytes": held,
        "steps": planner.entries,
    }


def dram_bytes(device: Any) -> int:
    """Bytes of DRAM that buffers take now, over all banks."""
    view = ttnn.get_memory_view(device, ttnn.BufferType.DRAM)
    return int(view.total_bytes_allocated_per_bank * view.num_banks)


def l1_bytes_per_core(device: Any) -> int:
    """Bytes of a core's L1 that buffers may take, beside those that convolutions keep their windows in."""
    return int(ttnn.get_memory_view(device, ttnn.BufferType.L1).total_bytes_per_bank)


class Watched:
    """A module of ttnn whose operations go through `call`; the rest of it is as it was."""

    def __init__(self, name: str, module: Any, call: Callable[..., Any]) -> None:
        self._name, self._module, self._call = name, module, call

    def __getattr__(self, name: str) -> Any:
        """The attribute of the module, watched where it is an operation or holds such."""
        value, path = getattr(self._module, name), f"{self._name}.{name}"
        if isinstance(value, types.ModuleType):
            return Watched(path, value, self._call)
        if not hasattr(value, "python_fully_qualified_name") or name == "deallocate":
            return value
        return lambda *arguments, **options: self._call(path, value, arguments, options)


class Planner:
    """Follows the steps of a manifest through the calls of a model."""

    def __init__(self, steps: list[dict[str, Any]], device: Any, unused_dram_bytes: int) -> None:
        self.steps, self.device, self.entries = steps, device, []  # type: ignore[var-annotated]
        self._unused = unused_dram_bytes
        self._kernels = ListedKernels()
        self.host = types.ModuleType("host")
        self.host.__getattr__ = lambda name: lambda *_, **__: self._zeros_of_host(f"host.{name}")  # type: ignore[method-assign]

    def call(self, name: str, function: Callable[..., Any], arguments: Any, options: dict[str, Any]) -> Any:
        """One operation: do it, note what the library made of it, or why it refused."""
        step = self._next(name)
        result, graph, refusal = captured(function, arguments, options, ttnn.graph.RunMode.NORMAL)
        entry = {
            "index": step["index"],
            "site": step.get("site"),
            "op": step["op"],
            "call": name,
            "source": step.get("source", ""),
            "inputs": [described(key, value) for key, value in tensors(arguments, options)],
            "output": None if refusal else described("result", first(result)),
            "refused": refusal,
            **device_facts(graph, self._kernels.new()),
            "l1_bytes_per_core": 0,
            "l1_bytes": 0,
        }
        if refusal is None:
            # Only a capture that dispatches nothing holds the buffers of every kind of kernel.
            _, undispatched, _ = captured(function, arguments, options, ttnn.graph.RunMode.NO_DISPATCH)
            self._kernels.new()
            for taken in (graph, undispatched):
                usage = ttnn.graph.extract_resource_usage_per_core(taken)
                entry["l1_bytes_per_core"] = max(entry["l1_bytes_per_core"], usage.peak_total)
                entry["l1_bytes"] = max(entry["l1_bytes"], ttnn.graph.extract_peak_L1_memory_usage(taken))
            # The library looks at what lies in L1 now; on a card, what convolutions keep there lies there, too.
            if entry["l1_bytes_per_core"] > (free := l1_bytes_per_core(self.device)):
                entry["refused"] = (
                    f"takes {entry['l1_bytes_per_core']:,} bytes of L1 of a core, and {free:,} are free beside the "
                    f"{runtime.L1_SMALL_BYTES:,} for convolutions"
                )
        else:
            result = self._instead(step, arguments, options)
        entry["dram_bytes"] = dram_bytes(self.device) - self._unused
        self.entries.append(entry)
        return result

    def transfer(self, name: str, function: Callable[..., Any], arguments: Any, options: dict[str, Any]) -> Any:
        """An upload, or what is held, is an operation; of a download only the shape is real where nothing computes."""
        if name != "runtime.download":
            return self.call(name, function, arguments, options)
        (tensor,) = arguments
        return self.call(name, lambda held: np.zeros(tuple(held.shape), np.float32), (tensor,), options)

    def finish(self) -> None:
        """Ask that no step is left."""
        if len(self.entries) < len(self.steps):
            step = self.steps[len(self.entries)]
            raise SequenceError(
                f"model.py ends after {len(self.entries)} calls, and program.json lists {len(self.steps)}: next were "
                f"step {step['index']}, {step['call']} ({step.get('site') or step.get('source')})"
            )

    def _next(self, name: str) -> dict[str, Any]:
        at = len(self.entries)
        wanted = self.steps[at]["call"] if at < len(self.steps) else "no more call"
        if wanted != name:
            step = self.steps[at] if at < len(self.steps) else {}
            raise SequenceError(
                f"model.py calls {name} where program.json lists {wanted} (step {at}, "
                f"{step.get('site') or step.get('source') or 'the end'}); one of the two was changed: export again"
            )
        return self.steps[at]

    def _zeros_of_host(self, name: str) -> Any:
        step = self._next(name)
        entry = {key: step.get(key) for key in ("index", "site", "op", "source")}
        nothing: dict[str, Any] = {
            "device_ops": [],
            "compute": None,
            "operands": [],
            "k_block_tiles": None,
            "k_blocks": None,
        }
        taken = {"l1_bytes_per_core": 0, "l1_bytes": 0, "dram_bytes": dram_bytes(self.device) - self._unused}
        self.entries.append({**entry, "call": name, "inputs": [], "output": None, "refused": None, **nothing, **taken})
        return tuple(np.zeros(spec["shape"], spec["dtype"]) for spec in step["results"])

    def _instead(self, step: dict[str, Any], arguments: Any, options: dict[str, Any]) -> Any:
        """What an operation that was refused should have given, so that those after it are planned, too."""
        if step.get("place") == "host":
            return np.zeros(step["shape"], step["dtype"])
        kind = np.uint32 if step["dtype"] in ("uint32", "int32") else np.float32
        memory = ttnn.L1_MEMORY_CONFIG if step.get("memory") == "l1" else ttnn.DRAM_MEMORY_CONFIG
        blank = np.zeros(step["shape"], kind)
        tensor = runtime._upload(blank, step["dtype"], step.get("layout", "tile"), self.device, memory)
        extra: list[Any] = []
        if options.get("return_output_dim"):
            extra.append(step["shape"][-2])
        if options.get("return_weights_and_bias"):
            extra.append([options.get("weight_tensor"), options.get("bias_tensor")])
        return (tensor, *extra) if extra else tensor
