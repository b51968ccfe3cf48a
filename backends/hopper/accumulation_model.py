"""How Hopper's tensor cores sum: a model, with its sources, to be held against a card.

NVIDIA documents none of this. What is published, all of it measured from outside:

* DeepSeek-V3 (arXiv 2412.19437, section 3.3): FP8 products are aligned to the largest of a step, of which 14 bits are
  kept and the rest cut; a partial sum is moved to an fp32 register after 128 elements of k, at four WGMMA instructions.
* SageAttention2 (arXiv 2411.10958): the fp32 accumulator of an FP8 instruction keeps 13 bits of fraction ("FP22"). So
  does "Some Matrix Multiplication Engines Are Not As Accurate As We Thought" (pytorch.org/blog), by another way.
* FTTN (arXiv 2403.00232): one product gives 0 on V100 and A100 and 191.875 on H100; cards differ in the bits they keep.
* MMA-Sim (arXiv 2511.10909; mmasim 2.1.1): equal to the card in all its trials. An FP8 `wgmma` adds 32 products and the
  accumulator at once: all aligned to the largest exponent, each cut 13 bits below it, the sum cut to 13 bits of
  fraction. The exponent of a product is the sum of its operands' exponents. With bf16 and fp16 16 products, 25 bits.
* Khattak and Mikaitis, "Accurate Models of NVIDIA Tensor Cores" (arXiv 2512.07004): V100 to B200, H100 among them.

`HOPPER_FP8` is MMA-Sim's account, which is DeepSeek's and SageAttention's with the gaps filled. What a library adds is
not in it: split k, an order of k of its own, another interval of promotion. `backends.hopper.accumulation.fit` tells
which of many candidates a card's results agree with.

The error that it predicts (benchmarks/results/accumulation.txt; SNR against exact sums of the same codes): over random
values 83 dB at k = 64, 66 at 1024 and 54 at 8192; over values of a real voice 83, 65 and 47; with promotion every 128
elements 77 dB and more at any k. Rounding both operands to FP8 leaves 27 to 45 dB. Where nothing cancels, all values
being of one sign, sums stall: 37 dB at 1024 and 17 at 8192, where FP8 leaves 52 and 56, and 64 dB with promotion.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Rounding = Literal["truncate", "nearest"]
Exponents = Literal["operands", "products"]

_FRACTION = 23
_MIN_EXPONENT = -126


@dataclass(frozen=True, slots=True)
class AccumulationModel:
    """How one dot product over k is summed."""

    step: int
    """Products summed at once."""
    fraction_bits: int
    """Bits kept below the largest exponent of a step; its sum has as many of fraction, and 23 at most."""
    rounding: Rounding = "truncate"
    """What becomes of the bits below, in each term and in the sum: cut (toward zero), or rounded to nearest even."""
    includes_accumulator: bool = True
    """Whether the running sum is a term of the step; otherwise the step's own sum is added to it in fp32."""
    promote_every: int | None = None
    """Elements of k after which the running sum moves to an fp32 register and starts anew (no fast accumulation)."""
    exponents: Exponents = "operands"
    """By what a product is aligned: the sum of its operands' exponents, or its own, which may be one more."""

    def __post_init__(self) -> None:
        """Refuse what cannot be, and what float64 cannot hold exactly."""
        if self.step < 1 or self.fraction_bits < 1:
            raise ValueError(f"step and fraction_bits must be 1 or more, got {self.step} and {self.fraction_bits}")
        if self.digits > 53:
            raise ValueError(
                f"sums of {self.step} terms of {self.fraction_bits} bits need {self.digits} bits, and float64 has 53;"
                " take a smaller step or fewer bits"
            )
        if self.promote_every is not None and (self.promote_every < 1 or self.promote_every % self.step):
            raise ValueError(
                f"promote_every must be a multiple of the step, {self.step}, got {self.promote_every}; None: never"
            )

    @property
    def digits(self) -> int:
        """Bits that the sum of a step may need: each term lies below four times the power that it is aligned to."""
        return self.fraction_bits + 2 + math.ceil(math.log2(self.step + 1))

    @property
    def result_bits(self) -> int:
        """Bits of fraction of a step's sum."""
        return min(self.fraction_bits, _FRACTION)


EXACT_FP32 = AccumulationModel(1, 49, "nearest")
"""Products added one by one in fp32, in the order of k: 49 bits lose nothing that fp32's own rounding would see."""
HOPPER_FP8 = AccumulationModel(32, 13)
"""FP8 by `wgmma`, with fast accumulation."""
HOPPER_FP8_PROMOTED = AccumulationModel(32, 13, promote_every=128)
"""The same without fast accumulation, at the interval of CUTLASS and DeepGEMM; cuBLASLt's own is not known."""
HOPPER_16BIT = AccumulationModel(16, 25)
"""bf16 and fp16 by `wgmma`."""


_ROUNDINGS: tuple[Rounding, ...] = ("truncate", "nearest")
_AROUND = (
    *(
        AccumulationModel(step, bits, rounding, includes, every)
        for step, bits, rounding, includes, every in product(
            (16, 32), (12, 13, 14, 23, 25), _ROUNDINGS, (True, False), (None, 32, 64, 128, 256, 512)
        )
    ),
    *(
        AccumulationModel(step, 13, promote_every=every, exponents="products")
        for step in (16, 32)
        for every in (None, 128)
    ),
)
CANDIDATES: tuple[AccumulationModel, ...] = tuple(
    dict.fromkeys((HOPPER_FP8, HOPPER_FP8_PROMOTED, HOPPER_16BIT, EXACT_FP32, *_AROUND))
)
"""Models worth holding against a card: the presets, then what lies around them."""


def accumulate_reference(a: Tensor, b: Tensor, model: AccumulationModel) -> float:
    """One dot product in exact fractions: the definition of the model.

    Args:
        a: codes [k], as `matmul` takes them.
        b: codes [k].
        model: how they are summed.
    """
    least = [math.frexp(smallest_normal(codes.dtype))[1] - 1 for codes in (a, b)]
    pairs = list(zip(a.float().tolist(), b.float().tolist(), strict=True))
    if not all(math.isfinite(x) and math.isfinite(y) for x, y in pairs):
        return float(sum(x * y for x, y in pairs))
    register, running = 0.0, 0.0
    for first in range(0, len(pairs), model.step):
        terms = [_term(x, y, least, model) for x, y in pairs[first : first + model.step] if x and y]
        if model.includes_accumulator and running:
            terms.append((Fraction(running), max(math.frexp(running)[1] - 1, _MIN_EXPONENT)))
        summed = _sum_step(terms, model)
        running = summed if model.includes_accumulator else _add_fp32(running, summed)
        if model.promote_every is not None and (first + model.step) % model.promote_every == 0:
            register, running = _add_fp32(register, running), 0.0
        if not math.isfinite(running + register):
            return running + register
    return _add_fp32(register, running)


def _term(x: float, y: float, least: Sequence[int], model: AccumulationModel) -> tuple[Fraction, int]:
    """A product, and the exponent that it is aligned by."""
    if model.exponents == "products":
        return Fraction(x) * Fraction(y), math.frexp(x * y)[1] - 1
    # Denormal operands keep the exponent of the smallest normal one, as their codes do.
    exponent = sum(max(math.frexp(value)[1] - 1, low) for value, low in zip((x, y), least, strict=True))
    return Fraction(x) * Fraction(y), exponent


def _sum_step(terms: list[tuple[Fraction, int]], model: AccumulationModel) -> float:
    if not terms:
        return 0.0
    cut = math.trunc if model.rounding == "truncate" else round
    unit = Fraction(2) ** (max(exponent for _, exponent in terms) - model.fraction_bits)
    total = unit * sum(cut(value / unit) for value, _ in terms)
    if not total:
        return 0.0
    # Of a fraction's exponent two are possible by the lengths of its integers; the comparison decides.
    top = abs(total.numerator).bit_length() - total.denominator.bit_length()
    top -= Fraction(2) ** top > abs(total)
    unit = Fraction(2) ** (max(top, _MIN_EXPONENT) - model.result_bits)
    total = unit * cut(total / unit)
    return float(total) if abs(total) < 2**128 else math.copysign(math.inf, total)


def _add_fp32(x: float, y: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(x) + np.float32(y))


def smallest_normal(codes: torch.dtype) -> float:
    """The smallest normal value of a type, whose exponent its denormals share."""
    return torch.finfo(codes).smallest_normal
