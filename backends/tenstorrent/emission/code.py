"""Code: calls and named constants as Python text."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from backends.tenstorrent.cards import Card
from backends.tenstorrent.program import DTYPES, CardStep, Compute, Constant, Value

WIDTH = 120


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a step."""

    function: str
    """As `ttnn.linear`."""
    arguments: tuple[str, ...]
    """Positional ones as their text, keywords as `name=text`."""
    after: str = ""
    """What follows the closing bracket."""
    assigned: str | None = None
    """What its result is assigned to; None: to the step's result."""


@dataclass(slots=True)
class Context:
    """What the text of a step needs to know of its program."""

    card: Card
    values: Mapping[str, Value]
    """By name: what steps make, the program's inputs, constants and state."""
    constants: Mapping[str, Constant]
    states: frozenset[str]
    inputs: frozenset[str]
    configs: dict[str, str] = field(default_factory=dict)
    """Named constants of the file -> their text."""

    def read(self, name: str) -> str:
        """How the program reads a value."""
        if name in self.constants:
            return f'weights["{name}"]'
        if name in self.states:
            return f'state["{name}"]'
        return f'inputs["{name}"]' if name in self.inputs else name

    def named(self, wanted: str, text: str) -> str:
        """Name of a constant of the file with that text: the one wanted, or with a number behind it."""
        name, count = wanted, 1
        while self.configs.setdefault(name, text) != text:
            count += 1
            name = f"{wanted}_{count}"
        return name

    def compute(self, compute: Compute) -> str:
        """Name of a compute kernel config with all its fields."""
        parts = [compute.fidelity.upper(), "FP32" if compute.fp32_accumulation else "BF16"]
        flags = {"L1_ACC": compute.packer_l1_acc, "APPROX": compute.approximate, "FULL_SYNC": compute.full_sync}
        return self.named(
            "_".join([*parts, *(flag for flag, on in flags.items() if on)]),
            called(
                "ttnn.WormholeComputeKernelConfig",
                (
                    f"math_fidelity=ttnn.MathFidelity.{FIDELITIES[compute.fidelity]}",
                    f"math_approx_mode={compute.approximate}",
                    f"fp32_dest_acc_en={compute.fp32_accumulation}",
                    f"packer_l1_acc={compute.packer_l1_acc}",
                    f"dst_full_sync_en={compute.full_sync}",
                    "throttle_level=ttnn.ThrottleLevel.NO_THROTTLE",
                ),
            ),
        )


FIDELITIES = {"lofi": "LoFi", "hifi2": "HiFi2", "hifi3": "HiFi3", "hifi4": "HiFi4"}
Emitted = Callable[[CardStep, Context], Call]
"""Text of an operation."""


def called(function: str, arguments: Iterable[str], lead: str = "", indent: int = 0) -> str:
    """A call: on one line where it fits after `lead`, or with its arguments on lines of their own."""
    given = list(arguments)
    line = f"{function}({', '.join(given)})"
    if indent + len(lead) + len(line) <= WIDTH:
        return line
    inner = " " * (indent + 4)
    return f"{function}(\n{filled(given, inner)}\n{' ' * indent})"


def filled(items: Iterable[str], indent: str) -> str:
    """Items with commas behind them, as many on a line as fit; those of several lines alone."""
    lines: list[str] = []
    for item in items:
        text = f"{item},"
        if lines and "\n" not in lines[-1] and "\n" not in text and len(lines[-1]) + 1 + len(text) <= WIDTH:
            lines[-1] += f" {text}"
        else:
            lines.append(indent + text.replace("\n", f"\n{indent}"))
    return "\n".join(lines)


def dtype_of(value: Value) -> str:
    """Ttnn's name of a type."""
    return f"ttnn.{DTYPES[value.dtype]}"


def layout_of(value: Value) -> str:
    """Ttnn's name of a layout."""
    return "ttnn.TILE_LAYOUT" if value.layout == "tile" else "ttnn.ROW_MAJOR_LAYOUT"


def memory_of(value: Value) -> str:
    """Name of a memory config in the file."""
    return value.memory.upper()


def number(value: float) -> str:
    """A number as Python has it."""
    return repr(value) if math.isfinite(value) else f'float("{value}")'
