"""What Hopper computes in FP8, bf16, fp16 and fp32, as a TensorRT 11 engine or by plain GEMMs, and why not the rest.

bf16, fp16 and fp32 every operation takes on both routes; what FP8 asks for is in OPERATIONS, a row for each operation.
What lies between sites is float32 on both, so that oscillators, running sums and inverse STFTs need no row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from precision.policy import ScaleMode, Scheme
from precision.site import OPS, Op, Site

Route = Literal["tensorrt", "gemm"]
"""What runs a model: one TensorRT engine; or torch, with scaled GEMMs (cuBLASLt, Transformer Engine) for FP8."""
ROUTES: tuple[Route, ...] = get_args(Route)
TITLES: Mapping[Route, str] = {"tensorrt": "TensorRT", "gemm": "GEMM path"}

E4M3, E5M2 = "fp8_e4m3", "fp8_e5m2"
FP8: tuple[str, ...] = (E4M3, E5M2)
WIDE: tuple[str, ...] = ("bf16", "fp16", "fp32")
MAX_FP8_TAPS = 32
FP8_CHANNEL_MULTIPLE = 16

INSTEAD: Mapping[str, str] = {
    "tf32": "use fp32, which runs as tf32 where TensorRT is allowed to",
    "int8": "INT8 is not lowered for Hopper here; use fp8_e4m3",
    "bfp8_b": "shared-exponent formats are Tenstorrent's; use fp8_e4m3",
    "bfp4_b": "shared-exponent formats are Tenstorrent's; use fp8_e4m3",
    "bfp2_b": "shared-exponent formats are Tenstorrent's; use fp8_e4m3",
    "mxfp8_e4m3": "mx formats start with Blackwell; use fp8_e4m3",
    "mxfp8_e5m2": "mx formats start with Blackwell; use fp8_e4m3",
}
"""Formats that neither route takes -> why, and what to use."""


@dataclass(frozen=True, slots=True)
class Row:
    """What an operation takes in FP8 on a route."""

    source: str
    """Where that is from."""
    formats: tuple[str, ...] = ()
    """Of either operand, one of them at most in E5M2; empty where it has no FP8."""
    scales: tuple[ScaleMode, ...] = ("static", "dynamic")
    """Of the activation."""
    limits: tuple[Callable[[Site], str | None], ...] = ()
    """What a site must be; each says why one is not."""
    refused: str = ""
    """Why it has no FP8, and what to use."""
    note: str = ""


def _whole_groups(site: Site) -> str | None:
    if site.groups != 1:
        return f"FP8 convolutions take no groups, got {site.groups}; use bf16 or fp16"
    return None


def _channels(site: Site) -> str | None:
    for side, channels in (("input", site.weight_shape[1]), ("output", site.weight_shape[0])):
        if channels % FP8_CHANNEL_MULTIPLE or channels <= FP8_CHANNEL_MULTIPLE:
            return f"FP8 convolutions need {side} channels a multiple of 16 and above 16, got {channels}; use bf16"
    return None


def _taps(site: Site) -> str | None:
    if site.kernel > MAX_FP8_TAPS:
        return f"FP8 convolutions have at most {MAX_FP8_TAPS} taps, got {site.kernel}; use bf16 or fp16"
    return None


def _aligned(site: Site) -> str | None:
    if site.k % FP8_CHANNEL_MULTIPLE or site.n % FP8_CHANNEL_MULTIPLE:
        return f"a scaled GEMM needs k and n in multiples of 16, got k={site.k} n={site.n}; use bf16"
    return None


_ENGINE_PRODUCT = Row(
    "NvInferRuntimeBase.h of TensorRT 11 (kFP8 is E4M3); onnx-tensorrt importerUtils.cpp; documentation of"
    " IQuantizeLayer (the scale must be a build-time constant)",
    (E4M3,),
    ("static",),
    note="scales of a weight's output channels are in the release notes of TensorRT 10.6 for Hopper, and were once seen"
    " dequantized to 16 bits, beside a dynamic one (NVIDIA/TensorRT-Model-Connect 1386): ask the engine inspector",
)
_ENGINE_CONVOLUTION = Row(
    "limitations in the release notes of TensorRT 10.13 and 10.16 (groups, more than 32 taps: slow fallbacks); Model"
    " Optimizer 0.47 onnx/quantization/graph_utils.py (channels, taps as height times width)",
    (E4M3,),
    ("static",),
    (_whole_groups, _channels, _taps),
    note="so a vocoder's last convolution, with one channel, stays wide, and its first where the bands are no multiple",
)
_NO_CONVOLUTION = Row(
    "cublasLtMatmul; Transformer Engine has no convolution modules",
    refused="only linear layers have FP8 there; use bf16 or fp16",
)

OPERATIONS: Mapping[Route, Mapping[Op, Row]] = {
    "tensorrt": {
        "linear": _ENGINE_PRODUCT,
        "matmul": _ENGINE_PRODUCT,
        "conv1d": _ENGINE_CONVOLUTION,
        "conv2d": _ENGINE_CONVOLUTION,
        "conv_transpose1d": Row(
            "Model Optimizer 0.47 onnx/quantization/fp8.py quantizes Gemm, MatMul, Conv, Add; nothing tells of more",
            refused="no FP8 transposed convolution is known; use bf16 or fp16",
        ),
    },
    "gemm": {
        "linear": Row(
            "cuBLASLt, FP8 of cublasLtMatmul on compute capability 9.0; torch._scaled_mm",
            FP8,
            limits=(_aligned,),
            note="torch's kernel for scales of rows and channels takes E5M2 on the left only (RowwiseScaledMM.cu)",
        ),
        "matmul": Row(
            "torch._scaled_mm takes two matrices, no batch of them",
            refused="a product of two activations is one a head, and FP8 takes one product at a time; use bf16 or fp16",
        ),
        "conv1d": _NO_CONVOLUTION,
        "conv2d": _NO_CONVOLUTION,
        "conv_transpose1d": _NO_CONVOLUTION,
    },
}
STORED: Mapping[Route, tuple[str, ...]] = {"tensorrt": (E4M3,), "gemm": FP8}
"""FP8 formats of weights that are widened, and multiplied in the activation's 16 bits or 32."""
assert all(set(rows) == set(OPS) for rows in OPERATIONS.values())


def route_of(site: Site, scheme: Scheme) -> Route:
    """Say what would run a site that is not refused: TensorRT where it can, a plain GEMM otherwise."""
    return "tensorrt" if _refuses_by("tensorrt", site, scheme) is None else "gemm"


def refuses(site: Site, scheme: Scheme, route: Route | None = None, *, streaming: bool = False) -> str | None:
    """Say why Hopper cannot run a site under a scheme, and what to do instead; None where it can.

    The weight format means nothing at a product of two activations; both operands are of the activation's format there.

    Args:
        site: of a model.
        scheme: what is asked of it.
        route: what is to run it; None for whichever can, and then a refusal says what each of the two says.
        streaming: whether the site runs once a chunk, and must give what it would on the whole.
    """
    reason = _refuses_ever(site, scheme)
    if reason is None and streaming and scheme.activation in FP8 and scheme.activation_scale == "dynamic":
        reason = (
            "activation_scale dynamic: the scale of a chunk is not that of the whole, so a stream would not sound as"
            " the whole does; use static"
        )
    if reason is not None:
        return reason
    reasons = [(asked, _refuses_by(asked, site, scheme)) for asked in ROUTES if route in (None, asked)]
    if any(reason is None for _, reason in reasons):
        return None
    return ". ".join(f"{TITLES[asked]}: {reason}" for asked, reason in reasons)


def _refuses_ever(site: Site, scheme: Scheme) -> str | None:
    """Why neither route can."""
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
    weight = _right(site, scheme)
    for operand, fmt in (("activation", scheme.activation), ("weight", weight)):
        if fmt not in FP8 and fmt not in WIDE:
            instead = INSTEAD.get(fmt, f"use one of {', '.join(FP8 + WIDE)}")
            return f"{operand} {fmt}: {instead}"
    if scheme.activation in FP8:
        if weight not in FP8:
            return (
                f"activation {scheme.activation} with weight {weight}: an FP8 product needs both in FP8; use weight"
                " fp8_e4m3"
            )
        if scheme.activation == weight == E5M2:
            return "fp8_e5m2 for both operands: Hopper takes one E5M2 operand at most; use fp8_e4m3 for the other"
        if site.n == 1:
            return "FP8 gains nothing on a matrix-vector product (one output); use bf16"
    elif weight not in FP8 and weight != scheme.activation:
        return f"weight {weight} with activation {scheme.activation}: operands must agree; use one format for both"
    return None


def _refuses_by(route: Route, site: Site, scheme: Scheme) -> str | None:
    """Why a route cannot, of what is not refused anyhow."""
    weight = _right(site, scheme)
    if scheme.activation not in FP8:
        taken = weight in WIDE or weight in STORED[route]
        return None if taken else f"weight {weight}: there is no E5M2; use fp8_e4m3"
    row = OPERATIONS[route][site.op]
    if not row.formats:
        return row.refused
    for operand, fmt in (("activation", scheme.activation), ("weight", weight)):
        if fmt not in row.formats:
            return f"{operand} {fmt}: there is no E5M2; use fp8_e4m3"
    if scheme.activation_scale not in row.scales:
        return "activation_scale dynamic: an engine holds the scales of FP8 as constants; use static"
    return next((reason for limit in row.limits if (reason := limit(site)) is not None), None)


def _right(site: Site, scheme: Scheme) -> str:
    """Format of the right operand."""
    return scheme.weight if site.weight_shape else scheme.activation
