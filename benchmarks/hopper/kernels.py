"""Fake quantization, the inner loop of a search on a GPU: torch as it is, torch compiled, and our Triton kernel."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from hopper.machine import Part
from hopper.products import said
from hopper.quantization import equal
from hopper.timing import timed
from torch import Tensor

from backends.hopper.fake_quantization import Kernel, fake_quantize, fake_quantize_dynamic, why_no_triton

ELEMENTS = (1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 27)
QUICK_ELEMENTS = (1 << 16, 1 << 24)
CPU_ELEMENTS = (1 << 12, 1 << 16)
COMPARED = 1 << 20
"""So many results are held against the definition."""
COMPILED_ELEMENTS = (1 << 20, 1 << 24)
FORMATS = ("fp8_e4m3", "fp8_e5m2")

Call = Callable[[Tensor], Tensor]


def measure(part: Part) -> None:
    """Time each way, and hold its result against the definition."""
    elements = CPU_ELEMENTS if not part.on_card else QUICK_ELEMENTS if part.quick else ELEMENTS
    found: dict[str, Any] = {"rows": [], "left_out": []}
    # What takes long to compile comes last.
    for compiled in (False, True):
        for count in elements:
            values = torch.randn(count, device=part.device)
            for operation, fmt, kernel, call in ways(part, count):
                if (kernel == "compiled") is not compiled:
                    continue
                told = {"operation": operation, "fmt": fmt, "elements": count, "kernel": kernel}
                why = call if isinstance(call, str) else "the part's time was over" if part.left <= 0 else None
                if why is None and not isinstance(call, str):
                    try:
                        found["rows"].append(told | _timed(operation, fmt, call, values, part))
                    except Exception as error:  # compilers fail in many ways; it is told, and the next is timed
                        why = said(error)
                if why is not None:
                    found["left_out"].append(told | {"why": why})
            part.say(f"{count} values: {_line(found['rows'], count)}")
            part.write(found)


def _timed(operation: str, fmt: str, call: Call, values: Tensor, part: Part) -> dict[str, Any]:
    same = equal(*(way(values)[:COMPARED] for way in (_defined(operation, fmt, part.device), call)))
    made = timed([lambda: call(values)], part.device)
    moved = values.numel() * 4 * (2 if operation == "fake_quantize" else 3)
    rate = round(moved / made.us / 1e3, 2)
    return {"us": round(made.us, 3), "spread_us": round(made.spread_us, 3), "equal": same, "gb_per_s": rate}


def ways(part: Part, count: int) -> Iterator[tuple[str, str, str, Call | str]]:
    """Operation, format, kernel, and the call; or why there is none."""
    for operation in ("fake_quantize", "fake_quantize_dynamic"):
        for fmt in FORMATS:
            defined = _defined(operation, fmt, part.device)
            yield operation, fmt, "torch", defined
            why = why_no_triton(part.device)
            if why is None and not part.on_card:
                why = "Triton's interpreter computes, and its time says nothing"
            yield operation, fmt, "triton", why or _defined(operation, fmt, part.device, "triton")
            if not part.on_card:
                yield operation, fmt, "compiled", "torch.compile is timed on a card alone"
            elif part.quick or fmt != FORMATS[0] or count not in COMPILED_ELEMENTS:
                yield operation, fmt, "compiled", "left out to save the seconds that compiling takes"
            else:
                yield operation, fmt, "compiled", torch.compile(defined, dynamic=False)


def _defined(operation: str, fmt: str, device: torch.device, kernel: Kernel = "torch") -> Call:
    one = torch.ones((), device=device)
    if operation == "fake_quantize":
        return lambda x: fake_quantize(x, one, fmt, kernel)
    return lambda x: fake_quantize_dynamic(x, fmt, kernel)


def _line(rows: list[dict[str, Any]], count: int) -> str:
    held = [row for row in rows if row["elements"] == count and row["fmt"] == FORMATS[0]]
    return ", ".join(
        f"{'dynamic' if row['operation'].endswith('dynamic') else 'static'} {row['kernel']} {row['us']:.1f} us"
        for row in held
    )
