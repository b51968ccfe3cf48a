"""Emulated: a graph under a policy as Hopper is modelled, and with doubts of what a CPU or a card does otherwise."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from backends.base import NOTHING_MEASURED, Measured, Prepared
from backends.emulation.preparation import Preparation
from backends.hopper.accumulation import HOPPER_FP8, AccumulationModel
from backends.hopper.numerics import FP8_TYPES, HopperArithmetic, stored_format
from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.policy import Policy, Scheme
from voice.graph import SiteGraph
from voice.site_call import SiteCall

_PLACES = {"bf16": 8, "fp16": 11, "fp32": 24}
"""Binary places of the last one, counted from the power of two above a value."""
LARGEST_PRODUCT = 6.0
"""Of the products of one step, the largest against the mean of all magnitudes, as it is of normal operands."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is not known of how a sum is computed; each draw is uniform between the bound and its negative."""

    read: float
    """Of a value that a site reads, relative to it; values of 16 bits or less are known."""
    fp8_sums: AccumulationModel | None
    """By what rule products of FP8 values may be cut as they are summed; None: by none, in fp32."""
    stored: int
    """Units in the last place of what a site's result is stored in."""


ON_CPU = Doubt(read=2.0**-19, fp8_sums=None, stored=0)
ON_CARD = Doubt(read=2.0**-18, fp8_sums=HOPPER_FP8, stored=1)


class Emulated:
    """A graph under a policy, computed by `HopperArithmetic` run after run; states are zero first and then kept."""

    def __init__(
        self,
        graph: SiteGraph,
        policy: Policy,
        measured: Measured = NOTHING_MEASURED,
        doubt: Doubt | None = None,
        seed: int = 0,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepare nothing yet.

        Args:
            graph: of a clip, or of a chunk of a stream.
            policy: a scheme for each of its sites, none of which the target refuses.
            measured: static scales of activations, and trained weights.
            doubt: what is moved at random; None: nothing is.
            seed: of what is drawn; the same graph and seed give the same numbers.
            told: called with the name of every site that is computed.
        """
        self._graph, self._schemes, self._calibration = graph, dict(policy.schemes), measured.calibration
        arithmetic = (
            HopperArithmetic() if doubt is None else DoubtedArithmetic(doubt, torch.Generator().manual_seed(seed))
        )
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
    draw: torch.Generator
    name: str = "hopper, doubted"
    _exact: HopperArithmetic = field(default_factory=HopperArithmetic)

    def prepare(self, call: SiteCall, scheme: Scheme, moments: Moments | None = None) -> Prepared:
        """As it is modelled: weights are rounded before they come to any card."""
        return self._exact.prepare(call, scheme, moments)

    def compute(self, call: SiteCall, scheme: Scheme, prepared: Prepared, calibration: Calibration | None) -> Tensor:
        """See `Arithmetic.compute`."""
        sums = self.doubt.fp8_sums if scheme.activation in FP8_TYPES else None
        held = {entry.name: getattr(call, entry.name) for entry in fields(SiteCall)}
        # What has few bits was stored in 16 bits, or is a sum of such: every library has it so, and ties stay ties.
        short = (call.x.contiguous().view(torch.int32) & 0xFF) == 0
        held["x"] = torch.where(short, call.x, call.x * (1 + self.doubt.read * self._drawn(call.x)))
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
        magnitude = SiteCall.compute(self, x.abs(), weight.abs(), with_bias=False)
        bound = 2.0**-24 * magnitude
        if self.sums is not None:
            terms = terms_of(self.op, weight, self.options.groups if self.options is not None else 1)
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
