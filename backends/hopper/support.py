"""What Hopper computes in FP8, bf16, fp16 and fp32, through TensorRT 11 or a plain GEMM, and why not the rest.

Sources: NvInferRuntimeBase.h of TensorRT 11 and its operator documentation; cuBLASLt documentation; torch._scaled_mm.
"""

from collections.abc import Mapping
from typing import Literal

from precision.policy import Scheme
from precision.site import Site

Route = Literal["tensorrt", "gemm"]
"""What runs a site: a TensorRT engine, or a scaled GEMM (cuBLASLt, Transformer Engine)."""

FP8: tuple[str, ...] = ("fp8_e4m3", "fp8_e5m2")
WIDE: tuple[str, ...] = ("bf16", "fp16", "fp32")
MAX_FP8_TAPS = 32
FP8_CHANNEL_MULTIPLE = 16

_INSTEAD: Mapping[str, str] = {
    "tf32": "use fp32, which runs as tf32 where TensorRT is allowed to",
    "int8": "INT8 is not lowered for Hopper here; use fp8_e4m3",
    "bfp8_b": "shared-exponent formats are Tenstorrent's; use fp8_e4m3",
    "bfp4_b": "shared-exponent formats are Tenstorrent's; use fp8_e4m3",
    "bfp2_b": "shared-exponent formats are Tenstorrent's; use fp8_e4m3",
    "mxfp8_e4m3": "mx formats start with Blackwell; use fp8_e4m3",
    "mxfp8_e5m2": "mx formats start with Blackwell; use fp8_e4m3",
}


def route(site: Site, scheme: Scheme) -> Route:
    """Say what would run a site that is not refused: TensorRT has no E5M2, so such a site is a plain GEMM."""
    formats = {scheme.activation, scheme.weight} if site.weight_shape else {scheme.activation}
    return "gemm" if "fp8_e5m2" in formats else "tensorrt"


def refuses(site: Site, scheme: Scheme) -> str | None:
    """Say why Hopper cannot run a site under a scheme, and what to do instead; None where it can.

    The weight format means nothing at a product of two activations; both operands are of the activation's format there.
    """
    if scheme.fidelity is not None:
        return f"fidelity {scheme.fidelity}: Hopper has no such choice; leave fidelity out"
    if scheme.accumulate != "fp32":
        return f"accumulate {scheme.accumulate}: Hopper's tensor cores sum in fp32; use accumulate fp32"
    if scheme.packer_l1_acc:
        return "packer_l1_acc: Hopper has no packer, partial sums stay in registers; leave it out"
    if scheme.in0_block_w is not None:
        return f"in0_block_w {scheme.in0_block_w}: cuBLASLt and TensorRT choose their own blocks of K; leave it out"
    if scheme.bias_apart:
        return "bias_apart: Hopper adds a fused bias in fp32; leave it out"
    if site.weight_shape and scheme.levers:
        return f"levers {', '.join(scheme.levers)}: they make up for fidelities, which Hopper has not; drop them"
    weight = scheme.weight if site.weight_shape else scheme.activation
    for operand, fmt in (("activation", scheme.activation), ("weight", weight)):
        if fmt not in FP8 and fmt not in WIDE:
            instead = _INSTEAD.get(fmt, f"use one of {', '.join(FP8 + WIDE)}")
            return f"{operand} {fmt}: {instead}"
    if scheme.activation in FP8:
        return _refuses_fp8(site, scheme.activation, weight)
    if weight == "fp8_e5m2":
        return "weight fp8_e5m2 beside a wide activation: TensorRT has no E5M2; use fp8_e4m3"
    if weight not in FP8 and weight != scheme.activation:
        return f"weight {weight} with activation {scheme.activation}: operands must agree; use one format for both"
    return None


def _refuses_fp8(site: Site, activation: str, weight: str) -> str | None:
    if weight not in FP8:
        return f"activation {activation} with weight {weight}: an FP8 product needs both in FP8; use weight fp8_e4m3"
    if site.n == 1:
        return "FP8 gains nothing on a matrix-vector product (one output); use bf16"
    if "fp8_e5m2" in (activation, weight):
        return _refuses_e5m2(site, activation, weight)
    if site.op == "conv_transpose1d":
        return "no FP8 transposed convolution is known in TensorRT; use bf16 or fp16"
    if site.op in ("conv1d", "conv2d"):
        return _refuses_fp8_convolution(site)
    return None


def _refuses_e5m2(site: Site, activation: str, weight: str) -> str | None:
    if site.op not in ("linear", "matmul"):
        return f"fp8_e5m2 in a {site.op}: TensorRT has no E5M2, and the GEMM path has no convolutions; use fp8_e4m3"
    if activation == weight == "fp8_e5m2":
        return "fp8_e5m2 for both operands: Hopper takes one E5M2 operand at most; use fp8_e4m3 for the other"
    if site.k % FP8_CHANNEL_MULTIPLE or site.n % FP8_CHANNEL_MULTIPLE:
        return f"a scaled GEMM needs k and n in multiples of 16, got k={site.k} n={site.n}; use bf16"
    return None


def _refuses_fp8_convolution(site: Site) -> str | None:
    if site.groups != 1:
        return f"FP8 convolutions take no groups, got {site.groups}; use bf16 or fp16"
    for side, channels in (("input", site.weight_shape[1]), ("output", site.weight_shape[0])):
        if channels % FP8_CHANNEL_MULTIPLE or channels <= FP8_CHANNEL_MULTIPLE:
            return f"FP8 convolutions need {side} channels a multiple of 16 and above 16, got {channels}; use bf16"
    if site.kernel > MAX_FP8_TAPS:
        return f"FP8 convolutions have at most {MAX_FP8_TAPS} taps, got {site.kernel}; use bf16 or fp16"
    return None
