"""Assumption: a number that a comparison rests on, its range, and the situation with another number in its place."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from backends.devices import Case, Device, Figure
from backends.money import POWER_SOURCE, Accounting
from backends.serving import MAX_BATCH
from backends.workload import Terms

YEARS = Figure(4.0, POWER_SOURCE, "2026", low=3.0, high=5.0)
PUE = Figure(
    1.2,
    "published total-cost calculations (1.2); Uptime Institute's survey of 2023 (1.58 on average), 1.1 of the largest",
    "2023 to 2026",
    low=1.1,
    high=1.58,
)
USD_PER_KWH = Figure(
    0.08,
    "published total-cost calculations (0.08); U.S. EIA, industrial average of 2023 (0.0806); Eurostat, non-household, "
    "first half of 2024 (EUR 0.094 in Finland to 0.256 in Ireland, at 1.08)",
    "2023 to 2026",
    low=0.06,
    high=0.28,
    doubt="the low end is an assumption",
)
UTILIZATION = Figure(
    0.7,
    "published total-cost calculations (70 %)",
    "2026",
    low=0.4,
    high=0.9,
    doubt="the range is an assumption: streams come and go, and a card must be able to take those of a busy hour",
)
CHUNK_MS = Figure(
    500.0, "half a second, and the frame of the speech codecs that stream (80 ms)", "2026", low=80.0, high=1000.0
)
BATCH = Figure(
    float(MAX_BATCH),
    "as many as fit; 32 are what authors of served speech models report",
    "2026",
    low=32.0,
    high=float(MAX_BATCH),
    doubt="serving and scheduling move published throughputs by up to 9 times",
)
_OF_CARDS = MappingProxyType(
    {
        "price_usd": ("price", "USD"),
        "cloud_usd_per_hour": ("price by the hour", "USD/h"),
        "power_w": ("power", "W"),
        "cores": ("cores that compute", ""),
        "gemm_efficiency": ("share of the peak that products reach", ""),
        "memory_efficiency": ("share of the memory's bandwidth that is reached", ""),
        "memory_gb_per_s": ("memory bandwidth", "GB/s"),
        "sram_gb_per_s": ("SRAM bandwidth", "GB/s"),
        "sram_mb": ("size of SRAM", "MB"),
        "overhead_us": ("overhead of a launch", "us"),
    }
)
"""Figures of a card that are varied, with what they are and their unit."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Two cards, how they are paid for, and how they serve; what a ratio follows from beside both policies."""

    candidate: Device
    baseline: Device
    accounting: Accounting
    terms: Terms
    cases: tuple[Case, Case] = ("middle", "middle")
    """Whether launches take what is foretold, or as much less or more as measurements and assumed launches leave open;
    of either side. The figures of both cards are their values in every case."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """One number and its range."""

    name: str
    unit: str
    figure: Figure
    at: Callable[[Situation, float], Situation]
    """The situation with another number in place of this."""


def assumptions(situation: Situation, *, chunk_is_free: bool = True) -> Iterator[Assumption]:
    """Every assumption that has a range, in a fixed order; what the situation says is the middle.

    Args:
        situation: as it is priced; ranges are widened to hold its numbers.
        chunk_is_free: whether the model's chunk may be of any length.
    """
    rent = situation.accounting.rent
    cards = (situation.candidate, situation.baseline)
    for index, card in enumerate(cards):
        figures = card.figures()
        for key, (name, unit) in _OF_CARDS.items():
            figure = figures.get(key)
            unpaid = key in (("price_usd", "power_w") if rent else ("cloud_usd_per_hour",))
            if figure is None or unpaid or figure.low == figure.high:
                continue
            yield Assumption(f"{_called(situation, index)}: {name}", unit, figure, _card_setter(index, key))
    if not rent:
        for field, figure, name, unit in (
            ("years", YEARS, "years that a card is paid for", "years"),
            ("pue", PUE, "PUE of the site", ""),
            ("usd_per_kwh", USD_PER_KWH, "price of electricity", "USD/kWh"),
        ):
            yield Assumption(
                name, unit, _around(figure, getattr(situation.accounting, field)), _accounting_setter(field)
            )
    terms = situation.terms
    yield Assumption("share of time at work", "", _around(UTILIZATION, terms.utilization), _set_utilization)
    if chunk_is_free:
        yield Assumption("chunk of audio", "ms", _around(CHUNK_MS, 1e3 * terms.chunk_seconds), _set_chunk)
    yield Assumption("most streams of a launch", "", _around(BATCH, float(terms.max_batch)), _set_batch)


def launch_times(situation: Situation, index: int, low: float, high: float) -> Assumption:
    """How long the launches of one side take, as a share of what is foretold.

    Args:
        situation: as it is priced.
        index: 0 for the candidate, 1 for the baseline.
        low: share at the end that measurements leave open, at most 1.
        high: at the other end, at least 1.
    """

    def setter(changed: Situation, value: float) -> Situation:
        case: Case = "low" if value < 1 else "high" if value > 1 else "middle"
        ours, theirs = changed.cases
        return replace(changed, cases=(case, theirs) if index == 0 else (ours, case))

    source = "the cost model's error on products that it was not fitted to, and launches that are assumed"
    figure = Figure(1.0, source, "2026", low=low, high=high)
    return Assumption(f"{_called(situation, index)}: time of launches, of what is foretold", "", figure, setter)


def settled(device: Device) -> Device:
    """The card without ranges: every figure its value, but for the size of SRAM, which decides what lies in it."""
    figures = {
        name: replace(figure, low=figure.value, high=figure.value)
        for name, figure in device.figures().items()
        if not name.startswith("rates_tflops.") and name != "sram_mb"
    }
    rates = {name: replace(rate, low=rate.value, high=rate.value) for name, rate in device.rates_tflops.items()}
    return replace(device, rates_tflops=MappingProxyType(rates), **figures)  # type: ignore[arg-type]


def _called(situation: Situation, index: int) -> str:
    cards = (situation.candidate, situation.baseline)
    return cards[index].name if cards[0].name != cards[1].name else ("ours", "theirs")[index]


def with_figure(device: Device, key: str, value: float) -> Device:
    """The card with one figure replaced by a number without a range.

    More cores bring their rate and their SRAM's bandwidth with them.

    Raises:
        ValueError: the card has no such figure.
    """
    figure = device.figures().get(key)
    if figure is None:
        raise ValueError(f"{device.name} has no figure {key!r}, only {', '.join(device.figures())}")
    changed = replace(figure, value=value, low=value, high=value)
    if key != "cores":
        return replace(device, **{key: changed})  # type: ignore[arg-type]
    scale = value / figure.value
    rates: Mapping[str, Figure] = {name: _times(rate, scale) for name, rate in device.rates_tflops.items()}
    sram = _times(device.sram_gb_per_s, scale)
    return replace(device, cores=changed, rates_tflops=MappingProxyType(dict(rates)), sram_gb_per_s=sram)


def _times(figure: Figure, scale: float) -> Figure:
    return replace(figure, value=figure.value * scale, low=figure.low * scale, high=figure.high * scale)


def _around(figure: Figure, value: float) -> Figure:
    return replace(figure, value=value, low=min(figure.low, value), high=max(figure.high, value))


def _card_setter(index: int, key: str) -> Callable[[Situation, float], Situation]:
    def setter(situation: Situation, value: float) -> Situation:
        if index == 0:
            return replace(situation, candidate=with_figure(situation.candidate, key, value))
        return replace(situation, baseline=with_figure(situation.baseline, key, value))

    return setter


def _accounting_setter(field: str) -> Callable[[Situation, float], Situation]:
    def setter(situation: Situation, value: float) -> Situation:
        changes: dict[str, float] = {field: value}
        return replace(situation, accounting=replace(situation.accounting, **changes))  # type: ignore[arg-type]

    return setter


def _set_utilization(situation: Situation, value: float) -> Situation:
    return replace(situation, terms=replace(situation.terms, utilization=value))


def _set_chunk(situation: Situation, value: float) -> Situation:
    return replace(situation, terms=replace(situation.terms, chunk_seconds=value / 1e3))


def _set_batch(situation: Situation, value: float) -> Situation:
    return replace(situation, terms=replace(situation.terms, max_batch=round(value)))
