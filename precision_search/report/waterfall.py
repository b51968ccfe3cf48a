"""Waterfall: what a stream costs, from the baseline to the policy, one change a step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from precision_search.report.chart import BAD, GOOD, GRID, INK, PAPER, blank, drawing, svg
from precision_search.report.economics import CASES
from precision_search.report.figures import MISSING, count, positive, significant, usd
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW, LABELLED = 38, 0.74
"""Height of a row, and the share of the width that its bar may take: the price is told to its right."""
CHANGES = {"baseline": "start", "batching": "batching", "card": "card", "format": "format", "fidelity": "fidelity"}


@dataclass(frozen=True, slots=True)
class Step:
    """One change, and the dollars of a stream after it."""

    what: str
    change: str
    low: float
    middle: float
    high: float
    where: str
    """Card, streams and batch."""

    def told(self, before: "Step | None") -> str:
        """What its mark says."""
        said = f"{self.what}: {usd(self.middle)} a stream ({usd(self.low)} to {usd(self.high)})"
        if before is not None:
            said += f", {significant(self.middle / before.middle)} times the step before"
        return f"{said}\n{self.where}" if self.where else said


def steps_of(cost: Mapping[str, Any]) -> list[Step]:
    """The steps of a summary that have a price; empty in older studies."""
    found = []
    for entry in objects(cost.get("waterfall")):
        prices = entry.get("usd_per_stream")
        low, middle, high = (positive((prices or {}).get(case)) for case in CASES)
        if middle is None:
            continue
        where = ", ".join(
            f"{title} {told}"
            for title, key in (("card", "device"), ("streams", "streams"), ("batch", "batch"))
            if (told := _plain(entry.get(key)))
        )
        step = Step(
            str(entry.get("step", "?")), str(entry.get("change", "")), low or middle, middle, high or middle, where
        )
        found.append(step)
    return found


def _plain(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else count(value)


def waterfall(cost: Mapping[str, Any]) -> tuple[Html, ...]:
    """The picture with its table; nothing where the summary has no steps."""
    steps = steps_of(cost)
    if len(steps) < 2:
        return ()
    first, last = steps[0], steps[-1]
    scale = "The scale is logarithmic: equal lengths are equal factors. " if _is_log(steps) else ""
    explained = paragraph(
        f"What each change does to the price of a card over its streams: {usd(first.middle)} at the start, "
        f"{usd(last.middle)} at the end, {significant(last.middle / first.middle)} times as much. The order of the "
        f"changes decides how much falls to each. {scale}A bar that makes a stream dearer is hatched; thin lines are "
        "the ranges of both ends."
    )
    picture = element("figure", {"class": "wide"}, _draw(steps))
    return (element("h3", {}, "From the baseline to the policy"), explained, picture, _table(cost, steps))


def _is_log(steps: Sequence[Step]) -> bool:
    """Whether the prices lie so far apart that on a linear scale the later steps could not be seen."""
    middles = [step.middle for step in steps]
    return max(middles) > 12 * min(middles)


def _draw(steps: Sequence[Step]) -> Html:
    middles = [step.middle for step in steps]
    ends = [steps[0].low, steps[0].high, steps[-1].low, steps[-1].high]
    log = _is_log(steps)
    left = min(*middles, *ends) / 1.5 if log else 0.0
    shown = [*steps, steps[-1]]
    with drawing():
        figure = blank(ROW * len(shown) + 4)
        axes = figure.add_axes((0.01, 0.0, LABELLED, 1.0))
        axes.set(xscale="log" if log else "linear", xlim=(left or 0.0, max(*middles, *ends)))
        axes.set(ylim=(len(shown) - 0.4, -0.6))
        axes.set_axis_off()
        for number_, step in enumerate(shown):
            whole = number_ in (0, len(steps))
            before = left if whole else steps[number_ - 1].middle
            _bar(axes, number_, step, before, whole)
            label = "The policy" if number_ == len(steps) else f"{number_ + 1}. {step.what}"
            place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "bottom", "fontsize": 10}
            ground = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}
            axes.text(0.0, number_ - 0.22, label, bbox=ground, **place)
            said = usd(step.middle)
            if 0 < number_ < len(steps):
                said += f"  \u00d7 {significant(step.middle / before)}"
            axes.text(
                1.02, number_ + 0.02, said, **(place | {"va": "center", "fontweight": "bold" if whole else "normal"})
            )
    told = {f"step-{index}": step.told(steps[index - 1] if index else None) for index, step in enumerate(steps)}
    told[f"step-{len(steps)}"] = steps[-1].told(steps[0]).replace("the step before", "the start")
    described = f"{len(steps)} steps from {usd(steps[0].middle)} to {usd(steps[-1].middle)}; the table below has them."
    return svg(figure, title="Dollars of a stream, step by step", told=told, described=described)


def _bar(axes: "Axes", number_: int, step: Step, before: float, whole: bool) -> None:
    low, high = sorted((before, step.middle))
    left, right = axes.get_xlim()
    axes.barh([number_], [right - left], left=left, height=0.3, color=GRID, alpha=0.5)
    dearer = not whole and step.middle > before
    kind: dict[str, Any] = {"facecolor": PAPER, "edgecolor": BAD, "hatch": "////"} if dearer else {"color": GOOD}
    if whole:
        kind = {"color": INK, "alpha": 0.75}
    axes.barh([number_], [high - low], left=low, height=0.3, linewidth=1.2, **kind)  # its edge shows where it is thin
    if whole and step.low < step.high:
        axes.plot([step.low, step.high], [number_ + 0.24] * 2, color=INK, linewidth=1.2, marker="|", markersize=5)
    over = axes.barh([number_], [right - left], left=left, height=0.8, alpha=0.0, zorder=4)
    over[0].set_gid(f"step-{number_}")  # all of the row is the mark: a small step is hard to point at
    if not whole:
        axes.plot([before, before], [number_ - 0.85, number_ - 0.15], color=INK, linewidth=0.6)


def _table(cost: Mapping[str, Any], steps: Sequence[Step]) -> Html:
    rows = []
    for index, step in enumerate(steps):
        factor = significant(step.middle / steps[index - 1].middle) if index else "\u2013"
        rows.append(
            row(
                row_head(step.what),
                cell(CHANGES.get(step.change, step.change or MISSING)),
                *(number_cell(usd(value)) for value in (step.low, step.middle, step.high)),
                number_cell(factor),
                number_cell(significant(step.middle / steps[0].middle)),
                cell(step.where, {"class": "prose"}),
            )
        )
    heads = ("Step", "Change", "Low", "Middle", "High", "Of the step before", "Of the start", "Where")
    return folded("The same as a table", table("Dollars of a stream after each change", heads, rows))
