"""Products on a grid of sizes, for the cost model, and beside NVIDIA's own table."""

from typing import Any

from hopper.machine import Part
from hopper.products import Shape, by_way, counted, time_products

ROWS = (1, 4, 16, 64, 256, 1024, 4096)
QUICK_ROWS = (16, 1024)
WEIGHTS = ((1024, 1024), (2048, 2048), (3072, 3072), (4096, 4096), (8192, 3072), (14336, 4096), (4096, 14336))
"""n and k: what a cost model interpolates between, up to the feed-forward part of a 7B decoder."""
CPU_ROWS = (1, 16)
CPU_WEIGHTS = ((256, 256), (512, 512))


def measure(part: Part) -> None:
    """Time the grid, the smallest products first."""
    rows = CPU_ROWS if not part.on_card else QUICK_ROWS if part.quick else ROWS
    weights = WEIGHTS if part.on_card else CPU_WEIGHTS
    shapes = sorted((Shape(m, n, k) for m in rows for n, k in weights), key=lambda shape: shape.macs)
    found: dict[str, Any] = {"rows": [], "left_out": []}
    missing: list[dict[str, Any]] = []
    for shape, (made, left_out) in zip(shapes, time_products(shapes, part), strict=True):
        found["rows"] += made
        missing += left_out
        found["left_out"] = counted(missing)
        times = ", ".join(f"{way} {us:.1f}" for ways in by_way(made).values() for way, us in ways.items())
        part.say(f"{shape.m} x {shape.k} x {shape.n}: {times or 'nothing ran'} us")
        part.write(found)
