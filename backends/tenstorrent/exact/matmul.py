"""Matrix products on the Tensix matrix engine, to the bit, from source registers to the destination.

Source: ttsim v1.10.0; definition/engine.py says the rules plainly.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.tenstorrent.exact.eltwise import accumulate_products
from backends.tenstorrent.exact.kernels import multiply_matrices, multiply_steps
from backends.tenstorrent.exact.operands import (
    TILE,
    check_phase,
    close_dst,
    count_phases,
    decode_columns,
    open_dst,
    pad,
    patterns,
)
from backends.tenstorrent.exact.threads import run_chunks
from precision.policy import Fidelity

_CHUNK = 1 << 20
"""Multiply-accumulates that a thread takes at a time, about."""


def matmul(
    a_regs: ArrayLike,
    b_regs: ArrayLike,
    fidelity: Fidelity,
    dst16: bool = False,
    wormhole: bool = False,
    start: ArrayLike | None = None,
    tf32: bool = False,
) -> NDArray[np.float32]:
    """A @ B in the card's order: tiles of 32 along K, in each all phases, in each phase two halves of 16.

    Denormals read as zero, Inf as 2**128, NaN as numbers between 2**128 and 2**129. The result is never NaN, -0 or
    denormal: too small becomes +0, too large +-Inf.

    Args:
        a_regs: [M, K] register view of in0, the activations (SrcB); float32, or uint32 patterns.
        b_regs: [K, N] register view of in1, the weights (SrcA). K is filled up with zeros to a multiple of 32.
        fidelity: how many of the four phases run.
        dst16: the destination is bf16 (fp32_dest_acc_en=False) and rounds at every step.
        wormhole: with Wormhole's defect: a sum of minus one unit becomes 2**27 times too large (32-bit destination).
        start: [M, N] destination before; None for zero. bf16 values where dst16.
        tf32: the registers hold tf32, of which 10 mantissa bits count; of other formats 7 do.

    Returns:
        [M, N] destination, before the packer; bf16 values where dst16.

    Raises:
        ValueError: shapes that do not fit, an unknown fidelity, or a start that is not bf16 where dst16.
    """
    a, b = patterns(a_regs), patterns(b_regs)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"matmul takes a_regs [M, K] and b_regs [K, N], got {a.shape} and {b.shape}; reshape them")
    phases = count_phases(fidelity)
    rows, columns = a.shape[0], b.shape[1]
    dst = open_dst(start, (rows, columns), dst16)
    a, b = pad(a, 1, TILE), pad(b, TILE, TILE)
    srca, srcb = decode_columns(b, True, tf32), a.reshape(-1)
    tiles, panels, flat = a.shape[1] // TILE, b.shape[1] // TILE, dst.reshape(-1)

    def work(first: int, last: int) -> None:
        multiply_matrices(srca, srcb, flat, first, last, rows, tiles, panels, phases, dst16, wormhole, tf32)

    run_chunks(work, panels * -(-rows // TILE), max(_CHUNK // (TILE**3 * max(tiles, 1)), 1))
    return close_dst(dst, (rows, columns))


def mvmul_step(
    srca: ArrayLike,
    srcb: ArrayLike,
    dst: ArrayLike,
    phase: int,
    dst16: bool = False,
    wormhole: bool = False,
    tf32: bool = True,
) -> NDArray[np.float32]:
    """One step of the matrix engine on n destinations: 16 products in two groups of eight, added to each.

    Args:
        srca: [n, 16] registers of the weights' side; float32, or uint32 patterns.
        srcb: [n, 16] registers of the activations' side.
        dst: [n] destinations before, of any pattern; bf16 values where dst16.
        phase: 0 to 3: bit 0 takes SrcA's lower slice, bit 1 SrcB's.
        dst16: as in `matmul`, and so are wormhole and tf32.
        wormhole: see there.
        tf32: see there.

    Returns:
        [n] destinations after.

    Raises:
        ValueError: shapes that do not fit, a phase beyond 3, or destinations that are not bf16 where dst16.
    """
    a, b = patterns(srca), patterns(srcb)
    if a.ndim != 2 or a.shape[1] != 16 or b.shape != a.shape:
        raise ValueError(f"mvmul_step takes srca and srcb [n, 16], got {a.shape} and {b.shape}; reshape them")
    check_phase(phase)
    shape = (a.shape[0],)
    after = open_dst(dst, shape, dst16)
    first, second = (decode_columns(pad(bits.T, 1, TILE), side, tf32) for bits, side in ((a, True), (b, False)))

    def work(begin: int, end: int) -> None:
        multiply_steps(first, second, after, begin, end, phase, dst16, wormhole)

    run_chunks(work, after.size // TILE, 256)
    return close_dst(after, shape)


def elwmul_step(
    srca: ArrayLike,
    srcb: ArrayLike,
    dst: ArrayLike,
    phase: int,
    dst16: bool = False,
    wormhole: bool = False,
    tf32: bool = True,
) -> NDArray[np.float32]:
    """One phase of an element-wise product, added to n destinations.

    Args:
        srca: [n] registers of in0; float32, or uint32 patterns.
        srcb: [n] registers of in1.
        dst: [n] destinations before, of any pattern; bf16 values where dst16.
        phase: 0 to 3: bit 0 takes SrcA's lower slice, bit 1 SrcB's.
        dst16: as in `matmul`, and so are wormhole and tf32.
        wormhole: see there.
        tf32: see there.

    Returns:
        [n] destinations after.

    Raises:
        ValueError: shapes that do not fit, a phase beyond 3, or destinations that are not bf16 where dst16.
    """
    a, b = patterns(srca), patterns(srcb)
    if a.ndim != 1 or b.shape != a.shape:
        raise ValueError(f"elwmul_step takes srca and srcb [n], got {a.shape} and {b.shape}; reshape them")
    check_phase(phase)
    after = open_dst(dst, a.shape, dst16)
    accumulate_products(pad(a, TILE), pad(b, TILE), after, range(phase, phase + 1), dst16, wormhole, tf32)
    return close_dst(after, a.shape)
