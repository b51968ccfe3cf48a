"""Heat: how much of its gates' allowance each site takes under each scheme, in bands that a phone can show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from precision_search.report.chart import INK, PAPER, SHADES, SOFT, WIDTH, blank, drawing, svg
from precision_search.report.figures import percent, significant
from precision_search.report.markup import Html, element
from precision_search.report.results import Option, Results, SiteRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLASSES = len(SHADES)
DECADES = 1e4
"""Below a ten-thousandth of the worst damage, all are one."""
MOST_ACROSS = 32
"""Sites of a band."""
ROW, BELOW, ABOVE, LABELS = 15, 22, 4, 88


@dataclass(frozen=True, slots=True)
class LogScale:
    """Classes of equal width in the logarithm, up to the largest finite value and over four decades at most."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "LogScale | None":
        """The scale of some values; None where none is positive and finite."""
        found = [value for value in values if value > 0 and math.isfinite(value)]
        return cls(max(min(found), max(found) / DECADES), max(found)) if found else None

    def step(self, value: float) -> int:
        """Class of a value, 0 to 8; what is not above 0 is in the lowest, infinity in the highest."""
        if value <= self.low:
            return 0
        if value >= self.high:
            return CLASSES - 1
        return min(int(CLASSES * math.log(value / self.low) / math.log(self.high / self.low)), CLASSES - 1)

    def edge(self, step: int) -> float:
        """Lower edge of a class."""
        return self.low * math.pow(self.high / self.low, step / CLASSES)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a site alone takes under a scheme."""

    metric: str
    damage: float
    share: float
    """Of the threshold of that metric; the damage itself where no metric has one."""


def taken(option: Option, limits: Mapping[str, float], metric: str) -> Taken | None:
    """The metric whose threshold one site uses most of; the given one where there are no thresholds."""
    if not limits:
        value = option.damage.get(metric, math.nan)
        return None if math.isnan(value) else Taken(metric, value, value)
    found = [
        Taken(name, option.damage[name], option.damage[name] / limits[name]) for name in limits if name in option.damage
    ]
    return max((entry for entry in found if not math.isnan(entry.share)), key=lambda entry: entry.share, default=None)


def heat(results: Results, limits: Mapping[str, float], metric: str) -> tuple[LogScale | None, Html]:
    """The pictures, in the model's order; the scale of their shades is None where no damage is above 0."""
    found = {
        (site.name, option.scheme): taken(option, limits, metric)
        for site in results.sites
        for option in site.options
        if option.refused is None
    }
    scale = LogScale.of([entry.share for entry in found.values() if entry is not None])
    count = math.ceil(len(results.sites) / MOST_ACROSS)
    across = math.ceil(len(results.sites) / count)
    bands = [results.sites[start : start + across] for start in range(0, len(results.sites), across)]
    pictures = []
    for number, band in enumerate(bands):
        first = number * across + 1
        name = f"Sites {first} to {first + len(band) - 1} by scheme"
        pictures.append(element("figure", {}, _band(results, band, across, found, scale, name, bool(limits))))
    return scale, element("div", {"class": "small-multiples bands"}, *pictures)


def _band(
    results: Results,
    band: Sequence[SiteRow],
    across: int,
    found: Mapping[tuple[str, str], Taken | None],
    scale: LogScale | None,
    name: str,
    limited: bool,
) -> Html:
    schemes = results.schemes
    height = ROW * len(schemes) + BELOW + ABOVE
    told = {}
    with drawing():
        figure = blank(height)
        place = (LABELS / WIDTH, BELOW / height, 1 - (LABELS + 4) / WIDTH, ROW * len(schemes) / height)
        axes = figure.add_axes(place)
        axes.set(xlim=(0, across), ylim=(len(schemes), 0))
        axes.set_axis_off()
        for down, scheme in enumerate(schemes):
            axes.text(-0.3, down + 0.5, scheme, ha="right", va="center", fontsize=9)
            for right, site in enumerate(band):
                option = site.option(scheme)
                if option is None:
                    continue
                chosen = results.chosen.get(site.name) == scheme
                entry = found.get((site.name, scheme))
                mark = f"cell-{down}-{right}"
                told[mark] = _told(site, option, entry, chosen, limited)
                step = 0 if entry is None or scale is None else scale.step(entry.share)
                _cell(
                    axes, (right, down), mark, step if entry is not None else None, option.refused is not None, chosen
                )
        _groups(axes, band, len(schemes))
    described = f"{band[0].name} to {band[-1].name}. The tables below have every number."
    return svg(figure, title=name, told=told, described=described, tabbed=False)


def _cell(axes: "Axes", at: tuple[int, int], name: str, step: int | None, refused: bool, chosen: bool) -> None:
    from matplotlib.patches import Rectangle

    right, down = at
    face = PAPER if step is None else SHADES[step]
    axes.add_patch(Rectangle((right + 0.04, down + 0.04), 0.92, 0.92, facecolor=face, edgecolor=SOFT, lw=0.3, gid=name))
    if refused:
        for ends in ((0.15, 0.85), (0.85, 0.15)):
            axes.plot([right + 0.15, right + 0.85], [down + ends[0], down + ends[1]], color=INK, linewidth=0.8)
    if chosen:
        ink = INK if step is None else "#ffffff" if step > 5 else "#111111"
        axes.plot([right + 0.5], [down + 0.5], marker="o", markersize=4.5, markeredgewidth=0, color=ink)


def _groups(axes: "Axes", band: Sequence[SiteRow], bottom: int) -> None:
    """Under the cells, which part of the model they are of."""
    start = 0
    for part, sites in groupby(band, key=lambda site: site.name.partition(".")[0]):
        end = start + len(list(sites))
        line: dict[str, Any] = {"color": INK, "linewidth": 0.9, "clip_on": False}
        axes.plot([start + 0.15, end - 0.15], [bottom + 0.25] * 2, **line)
        if end - start > len(part) // 3:  # a label that has no room says nothing: the mark tells the name
            axes.text((start + end) / 2, bottom + 0.4, part, ha="center", va="top", fontsize=9)
        start = end


def _told(site: SiteRow, option: Option, entry: Taken | None, chosen: bool, limited: bool) -> str:
    said = f"{site.name}, {option.scheme}{' (chosen)' if chosen else ''}: "
    if option.refused is not None:
        return f"{said}refused, {option.refused}"
    if entry is None:
        return f"{said}not measured"
    value = f"{entry.metric} {significant(entry.damage, 2)}"
    return f"{said}{value}, {percent(entry.share)} of what is allowed" if limited else said + value
