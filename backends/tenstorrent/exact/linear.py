"""ttnn.linear and ttnn.matmul, to the bit: blocks of K, formats of partial sums, bias, output.

Source: ttnn 0.81.1 (interleaved inputs, no activation) on ttsim v1.10.0, measured.
"""

from backends.tenstorrent.exact.operations import Format, Program, Values, host_registers, sum_blocks
from backends.tenstorrent.shards import TILE


def linear(
    x: Values,
    weight: Values,
    bias: Values | None,
    program: Program,
    x_format: Format = "bf16",
    weight_format: Format = "bf16",
) -> Values:
    """`ttnn.linear` of tensors stored by `ttnn.from_torch`: x @ weight + bias.

    Args:
        x: float32 [m, k], before it is stored as `x_format`.
        weight: float32 [k, n]; blocks of 16 that share an exponent lie along n.
        bias: float32 [n], stored as bf16; or None.
        program: how it is computed.
        x_format: dtype of x on the card.
        weight_format: dtype of the weight on the card.

    Returns:
        float32 [m, n], as `ttnn.to_torch` gives it. NaN among inputs counts as a number between 2**128 and 2**129, Inf
        as 2**128; results beyond the range are Inf.

    Raises:
        ValueError: shapes that do not fit.
    """
    return linear_registers(
        host_registers(x, x_format, program.dst16),
        host_registers(weight, weight_format, program.dst16),
        None if bias is None else host_registers(bias, "bf16", program.dst16),
        program,
        tf32=not program.dst16 and "fp32" in (x_format, weight_format),
    )


def linear_registers(x: Values, weight: Values, bias: Values | None, program: Program, *, tf32: bool) -> Values:
    """`linear` of operands as source registers show them.

    Args:
        x: float32 [m, k].
        weight: float32 [k, n].
        bias: float32 [n] of bf16 values, or None.
        program: how it is computed. A last block of K may be short.
        tf32: whether a source register holds tf32.
    """
    depth = x.shape[1]
    if depth == 0 or weight.shape[0] != depth or (bias is not None and bias.shape != weight.shape[1:]):
        shapes = f"x {list(x.shape)}, weight {list(weight.shape)}, bias {None if bias is None else list(bias.shape)}"
        raise ValueError(
            f"a linear layer takes x [m, k], weight [k, n], k of 1 or more, and bias [n] or None, not {shapes}"
        )
    size = depth if program.in0_block_w is None else program.in0_block_w * TILE
    blocks = [(x[:, start : start + size], weight[start : start + size]) for start in range(0, depth, size)]
    return sum_blocks(blocks, bias, program, _partials(program, len(blocks)), tf32=tf32, reloads_whole=True)


def _partials(program: Program, blocks: int) -> Format:
    """Format of partial sums in memory: without packer_l1_acc bf16 sums take that of the output, whatever it costs."""
    if not program.dst16:
        return "fp32"
    return "bf16" if program.accumulates_in_l1(blocks) else program.output
