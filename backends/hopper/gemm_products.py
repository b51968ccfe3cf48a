"""Products of the GEMM path: torch._scaled_mm of FP8 codes, torch's own operations in 16 bits and fp32.

What torch._scaled_mm takes on Hopper (torch 2.13: ATen/native/cuda/ScaledBlas.cpp, and the checks that torch runs on
fake CUDA tensors): x [m, k] row-major and weight [k, n] column-major, k and n multiples of 16, any m; E4M3 x E4M3, or
one E5M2 beside one E4M3; scales float32, one each, or [m, 1] and [1, n]; a bias in bf16 where the result is in bf16.
With a scale a channel it is cuBLAS from 12.9 on, and CUTLASS before, which takes no weight in E5M2.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from voice.site_call import SiteCall

SCALED = "torch._scaled_mm"
FAST = ", fast accumulation"
EXPLICIT = "float32 product of the same operands"
"""What the CPU computes in place of a kernel that it lacks, or that sums in 16 bits."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a call of a site was computed: what was passed, read from the tensors themselves."""

    kernel: str
    left: torch.dtype
    """Of the operand that was multiplied; an FP8 type where it was codes."""
    right: torch.dtype
    stored: torch.dtype
    """In which the weight lies in memory; `right` where it is multiplied as it lies."""
    bias: torch.dtype | None = None
    weight_scales: int | None = None
    """How many the weight has; None where it has none."""
    static: bool | None = None
    """Whether the activation's scale is held from before the call; None where it has none."""
    fp32_sums: bool = True
    fast_accum: bool = False
    """Whether FP8 sums stay in the tensor core's own registers, of about 14 bits, and are not promoted at intervals."""


@cache
def cpu_takes(left: torch.dtype, right: torch.dtype, rowwise: bool) -> bool:
    """Whether this torch has torch._scaled_mm of such operands on the CPU; 2.13 has all of Hopper's."""
    scales = (torch.ones(16, 1), torch.ones(1, 16)) if rowwise else (torch.ones(()), torch.ones(()))
    x, weight = torch.ones(16, 16).to(left), torch.ones(16, 16).to(right)
    try:
        torch._scaled_mm(x, weight.t(), *scales, out_dtype=torch.bfloat16)
    except (RuntimeError, NotImplementedError, ValueError):
        return False
    return True


def scaled_product(
    x: Tensor, weight: Tensor, x_scale: Tensor, weight_scale: Tensor, bias: Tensor | None, *, fast_accum: bool = False
) -> tuple[Tensor, str]:
    """Multiply FP8 codes and undo their scales: bf16 [m, n], and which kernel did it.

    Args:
        x: codes [m, k].
        weight: codes [n, k] as they are stored; the transpose of it is the column-major operand.
        x_scale: float32, without axes where the weight has one scale, [m, 1] where it has one a channel.
        weight_scale: float32, without axes or [1, n].
        bias: bf16 [n]; added in fp32, before the result is rounded.
        fast_accum: leaves sums in the tensor core's own registers; without meaning on the CPU, which sums in float32.
    """
    rowwise = weight_scale.ndim > 0
    kernel = f"{SCALED}, {'rowwise' if rowwise else 'tensorwise'} scales"
    if x.device.type == "cpu" and not cpu_takes(x.dtype, weight.dtype, rowwise):
        total = (x.to(torch.float32) @ weight.to(torch.float32).t()) * (x_scale * weight_scale)
        total = total if bias is None else total + bias.to(torch.float32)
        return total.to(torch.bfloat16), f"{EXPLICIT}: torch {torch.__version__} has no {kernel} here"
    if rowwise and weight.dtype == torch.float8_e5m2 and x.device.type == "cuda" and not rowwise_by_cublas():
        return scaled_after(x, weight, x_scale, weight_scale, bias, fast_accum=fast_accum)
    made = torch._scaled_mm(
        x,
        weight.t(),
        scale_a=x_scale,
        scale_b=weight_scale,
        bias=bias,
        out_dtype=torch.bfloat16,
        use_fast_accum=fast_accum,
    )
    return made, kernel + (FAST if fast_accum and x.device.type == "cuda" else "")


def rowwise_by_cublas() -> bool:
    """Whether a scale a channel is cuBLAS's, as it is from 12.9 on; CUTLASS before takes no weight in E5M2."""
    major, minor = (int(part) for part in (torch.version.cuda or "0.0").split(".")[:2])
    return (major, minor) >= (12, 9)


def scaled_after(
    x: Tensor, weight: Tensor, x_scale: Tensor, weight_scale: Tensor, bias: Tensor | None, *, fast_accum: bool
) -> tuple[Tensor, str]:
    """The same product with the channels' scales applied to its fp32 sums, by an operation of its own."""
    one = torch.ones((), device=x.device)
    total = torch._scaled_mm(
        x, weight.t(), scale_a=one, scale_b=one, out_dtype=torch.float32, use_fast_accum=fast_accum
    )
    total = total * (x_scale * weight_scale)
    total = total if bias is None else total + bias.to(torch.float32)
    return total.to(torch.bfloat16), f"{SCALED}, channels scaled after it" + (
        ", fast accumulation" if fast_accum else ""
    )


def wide_product(call: SiteCall, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, str]:
    """Multiply operands of one type, bf16, fp16 or fp32, with sums in fp32; the result is of that type.

    On CUDA it is torch's own operation. A convolution's bias is added to its rounded result there, which rounds twice.
    On the CPU it is a float32 product of the same operands, rounded once: torch's 16-bit kernels are slower there, and
    its transposed convolution in fp16 sums in fp16.
    """
    name = f"torch {call.op}, {str(x.dtype).removeprefix('torch.')}"
    if x.device.type != "cpu":
        return call.compute(x, weight, bias, with_bias=bias is not None), name
    total = call.compute(x.to(torch.float32), weight.to(torch.float32), with_bias=False)
    if bias is not None:
        wide = bias.to(torch.float32)
        total = total + (wide if call.options is None else wide.view(-1, *[1] * (total.ndim - 2)))
    return total.to(x.dtype), name if x.dtype == torch.float32 else f"{EXPLICIT}, for {name}"


@contextmanager
def fp32_sums() -> Iterator[None]:
    """Within the context, CUDA products sum in fp32: no TF32, and no split sum added up in 16 bits.

    Torch's defaults allow TF32 in convolutions and 16-bit reductions in matrix products.
    """
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    reductions = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    kept = {name: (getattr(matmul, name), getattr(matmul, f"{name}_split_k")) for name in reductions}
    fp16_sums = matmul.allow_fp16_accumulation
    precisions = [(part, part.fp32_precision) for part in (matmul, cudnn.conv, cudnn.rnn)]
    try:
        for name in reductions:
            # The second says whether K may be split at all: it may, its parts are then added in fp32.
            setattr(matmul, name, (False, kept[name][1]))
        matmul.allow_fp16_accumulation = False
        for part, _ in precisions:
            part.fp32_precision = "ieee"
        yield
    finally:
        for part, before in precisions:
            part.fp32_precision = before
        matmul.allow_fp16_accumulation = fp16_sums
        for name, before in kept.items():
            setattr(matmul, name, before)


def sums_in_fp32(dtype: torch.dtype) -> bool:
    """Whether torch's settings make CUDA sum products of a type in fp32."""
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    if dtype == torch.bfloat16:
        return not matmul.allow_bf16_reduced_precision_reduction
    if dtype == torch.float16:
        return not (matmul.allow_fp16_reduced_precision_reduction or matmul.allow_fp16_accumulation)
    if dtype == torch.float32:
        return all(part.fp32_precision == "ieee" for part in (matmul, cudnn.conv))
    return True
