"""A plan as text. It imports neither ttnn nor this toolkit, so both may print by it."""

from collections.abc import Mapping
from typing import Any

HEAD = ("step", "call", "site", "operands", "result", "fidelity", "sums", "K tiles", "L1 a core", "DRAM")


def table(plan: Mapping[str, Any]) -> str:
    """A row an operation, the totals, and every refusal with its reason.

    `K tiles` are tiles of K in a block, times blocks; `L1 a core` is the most bytes of one core while the operation
    runs, `DRAM` what the program holds after it.
    """
    rows = [HEAD, *(_row(step) for step in plan["steps"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    refused = [step for step in plan["steps"] if step["refused"]]
    peak = max((step["l1_bytes_per_core"] for step in plan["steps"]), default=0)
    dram = max((step["dram_bytes"] for step in plan["steps"]), default=0)
    lines.append(
        f"{plan['card']}: {len(plan['steps'])} steps on {plan['grid'][0]} x {plan['grid'][1]} cores; L1 of a core at "
        f"most {peak:,} of {plan['l1_bytes_per_core']:,} bytes; DRAM at most {dram:,} bytes, of which weights "
        f"{plan['weights_dram_bytes']:,}; {len(refused)} refused"
    )
    for step in refused:
        what = f"refused: step {step['index']}, {step['call']} ({step['site'] or step['source']})"
        lines += [what, *(f"    {line}" for line in step["refused"].splitlines())]
    return "\n".join(lines)


def _row(step: Mapping[str, Any]) -> tuple[str, ...]:
    compute, output = step["compute"], step["output"]
    sums = "" if compute is None else "fp32" if compute["fp32_accumulation"] else "bf16"
    return (
        str(step["index"]),
        step["call"],
        step["site"] or "",
        " x ".join(step["operands"] or [held["dtype"] for held in step["inputs"]]),
        "refused" if step["refused"] else "" if output is None else output["dtype"],
        "" if compute is None else compute["fidelity"],
        sums,
        "" if step["k_block_tiles"] is None else f"{step['k_block_tiles']} x {step['k_blocks'] or '?'}",
        f"{step['l1_bytes_per_core']:,}",
        f"{step['dram_bytes']:,}",
    )
