"""Element-wise products, sums and differences on the Tensix matrix engine, to the bit, from registers to destination.

Source: ttsim v1.10.0; definition/engine.py says the rules plainly.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.tenstorrent.exact.engine import Int32s
from backends.tenstorrent.exact.kernels import add_elements, multiply_elements
from backends.tenstorrent.exact.operands import (
    TILE,
    close_dst,
    count_phases,
    pad,
    patterns,
)
from backends.tenstorrent.exact.threads import run_chunks
from precision.policy import Fidelity

_CHUNK = 2048
"""Vectors of 32 that a thread takes at a time."""


def elementwise(
    op: Literal["add", "sub", "mul"],
    a_regs: ArrayLike,
    b_regs: ArrayLike,
    fidelity: Fidelity,
    dst16: bool = False,
    wormhole: bool = False,
    tf32: bool = False,
) -> NDArray[np.float32]:
    """Compute a + b, a - b or a * b for arrays of one shape. Special values are as in `matmul`.

    Args:
        op: the operation; sums and differences take one pass at any fidelity.
        a_regs: register view of in0 (here SrcA); float32, or uint32 patterns.
        b_regs: register view of in1 (here SrcB).
        fidelity: how many of the four phases a product takes.
        dst16: the destination is bf16 (fp32_dest_acc_en=False).
        wormhole: with Wormhole's defect, see `matmul`.
        tf32: the registers hold tf32, of which 10 mantissa bits count; of other formats 7 do.

    Returns:
        The destination in the operands' shape, before the packer; bf16 values where dst16.

    Raises:
        ValueError: shapes that differ, an unknown operation or fidelity.
    """
    a, b = patterns(a_regs), patterns(b_regs)
    phases = count_phases(fidelity)
    if op not in ("add", "sub", "mul"):
        raise ValueError(f"an element-wise operation is add, sub or mul, not {op!r}; give one of them")
    if a.shape != b.shape:
        raise ValueError(f"elementwise takes operands of one shape, got {a.shape} and {b.shape}; broadcast them")
    flat_a, flat_b = pad(a.reshape(-1), TILE), pad(b.reshape(-1), TILE)
    dst = np.zeros(flat_a.size, np.int32)
    if op == "mul":
        accumulate_products(flat_a, flat_b, dst, range(phases), dst16, wormhole, tf32)
    else:
        flip = -1 if op == "sub" else 0

        def work(first: int, last: int) -> None:
            add_elements(flat_a, flat_b, dst, first, last, flip, dst16, wormhole, tf32)

        run_chunks(work, dst.size // TILE, _CHUNK)
    return close_dst(dst, (a.size,)).reshape(a.shape)


def accumulate_products(
    a: Int32s, b: Int32s, dst: Int32s, phases: range, dst16: bool, wormhole: bool, tf32: bool
) -> None:
    """Add the products of patterns to destinations in place; all of one length, a multiple of 32."""

    def work(first: int, last: int) -> None:
        multiply_elements(a, b, dst, first, last, phases.start, phases.stop, dst16, wormhole, tf32)

    run_chunks(work, dst.size // TILE, _CHUNK)
