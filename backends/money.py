"""Comparison: dollars per concurrent stream and per 1000 hours of speech, candidate against baseline."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from backends import cost, serving
from backends.devices import Case, Device, Figure
from backends.serving import PolicyCost, Serving

CASES: tuple[Case, ...] = get_args(Case)
HOURS_PER_YEAR = 8766.0
POWER_SOURCE = "knobs of published total-cost calculations: PUE 1.2, $0.08/kWh, 70 % utilization, 3 to 5 years"


CHARACTERS_PER_SECOND = Figure(
    value=15.2,
    low=12.6,
    high=16.6,
    source="LJ Speech: 1,308,678 characters in 23 h 55 min 17 s of books read aloud (keithito.com/LJ-Speech-Dataset); "
    "low: 130 words a minute, slow for an audiobook, at its 5.8 characters a word; high: the sentences of the embedded "
    "voice, 1253 characters in 75.6 s",
    date="2017 to 2026",
    doubt="English; other scripts take fewer characters a second",
)
"""Characters of text that a second of speech says."""


@dataclass(frozen=True, slots=True)
class Accounting:
    """How a card is paid for: bought over `years`, always on, at its full power; or rented by the hour."""

    years: float = 4.0
    pue: float = 1.2
    usd_per_kwh: float = 0.08
    rent: bool = False
    """Whether cards are rented; the hour's price then holds electricity and all else."""

    def __post_init__(self) -> None:
        """Refuse what no one pays."""
        if not (self.years > 0 and self.pue >= 1 and self.usd_per_kwh >= 0):
            raise ValueError(f"years > 0, pue >= 1 and usd_per_kwh >= 0 must hold, got {self}")

    def usd_per_hour(self, price_usd: float, power_w: float) -> float:
        """Purchase and electricity of one card for one hour."""
        return price_usd / (self.years * HOURS_PER_YEAR) + power_w / 1000 * self.pue * self.usd_per_kwh


@dataclass(frozen=True, slots=True)
class Range:
    """A figure with its cheapest and dearest end; inf where a card carries no stream, NaN where neither does."""

    low: float
    middle: float
    high: float

    def cases(self) -> tuple[float, float, float]:
        """Low, middle and high."""
        return self.low, self.middle, self.high

    def over(self, other: "Range") -> "Range":
        """The ratio to another: its ends are the best of one over the worst of the other."""
        return Range(_ratio(self.low, other.high), _ratio(self.middle, other.middle), _ratio(self.high, other.low))

    def to_dict(self) -> dict[str, float | None]:
        """Plain data with four significant digits; None in place of inf and NaN."""
        return {"low": rounded(self.low), "middle": rounded(self.middle), "high": rounded(self.high)}


@dataclass(frozen=True, slots=True)
class Dollars:
    """What a stream costs on one card."""

    serving: Serving
    price: Figure
    usd_per_stream: Range
    """Price of a card over the streams it carries."""
    usd_per_1000_hours: Range
    """A thousand hours of speech on a card that was bought, electricity included."""
    cloud_usd_per_1000_hours: Range | None
    """The same on a card rented by the hour; None where no price by the hour is known."""
    usd_per_stream_hour: Range
    """An hour of speech as the accounting has it: on a card that was bought, electricity included, or on a rented
    one."""

    def usd_per_million_characters(self, characters_per_second: Figure = CHARACTERS_PER_SECOND) -> Range:
        """A million characters of text, spoken; of the accounting's cards."""
        spoken = [1e6 / (3600 * characters_per_second.as_gain(case)) for case in CASES]
        hours = self.usd_per_stream_hour.cases()
        return Range(*(usd * count for usd, count in zip(hours, spoken, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a report."""
        served = self.serving
        cases = {"low": served.low, "middle": served.middle, "high": served.high}
        data: dict[str, Any] = {"device": served.device.name, "policy": served.label}
        data |= {"price_usd": self.price.to_dict(), "usd_per_stream": self.usd_per_stream.to_dict()}
        data["usd_per_1000_hours"] = self.usd_per_1000_hours.to_dict()
        cloud = self.cloud_usd_per_1000_hours
        data["cloud_usd_per_1000_hours"] = cloud.to_dict() if cloud else None
        data["serving"] = {case: _policy_dict(found) for case, found in cases.items()}
        return data | {"weights_on_chip": served.weights_on_chip}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against a baseline. A ratio below 1 says that the candidate costs less a stream."""

    candidate: Dollars
    baseline: Dollars
    accounting: Accounting
    ratio: Range
    """Of the prices per stream; its ends take every range, of prices and of the roofline, at its worst and its best."""
    ratio_by_price: Range
    """The same with the streams of the middle case: only the prices vary."""
    ratio_per_hour: Range
    """Of what an hour of a stream costs, electricity or rent included."""

    def to_dict(self) -> dict[str, Any]:
        """The block `cost` of a study's summary: results, and every assumption and source behind them."""
        return self.results() | {"assumptions": self.assumptions(), "sources": self.sources()}

    def results(self) -> dict[str, Any]:
        """The results alone, as plain data."""
        sides = {"candidate": self.candidate, "baseline": self.baseline}
        ratio = self.ratio.to_dict()
        return {
            **{side: dollars.to_dict() for side, dollars in sides.items()},
            "usd_per_stream": {side: rounded(dollars.usd_per_stream.middle) for side, dollars in sides.items()},
            "ratio": ratio["middle"],
            "low": ratio["low"],
            "high": ratio["high"],
            "ratio_by_price": self.ratio_by_price.to_dict(),
            "basis": "rented" if self.accounting.rent else "bought",
            "ratio_per_hour": self.ratio_per_hour.to_dict(),
            "usd_per_stream_hour": {side: dollars.usd_per_stream_hour.to_dict() for side, dollars in sides.items()},
            "streams": {side: dollars.serving.middle.streams_per_card for side, dollars in sides.items()},
            "batch": {side: dollars.serving.middle.batch for side, dollars in sides.items()},
            "usd_per_1000_hours": {side: dollars.usd_per_1000_hours.to_dict() for side, dollars in sides.items()},
        }

    def assumptions(self) -> list[str]:
        """What was assumed, a sentence each."""
        account, served = self.accounting, self.candidate.serving
        return [
            *self._evidence(),
            f"a card is busy {served.max_utilization:.0%} of its time at most, in chunks of {served.chunk_seconds} s",
            f"a card is paid for over {account.years:g} years, draws its full power all the time, PUE {account.pue:g}, "
            f"${account.usd_per_kwh:g} per kWh ({POWER_SOURCE})",
            "host, network, spare cards and people are not counted",
            *serving.ASSUMPTIONS,
            *cost.ASSUMPTIONS,
        ]

    def _evidence(self) -> Iterator[str]:
        """What the seconds of each side rest on, a sentence each."""
        told = {
            "measured": "measured",
            "calibrated": "by a formula that was fitted to measurements",
            "roofline": "a roofline of data sheets: a guess, within a factor of about two of measured products",
        }
        for served in (self.candidate.serving, self.baseline.serving):
            shares = [f"{share:.0%} {told[name]}" for name, share in served.middle.evidence.items()]
            yield f"of the seconds of {served.device.name} under {served.label or 'its policy'} are {', '.join(shares)}"

    def sources(self) -> list[dict[str, Any]]:
        """Every figure of both cards, with its range, source, date and doubt."""
        found: list[dict[str, Any]] = []
        for dollars in (self.candidate, self.baseline):
            figures = dollars.serving.device.figures() | {"price_usd": dollars.price}
            device = dollars.serving.device.name
            entries = [{"device": device, "figure": name, **figure.to_dict()} for name, figure in figures.items()]
            found.extend(entry for entry in entries if entry not in found)
        return found


def dollars(
    served: Serving, accounting: Accounting | None = None, prices: Mapping[str, Figure] | None = None
) -> Dollars:
    """Dollars of a policy on a card.

    Args:
        served: Streams that the card carries.
        accounting: Years, PUE and price of electricity, or that cards are rented.
        prices: Prices by card that replace those of the table; each with its own source and date.

    Raises:
        ValueError: where neither `prices` nor the table has a price of the card.
    """
    accounting, device = accounting or Accounting(), _priced(served.device, prices)
    price = _price_of(device)
    cases = (served.low, served.middle, served.high)
    streams = [case.streams_per_card for case in cases]
    paid = (price.low, price.value, price.high)
    bought = [hourly_usd(device, replace(accounting, rent=False), case) for case in CASES]
    rented = None
    if device.cloud_usd_per_hour is not None:
        rented = [hourly_usd(device, replace(accounting, rent=True), case) for case in CASES]
    hourly = [hourly_usd(device, accounting, case) for case in CASES]
    return Dollars(
        serving=replace(served, device=device),
        price=price,
        usd_per_stream=_shared(paid, streams),
        usd_per_1000_hours=_shared([1000 * usd for usd in bought], streams),
        cloud_usd_per_1000_hours=None if rented is None else _shared([1000 * usd for usd in rented], streams),
        usd_per_stream_hour=_shared(hourly, streams),
    )


def hourly_usd(device: Device, accounting: Accounting, case: Case = "middle") -> float:
    """Dollars of one card for one hour: its rent, or its purchase over the years and its electricity.

    Raises:
        ValueError: where no price of the card is known that the accounting asks for.
    """
    if not accounting.rent:
        return accounting.usd_per_hour(_price_of(device).as_cost(case), device.power_w.value)
    if device.cloud_usd_per_hour is None:
        raise ValueError(
            f"no price by the hour of {device.name} is known; give one, with its source and date, or buy the card"
        )
    return device.cloud_usd_per_hour.as_cost(case)


def usd_per_second(
    device: Device,
    accounting: Accounting | None = None,
    prices: Mapping[str, Figure] | None = None,
    *,
    utilization: float = 1.0,
) -> float:
    """Dollars of one second of work of a card: purchase and electricity, or rent.

    Args:
        device: The card; its price in the middle of its range counts.
        accounting: Years, PUE and price of electricity, or that cards are rented.
        prices: Prices by card that replace those of the table; each with its own source and date.
        utilization: Share of its time that the card is at work, in (0, 1]; the rest is paid for too.

    Raises:
        ValueError: where neither `prices` nor the table has a price of the card, or the utilization is out of range.
    """
    if not 0 < utilization <= 1:
        raise ValueError(f"0 < utilization <= 1 must hold, got {utilization}")
    hourly = hourly_usd(_priced(device, prices), accounting or Accounting())
    return hourly / 3600 / utilization


def compare(
    candidate: Serving,
    baseline: Serving,
    accounting: Accounting | None = None,
    prices: Mapping[str, Figure] | None = None,
) -> Comparison:
    """Price of a stream of the candidate over that of the baseline, with ranges; errors as `dollars` has them."""
    accounting = accounting or Accounting()
    ours, theirs = dollars(candidate, accounting, prices), dollars(baseline, accounting, prices)
    ratio = ours.usd_per_stream.over(theirs.usd_per_stream)
    by_price = Range(
        _ratio(ratio.middle * ours.price.low / ours.price.value, theirs.price.high / theirs.price.value),
        ratio.middle,
        _ratio(ratio.middle * ours.price.high / ours.price.value, theirs.price.low / theirs.price.value),
    )
    per_hour = ours.usd_per_stream_hour.over(theirs.usd_per_stream_hour)
    return Comparison(ours, theirs, accounting, ratio, by_price, per_hour)


def _priced(device: Device, prices: Mapping[str, Figure] | None) -> Device:
    """The card at the price that takes its own's place, if any."""
    price = (prices or {}).get(device.name)
    return device if price is None else replace(device, price_usd=price)


def _price_of(device: Device) -> Figure:
    if device.price_usd is None:
        raise ValueError(f"no price of {device.name} is known; give one, with its source and date, in `prices`")
    return device.price_usd


def _shared(usd: Sequence[float], streams: Sequence[int]) -> Range:
    return Range(*(each / count if count else math.inf for each, count in zip(usd, streams, strict=True)))


def _ratio(left: float, right: float) -> float:
    return math.nan if math.isinf(left) and math.isinf(right) else left / right


def rounded(number: float) -> float | None:
    """Four significant digits for a report; None in place of inf and NaN."""
    return float(f"{number:.4g}") if math.isfinite(number) else None


def _policy_dict(found: PolicyCost) -> dict[str, Any]:
    return {
        "seconds_per_audio_second": rounded(found.seconds_per_audio_second),
        "streams_per_card": found.streams_per_card,
        "batch": found.batch,
        "utilization": rounded(found.utilization),
        "weight_bytes": round(found.weight_bytes),
        "activation_bytes_per_audio_second": round(found.activation_bytes),
        "compute_share": rounded(found.compute_share),
        "memory_share": rounded(found.memory_share),
        "overhead_share": rounded(found.overhead_share),
        "fits": found.fits,
        "limited_by": found.limited_by,
    }
