"""Fake quantization to FP8 (quantize, then dequantize) with one scale a tensor: by torch, or by one Triton kernel.

The torch functions are the definition; the kernel gives the same bits. Which of the two is faster depends on the card
and the size: `benchmarks/hopper_gpu.py` measures it, and `MeasuredResults.kernel` reads what it found.
"""

import functools
import importlib
import importlib.util
import os
from typing import Literal

import torch
from torch import Tensor

from backends.hopper.numerics import fp8_scale, quantize_fp8

Kernel = Literal["torch", "triton"]


class NoTritonError(RuntimeError):
    """The Triton kernel was asked for where it cannot run."""


def fake_quantize(values: Tensor, scale: Tensor, fmt: str, kernel: Kernel = "torch") -> Tensor:
    """Round values to those that FP8 codes beside a scale stand for.

    Args:
        values: float32, bfloat16 or float16, any shape. Inf saturates, NaN stays NaN.
        scale: float32, one value, above zero, on the device of `values`.
        fmt: `fp8_e4m3` or `fp8_e5m2`.
        kernel: what computes it.

    Returns:
        float32 in the shape of `values`: scale times the value of `quantize_fp8(values, scale, fmt)`.

    Raises:
        NoTritonError: `kernel` is triton, which cannot run on these values.
    """
    if kernel == "triton":
        return _triton(values, _one(scale, values), fmt, codes=False)
    return quantize_fp8(values, scale, fmt).to(torch.float32) * scale


def fake_quantize_dynamic(values: Tensor, fmt: str, kernel: Kernel = "torch") -> Tensor:
    """The same with the scale that takes the largest magnitude of the values to the largest of the format.

    Inf anywhere makes the scale Inf, and every other value NaN or 0; NaN anywhere makes the scale 1, as `fp8_scale`
    has it.
    """
    if kernel == "triton":
        return _triton(values, None, fmt, codes=False)
    return fake_quantize(values, fp8_scale(values.to(torch.float32).abs().amax(), fmt), fmt)


def quantize(values: Tensor, scale: Tensor | None, fmt: str, kernel: Kernel = "torch") -> Tensor:
    """FP8 codes of values: with a scale as `quantize_fp8` gives them; without, of the scale that the values have.

    Raises:
        NoTritonError: `kernel` is triton, which cannot run on these values.
    """
    if kernel == "triton":
        return _triton(values, None if scale is None else _one(scale, values), fmt, codes=True)
    if scale is None:
        scale = fp8_scale(values.to(torch.float32).abs().amax(), fmt)
    return quantize_fp8(values, scale, fmt)


def why_no_triton(device: torch.device) -> str | None:
    """Say why the Triton kernel cannot run on a device; None where it can."""
    if not _has_triton():
        return "triton is not installed; it comes with torch's CUDA wheels on Linux, or pip install triton"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"triton needs a CUDA device, the values are on {device.type}; use kernel torch"
    return None


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _one(scale: Tensor, values: Tensor) -> Tensor:
    if scale.numel() != 1 or scale.device != values.device or scale.dtype != torch.float32:
        raise ValueError(
            f"the Triton kernel takes one float32 scale on {values.device},"
            f" got {scale.dtype} of shape {tuple(scale.shape)} on {scale.device}; use kernel torch for several"
        )
    return scale


def _triton(values: Tensor, scale: Tensor | None, fmt: str, codes: bool) -> Tensor:
    why = why_no_triton(values.device)
    if why is not None:
        raise NoTritonError(why)
    kernels = importlib.import_module("backends.hopper.fake_quantization_triton")
    made: Tensor = kernels.run(values, scale, fmt, codes)
    return made
