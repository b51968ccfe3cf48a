"""The price: what a stream costs on the card against the baseline's, with every assumption and source."""

from collections.abc import Mapping
from typing import Any

from precision_search.report.economics import (
    CASES,
    SIDES,
    break_even,
    deadlines,
    evidence,
    fleet,
    hourly,
    older,
    overridden,
    paid,
    ranged,
)
from precision_search.report.figures import MISSING, amount, count, number, percent, significant, usd
from precision_search.report.markup import (
    Html,
    cell,
    element,
    folded,
    listed,
    note,
    number_cell,
    paragraph,
    row,
    row_head,
    section,
    table,
)
from precision_search.report.results import Results
from precision_search.report.tornado import tornado
from precision_search.report.waterfall import waterfall


def side_of(cost: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    """One side of the comparison; empty where it is not recorded."""
    found = cost.get(side)
    return found if isinstance(found, dict) else {}


def device_of(cost: Mapping[str, Any], side: str) -> str:
    """The card of one side."""
    return str(side_of(cost, side).get("device") or f"a card that is {MISSING}")


def price_range(cost: Mapping[str, Any], side: str, key: str) -> tuple[float | None, float | None, float | None]:
    """Low, middle and high of a price; the middle alone where no range is recorded."""
    found = side_of(cost, side).get(key)
    if not isinstance(found, dict):
        both = cost.get(key)
        found = both.get(side) if isinstance(both, dict) else None
    if isinstance(found, dict):
        low, middle, high = (number(found.get(case)) for case in CASES)
        return low, middle, high
    return None, number(found), None


def price(results: Results) -> Html:
    """The section of the price."""
    cost = results.summary.get("cost")
    title = "Cost against the baseline"
    if not isinstance(cost, dict):
        return section("cost", title, note("The summary holds no cost: the study was not priced."))
    title = f"Cost against {device_of(cost, 'baseline')}" if side_of(cost, "baseline") else title
    parts = [_ratio(cost), *evidence(cost), *waterfall(cost), element("h3", {}, "What a stream costs")]
    parts += [*_typecasts(results.summary.get("typecasts")), _table(cost)]
    parts += [*fleet(cost), *deadlines(cost), *break_even(cost), *tornado(cost), *older(cost)]
    assumptions = cost.get("assumptions")
    if isinstance(assumptions, list) and assumptions:
        sentences = listed(str(sentence) for sentence in assumptions)
        parts.append(folded(f"Every price here rests on {amount(len(assumptions), 'assumption')}", sentences))
    else:
        parts.append(note("No assumptions are recorded."))
    parts += [*overridden(cost), _sources(cost.get("sources"))]
    return section("cost", title, *parts)


def _ratio(cost: Mapping[str, Any]) -> Html:
    ratio, low, high = (number(cost.get(key)) for key in ("ratio", "low", "high"))
    if ratio is None:
        return note("There is no ratio of prices: one of the cards carries no stream, or none was recorded.")
    told = f"To buy, a stream costs {significant(ratio)} times what it costs on {device_of(cost, 'baseline')}"
    if low is not None and high is not None:
        told += f"; {significant(low)} to {significant(high)} where every range is taken at its best and its worst"
    by_price = cost.get("ratio_by_price")
    if isinstance(by_price, dict):
        told += f"; {significant(number(by_price.get('low')))} to {significant(number(by_price.get('high')))} by the "
        told += "ranges of the cards' prices alone"
    alike = cost.get("ratio_by_roofline")
    if isinstance(alike, dict):
        told += f". With both cards by a roofline, like with like, it is {ranged(alike)}"
    per_hour = cost.get("ratio_per_hour")
    if isinstance(per_hour, dict):
        told += f". An hour of a stream, {hourly(cost)}, costs {ranged(per_hour)} times what it costs there: break-even"
        told += " and the assumptions below are of that"
    return paragraph(told + ".")


def _typecasts(found: object) -> list[Html]:
    """What unlike neighbours take; nothing where it is not recorded, as in studies of before it was counted."""
    if not isinstance(found, dict):
        return []
    casts = number(found.get("count"))
    if casts == 0:
        return [paragraph("No site reads another format than was stored for it: the policy has no typecasts.")]
    share = percent(number(found.get("share")))
    told = f"Sites that read another format than was stored, each behind a typecast: {count(casts)}"
    return [paragraph(f"{told}. Typecasts are {share} of the policy's time on the card.")]


def _table(cost: Mapping[str, Any]) -> Html:
    rows = [_texts("Card", [device_of(cost, side) for side in SIDES])]
    policies = [str(side_of(cost, side).get("policy") or MISSING) for side in SIDES]
    rows.append(_texts("Policy", policies))
    prices = [_spread(price_range(cost, side, "price_usd"), _figure(cost, side)) for side in SIDES]
    rows.append(_texts("Price of the card", prices))
    rows.append(_texts("Streams of a card", [_streams(cost, side) for side in SIDES]))
    for key, title in (
        ("usd_per_stream", "Dollars a stream, card bought"),
        ("usd_per_1000_hours", "Dollars per 1000 hours, card bought"),
        ("cloud_usd_per_1000_hours", "Dollars per 1000 hours, card rented"),
        ("usd_per_million_characters", f"Dollars per million characters, card {paid(cost)}"),
    ):
        ranges = [price_range(cost, side, key) for side in SIDES]
        if any(value is not None for found in ranges for value in found):
            rows.append(_texts(title, [_spread(found) if any(found) else "not known" for found in ranges]))
        elif key != "usd_per_million_characters":  # which older studies lack, and a note says so
            rows.append(_texts(title, [MISSING] * 2))
    limits = [str(_served(cost, side, "middle", "limited_by") or MISSING) for side in SIDES]
    rows.append(_texts("Streams are limited by", limits))
    caption = "Candidate and baseline; in brackets the cheapest and the dearest outcome of all ranges"
    return table(caption, ("", "Candidate", "Baseline"), rows, "cost")


def _texts(title: str, values: list[str]) -> Html:
    return row(row_head(title), *(cell(value, {"class": "prose"}) for value in values))


def _streams(cost: Mapping[str, Any], side: str) -> str:
    fewest, middle, most = (number(_served(cost, side, case, "streams_per_card")) for case in reversed(CASES))
    if fewest is None or most is None or fewest == most:
        return count(middle)
    return f"{count(middle)} ({count(fewest)} to {count(most)})"


def _figure(cost: Mapping[str, Any], side: str) -> float | None:
    found = side_of(cost, side).get("price_usd")
    return number(found.get("value")) if isinstance(found, dict) else None


def _spread(found: tuple[float | None, float | None, float | None], value: float | None = None) -> str:
    low, middle, high = found
    middle = value if value is not None else middle
    if low is None or high is None or low == high:
        return usd(middle)
    return f"{usd(middle)} ({usd(low)} to {usd(high)})"


def _served(cost: Mapping[str, Any], side: str, case: str, key: str) -> object:
    serving = side_of(cost, side).get("serving")
    found = serving.get(case) if isinstance(serving, dict) else None
    if isinstance(found, dict):
        return found.get(key)
    streams = cost.get("streams")
    return streams.get(side) if case == "middle" and key == "streams_per_card" and isinstance(streams, dict) else None


def _sources(sources: object) -> Html:
    entries = [entry for entry in sources if isinstance(entry, dict)] if isinstance(sources, list) else []
    if not entries:
        return note("No sources are recorded.")
    rows = (
        row(
            row_head(f"{entry.get('device', '?')}: {entry.get('figure', '?')}"),
            number_cell(significant(number(entry.get("value")), 4)),
            number_cell(significant(number(entry.get("low")), 4)),
            number_cell(significant(number(entry.get("high")), 4)),
            cell(str(entry.get("source", MISSING)), {"class": "prose"}),
            cell(str(entry.get("date", MISSING))),
            cell(str(entry.get("doubt", "")), {"class": "prose"}),
        )
        for entry in entries
    )
    heads = ("Figure", "Value", "Low", "High", "Source", "Date", "Doubt")
    return folded(f"Sources of {len(entries)} figures", table("Every figure with its source", heads, rows))
