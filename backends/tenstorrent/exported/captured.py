"""What can be read of one call of ttnn: its graph, as the library captures it, and the kernels that it made."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# The file beside this one, here and in an export.
from runtime import LAYOUTS, NAMES, reason, ttnn  # type: ignore[import-not-found]

KERNELS = Path("generated", "watcher", "kernel_elf_paths.txt")
"""Where, under TT_METAL_LOGS_PATH, ttnn lists every kernel that it makes."""
CONFIG = re.compile(
    r"ComputeKernelConfig\(math_fidelity=(\w+),math_approx_mode=(\d),fp32_dest_acc_en=(\d),packer_l1_acc=(\d),"
    r"dst_full_sync_en=(\d)"
)
DTYPE = re.compile(r"dtype=DataType::(\w+)")
CONV_BLOCK = re.compile(r"Conv2dBlockConfig\(\d+, (\d+)")
COMPILED = re.compile(r"-DKERNEL_COMPILE_TIME_ARGS=([\d,]+)")
DEVICE_NAMES = {
    "BFLOAT16": "bf16",
    "FLOAT32": "fp32",
    "BFLOAT8_B": "bfp8_b",
    "BFLOAT4_B": "bfp4_b",
    "UINT32": "uint32",
    "INT32": "int32",
}
LAYING = ("Halo", "Tilize", "Untilize", "ReshapeView", "Move", "InterleavedToSharded", "ShardedToInterleaved", "Copy")
"""Device operations that lay data out before and after the one that computes."""


def captured(
    function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any], mode: Any
) -> tuple[Any, list[dict[str, Any]], str | None]:
    """Result, graph and refusal of one call; of result and refusal one is None."""
    ttnn._ttnn.graph.begin_graph_capture(mode)  # that of Python about it imports torch
    result, refusal = None, None
    try:
        result = function(*arguments, **options)
    except (RuntimeError, TypeError, ValueError) as error:
        refusal = reason(error)
    finally:
        graph = ttnn._ttnn.graph.end_graph_capture()
    return result, graph, refusal


def tensors(arguments: tuple[Any, ...], options: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Tensors among the arguments of a call, those in lists too, with their name or place."""
    for key, value in (*enumerate(arguments), *options.items()):
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, ttnn.Tensor):
                yield str(key), one


def first(result: Any) -> Any:
    """The tensor of a call that gives more beside it."""
    return result[0] if isinstance(result, tuple | list) else result


def described(name: str, tensor: Any) -> dict[str, Any]:
    """Name, shape, type, layout and place of a tensor or a host array."""
    if not isinstance(tensor, ttnn.Tensor):
        return {"name": name, "shape": list(tensor.shape), "dtype": str(tensor.dtype), "place": "host"}
    layouts = {layout: text for text, layout in LAYOUTS.items()}
    return {
        "name": name,
        "shape": list(tensor.shape),
        "dtype": NAMES.get(tensor.dtype, str(tensor.dtype)),
        "layout": layouts.get(tensor.layout, str(tensor.layout)),
        "place": "card" if ttnn.is_tensor_storage_on_device(tensor) else "host",
    }


def device_facts(graph: list[dict[str, Any]], kernels: list[str]) -> dict[str, Any]:
    """What the device operations of a call got.

    Returns:
        `device_ops`, their names in order; of the one that computes `compute`, the fields of its kernel configuration,
        `operands`, the types of its inputs, and `k_block_tiles` and `k_blocks`, tiles of K in a block and how many
        blocks a product of it is summed from. None where it has none, or where it can't be read.
    """
    calls = [node for node in graph if node["node_type"] == "function_start"]
    operations = [node for node in calls if node["params"]["name"].endswith("Operation")]
    computing = [node for node in operations if not node["params"]["name"].startswith(LAYING)]
    # Of several, the one that takes a configuration is the one that it was given for.
    configured = [node for node in computing if CONFIG.search(_attributes(node))]
    candidates = configured or computing
    main = candidates[-1] if candidates else None
    tiles, blocks = k_blocks(main, kernels) if main else (None, None)
    return {
        "device_ops": [node["params"]["name"] for node in operations],
        "compute": _compute(_attributes(main)) if main else None,
        "operands": [DEVICE_NAMES.get(name, name) for name in DTYPE.findall(_inputs(main))] if main else [],
        "k_block_tiles": tiles,
        "k_blocks": blocks,
    }


def _attributes(node: dict[str, Any]) -> str:
    return str(node["arguments"][0]) if node["arguments"] else ""


def _inputs(node: dict[str, Any]) -> str:
    return str(node["arguments"][1]) if len(node["arguments"]) > 1 else ""


def _compute(attributes: str) -> dict[str, Any] | None:
    found = CONFIG.search(attributes)
    if found is None:
        return None
    return {
        "fidelity": found[1].lower(),
        "approximate": found[2] == "1",
        "fp32_accumulation": found[3] == "1",
        "packer_l1_acc": found[4] == "1",
        "full_sync": found[5] == "1",
    }


def k_blocks(operation: dict[str, Any], kernels: list[str]) -> tuple[int | None, int | None]:
    """Tiles of K in a block, and blocks, of a product: from the constants of the kernel that computes it."""
    for kernel in kernels:
        folder = Path(kernel.split(":")[0]).parent.parent
        if "/bmm_large_block" in kernel:
            constants = (folder / "kernel_args_generated.h").read_text()
            return _constant(constants, "in0_block_w"), _constant(constants, "num_blocks_inner_dim")
        if "/conv_bmm_tilize" in kernel:
            # The stand-in compiler keeps its command as the object; conv_bmm_tilize.cpp numbers its constants.
            found = COMPILED.search((folder / "trisc0" / "trisck.o").read_text(errors="ignore"))
            if found is not None:
                numbers = [int(number) for number in found[1].split(",")]
                return numbers[0], numbers[9]
    block = CONV_BLOCK.search(_attributes(operation))
    return (int(block[1]), None) if block else (None, None)


def _constant(text: str, name: str) -> int | None:
    found = re.search(rf"> {name}\{{(\d+)u\}}", text)
    return int(found[1]) if found else None


class ListedKernels:
    """Kernels as this process makes them, each told once; none where ttnn keeps no list."""

    def __init__(self) -> None:
        self._file = Path(os.environ.get("TT_METAL_LOGS_PATH", ".")) / KERNELS
        self._read, self._known = 0, set[str]()
        self.new()

    def new(self) -> list[str]:
        """Paths of those made since the last call, or since the beginning."""
        if not self._file.is_file():
            return []
        with self._file.open("rb") as file:
            file.seek(self._read)  # what has been read before is thousands of lines in a large model
            lines = file.read().decode().splitlines()
            self._read = file.tell()
        numbered = {number: path for number, _, path in (line.partition(": ") for line in lines)}
        made = [path for number, path in numbered.items() if number not in self._known]
        self._known |= numbered.keys()
        return made
