"""Tolerance: how far a card's output may lie from the expected one before something is wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from backends import tolerance
from backends.tenstorrent.program import CardStep, Program, Value
from backends.tenstorrent.simulate import Simulator
from backends.tenstorrent.simulation.vectors import VECTORS
from backends.tolerance import BF16_SNR_DB, FACTOR, snr_db

__all__ = ["BF16_SNR_DB", "FACTOR", "Tolerance", "doubted", "snr_db"]

_UNITS = {"bf16": 8, "fp32": 11}
"""Binary places of the last one, counted from the power of two above a value; of fp32 that of tf32."""


@dataclass(frozen=True, slots=True)
class Tolerance(tolerance.Tolerance):
    """Bounds on one output of a card."""

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
