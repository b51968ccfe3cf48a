"""Stored: keys or values of one layer in FP8 or 16 bits, written a row at a time and read whole.

Scales are powers of two, so that a widened code is one in bf16 and fp16 too: a 16-bit product reads exactly what is
stored, and what is stored and read does not depend on how often. An FP8 element loses nothing by it but, at worst, the
upper half of the format's last binade.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backends.hopper.numerics import FP8_TYPES, WIDE_TYPES, quantize_fp8
from precision.formats import FORMATS

Covers = Literal["layer", "head"]
"""What one scale is for: all heads of a layer's keys, or of its values; or each head."""
HEADROOM = 2.0
"""Of a scale that is taken from the first row: how much larger later rows may get before they saturate."""


@dataclass(frozen=True, slots=True)
class CacheFormat:
    """How keys and values are stored."""

    format: str
    """fp8_e4m3, fp8_e5m2, bf16, fp16 or fp32."""
    covers: Covers = "head"
    """Without meaning for a wide format, which has no scale."""

    def __post_init__(self) -> None:
        """Refuse formats that have no place in memory here."""
        if self.format not in FP8_TYPES and self.format not in WIDE_TYPES:
            raise ValueError(f"a KV cache in {self.format}: use one of {', '.join((*FP8_TYPES, *WIDE_TYPES))}")

    @property
    def dtype(self) -> torch.dtype:
        """Torch's type of the stored tensor."""
        return FP8_TYPES[self.format] if self.format in FP8_TYPES else WIDE_TYPES[self.format]


def scale_of(amax: Tensor, fmt: str, headroom: float = 1.0) -> Tensor:
    """The least power of two that takes a magnitude to the largest value of an FP8 format or below; 0 where that is 0.

    Args:
        amax: float32, >= 0, finite.
        fmt: fp8_e4m3 or fp8_e5m2.
        headroom: what `amax` is multiplied by first.
    """
    mantissa, exponent = torch.frexp(amax * (headroom / FORMATS[fmt].max_value))
    # frexp's mantissa is 0.5 and up: a power of two is its own bound.
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)
    return torch.where(amax > 0, torch.ldexp(torch.ones_like(amax), exponent), torch.zeros_like(amax))


class Stored:
    """Keys, or values, of one layer in a format, and the scale beside them."""

    def __init__(self, shape: Sequence[int], form: CacheFormat, scale: Tensor | None, device: torch.device) -> None:
        """Start empty: zeros.

        Args:
            shape: [kv_heads, max_rows, head_size].
            form: how it is stored.
            scale: [1, 1, 1] or [kv_heads, 1, 1], powers of two; None takes that of the first row that is not zero, in
                place. Without meaning for a wide format.
            device: where it lies.
        """
        self.codes = torch.zeros(*shape, dtype=form.dtype, device=device)
        self.scale: Tensor | None = None
        self._format, self._filled_first = form.format, False
        if form.format in FP8_TYPES:
            self._filled_first = scale is None
            # 0 stands for not chosen yet, in the graph that chooses it as here.
            empty = torch.zeros(shape[0] if form.covers == "head" else 1, 1, 1)
            self.scale = (empty if scale is None else scale).to(device, torch.float32).clone()

    def write(self, rows: Tensor, position: Tensor) -> None:
        """Put one row [kv_heads, 1, head_size] at a position [1], in place; too large values saturate, NaN stays."""
        stored = rows.to(self.codes.dtype) if self.scale is None else self._quantized(rows)
        # Bytes, because index_copy_ knows no FP8.
        size = torch.uint8 if self.codes.element_size() == 1 else self.codes.dtype
        self.codes.view(size).index_copy_(1, position, stored.view(size))

    def read(self) -> Tensor:
        """All rows, float32, zero where none was written."""
        wide = self.codes.to(torch.float32)
        return wide if self.scale is None else wide * _chosen(self.scale)

    def reset(self) -> None:
        """Forget all rows, and a scale that was taken from the first."""
        self.codes.zero_()
        if self._filled_first and self.scale is not None:
            self.scale.zero_()

    def tensors(self) -> list[Tensor]:
        """All that is written to."""
        return [self.codes, *([] if self.scale is None else [self.scale])]

    def _quantized(self, rows: Tensor) -> Tensor:
        assert self.scale is not None
        if self._filled_first:
            axes = (1, 2) if self.scale.shape[0] > 1 else (0, 1, 2)
            # NaN and Inf say nothing of how large rows get.
            finite = torch.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)
            first = scale_of(finite.abs().amax(axes, keepdim=True), self._format, HEADROOM)
            self.scale.copy_(torch.where(self.scale > 0, self.scale, first))
        return quantize_fp8(rows, _chosen(self.scale), self._format)


def _chosen(scale: Tensor) -> Tensor:
    """The scale, 1 where none was chosen yet."""
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def rounded(values: Tensor, form: CacheFormat, scale: Tensor) -> Tensor:
    """Values as a cache gives them back; float32.

    Args:
        values: [kv_heads, ...].
        form: how they are stored.
        scale: [1, 1, 1] or [kv_heads, 1, 1], above zero; without meaning for a wide format.
    """
    if form.format in WIDE_TYPES:
        return values.to(form.dtype).to(torch.float32)
    return quantize_fp8(values, scale, form.format).to(torch.float32) * scale
