"""The damage of every site under every scheme: a heat map, and a table a metric that can be read without colour."""

import math

from precision_search.report.figures import amount, percent, significant
from precision_search.report.front import limits_of, most_binding
from precision_search.report.heat import CLASSES, LogScale, heat
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

CHOSEN = "\u25cf"
SETTLED = {"harmless": "\u2264 ", "hopeless": "\u2248 "}


def damage(results: Results) -> Html:
    """The section of the heat maps."""
    title = "Damage of every site"
    if not results.sites or not results.metrics:
        return section("damage", title, note("The study holds no damage of single sites."))
    first = most_binding(results) or results.metrics[0]
    limits = {
        metric: min(limit for (name, _), limit in limits_of(results).items() if name == metric)
        for metric, _ in limits_of(results)
    }
    scale, pictures = heat(results, limits, first)
    what = "the share of a gate's allowance that it takes, of the gate of which it takes most" if limits else first
    explained = paragraph(
        "What lowering one site alone does to what the model makes. A column is a site, in the model's order, a row a "
        f"scheme; the shade is {what}, darker is worse, on a logarithmic scale. A dot marks the scheme that was "
        "chosen, a cross one that the target refuses, and a gap one that was not offered. Hover over a cell for the "
        "site's name and numbers; the tables have them all.",
        " Not measured, as a gradient left no doubt: \u2264 harmless, at most so much; \u2248 hopeless, about so much."
        if any(option.settled for site in results.sites for option in site.options)
        else "",
    )
    legend = (_legend(scale, "of the allowance" if limits else ""),) if scale is not None else ()
    ordered = [first, *(name for name in results.metrics if name != first)]
    maps = [folded(f"{metric} as a table", *_heat_map(results, metric)) for metric in ordered]
    return section("damage", title, explained, *legend, pictures, *maps, *_refusals(results))


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


def _legend(scale: LogScale, of: str = "") -> Html:
    if scale.low == scale.high:
        return note(f"Every damage above 0 is {_short(scale.high)} {of}.".replace(" .", "."))
    under = element("span", {"class": "h0"}, f"under {_short(scale.edge(1))}")
    above = (element("span", {"class": f"h{step}"}, f"from {_short(scale.edge(step))}") for step in range(1, CLASSES))
    return element("p", {"class": "legend"}, "Shades: ", under, *above, f" to {_short(scale.high)} {of}")


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
