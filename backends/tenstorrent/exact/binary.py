"""ttnn.add, ttnn.subtract and ttnn.multiply where the matrix engine computes them, to the bit.

Source: binary_ng of ttnn 0.81.1 on ttsim v1.10.0, measured. Not covered: the vector unit, which takes the other cases.
"""

from typing import Literal

from backends.tenstorrent.exact.eltwise import elementwise
from backends.tenstorrent.exact.operations import Format, Values, host_registers
from backends.tenstorrent.exact.packer import pack

Binary = Literal["add", "sub", "mul"]


def binary(
    op: Binary, x: Values, y: Values, x_format: Format, y_format: Format, output: Format, *, wormhole: bool
) -> Values:
    """`ttnn.add`, `subtract` or `multiply` of two tensors of one shape, stored by `ttnn.from_torch`.

    Sums are fp32 only where the output is; a multiplication takes all four passes.

    Args:
        op: which.
        x: float32 [..., n], before it is stored as `x_format`; blocks lie along the last axis.
        y: the same for the second operand.
        x_format: bf16 or bfp8_b.
        y_format: bf16 or bfp8_b.
        output: fp32, bf16 or bfp8_b.
        wormhole: Wormhole's defect at a sum of minus one unit; False is Blackhole.

    Returns:
        float32, as `ttnn.to_torch` gives it; NaN and Inf as in `linear`.

    Raises:
        ValueError: the vector unit computes it, or it was never measured; shapes differ.
    """
    unknown = {x_format, y_format} - {"bf16", "bfp8_b"}
    if unknown:
        raise ValueError(f"{op} of {x_format} and {y_format} is not covered: give operands in bf16 or bfp8_b")
    if op == "mul" and "bfp8_b" not in (x_format, y_format):
        raise ValueError("mul of two bf16 tensors runs on the vector unit, which is not covered; make one bfp8_b")
    if output == "bfp4_b":
        raise ValueError(f"{op} with a bfp4_b output is not covered: give fp32, bf16 or bfp8_b")
    if x.shape != y.shape:
        raise ValueError(f"{op} takes two tensors of one shape, not {list(x.shape)} and {list(y.shape)}")
    dst16 = output != "fp32"
    left, right = host_registers(x, x_format, dst16), host_registers(y, y_format, dst16)
    dst = elementwise(op, left, right, "hifi4" if op == "mul" else "lofi", dst16, wormhole, tf32=False)
    return pack(dst, output, dst16)
