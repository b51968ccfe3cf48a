"""CostSection: what a stream of speech is priced at, as a recipe has it."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, Strict

from precision.section_values import FORBID, Count, Number, Text

Positive = Annotated[Number, Field(gt=0)]


@dataclass(frozen=True, slots=True)
class AgainstSection:
    """What the cost is set against."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    device: Annotated[Text, Field(title="Card")] = "l40s"
    """A card of devices.yaml, or of target.cards."""
    scheme: Annotated[Text | None, Field(title="Scheme")] = None
    """Scheme every site runs there; left out for the baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcedNumber:
    """A number, or a range, with where it is from and when it held; `value`, or `low` and `high`, or all three."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    value: Annotated[Positive | None, Field(title="Value")] = None
    """The number in the middle; left out, the mean of low and high."""
    low: Annotated[Positive | None, Field(title="Low")] = None
    """The least it may be; left out, the value."""
    high: Annotated[Positive | None, Field(title="High")] = None
    """The most it may be; left out, the value."""
    source: Annotated[Text, Field(title="Source")]
    """Where it is from: a page, a quote, a bill."""
    date: Annotated[Text, Field(title="Date")]
    """When it held: 2026-11 or 2026-11-20, or from one day to another, as 2025-08 to 2026-11."""
    doubt: Annotated[Text | None, Field(title="Doubt")] = None
    """What is uncertain about it."""

    @property
    def range(self) -> tuple[float, float, float]:
        """Low, middle and high."""
        middle = self.value if self.value is not None else ((self.low or 0.0) + (self.high or 0.0)) / 2
        return (
            middle if self.low is None else self.low,
            middle,
            middle if self.high is None else self.high,
        )


@dataclass(frozen=True, slots=True)
class CostSection:
    """What a stream of speech is priced at."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    against: Annotated[AgainstSection, Field(title="Against")] = field(default_factory=AgainstSection)
    """The card and scheme to compare with."""
    streams: Annotated[Count, Field(title="Streams")] = 32
    """Streams served at once."""
    utilization: Annotated[Number, Field(title="Utilization", gt=0, le=1)] = 0.7
    """Share of the time that the card is at work."""
    years: Annotated[Number, Field(title="Years", gt=0, le=100)] = 4.0
    """Years over which the card is paid off."""
    pue: Annotated[Number, Field(title="PUE", ge=1, le=10)] = 1.2
    """Power of the whole site over that of its cards."""
    usd_per_kwh: Annotated[Number, Field(title="Price of electricity", ge=0, le=10)] = 0.08
    """Dollars of a kilowatt-hour."""
    rent: Annotated[bool, Strict(), Field(title="Rent")] = False
    """Whether cards are rented by the hour, not bought: hours, fleets and characters are then priced by the rent."""
    chunk_ms: Annotated[Number, Field(title="Chunk", ge=1, le=60_000)] = 500.0
    """Milliseconds of audio that a launch makes of each stream; a decoder's is its frame, whatever stands here."""
    fleet_streams: Annotated[Count, Field(title="Streams of a fleet")] = 550
    """Streams that both fleets carry: 550 are what Lightning V2 was told of."""
    characters_per_second: Annotated[SourcedNumber | None, Field(title="Characters a second")] = None
    """Characters of text that a second of speech says; left out for those of English, read aloud."""
    prices: Annotated[dict[Text, SourcedNumber], Field(title="Prices")] = field(default_factory=dict, hash=False)
    """Price of a card in dollars, by the card's name, in place of the table's; with its source and date."""
    cloud_prices: Annotated[dict[Text, SourcedNumber], Field(title="Prices by the hour")] = field(
        default_factory=dict, hash=False
    )
    """Dollars of a card rented for an hour, by the card's name, in place of the table's; with its source and date."""
