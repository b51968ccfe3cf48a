"""Money table: fleets, hours, deadlines and what moves the verdict, as a person reads them in a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WIDEST = 5
"""Assumptions that are told, of those that move the ratio most."""
_SIDES = ("candidate", "baseline")


def money_lines(data: Mapping[str, Any]) -> list[str]:
    """Lines of a table; `data` is a comparison's plain data with `costing.money_blocks`."""
    return [*_paid(data), "", *_deadlines(data), *_steps(data), *_turning(data), *_tornado(data), *_evidence(data)]


def _row(head: str, cells: Sequence[str]) -> str:
    return f"{head:58}" + "".join(f"{cell:>34}" for cell in cells)


def _paid(data: Mapping[str, Any]) -> Iterator[str]:
    fleet, characters = data["fleet"], data["usd_per_million_characters"]
    fleets = [fleet[side] for side in _SIDES]
    told = "rented" if data["basis"] == "rented" else "bought"
    yield _row("", [f"{data[side]['device']}, {data[side]['policy']}" for side in _SIDES])
    yield _row(f"{fleet['streams']} streams: cards", [span(one["cards"]) for one in fleets])
    yield _row("  purchase, USD", [span(one["usd"]) for one in fleets])
    yield _row("  power with PUE, kW", [_told(one["power_kw"]) for one in fleets])
    yield _row(f"  USD an hour, {told}", [span(one["usd_per_hour"]) for one in fleets])
    yield _row("USD for 1000 hours of speech, bought", [span(data[side]["usd_per_1000_hours"]) for side in _SIDES])
    yield _row("  rented", [span(data[side]["cloud_usd_per_1000_hours"]) for side in _SIDES])
    yield _row(f"USD for a million characters, {told}", [span(characters[side]) for side in _SIDES])
    spoken = characters["characters_per_second"]
    yield f"  at {span(spoken | {'middle': spoken['value']})} characters a second; all of it at the ends of every range"
    for price in data["prices"]:
        told = f"{price['value']:g}, {price['date']}, {price['source']}"
        yield f"  {price['figure']} of {price['device']} by the recipe: {told}"


def _deadlines(data: Mapping[str, Any]) -> Iterator[str]:
    if not data["deadlines"]:
        return
    yield _row("audio of a launch: streams a card", [*(data[side]["device"] for side in _SIDES), "ratio, USD a stream"])
    for row in data["deadlines"]:
        cells = [_told(row[side]["streams"]) for side in _SIDES]
        yield _row(f"{row['chunk_ms']:g} ms", [*cells, span(row["ratio"])])
        first = [_between(row[side]["first_sound_ms"], row[side]["worst_first_sound_ms"]) for side in _SIDES]
        yield _row("  first sound, ms", first)
    yield ""


def _steps(data: Mapping[str, Any]) -> Iterator[str]:
    yield _row("from the baseline to the policy", ["streams a card", "USD a stream", "of the first"])
    for step in data["waterfall"]:
        cells = [f"{step['streams']} by {step['batch']}", span(step["usd_per_stream"]), _told(step["ratio"])]
        yield _row(f"  {step['step']}", cells)
    yield ""


def _turning(data: Mapping[str, Any]) -> Iterator[str]:
    yield f"with both sides by a roofline a stream costs {span(data['ratio_by_roofline'])} of the baseline's to buy"
    ratio = data["ratio_per_hour"]
    yield f"an hour of a stream costs {span(ratio)} of the baseline's; both cost the same at"
    for found in data["break_even"]:
        yield f"  {found['told']}"
    yield ""


def _tornado(data: Mapping[str, Any]) -> Iterator[str]:
    widest = data["sensitivity"][:WIDEST]
    yield _row(f"what moves that ratio most ({len(widest)} of {len(data['sensitivity'])})", ["over", "ratio", "at"])
    for row in widest:
        unit = f" {row['unit']}" if row["unit"] else ""
        over = f"{_between(row['low'], row['high'])}{unit}"
        ends = _between(row["ratio_low"], row["ratio_high"])
        yield _row(f"  {row['assumption']}", [over, ends, f"{_told(row['ratio_middle'])} at {_told(row['middle'])}"])


def _evidence(data: Mapping[str, Any]) -> Iterator[str]:
    for side in _SIDES:
        shares = data["evidence"][side]
        if shares:
            told = ", ".join(f"{share:.0%} {name}" for name, share in shares.items())
            yield f"time of {data[side]['device']}: {told}"


def span(cases: Mapping[str, float | None] | None) -> str:
    """A figure with its ends, where they differ; `-` for what is not known or is no number."""
    if cases is None:
        return "-"
    low, middle, high = (_told(cases[case]) for case in ("low", "middle", "high"))
    return middle if low == middle == high else f"{middle} ({low} to {high})"


def _between(low: float | None, high: float | None) -> str:
    return "-" if low is None and high is None else f"{_told(low)} to {_told(high)}"


def _told(value: float | int | None) -> str:
    """Three digits; whole numbers whole."""
    if value is None:
        return "-"
    return f"{value:.10g}" if value == round(value) else f"{value:.3g}"
