"""Make tests/golden/hopper/wgmma.npz again: `pip install mmasim==2.1.1; python tests/golden/make_hopper.py`.

What MMA-Sim (arXiv 2511.10909) says a chain of Hopper's `wgmma` instructions gives; hopper/README.md says what is kept.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "hopper"
ROWS, COLUMNS, DEPTH = 64, 8, 192
KEPT = 16
"""Rows of the 64 that an instruction has."""
TYPES = {
    "e4m3": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
}
CASES = (("e4m3", "e4m3", 32), ("e4m3", "e5m2", 32), ("e5m2", "e4m3", 32), ("bf16", "bf16", 16), ("f16", "f16", 16))


def operand(name: str, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Codes: of FP8 any but NaN and Inf, each as often; else values of many magnitudes."""
    kind = TYPES[name]
    if kind.itemsize == 1:
        codes = torch.randint(0, 256, (rows, columns), generator=generator, dtype=torch.uint8).view(kind)
        return torch.where(codes.float().isfinite(), codes.float(), 1.0).to(kind)
    spread = torch.exp2(4 * torch.randn(rows, columns, generator=generator))
    return (torch.randn(rows, columns, generator=generator) * spread).clamp(-3e4, 3e4).to(kind)


def main() -> None:
    from mmasim.nv_ptx.sim import WGMMA

    generator = torch.Generator().manual_seed(0)
    arrays = {}
    for left, right, step in CASES:
        instruction = WGMMA("Hopper", f"m{ROWS}n{COLUMNS}k{step}.f32.{left}.{right}")
        a = operand(left, ROWS, DEPTH, generator)
        b = operand(right, DEPTH, COLUMNS, generator)
        total = torch.zeros(ROWS, COLUMNS)
        for first in range(0, DEPTH, step):
            total = instruction(a[:, first : first + step], b[first : first + step], total)
        whole = torch.uint8 if a.element_size() == 1 else torch.int16
        name = f"{left}_{right}"
        arrays[f"{name}__a"] = a[:KEPT].view(whole).numpy()
        arrays[f"{name}__b"] = b.view(whole).numpy()
        arrays[f"{name}__d"] = total[:KEPT].numpy()
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / "wgmma.npz", **arrays)


if __name__ == "__main__":
    sys.exit(main())
