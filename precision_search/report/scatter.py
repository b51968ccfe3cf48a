"""Scatter: candidates in two figures each, whose marks differ in shape and tell what they are on hover."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from precision_search.report.chart import BAD, GOOD, INK, PAPER, SOFT, blank, drawing, scaled, svg
from precision_search.report.markup import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 310


@dataclass(frozen=True, slots=True)
class Mark:
    """One candidate: a circle where it kept its gates, a cross where not; a square around it where held back."""

    x: float
    y: float
    kept: bool
    held_back: bool
    told: str
    """Shown on hover."""
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """An axis that holds all of its values, linear or logarithmic."""

    title: str
    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, title: str, values: Sequence[float], log: bool | None = None) -> "Span":
        """Axis around finite values; logarithmic where it is not told and they span more than a factor of 8."""
        low, high = min(values), max(values)
        if log is None:
            log = low > 0 and high > 8 * low
        if log:
            spread = (high / low) ** 0.06 if high > low else 1.5
            return cls(title, low / spread, high * spread, True)
        spread = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(title, low - spread, high + spread, False)


@dataclass(frozen=True, slots=True)
class Scatter:
    """Marks with what is drawn behind them."""

    x: Span
    y: Span
    marks: Sequence[Mark]
    line: Sequence[tuple[float, float]] = ()
    """Points of a staircase: of each, what is no better lies above and to the right."""
    foretold: Sequence[tuple[float, float]] = ()
    """Points of a dotted line; those beyond the axes are left out."""
    diagonal: bool = False
    """Whether to draw where x equals y."""
    limit: float | None = None
    """A level of y to draw a dashed line at."""
    title: str = field(kw_only=True)
    described: str = field(default="", kw_only=True)
    """What a screen reader says of the picture."""
    tabbed: bool = field(default=True, kw_only=True)
    """Whether the tab key stops at every mark."""

    def to_svg(self) -> Html:
        """Draw it."""
        with drawing():
            figure = blank(HEIGHT)
            axes = figure.add_axes((0.14, 0.15, 0.81, 0.82))
            axes.set(xlabel=self.x.title, ylabel=self.y.title)
            scaled(axes, "x", self.x.low, self.x.high, self.x.log)
            scaled(axes, "y", self.y.low, self.y.high, self.y.log)
            axes.autoscale(False)
            if self.diagonal:
                ends = (min(self.x.low, self.y.low), max(self.x.high, self.y.high))
                axes.plot(ends, ends, color=INK, linestyle=(0, (5, 4)), linewidth=1)
            if self.limit is not None:
                axes.axhline(self.limit, color=INK, linestyle=(0, (5, 4)), linewidth=1)
            if self.foretold:
                axes.plot(*zip(*self.foretold, strict=True), color=SOFT, linestyle=(0, (1, 2)), linewidth=1.2)
            if self.line:
                axes.step(*zip(*self.line, strict=True), where="post", color=SOFT)
            for number, mark in enumerate(self.marks):
                self._draw(axes, number, mark)
        told = {f"mark-{number}": mark.told for number, mark in enumerate(self.marks)}
        return svg(figure, title=self.title, told=told, described=self.described, tabbed=self.tabbed)

    def _draw(self, axes: "Axes", number: int, mark: Mark) -> None:
        around: dict[str, Any] = {"linestyle": "", "markerfacecolor": "none", "markeredgecolor": INK, "zorder": 2.5}
        if mark.held_back:
            axes.plot([mark.x], [mark.y], marker="s", markersize=13, markeredgewidth=1, **around)
        if mark.chosen:
            axes.plot([mark.x], [mark.y], marker="o", markersize=21, markeredgewidth=1.8, **around)
            left = axes.transAxes.inverted().transform(axes.transData.transform((mark.x, mark.y)))[0] < 0.5
            side, aligned = (13, "left") if left else (-13, "right")
            place: dict[str, Any] = {"xytext": (side, 6), "textcoords": "offset points"}
            place |= {"bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 1}, "zorder": 2.4}
            axes.annotate("chosen", (mark.x, mark.y), ha=aligned, fontweight="bold", **place)
        shape: dict[str, Any] = (
            {"marker": "o", "color": GOOD, "alpha": 0.85} if mark.kept else {"marker": "x", "color": BAD}
        )
        name = f"mark-{number}"
        axes.plot([mark.x], [mark.y], linestyle="", markersize=8, markeredgewidth=1.8, gid=name, zorder=3, **shape)
