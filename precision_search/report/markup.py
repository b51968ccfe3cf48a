"""Html: text that is already escaped, and the elements made of it."""

import html
from collections.abc import Iterable, Mapping, Sequence


class Html(str):
    """Markup that is safe to put into a page; every other string is escaped on its way in."""

    __slots__ = ()


VOID = frozenset({"meta", "img", "wbr", "input"})


def safe(child: "Html | str") -> Html:
    """Escape a text; markup passes as it is. Control characters, which no page may hold, become U+FFFD."""
    if isinstance(child, Html):
        return child
    plain = "".join(letter if letter >= " " or letter in "\n\t" else "\ufffd" for letter in child)
    # A lone surrogate, which JSON can spell, has no UTF-8.
    return Html(html.escape(plain.encode("utf-8", "replace").decode("utf-8"), quote=True))


def joined(children: Iterable["Html | str"], between: str = "") -> Html:
    """Children one after the other, each escaped where it is a text."""
    return Html(safe(between).join(safe(child) for child in children))


def element(name: str, attributes: Mapping[str, str | None], *children: "Html | str") -> Html:
    """An element; an attribute that is None is left out.

    >>> element("p", {"class": "note", "id": None}, "1 < 2")
    '<p class="note">1 &lt; 2</p>'
    """
    told = "".join(f' {key}="{safe(value)}"' for key, value in attributes.items() if value is not None)
    return Html(f"<{name}{told}>" if name in VOID else f"<{name}{told}>{joined(children)}</{name}>")


def paragraph(*children: "Html | str") -> Html:
    """A paragraph."""
    return element("p", {}, *children)


def note(*children: "Html | str") -> Html:
    """A paragraph that says what is missing, or how to read what follows."""
    return element("p", {"class": "note"}, *children)


def listed(items: Iterable["Html | str"]) -> Html:
    """A list of points."""
    return element("ul", {}, *(element("li", {}, item) for item in items))


def hidden(text: str) -> Html:
    """Text for screen readers only."""
    return element("span", {"class": "heard"}, text)


def cell(child: "Html | str", attributes: Mapping[str, str | None] | None = None) -> Html:
    """A cell of a table."""
    return element("td", attributes or {}, child)


def number_cell(child: "Html | str") -> Html:
    """A cell whose text is a number."""
    return cell(child, {"class": "number"})


def row_head(child: "Html | str", scope: str = "row") -> Html:
    """The cell that names a row."""
    return element("th", {"scope": scope}, child)


def breakable(name: str) -> Html:
    """A name that a narrow column may break: after a dot or an underscore, before a number sign."""
    marked = name.replace(".", ".\0").replace("_", "_\0").replace("#", "\0#")
    return joined(marked.split("\0"), Html("<wbr>"))


def row(*cells: Html) -> Html:
    """A row of a table."""
    return element("tr", {}, *cells)


def table(caption: "Html | str", heads: Sequence["Html | str"], rows: Iterable[Html], kind: str | None = None) -> Html:
    """A table in a box of its own, which scrolls where the page is too narrow.

    Args:
        caption: What the table shows; read out before it.
        heads: One a column.
        rows: From `row`, or whole `tbody` elements.
        kind: Class of the table.
    """
    head = element("thead", {}, row(*(element("th", {"scope": "col"}, text) for text in heads)))
    inner = element("table", {"class": kind}, element("caption", {}, element("span", {}, caption)), head, *rows)
    return element("div", {"class": "scroll", "tabindex": "0"}, inner)


def folded(summary: "Html | str", *children: "Html | str", opened: bool = False) -> Html:
    """A part that the reader unfolds."""
    head = element("summary", {}, summary)
    return element("details", {"open": "" if opened else None}, head, *children)


def section(anchor: str, title: str, *children: "Html | str") -> Html:
    """A section of the page under its heading."""
    heading = element("h2", {"id": f"{anchor}-title"}, title)
    return element("section", {"id": anchor, "aria-labelledby": f"{anchor}-title"}, heading, *children)
