"""Tolerance: how far a card's output, and a CPU's, may lie from the emulated one before something is wrong."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from backends import tolerance
from backends.base import NOTHING_MEASURED, Measured, Prepared
from backends.emulation.preparation import Preparation
from backends.hopper.accumulation import HOPPER_FP8, AccumulationModel
from backends.hopper.numerics import FP8_TYPES, HopperArithmetic, stored_format
from backends.tolerance import BF16_SNR_DB, FACTOR
from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.policy import Policy, Scheme
from voice.graph import SiteGraph
from voice.site_call import SiteCall

_PLACES = {"bf16": 8, "fp16": 11, "fp32": 24}
"""Binary places of the last one, counted from the power of two above a value."""
LARGEST_PRODUCT = 6.0
"""Of the products of one step, the largest against the mean of all magnitudes, as it is of normal operands."""


class CpuTolerance(tolerance.Tolerance):
    """Bounds on one output of ONNX Runtime's CPU provider."""

    __slots__ = ()

    DERIVATION: ClassVar[str] = (
        "A CPU computes what the emulation does, operands rounded alike, and adds up in another order. So the sample"
        " was computed twice: as emulated, which is what is expected, and with every sum moved at random by up to what"
        " the order of K terms can do (2**-24 of the sum of magnitudes times the root of K), every value that a site"
        " reads by up to 2**-22 of it for functions whose last bits differ, and all that comes of that in the roundings"
        f" behind. The bounds are {FACTOR:g} times the difference of the two, and never tighter than"
        " 60 dB and a step of bf16 of the largest value: a sum that lies between two values of bf16 may fall to either."
    )
    LEAST_SNR_DB: ClassVar[float] = 60.0


class CardTolerance(tolerance.Tolerance):
    """Bounds on one output of a card."""

    __slots__ = ()

    DERIVATION: ClassVar[str] = (
        "Scales, codes and the types of all that is stored are modelled to the bit; in what order a tensor core adds,"
        " how many bits it keeps of FP8 products, and which roundings TensorRT fuses away, was not measured on a card."
        " So the sample was computed twice: as emulated with sums in fp32, which is what is expected, and with sums of"
        " FP8 products moved at random by what they lose where 32 at a time are aligned to the largest and cut 13 bits"
        " below it (as arXiv 2412.19437 and 2511.10909 measured it), all others by what their order can"
        " do, and each site's result by up to one unit in the last place of what it is stored in (2**-8 of a value in"
        " bf16, 2**-11 in fp16, 2**-24 in fp32), which goes through all that follows. The bounds are"
        f" {FACTOR:g} times the difference of the two, and never tighter than one step of bf16 in every value"
        f" ({BF16_SNR_DB:g} dB). A deep model makes much of such a unit: a loose bound here says that samples are no"
        " measure there, not that the sound is bad. An output beyond the bounds is no matter of rounding."
    )


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds on one output, wherever it is computed."""

    card: CardTolerance
    cpu: CpuTolerance

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the derivations, which are those of every output."""
        held = {"card": self.card.to_dict(), "cpu": self.cpu.to_dict()}
        return {
            place: {name: value for name, value in data.items() if name != "derivation"} for place, data in held.items()
        }


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is not known of how a sum is computed; each draw is uniform between the bound and its negative."""

    read: float
    """Of a value that a site reads, relative to it."""
    fp8_sums: AccumulationModel | None
    """By what rule products of FP8 values may be cut as they are summed; None: by none, in fp32."""
    stored: int
    """Units in the last place of what a site's result is stored in."""


ON_CPU = Doubt(read=2.0**-22, fp8_sums=None, stored=0)
ON_CARD = Doubt(read=2.0**-20, fp8_sums=HOPPER_FP8, stored=1)


class Emulated:
    """A graph under a policy, computed by `HopperArithmetic` run after run; states are zero first and then kept."""

    def __init__(
        self,
        graph: SiteGraph,
        policy: Policy,
        measured: Measured = NOTHING_MEASURED,
        doubt: Doubt | None = None,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepare nothing yet.

        Args:
            graph: of a clip, or of a chunk of a stream.
            policy: a scheme for each of its sites, none of which the target refuses.
            measured: static scales of activations, and trained weights.
            doubt: what is moved at random; the same graph gives the same numbers. None: nothing is.
            told: called with the name of every site that is computed.
        """
        self._graph, self._schemes, self._calibration = graph, dict(policy.schemes), measured.calibration
        arithmetic = HopperArithmetic() if doubt is None else DoubtedArithmetic(doubt)
        self._preparation = Preparation(arithmetic, measured.moments, adapted=measured.adapted)
        self._states: dict[str, Tensor] | None = None
        self._told = told

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parts of one run by name; ValueError where inputs do not fit the graph. NaN and Inf go through."""
        outputs = self._graph.run(inputs, self._compute, self._states)
        parts = len(self._graph.parts)
        self._states = dict(zip(self._graph.states, outputs[parts:], strict=True)) or None
        return dict(zip(self._graph.parts, outputs[:parts], strict=True))

    def _compute(self, call: SiteCall) -> Tensor:
        self._told(call.site)
        return self._preparation.compute(call, self._schemes, self._calibration)


@dataclass(frozen=True, slots=True)
class DoubtedArithmetic:
    """`HopperArithmetic` whose sums err, and what is stored of them."""

    doubt: Doubt
    name: str = "hopper, doubted"
    draw: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    _exact: HopperArithmetic = field(default_factory=HopperArithmetic)

    def prepare(self, call: SiteCall, scheme: Scheme, moments: Moments | None = None) -> Prepared:
        """As it is modelled: weights are rounded before they come to any card."""
        return self._exact.prepare(call, scheme, moments)

    def compute(self, call: SiteCall, scheme: Scheme, prepared: Prepared, calibration: Calibration | None) -> Tensor:
        """See `Arithmetic.compute`."""
        sums = self.doubt.fp8_sums if scheme.activation in FP8_TYPES else None
        held = {entry.name: getattr(call, entry.name) for entry in fields(SiteCall)}
        held["x"] = call.x * (1 + self.doubt.read * self._drawn(call.x))
        doubted = _DoubtedCall(**held, sums=sums, drawn=self._drawn)
        result = self._exact.compute(doubted, scheme, prepared, calibration)
        if not self.doubt.stored:
            return result
        units = torch.randint(-self.doubt.stored, self.doubt.stored + 1, result.shape, generator=self.draw)
        exponents = torch.frexp(result).exponent - _PLACES[stored_format(scheme)]
        fit = torch.isfinite(result) & (result != 0)
        return result + torch.where(fit, torch.ldexp(units.to(result.dtype), exponents), 0.0)

    def _drawn(self, like: Tensor) -> Tensor:
        return 2 * torch.rand(like.shape, generator=self.draw) - 1


@dataclass(frozen=True, slots=True, eq=False)
class _DoubtedCall(SiteCall):
    """A call whose sums are moved before they are scaled, biased and rounded."""

    sums: AccumulationModel | None
    drawn: Callable[[Tensor], Tensor]

    def compute(
        self,
        x: Tensor | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        *,
        with_bias: bool = True,
    ) -> Tensor:
        """See `SiteCall.compute`."""
        x, weight = self.x if x is None else x, self.weight if weight is None else weight
        total = SiteCall.compute(self, x, weight, bias, with_bias=with_bias)
        terms = terms_of(self.op, weight, self.options.groups if self.options is not None else 1)
        magnitude = SiteCall.compute(self, x.abs(), weight.abs(), with_bias=False)
        bound = 2.0**-24 * math.sqrt(terms) * magnitude
        if self.sums is not None:
            bound = torch.maximum(bound, cut_bound(total, magnitude, terms, self.sums))
        return total + bound * self.drawn(total)


def cut_bound(total: Tensor, magnitude: Tensor, terms: int, model: AccumulationModel) -> Tensor:
    """What sums may lose as an accumulation model cuts them: a few times what is usual, and no worst case.

    Each step aligns its terms to the largest, the running sum among them, and cuts each toward zero. What terms of
    mixed signs lose adds up as a random walk; what terms of one sign lose adds up in full.

    Args:
        total: the sums.
        magnitude: the same of their terms' magnitudes.
        terms: products of a sum.
        model: how they are cut.
    """
    steps = math.ceil(terms / model.step)
    largest = torch.maximum(total.abs(), magnitude * (LARGEST_PRODUCT / max(terms, LARGEST_PRODUCT)))
    cuts = min(terms, model.step) + 1
    walk = math.sqrt(steps * cuts) / 3 * largest
    drift = steps * cuts / 4 * total.square() / magnitude.clamp_min(torch.finfo(magnitude.dtype).tiny)
    return 2.0**-model.fraction_bits * (walk + drift)


def terms_of(op: str, weight: Tensor, groups: int = 1) -> int:
    """Products that are added up to one value of a result, at most.

    Args:
        op: as of `SiteCall`.
        weight: in the layout of `SiteCall.weight`.
        groups: of a convolution; 1 otherwise.
    """
    if op == "matmul":
        return weight.shape[-2]
    if op == "conv_transpose1d":
        return weight.shape[0] // groups * weight.shape[2]
    return weight[0].numel()
