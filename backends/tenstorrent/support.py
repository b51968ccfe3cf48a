"""What Tenstorrent cards compute through ttnn 0.81.1, and why not the rest."""

from collections.abc import Mapping
from typing import Literal

from precision.policy import Scheme
from precision.site import Site

Architecture = Literal["wormhole", "blackhole"]

FORMATS: tuple[str, ...] = ("bf16", "bfp8_b", "bfp4_b", "fp32")
"""What weights and activations may be stored in; measured on the ttnn 0.81.1 wheel."""
CONV_ACTIVATIONS: tuple[str, ...] = ("bf16", "bfp8_b", "fp32")

_INSTEAD: Mapping[str, str] = {
    "bfp2_b": "ttnn 0.81.1 has no bfp2_b; use bfp4_b",
    "fp8_e4m3": "ttnn 0.81.1 has fp8_e4m3 only in row-major tensors, which no matrix product takes; use bfp8_b",
    "fp8_e5m2": "ttnn 0.81.1 has no fp8_e5m2; use bfp8_b",
    "fp16": "ttnn 0.81.1 has no fp16; use bf16",
    "tf32": "tf32 is a register format, not one of memory; use fp32, which is read as tf32",
    "int8": "ttnn 0.81.1 has no int8 matrix products; use bfp8_b",
    "mxfp8_e4m3": "ttnn 0.81.1 has no mx formats; use bfp8_b",
    "mxfp8_e5m2": "ttnn 0.81.1 has no mx formats; use bfp8_b",
}


def refuses(site: Site, scheme: Scheme, architecture: Architecture) -> str | None:
    """Say why a card cannot run a site under a scheme, and what to do instead; None where it can.

    The weight format and the levers mean nothing at a product of two activations, and are not held against it.
    """
    return _refuses_formats(site, scheme) or _refuses_fidelity(scheme, architecture) or _refuses_levers(site, scheme)


def _refuses_formats(site: Site, scheme: Scheme) -> str | None:
    operands = {"activation": scheme.activation}
    if site.weight_shape:
        operands["weight"] = scheme.weight
    for operand, fmt in operands.items():
        if fmt not in FORMATS:
            reason = _INSTEAD.get(fmt, f"ttnn 0.81.1 has no {fmt}; use one of {', '.join(FORMATS)}")
            return f"{operand} {fmt}: {reason}"
    if site.op not in ("linear", "matmul") and scheme.activation not in CONV_ACTIVATIONS:
        return f"activation {scheme.activation}: convolutions take {', '.join(CONV_ACTIVATIONS)}; use bfp8_b"
    return None


def _refuses_fidelity(scheme: Scheme, architecture: Architecture) -> str | None:
    if scheme.fidelity is None:
        return "fidelity missing: ttnn's own default changes with the operands; set lofi, hifi2, hifi3 or hifi4"
    if architecture == "wormhole" and scheme.fidelity == "hifi4" and scheme.accumulate == "fp32":
        return "hifi4 with fp32 accumulation: wrong sums on Wormhole (tt-metal #38306); use hifi3"
    return None


def _refuses_levers(site: Site, scheme: Scheme) -> str | None:
    if not site.weight_shape:
        return None
    if "fidelity_rounding" in scheme.levers:
        if scheme.fidelity != "lofi":
            return f"lever fidelity_rounding: {scheme.fidelity} reads all bits of a weight; drop the lever, or use lofi"
        if scheme.weight == "bfp4_b":
            return "lever fidelity_rounding: lofi reads all bits of bfp4_b; drop the lever"
    if "gain_folding" in scheme.levers:
        if scheme.fidelity in ("hifi3", "hifi4"):
            return f"lever gain_folding: {scheme.fidelity} cuts nothing and loses no gain; drop the lever"
        if scheme.fidelity == "hifi2" and scheme.activation in ("bfp8_b", "bfp4_b"):
            return f"lever gain_folding: hifi2 reads all bits of {scheme.activation} activations; drop the lever"
    return None
