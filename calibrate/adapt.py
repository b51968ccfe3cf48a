"""Adapt: weights trained under a target's arithmetic until the model sounds like itself again.

The full-precision model is the teacher, its own clips are the data: nothing is labelled. First each site learns to give
the teacher's output of that site from the input that the lowered model hands it, then all of them together the
teacher's sound. The model itself is not changed: what is trained are copies, which take the places of its weights.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from calibrate.adapted import Adapted, Operands, Plan
from calibrate.spectral_loss import SpectralLoss

VALIDATED = 4
"""Stretches that decide which weights are kept."""
_VALIDATIONS = 8
_WARM_UP = 10
_LAST_RATE = 0.02
"""Of the first rate; where it is small, weights stop flipping between two stored values."""


class SiteCall(Protocol):
    """One call of one site, as an interception hands it over."""

    @property
    def site(self) -> str:
        """Name of the site."""

    @property
    def x(self) -> Tensor:
        """The input."""

    @property
    def index(self) -> int:
        """Position among all calls of the interception."""

    def compute(self) -> Tensor:
        """Compute the call as the model has it."""


CallT = TypeVar("CallT", bound=SiteCall)
CallT_contra = TypeVar("CallT_contra", bound=SiteCall, contravariant=True)


class Lowered(Protocol[CallT_contra]):
    """Computes a call under the policy, differentiably; the operands are those in training, or None: the call's own."""

    def __call__(self, call: CallT_contra, operands: Operands | None, /, *, detached: bool) -> Tensor:
        """Give the result; `detached` stops gradients at the input."""


Stretch = Callable[[], Tensor]
"""Runs the model on one stretch of a clip, gradients on where they are wanted: the waveform [time], -1..1."""


class Adaptation(Generic[CallT]):
    """A training in progress."""

    def __init__(
        self,
        attach: Callable[[Callable[[CallT], Tensor]], AbstractContextManager[object]],
        lowered: Lowered[CallT],
        draw: Callable[[torch.Generator], Stretch],
        start: Mapping[str, Operands],
        *,
        sample_rate_hz: int,
        plan: Plan,
    ) -> None:
        """Set up, and hear the teacher on the stretches that decide.

        Args:
            attach: opens an interception that hands every site call of the model to a handler.
            lowered: the target's arithmetic.
            draw: chooses a stretch of the clips to train on; all chance comes from the generator.
            start: the sites to train and what they begin at; the others compute with what they have.
            sample_rate_hz: of the sound.
            plan: how long.

        Raises:
            ValueError: there is no site to train, or the model's own sound is silent or not finite.
        """
        if not start:
            raise ValueError("no site has a weight of its own that could be trained")
        self._attach, self._lowered, self._draw, self._plan = attach, lowered, draw, plan
        self._operands = {site: _trainable(held) for site, held in start.items()}
        self._chance = torch.Generator().manual_seed(plan.seed)
        apart = torch.Generator().manual_seed(plan.seed + 1)
        self._validated = [(stretch, self._teach(stretch)) for stretch in (draw(apart) for _ in range(VALIDATED))]
        self._loss = SpectralLoss([sound for _, sound in self._validated], sample_rate_hz)

    def run(self, on_step: Callable[[int, float | None], None] | None = None) -> Adapted:
        """Train.

        Args:
            on_step: told after every step its number, from 1, and the validated loss where it was taken.

        Raises:
            FloatingPointError: the loss is NaN or Inf, before the first step or after one.
        """
        begun = time.monotonic()
        plan, total = self._plan, self._plan.local_steps + self._plan.steps
        before = self.validated_loss()
        if not math.isfinite(before):
            raise FloatingPointError(
                f"adaptation: the loss is {before} before the first step; train for schemes of more range"
            )
        best, best_step, kept = before, 0, self._copy()
        for phase, first, count in (("local", 0, plan.local_steps), ("sound", plan.local_steps, plan.steps)):
            optimizer = _adam(self._operands.values(), plan.rate)
            rates = [(group, group["lr"]) for group in optimizer.param_groups]
            for index in range(count):
                for group, rate in rates:
                    group["lr"] = rate * _share(index, count)
                optimizer.zero_grad()
                stretch = self._draw(self._chance)
                loss = self._local_loss(stretch) if phase == "local" else self._sound_loss(stretch)
                if not math.isfinite(float(loss.detach())):
                    raise FloatingPointError(
                        f"adaptation: the loss is {float(loss.detach())} at step {first + index + 1}; lower the rate"
                    )
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                step, validated = first + index + 1, None
                if step == total or step == plan.local_steps or step % max(total // _VALIDATIONS, 1) == 0:
                    validated = self.validated_loss()
                    if validated < best:
                        best, best_step, kept = validated, step, self._copy()
                if on_step is not None:
                    on_step(step, validated)
        return Adapted(kept, before, best, best_step, (time.monotonic() - begun) / 60, plan)

    def validated_loss(self) -> float:
        """Mean loss over the stretches that decide, with the weights as they are."""
        with torch.no_grad():
            losses = [float(self._loss(self._student(stretch), sound)) for stretch, sound in self._validated]
        return math.fsum(losses) / len(losses)

    def _teach(self, stretch: Stretch) -> Tensor:
        with torch.no_grad():
            return stretch()

    def _student(self, stretch: Stretch) -> Tensor:
        def handle(call: CallT) -> Tensor:
            return self._lowered(call, self._operands.get(call.site), detached=False)

        with self._attach(handle):
            return stretch()

    def _sound_loss(self, stretch: Stretch) -> Tensor:
        sound = self._teach(stretch)
        return self._loss(self._student(stretch), sound)

    def _local_loss(self, stretch: Stretch) -> Tensor:
        """Squared error of each site's output over the teacher's power; no gradient leaves a site."""
        wanted: dict[int, Tensor] = {}

        def record(call: CallT) -> Tensor:
            result = call.compute()
            wanted[call.index] = result.clone()  # the model may write into what it gets
            return result

        losses: list[Tensor] = []

        def handle(call: CallT) -> Tensor:
            operands = self._operands.get(call.site)
            if operands is None:
                with torch.no_grad():
                    return self._lowered(call, None, detached=True)
            result = self._lowered(call, operands, detached=True)
            target = wanted[call.index]
            power = target.square().mean().clamp_min(1e-12)
            losses.append((result - target).square().mean() / power)
            return result.detach().clone()

        with torch.no_grad(), self._attach(record):
            stretch()
        with self._attach(handle):
            stretch()
        return torch.stack(losses).sum()

    def _copy(self) -> dict[str, Operands]:
        return {
            site: Operands(held.weight.detach().clone(), None if held.bias is None else held.bias.detach().clone())
            for site, held in self._operands.items()
        }


def _trainable(operands: Operands) -> Operands:
    weight, bias = operands.weight, operands.bias
    return Operands(
        weight.detach().clone().requires_grad_(), None if bias is None else bias.detach().clone().requires_grad_()
    )


def _adam(operands: Iterable[Operands], rate: float) -> torch.optim.Adam:
    """Adam, each tensor's rate relative to its own size; a bias that is all zero goes by its weight's."""
    groups = []
    for held in operands:
        size = _size(held.weight) or 1.0
        groups.append({"params": [held.weight], "lr": rate * size})
        if held.bias is not None:
            groups.append({"params": [held.bias], "lr": rate * (_size(held.bias) or size)})
    return torch.optim.Adam(groups, betas=(0.9, 0.99))


def _size(values: Tensor) -> float:
    return float(values.detach().square().mean().sqrt())


def _share(index: int, count: int) -> float:
    """Share of the rate at a step: a short warm-up, then half a cosine."""
    cosine = 0.5 * (1 + math.cos(math.pi * index / count))
    return min(1.0, (index + 1) / _WARM_UP) * (_LAST_RATE + (1 - _LAST_RATE) * cosine)
