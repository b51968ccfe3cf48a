"""Products as Hopper's tensor cores sum them, by a model, and which model the results of a card fit.

The models, what is known and from where: `backends.hopper.accumulation_model`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from backends.hopper.accumulation_model import (
    CANDIDATES,
    EXACT_FP32,
    HOPPER_16BIT,
    HOPPER_FP8,
    HOPPER_FP8_PROMOTED,
    AccumulationModel,
    accumulate_reference,
    smallest_normal,
)

__all__ = [
    "CANDIDATES",
    "EXACT_FP32",
    "HOPPER_16BIT",
    "HOPPER_FP8",
    "HOPPER_FP8_PROMOTED",
    "AccumulationModel",
    "Fitted",
    "accumulate_reference",
    "fit",
    "matmul",
]

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_TYPES = (*_FP8, torch.bfloat16, torch.float16)
_SMALLEST_NORMAL = 2.0**-126
_TOGETHER = 1 << 21
"""Products computed at once."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """How well a model explains what was observed."""

    model: AccumulationModel
    equal: float
    """Share of the results that are the same to the bit, 0..1; NaN equals NaN, and -0 is 0."""
    max_ulp: int
    """Largest distance of a result, in values of the observed type; NaN lies beyond Inf."""


def fit(a: Tensor, b: Tensor, observed: Tensor, candidates: Iterable[AccumulationModel] = CANDIDATES) -> list[Fitted]:
    """Rank models by how well they explain the results of a card.

    Args:
        a: codes [m, k], as `matmul` takes them.
        b: codes [k, n].
        observed: what the card gave for a @ b with scales of 1, [m, n] in float32, bfloat16 or float16. In float32 a
            model shows most; a narrower type hides what lies below it.
        candidates: what to try.

    Returns:
        The best first: by the share of equal results, then by the largest distance, then in the order given.

    Raises:
        ValueError: the shapes do not agree.
        TypeError: a type is none of these.
    """
    if observed.shape != (a.shape[0], b.shape[-1]):
        raise ValueError(f"observed must have shape {(a.shape[0], b.shape[-1])}, got {tuple(observed.shape)}")
    seen = _ordered(observed)
    ranked = []
    for model in candidates:
        distance = (_ordered(matmul(a, b, model).to(observed.dtype)) - seen).abs()
        equal = float((distance == 0).double().mean()) if distance.numel() else 1.0
        ranked.append(Fitted(model, equal, int(distance.max()) if distance.numel() else 0))
    return sorted(ranked, key=lambda fitted: (-fitted.equal, fitted.max_ulp))


def matmul(a: Tensor, b: Tensor, model: AccumulationModel) -> Tensor:
    """Multiply as the model says; equal to `accumulate_reference` in every bit.

    Args:
        a: codes [m, k] in float8_e4m3fn, float8_e5m2, bfloat16 or float16, on any device.
        b: codes [k, n], of any of these types.
        model: the steps go over k from its start, the last filled up with zeros.

    Returns:
        float32 [m, n]. NaN and Inf come out as a sum in any order gives them; beyond float32 it is Inf; no -0.

    Raises:
        ValueError: the shapes do not agree.
        TypeError: a type is none of these.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"a must be [m, k] and b [k, n], got {tuple(a.shape)} and {tuple(b.shape)}")
    for codes in (a, b):
        if codes.dtype not in _TYPES:
            raise TypeError(f"codes must be one of {', '.join(map(str, _TYPES))}, got {codes.dtype}; quantize first")
    # Sums of few bits are exact in float32, too, which is twice as fast; FP8 products are far from its limits.
    narrow = model.digits <= 24 and a.dtype in _FP8 and b.dtype in _FP8
    number = torch.float32 if narrow else torch.float64
    left, right = _Operand(a, number), _Operand(b, number)
    total = torch.empty(a.shape[0], b.shape[1], device=a.device)
    together = max(1, _TOGETHER // max(1, model.step * b.shape[1]))
    for first in range(0, a.shape[0], together):
        rows = slice(first, first + together)
        total[rows] = _sum_rows(left, right, rows, model)
    finite = torch.isfinite(a.float()).all(1, keepdim=True) & torch.isfinite(b.float()).all(0)
    return total if bool(finite.all()) else torch.where(finite, total, a.float() @ b.float())


class _Operand:
    """Values of codes, what is not finite as 0, and the powers of two that they are aligned by."""

    def __init__(self, codes: Tensor, number: torch.dtype) -> None:
        self.values = codes.to(number).nan_to_num(0.0, 0.0, 0.0)
        self.powers = _power_below(self.values, smallest_normal(codes.dtype))


def _sum_rows(left: _Operand, right: _Operand, rows: slice, model: AccumulationModel) -> Tensor:
    """Rows of the left operand; in units of the last bit kept all is whole numbers, and no addition rounds."""
    cut = torch.trunc if model.rounding == "truncate" else torch.round
    values, powers = left.values[rows], left.powers[rows]
    running = values.new_zeros(values.shape[0], right.values.shape[1])
    register = running.to(torch.float32)
    for first in range(0, values.shape[1], model.step):
        step = slice(first, first + model.step)
        products = values[:, step, None] * right.values[step]
        aligned = powers[:, step, None] * right.powers[step]
        top = (aligned if model.exponents == "operands" else _power_below(products)).amax(1)
        if model.includes_accumulator:
            top = torch.maximum(top, _power_below(running, _SMALLEST_NORMAL))
        unit = torch.where(top > 0, top, 1.0) * 2.0**-model.fraction_bits
        total = cut(products.div_(unit[:, None])).sum(1)
        if model.includes_accumulator:
            total = total + cut(running / unit)
        summed = _cut_sum(total * unit, cut, model.result_bits)
        if not model.includes_accumulator:
            summed = running.to(torch.float32) + summed
        # Beyond float32 a sum is Inf, and stays so.
        running = torch.where(torch.isfinite(running), summed.to(running.dtype), running)
        if model.promote_every is not None and (first + model.step) % model.promote_every == 0:
            register, running = _add(register, running), torch.zeros_like(running)
    return _add(register, running)


def _add(register: Tensor, running: Tensor) -> Tensor:
    return torch.where(torch.isfinite(register), register + running.to(torch.float32), register)


def _cut_sum(total: Tensor, cut: Callable[[Tensor], Tensor], bits: int) -> Tensor:
    """Keep `bits` of fraction; float32, and no -0."""
    unit = _power_below(total, _SMALLEST_NORMAL) * 2.0**-bits
    return (cut(total / torch.where(unit > 0, unit, 1.0)) * unit).to(torch.float32) + 0.0


def _power_below(values: Tensor, smallest: float = 0.0) -> Tensor:
    """The power of two at or below each magnitude, at least `smallest`; 0 for zeros. Values must be normal numbers."""
    if values.dtype == torch.float64:
        powers = (values.view(torch.int64) & 0x7FF0_0000_0000_0000).view(torch.float64)
    else:
        powers = (values.view(torch.int32) & 0x7F80_0000).view(torch.float32)
    return torch.where(powers > 0, powers.clamp_min(smallest), powers)


def _ordered(values: Tensor) -> Tensor:
    """Whole numbers in the order of the values, one apart where no value lies between."""
    if values.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise TypeError(f"observed results must be float32, bfloat16 or float16, got {values.dtype}")
    whole = torch.int32 if values.dtype == torch.float32 else torch.int16
    # One NaN for all, and +0 beside the -0 of hardware: neither says how a sum was made.
    canonical = torch.where(values.isnan(), torch.full_like(values, torch.nan), values + 0.0)
    codes = canonical.view(whole).to(torch.int64)
    return torch.where(codes < 0, -(codes & torch.iinfo(whole).max), codes)
