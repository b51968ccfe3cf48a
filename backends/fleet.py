"""Fleet: how many cards carry a number of streams, and what these cost; equal throughput on either side."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.devices import Device, Figure
from backends.money import CASES, Accounting, Range, hourly_usd, rounded
from backends.serving import Serving

FLEET_STREAMS = 550
"""Concurrent streams that the Lightning V2 argument is made for."""
LIGHTNING_SOURCE = (
    "secondary reports of arXiv 2604.03279 (Lightning V2): 27 P150 against 11 L40S for 550 concurrent requests of 5 s"
)
REPORTED_USD = {"candidate": (27_000.0, 37_000.0), "baseline": (100_000.0, 100_000.0)}
"""What the reports of Lightning V2 say that each fleet costs."""


@dataclass(frozen=True, slots=True)
class Carried:
    """Streams that one card carries, by case: `low` is the cheapest outcome, so the most of them."""

    device: Device
    streams: Range
    source: str
    """Where the number is from."""

    @classmethod
    def of(cls, served: Serving) -> "Carried":
        """What the cost model makes of a policy."""
        cases = (served.low, served.middle, served.high)
        return cls(served.device, Range(*(float(case.streams_per_card) for case in cases)), "the cost model")

    @classmethod
    def published(cls, device: Device, streams: Figure) -> "Carried":
        """What others report of a card."""
        cases = Range(*(streams.as_gain(case) for case in CASES))
        return cls(device, cases, f"{streams.source} ({streams.date})")


@dataclass(frozen=True, slots=True)
class Fleet:
    """Cards that carry a number of streams between them."""

    carried: Carried
    streams: int
    cards: Range
    """Whole cards; inf where one carries no stream."""
    usd: Range | None
    """Purchase; None where no price of the card is known."""
    power_kw: float
    """Full power of the fleet in the middle case, with all that the site draws beside it (PUE)."""
    usd_per_hour: Range
    """Rented, or bought with electricity, as the accounting has it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a report."""
        return {
            "device": self.carried.device.name,
            "streams_per_card": self.carried.streams.to_dict(),
            "source": self.carried.source,
            "cards": self.cards.to_dict(),
            "usd": self.usd.to_dict() if self.usd else None,
            "power_kw": rounded(self.power_kw),
            "usd_per_hour": self.usd_per_hour.to_dict(),
        }


def fleet(carried: Carried, streams: int = FLEET_STREAMS, accounting: Accounting | None = None) -> Fleet:
    """Cards for a number of streams.

    Args:
        carried: streams of one card, ours or published.
        streams: that all of them have to carry at once, 1 and up.
        accounting: years, PUE, price of electricity, and whether cards are rented.

    Raises:
        ValueError: fewer than one stream, or no price of the card that the accounting asks for.
    """
    if streams < 1:
        raise ValueError(f"a fleet carries at least one stream, got {streams}")
    accounting, device = accounting or Accounting(), carried.device
    cards = Range(*(_cards(streams, each) for each in carried.streams.cases()))
    hourly = [hourly_usd(device, accounting, case) for case in CASES]
    price = device.price_usd
    usd = None
    if price is not None:
        paid = (price.low, price.value, price.high)
        usd = Range(*(count * each for count, each in zip(cards.cases(), paid, strict=True)))
    return Fleet(
        carried=carried,
        streams=streams,
        cards=cards,
        usd=usd,
        power_kw=cards.middle * device.power_w.value / 1000 * accounting.pue,
        usd_per_hour=Range(*(count * each for count, each in zip(cards.cases(), hourly, strict=True))),
    )


@dataclass(frozen=True, slots=True)
class FleetComparison:
    """Two fleets of equal throughput. A ratio below 1 says that the candidate's costs less."""

    candidate: Fleet
    baseline: Fleet

    @property
    def ratio(self) -> Range | None:
        """Of the purchases, its ends at the best and the worst of both ranges; None where one has no price."""
        ours, theirs = self.candidate.usd, self.baseline.usd
        return None if ours is None or theirs is None else ours.over(theirs)

    @property
    def ratio_per_hour(self) -> Range:
        """Of the dollars an hour."""
        return self.candidate.usd_per_hour.over(self.baseline.usd_per_hour)

    def to_dict(self) -> dict[str, Any]:
        """The block `fleet` of a summary."""
        ratio = self.ratio
        return {
            "streams": self.candidate.streams,
            "candidate": self.candidate.to_dict(),
            "baseline": self.baseline.to_dict(),
            "ratio": ratio.to_dict() if ratio else None,
            "ratio_per_hour": self.ratio_per_hour.to_dict(),
        }


def equal_fleets(
    candidate: Carried, baseline: Carried, streams: int = FLEET_STREAMS, accounting: Accounting | None = None
) -> FleetComparison:
    """Both fleets that carry the same number of streams; errors as `fleet` has them."""
    return FleetComparison(fleet(candidate, streams, accounting), fleet(baseline, streams, accounting))


def lightning_v2(
    devices: Mapping[str, Device], streams: int = FLEET_STREAMS, accounting: Accounting | None = None
) -> FleetComparison:
    """The argument of Lightning V2 from its published numbers: 27 P150 carry as many streams as 11 L40S.

    Args:
        devices: the table of cards, for their prices and power.
        streams: that both fleets carry; 550 are published, others are in proportion.
        accounting: years, PUE and price of electricity.
    """
    published = {"p150a": 27, "l40s": 11}
    ours, theirs = (
        Carried.published(devices[name], Figure.of(FLEET_STREAMS / cards, LIGHTNING_SOURCE, "2026-04"))
        for name, cards in published.items()
    )
    return equal_fleets(ours, theirs, streams, accounting)


def _cards(streams: int, each: float) -> float:
    # 550 / (550 / 27) must be 27 cards, not 28.
    return float(math.ceil(streams / each - 1e-9)) if each > 0 else math.inf
