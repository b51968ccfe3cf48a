"""Gemm: the matrix product that one launch computes, and at which of a card's rates."""

from dataclasses import dataclass

from backends.devices import Device
from precision.policy import Scheme

_SPEED = ("fp8", "int8", "bf16", "tf32", "fp32")
_KINDS = {"fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "int8": "int8", "bf16": "bf16", "fp16": "bf16", "tf32": "tf32"}
_KINDS |= {"fp32": "fp32", "mxfp8_e4m3": "fp8", "mxfp8_e5m2": "fp8"}
SCALED = ("fp8_e4m3", "fp8_e5m2", "int8")
"""Formats of activations that take a scale, which somebody has to apply."""
OUTPUT_BITS = 16
"""Narrowest format in which a site's output is written; an assumption (the next site's format is its own choice)."""


@dataclass(frozen=True, slots=True)
class Gemm:
    """One launch: `count` products of [m, k] by [k, n]. `input_elements` is what is read of the left operands."""

    m: int
    k: int
    n: int
    count: int
    input_elements: float
    has_weights: bool

    @property
    def right_elements(self) -> int:
        """What is read of the right operands where they are activations; 0 where they are weights."""
        return 0 if self.has_weights else self.k * self.n * self.count


def rate_key(device: Device, scheme: Scheme, has_weights: bool = True) -> str:
    """Key of `device.rates_tflops` at which a product under `scheme` runs.

    Raises:
        ValueError: where the scheme names no fidelity on a Tensix card, or the card has no rate for its formats.
    """
    if device.is_tensix:
        if scheme.fidelity is None:
            raise ValueError(f"scheme {scheme.name!r} names no fidelity, {device.name} needs one: lofi ... hifi4")
        return scheme.fidelity
    formats = (scheme.activation, scheme.weight) if has_weights else (scheme.activation,)
    for name in formats:
        if name not in _KINDS or (name.startswith("mx") and device.architecture != "blackwell"):
            raise ValueError(
                f"scheme {scheme.name!r}: {device.name} has no rate for {name!r}; use a format it multiplies"
            )
    kinds = {_KINDS[name] for name in formats}
    key = "bf16" if kinds == {"fp8", "int8"} else max(kinds, key=_SPEED.index)
    if key == "tf32" and key not in device.rates_tflops:
        key = "fp32"
    if key not in device.rates_tflops:
        known = ", ".join(device.rates_tflops)
        raise ValueError(f"scheme {scheme.name!r}: {device.name} has no rate for {key!r}, only {known}")
    return key
