"""Tornado: how far each assumption alone moves the ratio of costs, the widest first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from precision_search.report.chart import GOOD, INK, PAPER, blank, drawing, scaled, svg
from precision_search.report.economics import CASES
from precision_search.report.figures import MISSING, amount, number, positive, significant
from precision_search.report.markup import (
    Html,
    cell,
    element,
    folded,
    number_cell,
    paragraph,
    row,
    row_head,
    table,
)
from precision_search.report.results import objects

SHOWN = 10
"""Bars at most; the table has every assumption."""
ROW, BELOW, ABOVE = 34, 34, 16
WHOLE = 0.74


@dataclass(frozen=True, slots=True)
class Swing:
    """An assumption with its range, and the ratio at both ends."""

    name: str
    unit: str
    values: tuple[float | None, float | None, float | None]
    """Low, middle, high."""
    low: float
    """The ratio at the low value, which need not be the low ratio."""
    high: float

    @property
    def spread(self) -> str:
        """The range in words."""
        low, _, high = (significant(value, 4) for value in self.values)
        return f"{low} to {high}{f' {self.unit}' if self.unit else ''}"

    @property
    def told(self) -> str:
        """What its mark says."""
        unit = f" {self.unit}" if self.unit else ""
        low, _, high = (significant(value, 4) for value in self.values)
        ends = ((low, self.low), (high, self.high))
        return "\n".join((self.name, *(f"at {value}{unit}: ratio {significant(ratio)}" for value, ratio in ends)))


def swings_of(cost: Mapping[str, Any]) -> list[Swing]:
    """The assumptions of a summary that have a ratio at both ends; empty in older studies."""
    found = []
    for entry in objects(cost.get("sensitivity")):
        low, high = positive(entry.get("ratio_low")), positive(entry.get("ratio_high"))
        if low is not None and high is not None:
            values = (number(entry.get("low")), number(entry.get("middle")), number(entry.get("high")))
            found.append(Swing(str(entry.get("assumption", "?")), str(entry.get("unit") or ""), values, low, high))
    return found


def tornado(cost: Mapping[str, Any]) -> tuple[Html, ...]:
    """The picture with its table; nothing where the summary has no sensitivities."""
    swings, entries = swings_of(cost), objects(cost.get("sensitivity"))
    if not entries:
        return ()
    parts: list[Html] = [element("h3", {}, "What the verdict rests on")]
    hourly = positive(entries[0].get("ratio_middle"))
    middle = positive(cost.get("ratio")) if hourly is None else hourly
    if swings and middle is not None:
        turns = [swing.name for swing in swings if min(swing.low, swing.high) < 1.0 < max(swing.low, swing.high)]
        verdict = f"Only {', '.join(turns)} can turn the verdict alone." if turns else "None alone turns the verdict."
        drawn = {swing.name for swing in swings}
        if lost := [name for entry in entries if (name := str(entry.get("assumption", "?"))) not in drawn]:
            verdict = f"At an end of {', '.join(lost)} a card carries no stream. Of the others: {verdict}"
        what = "the ratio of an hour of a stream, with electricity or rent," if hourly else "the ratio"
        explained = paragraph(
            f"Each assumption over its own range, all others in the middle, where {what} is {significant(middle)}: "
            "solid towards its high number, hatched towards its low one. Left of 1 the candidate costs less. ",
            verdict,
        )
        parts += [explained, element("figure", {"class": "wide"}, _draw(swings[:SHOWN], middle))]
        if len(swings) > SHOWN:
            parts.append(
                paragraph(f"{amount(len(swings) - SHOWN, 'assumption')} more move it less; the table has them.")
            )
    parts.append(_table(entries))
    return tuple(parts)


def _draw(swings: Sequence[Swing], middle: float) -> Html:
    ends = [middle, *(swing.low for swing in swings), *(swing.high for swing in swings)]
    low, high = min(ends), max(ends)
    low, high = (low / 1.08, high * 1.08) if low < high else (low / 2, high * 2)
    with drawing():
        height = ROW * len(swings) + BELOW + ABOVE
        figure = blank(height)
        axes = figure.add_axes((0.02, BELOW / height, WHOLE, ROW * len(swings) / height))
        scaled(axes, "x", low, high, log=True)
        axes.set(ylim=(len(swings) - 0.5, -0.5), yticks=[], xlabel="candidate's cost over the baseline's")
        axes.spines["left"].set_visible(False)
        axes.axvline(middle, color=INK, linewidth=1.2)
        if low < 1.0 < high:
            axes.axvline(1.0, color=INK, linestyle=(0, (5, 4)), linewidth=1)
            axes.text(1.0, -0.55, "equal", ha="center", va="bottom", fontsize=9)
        for index, swing in enumerate(swings):
            _bar(axes, index, swing, middle)
            across = axes.get_yaxis_transform()
            named = f"{swing.name}, {swing.spread}"
            ground = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}
            axes.text(0.0, index - 0.02, named, transform=across, va="bottom", fontsize=9, bbox=ground)
            lowest, highest = sorted((swing.low, swing.high))
            said = f"{significant(lowest, 2)} to {significant(highest, 2)}"
            axes.text(1.03, index + 0.2, said, transform=across, va="center", fontsize=10)
    told = {f"swing-{index}": swing.told for index, swing in enumerate(swings)}
    described = (
        f"{amount(len(swings), 'bar')}, the widest first: {swings[0].name}. The table below has every assumption."
    )
    return svg(figure, title="How far each assumption moves the ratio", told=told, described=described)


def _bar(axes: Any, index: int, swing: Swing, middle: float) -> None:
    """Two bars in one mark, which is all of the row: a short bar is hard to point at."""
    for end, kind in (
        (swing.low, {"facecolor": PAPER, "edgecolor": GOOD, "hatch": "////"}),
        (swing.high, {"facecolor": GOOD, "edgecolor": GOOD}),
    ):
        axes.barh([index + 0.2], [end - middle], left=middle, height=0.3, linewidth=0.8, zorder=2, **kind)
    left, right = axes.get_xlim()
    over = axes.barh([index], [right - left], left=left, height=0.9, alpha=0.0, zorder=4)
    over[0].set_gid(f"swing-{index}")


def _table(entries: Sequence[Mapping[str, Any]]) -> Html:
    rows = (
        row(
            row_head(str(entry.get("assumption", "?"))),
            *(number_cell(significant(number(entry.get(key)), 4)) for key in CASES),
            cell(str(entry.get("unit") or "")),
            *(number_cell(significant(number(entry.get(key)))) for key in ("ratio_low", "ratio_high")),
            cell(str(entry.get("source", MISSING)), {"class": "prose"}),
        )
        for entry in entries
    )
    heads = ("Assumption", "Low", "Middle", "High", "Unit", "Ratio at low", "Ratio at high", "Source")
    caption = "Every assumption over its own range, the widest first"
    return folded("The same as a table, with sources", table(caption, heads, rows))
