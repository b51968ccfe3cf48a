"""Economics: fleets of equal throughput, where the verdict turns, deadlines, and what the figures rest on."""

from collections.abc import Mapping, Sequence
from typing import Any

from precision_search.report.figures import MISSING, count, number, percent, significant, usd
from precision_search.report.markup import (
    Html,
    cell,
    element,
    note,
    number_cell,
    paragraph,
    row,
    row_head,
    table,
)
from precision_search.report.results import objects

SIDES = ("candidate", "baseline")
CASES = ("low", "middle", "high")
EVIDENCE = ("measured", "calibrated", "roofline")
BLOCKS = {
    "evidence": "what its seconds rest on",
    "waterfall": "the steps from the baseline",
    "fleet": "fleets",
    "break_even": "break-even",
    "sensitivity": "sensitivities",
    "deadlines": "deadlines",
    "usd_per_million_characters": "dollars per million characters",
}
"""Blocks that studies of older code lack."""


def paid(cost: Mapping[str, Any]) -> str:
    """How the study pays for hours, fleets and characters: bought, or rented."""
    return "rented" if cost.get("basis") == "rented" else "bought"


def hourly(cost: Mapping[str, Any]) -> str:
    """What an hour is made of."""
    return "rented" if paid(cost) == "rented" else "electricity included"


def evidence_shares(cost: Mapping[str, Any], side: str = "candidate") -> str:
    """What the seconds of one side rest on, in shares; empty where it is not recorded."""
    found = cost.get("evidence")
    shares = found.get(side) if isinstance(found, dict) else None
    if not isinstance(shares, dict) or not shares:
        return ""
    return ", ".join(f"{percent(number(shares.get(name)) or 0.0)} {name}" for name in EVIDENCE)


def evidence(cost: Mapping[str, Any]) -> tuple[Html, ...]:
    """What the seconds of both sides rest on."""
    told = [f"the {side}'s {said}" for side in SIDES if (said := evidence_shares(cost, side))]
    if not told:
        return ()
    return (
        paragraph(
            f"Of the seconds behind it, {'; of '.join(told)}. Measured is between measured matrix products, calibrated "
            "by a formula that was fitted to them, roofline from the data sheet alone."
        ),
    )


def older(cost: Mapping[str, Any]) -> tuple[Html, ...]:
    """A note of what the summary lacks that newer code writes."""
    lacking = [name for key, name in BLOCKS.items() if key not in cost]
    if not lacking:
        return ()
    return (note(f"The study is older than {', '.join(lacking)}: run it again to have them."),)


def ranged(found: object, told: Any = significant) -> str:
    """A middle with its range."""
    if not isinstance(found, dict):
        return str(told(number(found)))
    low, middle, high = (number(found.get(case)) for case in CASES)
    if low is None or high is None or low == high:
        return str(told(middle))
    return f"{told(middle)} ({told(low)} to {told(high)})"


def fleet(cost: Mapping[str, Any]) -> tuple[Html, ...]:
    """Both fleets that carry the same streams."""
    found = cost.get("fleet")
    if not isinstance(found, dict):
        return ()
    sides = [found[side] if isinstance(found.get(side), dict) else {} for side in SIDES]
    lines: dict[str, Sequence[Html | str]] = {
        "Card": [str(side.get("device", MISSING)) for side in sides],
        "Cards": [ranged(side.get("cards"), count) for side in sides],
        "Purchase": [ranged(side.get("usd"), usd) for side in sides],
        "Power with PUE, kW": [significant(number(side.get("power_kw"))) for side in sides],
        f"Dollars an hour, {paid(cost)}": [ranged(side.get("usd_per_hour"), usd) for side in sides],
    }
    rows = [row(row_head(title), *(cell(value) for value in values)) for title, values in lines.items()]
    caption = (
        f"Cards for {count(found.get('streams'))} streams at once; in brackets the best and the worst of all ranges"
    )
    parts = [
        element("h3", {}, "Fleets of equal throughput"),
        table(caption, ("", "Candidate", "Baseline"), rows, "cost"),
    ]
    ratios = ((found.get("ratio"), "to buy"), (found.get("ratio_per_hour"), f"an hour, {hourly(cost)}"))
    told = " and ".join(f"{ranged(ratio)} times {said}" for ratio, said in ratios if isinstance(ratio, dict))
    if told:
        parts.append(paragraph(f"Of what the baseline's fleet costs, the candidate's costs {told}."))
    return tuple(parts)


def break_even(cost: Mapping[str, Any]) -> tuple[Html, ...]:
    """At which numbers both sides would cost the same."""
    entries = objects(cost.get("break_even"))
    if not entries:
        return ()
    rows = (
        row(
            row_head(str(entry.get("what", "?"))),
            number_cell(_turns(entry)),
            cell(str(entry.get("told", "")).removeprefix(f"{entry.get('what')}: "), {"class": "prose"}),
        )
        for entry in entries
    )
    caption = "Where an hour of a stream would cost the same on both sides, one number changed at a time"
    return (element("h3", {}, "Break-even"), table(caption, ("Number", "Equal at", "In words"), rows, "cost"))


def _turns(entry: Mapping[str, Any]) -> str:
    value, unit = number(entry.get("value")), str(entry.get("unit") or "")
    if value is None:
        return "nowhere"
    return usd(value) if unit == "USD" else f"{significant(value)} {unit}".rstrip()


def deadlines(cost: Mapping[str, Any]) -> tuple[Html, ...]:
    """Streams of a card at each length of the chunk."""
    entries = objects(cost.get("deadlines"))
    if not entries:
        return ()
    rows = []
    for entry in entries:
        sides = [entry[side] if isinstance(entry.get(side), dict) else {} for side in SIDES]
        cells = [number_cell(told) for side in sides for told in (_carried(side), _sound(side))]
        name = f"{significant(number(entry.get('chunk_ms')))} ms"
        rows.append(row(row_head(name), *cells, number_cell(ranged(entry.get("ratio"), _two))))
    heads = ("Chunk", "Candidate", "its first sound, ms", "Baseline", "its first sound, ms", "Ratio of purchases")
    caption = (
        "Streams of a card, and its batch, where the audio of a launch may be no longer than the chunk; first sound "
        "where a stream's batch is the next, to where every other batch of a full card goes before"
    )
    return (element("h3", {}, "Deadlines"), table(caption, heads, rows))


def _two(value: float | None) -> str:
    return significant(value, 2)


def _carried(side: Mapping[str, Any]) -> str:
    return f"{count(side.get('streams'))} ({count(side.get('batch'))})"


def _sound(side: Mapping[str, Any]) -> str:
    found, worst = number(side.get("first_sound_ms")), number(side.get("worst_first_sound_ms"))
    return significant(found) + (f" to {significant(worst)}" if worst is not None else "")


def overridden(cost: Mapping[str, Any]) -> tuple[Html, ...]:
    """Prices that the recipe gave in place of the table's."""
    entries = objects(cost.get("prices"))
    if not entries:
        return ()
    rows = (
        row(
            row_head(f"{entry.get('device', '?')}: {str(entry.get('figure', 'price_usd')).replace('_', ' ')}"),
            cell(ranged(entry | {"middle": entry.get("value")}, usd)),
            cell(str(entry.get("date", MISSING))),
            cell(str(entry.get("source", MISSING)), {"class": "prose"}),
        )
        for entry in map(dict, entries)
    )
    heads = ("Figure", "Price", "Date", "Source")
    return (table("Prices that the recipe gave, in place of the table's", heads, rows),)
