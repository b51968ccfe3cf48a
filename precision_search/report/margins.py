"""Margins: of every gate, where the policy lies between perfect and the threshold, and where plain bf16 would."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from precision_search.report.allowance import used
from precision_search.report.chart import BAD, GOOD, GRID, INK, PAPER, blank, drawing, svg
from precision_search.report.figures import amount, percent, significant, told_apart
from precision_search.report.markup import Html, element, note, paragraph

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from precision_search.report.gates import GateRow

YARDSTICKS = {"bf16": "its own bf16", "baseline": "the baseline"}
"""What the diamond shows: the first of these that was measured."""
WIDTH, ROW, ABOVE, BELOW = 360, 16, 22, 8
LABELS = 0.55
"""Share of the width that the names take."""
MOST = 1.4
"""Where a row ends; what lies beyond is drawn there as an arrow."""


def margins(rows: "Sequence[GateRow]") -> tuple[Html, ...]:
    """The picture of the margins, the tightest gate first, and what it cannot show."""
    shown = [(row, share) for row in rows if (share := _used(row, row.value)) is not None]
    left = [f"{row.metric} ({row.over})" for row in rows if _used(row, row.value) is None]
    rest = (note(f"No best value is known of {', '.join(left)}: only the table has them."),) if left else ()
    if not shown:
        return rest
    shown.sort(key=lambda entry: -entry[1])
    name = next((name for name in YARDSTICKS if any(name in row.beside for row, _ in shown)), None)
    beside = f" The diamond is {YARDSTICKS[name]} at every site." if name else ""
    explained = paragraph(
        "How much of what each gate allows is used: nothing at the left, where the sound would be perfect, all of it "
        f"at the threshold. A bar that passes the threshold is hatched: that gate is broken.{beside}"
    )
    row, share = shown[0]
    told = f"{amount(len(shown), 'gate')}, the tightest first: {row.metric} ({row.over}) uses {_share(share)} of what"
    with drawing():
        figure = blank(ROW * len(shown) + ABOVE + BELOW, WIDTH)
        height = ROW * len(shown) / (ROW * len(shown) + ABOVE + BELOW)
        axes = figure.add_axes((LABELS, BELOW / (ROW * len(shown) + ABOVE + BELOW), 0.99 - LABELS, height))
        axes.set(xlim=(0, MOST), ylim=(len(shown) - 0.5, -0.5))
        axes.set_axis_off()
        for number, (found, part) in enumerate(shown):
            _draw(axes, number, found, part, _used(found, found.beside.get(name)) if name else None)
        axes.plot([1, 1], [-0.6, len(shown) - 0.4], color=INK, linewidth=1.6, clip_on=False)
        axes.plot([0, 0], [-0.6, len(shown) - 0.4], color=INK, linewidth=0.8, clip_on=False)
        axes.text(0, -0.75, "perfect", ha="center", va="bottom", fontsize=9)
        axes.text(1, -0.75, "threshold", ha="center", va="bottom", fontsize=9)
    marks = {f"gate-{number}": _told(found, part, name) for number, (found, part) in enumerate(shown)}
    described = f"{told} it allows. The table below has every value."
    picture = svg(figure, title="Margins of the gates", told=marks, described=described)
    return (explained, element("figure", {"class": "narrow"}, picture), *rest)


def _used(row: "GateRow", value: float | None) -> float | None:
    return used(row.metric, row.side, row.threshold, value)


def _draw(axes: "Axes", number: int, row: "GateRow", share: float, beside: float | None) -> None:
    axes.barh([number], [1.0], height=0.62, color=GRID, alpha=0.6)
    kind: dict[str, Any] = {"color": GOOD} if row.kept else {"facecolor": PAPER, "edgecolor": BAD, "hatch": "////"}
    axes.barh([number], [max(min(share, MOST), 0.008)], height=0.62, **kind)
    if share > MOST:
        axes.plot([MOST], [number], marker=">", color=BAD, markersize=7, clip_on=False)
    if beside is not None:
        shape = "D" if beside <= MOST else ">"
        place: dict[str, Any] = {"markerfacecolor": PAPER, "markeredgecolor": INK, "markersize": 6, "clip_on": False}
        axes.plot([min(beside, MOST)], [number], marker=shape, **place)
    # All of the row is the mark: a gate of which nothing is used has no bar to point at.
    axes.barh([number], [MOST], height=0.9, alpha=0.0, zorder=4)[0].set_gid(f"gate-{number}")
    over = "" if row.over == "mean" else f" {row.over.replace('_', ' ')}"
    axes.text(-0.03, number, row.metric + over, ha="right", va="center", fontsize=8.5)


def _told(row: "GateRow", share: float, name: str | None) -> str:
    said = f"{row.metric} ({row.over}): {told_apart(row.value, row.threshold)}, must be {row.threshold_text}; "
    said += f"{_share(share)} of the allowance used, {'kept' if row.kept else 'broken'}"
    beside = row.beside.get(name) if name else None
    return said if beside is None or name is None else f"{said}; {YARDSTICKS[name]}: {significant(beside, 4)}"


def _share(share: float) -> str:
    return "more than all" if math.isinf(share) else percent(share)
