"""What whole ttnn operations share: their program, operands in registers, and sums over blocks of K.

Source: linear, binary and conv1d of ttnn 0.81.1, run on ttsim v1.10.0 (Wormhole and Blackhole) and measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from backends.tenstorrent.exact.eltwise import elementwise
from backends.tenstorrent.exact.host import host_pack, host_pack_bf16
from backends.tenstorrent.exact.matmul import matmul
from backends.tenstorrent.exact.packer import l1_accumulate, pack
from backends.tenstorrent.exact.unpacker import unpack_bf16, unpack_bfp, unpack_tf32
from precision.policy import Fidelity

Values = npt.NDArray[np.float32]
Format = Literal["fp32", "bf16", "bfp8_b", "bfp4_b"]


@dataclass(frozen=True, slots=True)
class Program:
    """What an operation was compiled for: all that changes a bit of its result besides its operands.

    Grid, subblocks and multicast are not here: they never do.
    """

    fidelity: Fidelity
    dst16: bool
    """Whether sums are kept in bf16 (fp32_dest_acc_en=False)."""
    wormhole: bool
    """Wormhole's defect at a sum of minus one unit; False is Blackhole."""
    output: Format = "bf16"
    packer_l1_acc: bool = False
    """As requested; it takes effect where there are two blocks of K or more."""
    in0_block_w: int | None = None
    """Tiles of K (32 each) in one block; None: one block."""

    def __post_init__(self) -> None:
        """Raise ValueError where a block would hold no tile."""
        if self.in0_block_w is not None and self.in0_block_w < 1:
            raise ValueError(f"in0_block_w is {self.in0_block_w}; give 1 tile of K or more, or None for one block")

    def accumulates_in_l1(self, blocks: int) -> bool:
        """Whether the packer adds the partial sums of that many blocks in memory."""
        return self.packer_l1_acc and blocks > 1


def host_registers(values: Values, fmt: Format, dst16: bool) -> Values:
    """What a source register shows of a tensor that `ttnn.from_torch` stored.

    Args:
        values: float32, any shape; blocks of bfp8_b and bfp4_b lie along the last axis.
        fmt: the dtype given to `ttnn.from_torch`; fp32 is read as tf32, or as bf16 where dst16, both by truncation.
        dst16: see `Program`.
    """
    values = np.ascontiguousarray(values)
    if fmt == "fp32":
        return unpack_bf16(values) if dst16 else unpack_tf32(values)
    if fmt == "bf16":
        return host_pack_bf16(values)  # the unpacker copies bf16 unchanged
    return unpack_bfp(*host_pack(values, fmt), fmt)


def device_registers(values: Values, fmt: Format, dst16: bool) -> Values:
    """What a source register shows of a tensor that `ttnn.typecast` made of fp32 values; see `host_registers`.

    To bfp8_b it asks for bfp8_pack_precise (ttnn 0.81.1; the kernels that it generates say so), to bfp4_b it does not.
    """
    values = np.ascontiguousarray(values)
    if fmt == "fp32":
        return unpack_bf16(values) if dst16 else unpack_tf32(values)
    return pack(values, fmt, False, precise=fmt == "bfp8_b")


def sum_blocks(
    blocks: Sequence[tuple[Values, Values]],
    bias: Values | None,
    program: Program,
    partials: Format,
    *,
    tf32: bool,
    reloads_whole: bool,
) -> Values:
    """Multiply block by block of K, spilling partial sums through memory as ttnn's matmul kernels do; add a bias; pack.

    Args:
        blocks: registers (a, b) of each block, b in the weights' place (SrcA). Of a [m, ...] and b [..., n] the middle
            axes are K, row-major; a block is filled up with zeros to whole tiles.
        bias: registers [n], or None.
        program: `in0_block_w` is not read.
        partials: format of partial sums in memory.
        tf32: whether a source register holds tf32.
        reloads_whole: whether fp32 partials return to Dst with all bits, not through a tf32 register.

    Returns:
        float32 [m, n], values in the output format; never NaN, Inf beyond the range.

    Raises:
        ValueError: no blocks.
    """
    in_l1 = program.accumulates_in_l1(len(blocks))
    spilled: Values | None = None
    for index, (a, b) in enumerate(blocks):
        last = index == len(blocks) - 1
        reloads = spilled is not None and (not in_l1 or (last and bias is None))
        start = None
        if reloads and spilled is not None:
            start = spilled if reloads_whole else _register(spilled, partials, program)
        dst = matmul(
            np.ascontiguousarray(a).reshape(len(a), -1),
            np.ascontiguousarray(b).reshape(-1, b.shape[-1]),
            program.fidelity,
            program.dst16,
            program.wormhole,
            start,
            tf32,
        )
        if last and bias is None:
            return pack(dst, program.output, program.dst16)
        packed = pack(dst, partials, program.dst16)
        if in_l1 and spilled is not None:
            packed = l1_accumulate(spilled, packed, "fp32" if partials == "fp32" else "bf16")
        spilled = packed
    if spilled is None or bias is None:
        raise ValueError("there is no block of K to sum; give one or more")
    return _add_bias(spilled, bias, program, partials)


def _add_bias(spilled: Values, bias: Values, program: Program, partials: Format) -> Values:
    rows = np.ascontiguousarray(np.broadcast_to(bias, spilled.shape))
    left = _register(spilled, partials, program)
    tf32 = partials == "fp32" and not program.dst16
    dst = elementwise("add", left, rows, "lofi", program.dst16, program.wormhole, tf32)
    return pack(dst, program.output, program.dst16)


def _register(spilled: Values, partials: Format, program: Program) -> Values:
    """Partials as SrcA shows them: exact but for fp32, which is cut to tf32 (or holds bf16 values where dst16)."""
    if partials != "fp32":
        return spilled
    return unpack_bf16(spilled) if program.dst16 else unpack_tf32(spilled)
