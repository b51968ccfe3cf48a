"""The damage of every site under every scheme: a heat map a metric, as tables that can be read without colour."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from precision_search.report.figures import amount, percent, significant
from precision_search.report.front import most_binding
from precision_search.report.markup import (
    Html,
    breakable,
    cell,
    element,
    folded,
    hidden,
    joined,
    listed,
    note,
    number_cell,
    paragraph,
    row,
    row_head,
    section,
    table,
)
from precision_search.report.results import Option, Results, SiteRow

CLASSES = 9
DECADES = 1e4
"""Below a ten-thousandth of the worst damage, all are one."""
CHOSEN = "\u25cf"
SETTLED = {"harmless": "\u2264 ", "hopeless": "\u2248 "}


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


def damage(results: Results) -> Html:
    """The section of the heat maps."""
    title = "Damage of every site"
    if not results.sites or not results.metrics:
        return section("damage", title, note("The study holds no damage of single sites."))
    explained = paragraph(
        "What lowering one site alone does to what the model makes, in each metric's own unit; darker is worse, on a "
        f"logarithmic scale of its own for each metric. {CHOSEN} marks the scheme that was chosen, a hatched cell one "
        "that the target refuses, and a dash one that was not offered.",
        " Not measured, as a gradient left no doubt: ≤ harmless, at most so much; ≈ hopeless, about so much."
        if any(option.settled for site in results.sites for option in site.options)
        else "",
    )
    first = most_binding(results) or results.metrics[0]
    ordered = [first, *(name for name in results.metrics if name != first)]
    maps = [folded(metric, *_heat_map(results, metric), opened=metric == first) for metric in ordered]
    return section("damage", title, explained, *maps, *_refusals(results))


def _heat_map(results: Results, metric: str) -> tuple[Html, ...]:
    values = [option.damage.get(metric, math.nan) for site in results.sites for option in site.options]
    scale = LogScale.of(values)
    rows = (
        row(
            row_head(breakable(site.name)),
            number_cell(percent(site.macs_per_second / (results.macs_per_second or 1.0))),
            *(_cell(results, site, site.option(scheme), metric, scale) for scheme in results.schemes),
        )
        for site in results.sites
    )
    heads = ("Site", "MACs", *results.schemes)
    heat = table(f"{metric}: damage of {amount(len(results.sites), 'site')} by scheme", heads, rows, "heat")
    return (_legend(scale), heat) if scale is not None else (note("No damage above 0 was measured."), heat)


def _legend(scale: LogScale) -> Html:
    if scale.low == scale.high:
        return note(f"Every damage above 0 is {_short(scale.high)}.")
    under = element("span", {"class": "h0"}, f"under {_short(scale.edge(1))}")
    above = (element("span", {"class": f"h{step}"}, f"from {_short(scale.edge(step))}") for step in range(1, CLASSES))
    return element("p", {"class": "legend"}, "Shades: ", under, *above, f" to {_short(scale.high)}")


def _short(value: float) -> str:
    return significant(value, 2)


def _cell(results: Results, site: SiteRow, option: Option | None, metric: str, scale: LogScale | None) -> Html:
    if option is None:
        return cell(joined(("\u2013", hidden(" not offered"))), {"class": "absent"})
    chosen = results.chosen.get(site.name) == option.scheme
    mark = (element("span", {"class": "dot", "aria-hidden": "true"}, CHOSEN), hidden("chosen ")) if chosen else ()
    if option.refused is not None:
        return cell(joined((*mark, "refused")), {"class": "refused", "title": option.refused})
    value = option.damage.get(metric)
    if value is None or math.isnan(value):
        told = "not measured" if value is None else "undefined"
        return cell(joined((*mark, told)), {"class": "absent"})
    kinds = [f"h{scale.step(value)}"] if scale is not None else []
    kinds += ["chosen"] if chosen else []
    return cell(
        joined((*mark, SETTLED.get(option.settled or "", ""), _short(value))), {"class": " ".join(kinds) or None}
    )


def _refusals(results: Results) -> tuple[Html, ...]:
    """The reasons once more, for readers who cannot hover, each with the places it holds for."""
    places: dict[str, list[str]] = {}
    for site in results.sites:
        for option in site.options:
            if option.refused is not None:
                places.setdefault(option.refused, []).append(f"{site.name} ({option.scheme})")
    if not places:
        return ()
    reasons = (f"{reason}: {', '.join(found)}" for reason, found in places.items())
    refused = sum(len(found) for found in places.values())
    return (folded(f"{amount(refused, 'refused cell')}, and why", listed(reasons)),)
