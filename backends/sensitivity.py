"""Sensitivity: how far each assumption alone moves the verdict, and where the verdict turns.

The verdict is the ratio of what an hour of a stream costs, candidate against baseline, electricity or rent included, in
the middle of the ranges. Below 1 the candidate costs less.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from backends.assumptions import Assumption, Situation, assumptions, launch_times, settled, with_figure
from backends.devices import Case, Device
from backends.money import CASES, HOURS_PER_YEAR, hourly_usd, rounded
from backends.serving import PolicyCost
from backends.workload import Terms, Workload
from precision.policy import Policy

_STEPS = 60  # of a bisection, at most
_CLOSE = 1e-4
"""Share of itself to which a turning point is known, and more."""
_JUMP = 1.05
"""Times that a ratio is what it was, from which a turning point is told as a jump."""
_TURNING = (
    ("gemm_efficiency", "share of the peak that products reach", "", 1e-3, 1.0),
    ("memory_efficiency", "share of the memory's bandwidth that is reached", "", 1e-3, 1.0),
    ("overhead_us", "overhead of a launch", "us", 1e-2, 1e6),
)
"""Figures of the candidate's card that a turning point is looked for in, between two ends."""


@dataclass(frozen=True)
class Verdict:
    """The ratio of both sides, as a function of the situation."""

    workload: Workload
    candidate: Policy
    baseline: Policy
    situation: Situation

    def ratio(self, situation: Situation | None = None) -> float:
        """Dollars an hour of a stream, candidate against baseline.

        It is inf where the candidate's card carries none, 0 where the baseline's carries none, NaN where neither does.
        """
        asked = situation or self.situation
        ours, theirs = self.streams(asked)
        if not ours and not theirs:
            return math.nan
        if not (ours and theirs):
            return math.inf if not ours else 0.0
        accounting = asked.accounting
        return (hourly_usd(asked.candidate, accounting) / ours) / (hourly_usd(asked.baseline, accounting) / theirs)

    def streams(self, situation: Situation) -> tuple[int, int]:
        """Streams of a card of each side."""
        ours, theirs = (self._served(situation, index).streams_per_card for index in (0, 1))
        return ours, theirs

    def launch_times(self) -> Iterator[Assumption]:
        """How far off the seconds of each side may be where they do not follow from figures of its card alone."""
        for index in (0, 1):
            low, middle, high = (
                self._served(replace(self.situation, cases=(case, case)), index).seconds_per_audio_second
                for case in CASES
            )
            if low < middle < high:
                yield launch_times(self.situation, index, low / middle, high / middle)

    def _served(self, situation: Situation, index: int) -> PolicyCost:
        device = (situation.candidate, situation.baseline)[index]
        return self._at(_unpriced(device), index, situation.terms, situation.cases[index])

    @cached_property
    def _at(self) -> Callable[[Device, int, Terms, Case], PolicyCost]:
        # Prices, years and power change no stream: what a card carries is asked for once.
        @lru_cache(maxsize=256)
        def at(device: Device, index: int, terms: Terms, case: Case) -> PolicyCost:
            policy = (self.candidate, self.baseline)[index]
            return self.workload.at(device if case == "middle" else settled(device), policy, terms, case)

        return at


@dataclass(frozen=True, slots=True)
class Swing:
    """The verdict at both ends of one assumption's range, all else in the middle."""

    assumption: Assumption
    low: float
    """At the assumption's low number, which need not be the low ratio."""
    middle: float
    high: float

    @property
    def width(self) -> float:
        """How many times the largest ratio is the smallest; inf where one is no number."""
        ends = (self.low, self.middle, self.high)
        return max(ends) / min(ends) if all(0 < end < math.inf for end in ends) else math.inf

    def to_dict(self) -> dict[str, Any]:
        """A row of the block `sensitivity` of a summary."""
        figure = self.assumption.figure
        return {
            "assumption": self.assumption.name,
            "unit": self.assumption.unit,
            "low": rounded(figure.low),
            "middle": rounded(figure.value),
            "high": rounded(figure.high),
            "ratio_low": rounded(self.low),
            "ratio_middle": rounded(self.middle),
            "ratio_high": rounded(self.high),
            "source": figure.source,
            "date": figure.date,
            "doubt": figure.doubt,
        }


def tornado(verdict: Verdict) -> tuple[Swing, ...]:
    """Every assumption over its own range, alone; the widest first."""
    situation, middle = verdict.situation, verdict.ratio()
    found = []
    varied = assumptions(situation, chunk_is_free=verdict.workload.chunk_is_free)
    for one in (*varied, *verdict.launch_times()):
        low, high = (verdict.ratio(one.at(situation, end)) for end in (one.figure.low, one.figure.high))
        found.append(Swing(one, low, middle, high))
    return tuple(sorted(found, key=lambda swing: (-swing.width, swing.assumption.name)))


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Where the verdict turns in one number, all else in the middle; None where it turns nowhere."""

    what: str
    value: float | None
    unit: str
    told: str

    def to_dict(self) -> dict[str, Any]:
        """A row of the block `break_even` of a summary."""
        value = None if self.value is None else rounded(self.value)
        return {"what": self.what, "value": value, "unit": self.unit, "told": self.told}


def break_even(verdict: Verdict) -> tuple[BreakEven, ...]:
    """Prices of either card, streams of the candidate's, and its efficiencies, at which both sides cost the same.

    Prices and streams are exact; efficiencies are found by halving an interval. Streams are whole and batches powers of
    two, so that the ratio moves in steps: at an efficiency it passes 1, and need not be it.
    """
    situation, ratio = verdict.situation, verdict.ratio()
    ours, theirs = verdict.streams(situation)
    if not (ours and theirs):
        none = situation.candidate.name if not ours else situation.baseline.name
        return (BreakEven("price", None, "USD", f"{none} carries no stream, so there is nothing to pay the same for"),)
    found = [*_prices(situation, ours, theirs), *_streams(situation, ours, theirs)]
    for key, name, unit, low, high in _TURNING:
        what = f"{situation.candidate.name}: {name}"

        def at(value: float, key: str = key) -> float:
            changed = with_figure(situation.candidate, key, value)
            return verdict.ratio(replace(situation, candidate=changed))

        value = _turning(at, low, high)
        figure = situation.candidate.figures()[key].value
        if at(low) == at(high):
            told = f"{what}: moves nothing here"
        elif value is None:
            side = "less" if ratio < 1 else "more"
            told = f"{what}: from {low:g} to {high:g} {situation.candidate.name} costs {side} throughout"
        else:
            sides = sorted(at(value * near) for near in (1 - _CLOSE, 1 + _CLOSE))
            said = "both cost the same"
            if sides[1] > _JUMP * sides[0]:  # a whole stream more or less, or a batch of half the size
                said = f"the ratio jumps over 1, from {sides[0]:.3g} to {sides[1]:.3g}"
            told = f"{what}: at {value:.3g}{_spaced(unit)} {said}; it is taken to be {figure:g}"
        found.append(BreakEven(what, value, unit, told))
    return tuple(found)


def _prices(situation: Situation, ours: int, theirs: int) -> list[BreakEven]:
    """Of the price of either card; by the hour where cards are rented."""
    accounting, found = situation.accounting, []
    sides = (
        (situation.candidate, ours, situation.baseline, theirs),
        (situation.baseline, theirs, situation.candidate, ours),
    )
    for card, carries, other, others in sides:
        hourly = hourly_usd(other, accounting) / others * carries
        if accounting.rent:
            price = card.cloud_usd_per_hour
            what, unit, value = f"{card.name}: price by the hour", "USD/h", hourly
        else:
            price = card.price_usd
            electricity = accounting.usd_per_hour(0.0, card.power_w.value)
            what, unit = f"{card.name}: price of a card", "USD"
            value = (hourly - electricity) * accounting.years * HOURS_PER_YEAR
        paid = "" if price is None else f"; it is taken to be {price.value:g}"
        if value > 0:
            told = f"{what}: at {_whole(value)} {unit} both cost the same{paid}"
        else:
            told = f"{what}: at no price, its electricity alone costs more than {other.name} with its price"
        found.append(BreakEven(what, value if value > 0 else None, unit, told))
    return found


def _streams(situation: Situation, ours: int, theirs: int) -> list[BreakEven]:
    """Of the streams of the candidate's card, and of the time that its launches take, which is one over them."""
    card, other = situation.candidate, situation.baseline
    needed = hourly_usd(card, situation.accounting) / hourly_usd(other, situation.accounting) * theirs
    what = f"{card.name}: streams of a card"
    told = (
        f"{what}: with {_whole(needed)} for every {theirs} of {other.name} both cost the same; it is taken to be {ours}"
    )
    times = f"{card.name}: time of launches, of what is foretold"
    said = f"{times}: at {ours / needed:.3g} times both cost the same"
    return [BreakEven(what, needed, "streams", told), BreakEven(times, ours / needed, "times", said)]


def _turning(at: Callable[[float], float], low: float, high: float) -> float | None:
    """Where a ratio that rises or falls all the way passes 1; None where it does not."""
    falls = at(low) >= at(high)

    def dear(value: float) -> bool:
        return (at(value) > 1) == falls

    if not dear(low) or dear(high):
        return None
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if dear(middle) else (low, middle)
        if high / low < 1 + _CLOSE:
            break
    return math.sqrt(low * high)


def _unpriced(device: Device) -> Device:
    return replace(
        device, price_usd=None, cloud_usd_per_hour=None, power_w=replace(device.power_w, value=1.0, low=1.0, high=1.0)
    )


def _whole(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _spaced(unit: str) -> str:
    return f" {unit}" if unit else ""
