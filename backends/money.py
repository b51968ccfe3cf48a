"""Comparison: dollars per concurrent stream and per 1000 hours of speech, candidate against baseline."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends import cost, serving
from backends.devices import Device, Figure
from backends.serving import PolicyCost, Serving

HOURS_PER_YEAR = 8766.0
POWER_SOURCE = "knobs of published total-cost calculations: PUE 1.2, $0.08/kWh, 70 % utilization, 3 to 5 years"


@dataclass(frozen=True, slots=True)
class Accounting:
    """How a card that is bought is paid for: over `years`, always on, at its full power."""

    years: float = 4.0
    pue: float = 1.2
    usd_per_kwh: float = 0.08

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

    def to_dict(self) -> dict[str, float | None]:
        """Plain data with four significant digits; None in place of inf and NaN."""
        return {"low": _plain(self.low), "middle": _plain(self.middle), "high": _plain(self.high)}


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

    def to_dict(self) -> dict[str, Any]:
        """The block `cost` of a study's summary: results, and every assumption and source behind them."""
        sides = {"candidate": self.candidate, "baseline": self.baseline}
        ratio = self.ratio.to_dict()
        return {
            **{side: dollars.to_dict() for side, dollars in sides.items()},
            "usd_per_stream": {side: _plain(dollars.usd_per_stream.middle) for side, dollars in sides.items()},
            "ratio": ratio["middle"],
            "low": ratio["low"],
            "high": ratio["high"],
            "ratio_by_price": self.ratio_by_price.to_dict(),
            "streams": {side: dollars.serving.middle.streams_per_card for side, dollars in sides.items()},
            "batch": {side: dollars.serving.middle.batch for side, dollars in sides.items()},
            "usd_per_1000_hours": {side: dollars.usd_per_1000_hours.to_dict() for side, dollars in sides.items()},
            "assumptions": self.assumptions(),
            "sources": self.sources(),
        }

    def assumptions(self) -> list[str]:
        """What was assumed, a sentence each."""
        account, served = self.accounting, self.candidate.serving
        return [
            "a roofline is a guess: within a factor of about two of measured matrix products, worse for small ones",
            f"a card is busy {served.max_utilization:.0%} of its time at most, in chunks of {served.chunk_seconds} s",
            f"a card is paid for over {account.years:g} years, draws its full power all the time, PUE {account.pue:g}, "
            f"${account.usd_per_kwh:g} per kWh ({POWER_SOURCE})",
            "host, network, spare cards and people are not counted",
            *serving.ASSUMPTIONS,
            *cost.ASSUMPTIONS,
        ]

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
        accounting: Years, PUE and price of electricity.
        prices: Prices by card that replace those of the table; each with its own source and date.

    Raises:
        ValueError: where neither `prices` nor the table has a price of the card.
    """
    accounting = accounting or Accounting()
    device = served.device
    price = _price_of(device, prices)
    streams = (served.low.streams_per_card, served.middle.streams_per_card, served.high.streams_per_card)
    paid = (price.low, price.value, price.high)
    per_stream = [_over(usd, count) for usd, count in zip(paid, streams, strict=True)]
    watts = device.power_w.value
    bought = [1000 * _over(accounting.usd_per_hour(usd, watts), n) for usd, n in zip(paid, streams, strict=True)]
    cloud = device.cloud_usd_per_hour
    rented = None
    if cloud is not None:
        hourly = (cloud.low, cloud.value, cloud.high)
        rented = Range(*(1000 * _over(usd, count) for usd, count in zip(hourly, streams, strict=True)))
    return Dollars(served, price, Range(*per_stream), Range(*bought), rented)


def usd_per_second(
    device: Device,
    accounting: Accounting | None = None,
    prices: Mapping[str, Figure] | None = None,
    *,
    utilization: float = 1.0,
) -> float:
    """Dollars of one second of work of a card that is bought: purchase and electricity.

    Args:
        device: The card; its price in the middle of its range counts.
        accounting: Years, PUE and price of electricity.
        prices: Prices by card that replace those of the table; each with its own source and date.
        utilization: Share of its time that the card is at work, in (0, 1]; the rest is paid for too.

    Raises:
        ValueError: where neither `prices` nor the table has a price of the card, or the utilization is out of range.
    """
    if not 0 < utilization <= 1:
        raise ValueError(f"0 < utilization <= 1 must hold, got {utilization}")
    hourly = (accounting or Accounting()).usd_per_hour(_price_of(device, prices).value, device.power_w.value)
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
    a, b = ours.usd_per_stream, theirs.usd_per_stream
    ratio = Range(_ratio(a.low, b.high), _ratio(a.middle, b.middle), _ratio(a.high, b.low))
    by_price = Range(
        _ratio(ratio.middle * ours.price.low / ours.price.value, theirs.price.high / theirs.price.value),
        ratio.middle,
        _ratio(ratio.middle * ours.price.high / ours.price.value, theirs.price.low / theirs.price.value),
    )
    return Comparison(ours, theirs, accounting, ratio, by_price)


def _price_of(device: Device, prices: Mapping[str, Figure] | None) -> Figure:
    price = (prices or {}).get(device.name, device.price_usd)
    if price is None:
        raise ValueError(f"no price of {device.name} is known; give one, with its source and date, in `prices`")
    return price


def _over(usd: float, streams: int) -> float:
    return usd / streams if streams else math.inf


def _ratio(left: float, right: float) -> float:
    return math.nan if math.isinf(left) and math.isinf(right) else left / right


def _plain(number: float) -> float | None:
    return float(f"{number:.4g}") if math.isfinite(number) else None


def _policy_dict(found: PolicyCost) -> dict[str, Any]:
    return {
        "seconds_per_audio_second": _plain(found.seconds_per_audio_second),
        "streams_per_card": found.streams_per_card,
        "batch": found.batch,
        "utilization": _plain(found.utilization),
        "weight_bytes": round(found.weight_bytes),
        "activation_bytes_per_audio_second": round(found.activation_bytes),
        "compute_share": _plain(found.compute_share),
        "memory_share": _plain(found.memory_share),
        "overhead_share": _plain(found.overhead_share),
        "fits": found.fits,
        "limited_by": found.limited_by,
    }
