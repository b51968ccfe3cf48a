"""Phase: which sites make the angles of sines, where an error is one of time or direction and no level forgives it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from voice.intercept import intercept
from voice.site_call import SiteCall
from voice.tracing import Tracing, storage_of

Kind = Literal["oscillator", "direction"]
"""Of an angle: a running sum (of frequencies), or one of which both sine and cosine are taken, as of a complex
number's. A sine alone of what never was summed is neither: Snake activations are such."""

_SUMS = frozenset({"cumsum", "cumsum_"})
_SINE, _COSINE = frozenset({"sin", "sin_"}), frozenset({"cos", "cos_"})
_WHY: Mapping[Kind, str] = {
    "oscillator": "its result is summed up into the phase of an oscillator, where an error grows with time",
    "direction": "its result is an angle, of which sine and cosine are taken: its error is one of phase, in radians",
}


@dataclass(frozen=True, slots=True)
class Phase:
    """What a site does to an angle."""

    kind: Kind
    largest_rad: float
    """The largest magnitude that an angle had."""

    @property
    def why(self) -> str:
        """Why it must not be lowered."""
        return f"{_WHY[self.kind]} (up to {self.largest_rad:.3g} rad)"


def find_phases(module: nn.Module, run: Callable[[], object]) -> dict[str, Phase]:
    """Find the sites that make angles, by running the model once.

    Of an oscillator those sites are given whose results are added up by `cumsum` without another site between, and
    those that lie between the sum and the sine. Of a direction, whose results reach both `sin` and `cos` of one tensor,
    `polar`, or `exp` of complex numbers, without another site between. Followed is what `voice.flow` follows, by its
    rules: no integers, so that positions counted by a sum are none of this; a storage as a whole. What sites make of an
    angle's sine is sound, and no phase.

    Args:
        module: the model; its results are those it has without this.
        run: renders one clip with it, a short one will do; what it returns is dropped.

    Returns:
        Phase by site, in the order of first finds; the larger angle, and "oscillator", where there are several.
    """
    tracing = _Angles()

    def handle(call: SiteCall) -> Tensor:
        operands = [call.x, call.weight] if call.is_product else [call.x]
        read = [tracing.known(tensor) for tensor in operands]
        result = call.compute()
        # A site in the path of a phase goes on with it; of any other the result is its own.
        summed = _joined([one.summed for one in read])
        tracing.mark(result, _Made(frozenset({call.site}), None if summed is None else summed | {call.site}))
        return result

    with intercept(module, handle), tracing:
        run()
    return tracing.found


@dataclass(frozen=True, slots=True)
class _Made:
    """Of what a tensor is made."""

    sites: frozenset[str] = frozenset()
    """Sites whose results it is made of, without others between."""
    summed: frozenset[str] | None = None
    """Sites in the path of the running sum that it is made of, which may be none; None where it is of no sum."""


_NOTHING = _Made()


def _joined(parts: Sequence[frozenset[str] | None]) -> frozenset[str] | None:
    known = [part for part in parts if part is not None]
    return frozenset().union(*known) if known else None


class _Angles(Tracing[_Made]):
    """Knows of every storage what it was made of, and notes whose angles sines are taken of."""

    def __init__(self) -> None:
        super().__init__(_NOTHING)
        self.found: dict[str, Phase] = {}
        self._taken: dict[tuple[Any, ...], tuple[StorageWeakRef, set[str]]] = {}

    def joined(self, name: str, read: Sequence[Tensor], parts: Sequence[_Made]) -> _Made:
        """What an operation's results are made of; noted is which angles it takes a sine of."""
        made = _Made(frozenset().union(*(part.sites for part in parts)), _joined([part.summed for part in parts]))
        if name in _SUMS and any(tensor.is_floating_point() for tensor in read):
            return _Made(frozenset(), made.sites | (made.summed or frozenset()))
        return replace(made, summed=None) if self._takes_angle(name, read, made) else made

    def _takes_angle(self, name: str, read: Sequence[Tensor], made: _Made) -> bool:
        """Note whose angle an operation reads; whether it reads one."""
        if name in _SINE | _COSINE:
            angle = read[0]
            whole = self._both(name, angle)
        elif name == "polar" or (name == "exp" and read[0].is_complex()):
            angle, whole = read[-1], True
        else:
            return False
        largest = _largest(angle)
        if made.summed is not None:
            for site in sorted(made.summed):
                self._note(site, Phase("oscillator", largest))
        if whole:
            for site in sorted(self.known(angle).sites):
                self._note(site, Phase("direction", largest))
        return True

    def _both(self, name: str, angle: Tensor) -> bool:
        """Whether sine and cosine have both been taken of a tensor, or of another view of the same numbers."""
        storage = storage_of(angle)
        if storage is None:
            return False
        key = (storage._cdata, angle.storage_offset(), angle.shape, angle.stride())
        reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        _, taken = self._taken.setdefault(key, (reference, set()))
        taken.add("sin" if name in _SINE else "cos")
        return len(taken) == 2

    def _note(self, site: str, phase: Phase) -> None:
        before = self.found.get(site)
        kind: Kind = "oscillator" if "oscillator" in (phase.kind, before and before.kind) else "direction"
        self.found[site] = Phase(kind, max(phase.largest_rad, before.largest_rad if before else 0.0))


def _largest(angle: Tensor) -> float:
    if angle.numel() == 0:
        return 0.0
    with torch.no_grad():
        return float((angle.imag if angle.is_complex() else angle).detach().abs().max())
