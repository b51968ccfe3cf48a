"""Comparison page: studies side by side as one HTML file that loads nothing from anywhere."""

from collections.abc import Mapping
from typing import Any

from precision_search.comparison_text import comparison_rows, difference_lines, sites_told
from precision_search.report.figures import number, percent, significant
from precision_search.report.markup import (
    Html,
    breakable,
    cell,
    element,
    joined,
    note,
    number_cell,
    paragraph,
    row,
    row_head,
    section,
    table,
)
from precision_search.report.page import document


def comparison_page(found: Mapping[str, Any]) -> str:
    """The page of what `precision_search.comparison.comparison` found; the same bytes for the same findings."""
    names = list(found["studies"])
    title = f"Studies side by side: {', '.join(names)}"
    parts = (_studies(found, names), _gates(found, names), _sites(found, names), _asked(found))
    return document(title, element("header", {}, element("h1", {}, title)), element("main", {}, joined(parts, "\n")))


def _studies(found: Mapping[str, Any], names: list[str]) -> Html:
    rows = []
    for head, cells in comparison_rows(found):
        rows.append(row(row_head(head), *(cell(text, {"class": "prose"}) for text in cells)))
    cautions = (note(f"Caution: {sentence}.") for sentence in found["cautions"])
    return section("studies", "What came of each", *cautions, table("Each study in a column", ("", *names), rows))


def _gates(found: Mapping[str, Any], names: list[str]) -> Html:
    rows = []
    for gate in found["gates"]:
        values = [gate["values"].get(name) for name in names]
        asked = _threshold(next(value for value in values if value is not None))
        rows.append(
            row(
                row_head(breakable(f"{gate['metric']} ({gate['over']})")),
                number_cell(asked),
                *(number_cell("-" if value is None else _value(value, asked)) for value in values),
            )
        )
    shown = table("Value of each gate; a broken one says so", ("Gate", "Threshold", *names), rows, "gates")
    return section("gates", "Gates", shown if rows else note("Neither has a gate that was judged."))


def _threshold(value: Mapping[str, Any]) -> str:
    sign = {"min": "\u2265 ", "max": "\u2264 "}.get(value["side"], "")
    return sign + significant(number(value["threshold"]), 6)


def _value(value: Mapping[str, Any], asked: str) -> Html:
    """A gate's value; with a threshold of its own where the first study has another."""
    own = _threshold(value)
    told = significant(number(value["value"]), 4) + ("" if own == asked else f" ({own})")
    return joined((told,)) if value["kept"] else joined((element("strong", {}, "broken"), f" {told}"))


def _sites(found: Mapping[str, Any], names: list[str]) -> Html:
    told, metric = sites_told(found)
    if not found["sites"]:
        return section("sites", "Sites", paragraph(f"{told[0].upper()}{told[1:]}."))
    rows = []
    for site in found["sites"]:
        cells = []
        for name in names:
            damage = number(site["damage"].get(name, {}).get(metric))
            scheme = site["schemes"][name] or "-"
            cells.append(cell(scheme if damage is None else f"{scheme}, {significant(damage)}"))
        share = "-" if site["mac_share"] is None else percent(site["mac_share"])
        rows.append(row(row_head(breakable(site["site"])), number_cell(share), *cells))
    heads = ("Site", "MACs", *names)
    return section("sites", "Sites", paragraph(f"{told[0].upper()}{told[1:]}."), table(told, heads, rows, "sites"))


def _asked(found: Mapping[str, Any]) -> Html:
    lines = "\n".join(difference_lines(found)).rstrip()
    return section("asked", "What they were asked", element("pre", {"class": "scroll", "tabindex": "0"}, lines))
