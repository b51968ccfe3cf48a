"""Tolerance: how far a card's output may lie from the expected one before something is wrong."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from backends.tenstorrent.program import CardStep, Program, Value
from backends.tenstorrent.simulate import Simulator
from backends.tenstorrent.simulation.vectors import VECTORS

_UNITS = {"bf16": 8, "fp32": 11}
"""Binary places of the last one, counted from the power of two above a value; of fp32 that of tf32."""
FACTOR = 2.0
BF16_SNR_DB = 48.0
"""SNR of values that each are one step of bf16 (2**-8 of the value, at most) off."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Bounds on one output."""

    DERIVATION: ClassVar[str] = (
        "Products, sums in the matrix engine, packing and unpacking are modelled to the bit. What the vector unit"
        " computes (element by element, norms, softmax) is modelled in float32 and rounded, and was not measured on a"
        " card. So the sample was computed twice: as modelled, which is what is expected, and with every result of the"
        " vector unit moved at random by up to one unit in the last place (2**-8 of a value in bf16, 2**-11 in fp32),"
        f" which goes through all that follows. The bounds are {FACTOR:g} times the difference of the two, and never"
        f" tighter than one step of bf16 in every value ({BF16_SNR_DB:g} dB). A deep model that cuts its operands, as"
        " LoFi does, makes much of such a unit: a loose bound here says that samples are no measure there, not that"
        " the sound is bad. An output beyond the bounds is no matter of rounding."
    )

    snr_db: float
    """The least ratio of the expected output's energy to that of the difference."""
    max_abs: float
    """The largest difference of any value."""
    seen_snr_db: float
    """Of the other computation against the expected one; infinite where both are the same."""
    seen_max_abs: float

    @classmethod
    def between(cls, expected: ArrayLike, other: ArrayLike) -> "Tolerance":
        """Bounds from two computations of one output.

        Raises:
            ValueError: other shapes, or values that are not finite: such an output tells nothing.
        """
        exact, apart = np.asarray(expected, np.float64), np.asarray(other, np.float64)
        if exact.shape != apart.shape:
            raise ValueError(f"both computations give one shape, got {exact.shape} and {apart.shape}")
        if not (np.isfinite(exact).all() and np.isfinite(apart).all()):
            raise ValueError(
                "an output has Inf or NaN; take another clip, or find the site by `precision-search evaluate`"
            )
        seen, largest = snr_db(exact, apart), float(np.abs(exact - apart).max(initial=0.0))
        step = float(np.abs(exact).max(initial=0.0)) * 2.0**-8
        return cls(
            snr_db=min(seen - 20 * math.log10(FACTOR), BF16_SNR_DB),
            max_abs=max(FACTOR * largest, step),
            seen_snr_db=seen,
            seen_max_abs=largest,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data; an infinite ratio is null."""
        seen = self.seen_snr_db if math.isfinite(self.seen_snr_db) else None
        return {
            "snr_db": self.snr_db,
            "max_abs": self.max_abs,
            "seen_snr_db": seen,
            "seen_max_abs": self.seen_max_abs,
            "derivation": self.DERIVATION,
        }


def doubted(program: Program, told: Callable[[str], None] = lambda _: None) -> Simulator:
    """A program whose vector unit errs: each of its results is moved by -1, 0 or 1 unit in the last place, drawn.

    The same program gives the same numbers. Zeros, NaN and infinities stay; `told` of every value that is made.
    """
    draw = torch.Generator().manual_seed(0)
    moved = {step.result.name for step in program.steps if isinstance(step, CardStep) and step.op in VECTORS}

    def watch(value: Value, values: Tensor) -> None:
        told(value.name)
        if value.name in moved and values.is_floating_point():
            units = torch.randint(-1, 2, values.shape, generator=draw).to(values.dtype)
            exponents = torch.frexp(values).exponent - _UNITS.get(value.dtype, 8)
            fit = torch.isfinite(values) & (values != 0)
            values += torch.where(fit, torch.ldexp(units, exponents), 0.0)  # in place: what follows reads it

    return Simulator(program, watch=watch)


def snr_db(expected: ArrayLike, other: ArrayLike) -> float:
    """Energy of the expected values over that of the difference, in dB; infinite where there is no difference."""
    exact, apart = np.asarray(expected, np.float64), np.asarray(other, np.float64)
    noise = float(np.square(exact - apart).sum())
    energy = float(np.square(exact).sum())
    if noise == 0.0:
        return math.inf
    return 10 * math.log10(energy / noise) if energy > 0 else -math.inf
