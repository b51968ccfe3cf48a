"""Plot: a scatter of candidates as an inline SVG, whose marks differ in shape and tell what they are on hover."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from precision_search.report.figures import significant
from precision_search.report.markup import Html, element

WIDTH, HEIGHT = 400, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 44
_STEPS = (1.0, 2.0, 5.0, 10.0)


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
class Axis:
    """An axis that holds all of its values, linear or logarithmic."""

    title: str
    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, title: str, values: Sequence[float], log: bool | None = None) -> "Axis":
        """Axis around finite values; logarithmic where it is not told and they span more than a factor of 8."""
        low, high = min(values), max(values)
        if log is None:
            log = low > 0 and high > 8 * low
        if log:
            spread = (high / low) ** 0.06 if high > low else 1.5
            return cls(title, low / spread, high * spread, True)
        spread = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(title, low - spread, high + spread, False)

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values within the axis, three to eight or so."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [step * 10.0**decade for decade in decades for step in (1.0, 2.0, 5.0)]
            inside = [value for value in found if self.low <= value <= self.high]
            if len(inside) > 8:
                inside = [10.0**decade for decade in decades if self.low <= 10.0**decade <= self.high]
            if len(inside) >= 3:
                return inside
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(step * power for step in _STEPS if step * power >= rough * 0.999)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [index * step for index in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Plot:
    """A scatter with what is drawn behind it."""

    x: Axis
    y: Axis
    marks: Sequence[Mark]
    line: Sequence[tuple[float, float]] = ()
    """Points of a staircase: of each, what is no better lies above and to the right."""
    foretold: Sequence[tuple[float, float]] = ()
    """Points of a dotted line; those beyond the axes are left out."""
    diagonal: bool = False
    """Whether to draw where x equals y."""
    limit: float | None = None
    """A level of y to draw a dashed line at."""
    described: str = field(default="", kw_only=True)
    """What a screen reader says of the picture."""

    def to_svg(self) -> Html:
        """Draw it."""
        parts = [*self._frame(), *self._behind(), *(self._mark(mark) for mark in self.marks)]
        attributes = {"class": "plot", "viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": self.described}
        return element("svg", attributes, *parts)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        right = LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT)
        return right, HEIGHT - BOTTOM - self.y.share(y) * (HEIGHT - TOP - BOTTOM)

    def _frame(self) -> list[Html]:
        bottom, middle = HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
        parts = [_line(LEFT, bottom, WIDTH - RIGHT, bottom, "axis"), _line(LEFT, TOP, LEFT, bottom, "axis")]
        for value in self.x.ticks():
            across, _ = self._at(value, self.y.low)
            parts += [_line(across, TOP, across, bottom, "grid"), _text(across, bottom + 15, "middle", _short(value))]
        for value in self.y.ticks():
            _, down = self._at(self.x.low, value)
            parts += [_line(LEFT, down, WIDTH - RIGHT, down, "grid"), _text(LEFT - 5, down + 4, "end", _short(value))]
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "middle", self.x.title))
        turned = f"rotate(-90 12 {middle:.1f})"
        parts.append(_text(12, middle, "middle", self.y.title, turned))
        return parts

    def _behind(self) -> list[Html]:
        parts = []
        if self.diagonal:
            low, high = max(self.x.low, self.y.low), min(self.x.high, self.y.high)
            if low < high:
                parts.append(_line(*self._at(low, low), *self._at(high, high), "dashed"))
        if self.limit is not None and self.y.low <= self.limit <= self.y.high:
            parts.append(_line(*self._at(self.x.low, self.limit), *self._at(self.x.high, self.limit), "dashed"))
        inside = [(x, y) for x, y in self.foretold if 0 <= self.x.share(x) <= 1 and 0 <= self.y.share(y) <= 1]
        if inside:
            corners = " ".join("{:.1f},{:.1f}".format(*self._at(*point)) for point in inside)
            parts.append(element("polyline", {"class": "foretold", "points": corners}))
        if self.line:
            steps = [self.line[0]]
            for point in self.line[1:]:
                steps += [(point[0], steps[-1][1]), point]
            corners = " ".join("{:.1f},{:.1f}".format(*self._at(*point)) for point in steps)
            parts.append(element("polyline", {"class": "front", "points": corners}))
        return parts

    def _mark(self, mark: Mark) -> Html:
        across, down = self._at(mark.x, mark.y)
        x, y = f"{across:.1f}", f"{down:.1f}"
        parts = [element("title", {}, mark.told)]
        if mark.held_back:
            box = {"x": f"{across - 7:.1f}", "y": f"{down - 7:.1f}", "width": "14", "height": "14", "class": "held"}
            parts.append(element("rect", box))
        if mark.kept:
            parts.append(element("circle", {"class": "kept", "cx": x, "cy": y, "r": "4"}))
        else:
            strokes = f"M{across - 4:.1f} {down - 4:.1f}l8 8m0 -8l-8 8"
            parts.append(element("path", {"class": "broken", "d": strokes}))
        if mark.chosen:
            parts.append(element("circle", {"class": "ring", "cx": x, "cy": y, "r": "11"}))
            side, anchor = (14, "start") if across < WIDTH / 2 else (-14, "end")
            parts.append(_text(across + side, down - 8, anchor, "chosen"))
        return element("g", {}, *parts)


def _short(value: float) -> str:
    return significant(value, 3)


def _line(left: float, top: float, right: float, bottom: float, kind: str) -> Html:
    ends = {"x1": left, "y1": top, "x2": right, "y2": bottom}
    return element("line", {"class": kind} | {key: f"{value:.1f}" for key, value in ends.items()})


def _text(x: float, y: float, anchor: str, text: str, turned: str | None = None) -> Html:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "transform": turned}
    return element("text", place, text)
