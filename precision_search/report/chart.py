"""Chart: a figure of matplotlib as an inline SVG that takes its colours from the page and tells its marks on hover."""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

from precision_search.report.figures import significant
from precision_search.report.markup import Html, element

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 420
"""Units across: small enough that text of 10 units can still be read where a phone makes it narrower."""
INK, SOFT, GRID, GOOD, BAD, PAPER = (f"#0{number}0{number}0{number}" for number in range(1, 7))
"""Colours to draw with; in the page each becomes one that the style can change, and that prints apart."""
SHADES = ("#f4f7fb", "#dfe8f3", "#c7d8ea", "#aac4df", "#8aadd1", "#6892bf", "#4876a8", "#2c5a8c", "#133c6b")
"""Nine shades of one hue, evenly darker, so that they stay in order in black and white."""
_COLOURS = {
    INK: "currentColor",
    SOFT: "var(--chart-soft,#6b6b6b)",
    GRID: "var(--chart-grid,#dedede)",
    GOOD: "var(--chart-good,#2c5a8c)",
    BAD: "var(--chart-bad,#b02a2a)",
    PAPER: "var(--chart-paper,#fff)",
}
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: a screen reader has it, and no font is embedded
    "svg.hashsalt": "precision-search",  # the same figure has the same ids
    "text.parse_math": False,  # a dollar is a dollar
    "font.size": 10.0,
    "font.family": "DejaVu Sans",
    "figure.dpi": 72,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "hatch.color": INK,
    "hatch.linewidth": 0.8,
    "lines.linewidth": 1.4,
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_GEOMETRY = {"d", "x", "y", "width", "height", "transform", "viewBox", "style"}
_REFERENCE = re.compile(r"(?<=url\(#)[\w.-]+|(?<=^#)[mp][0-9a-f]{10}$")
"""To a clipping path or a hatch, and to the shape of a marker."""


@contextmanager
def drawing() -> Iterator[None]:
    """Within it a figure is made and drawn; a user's own settings of matplotlib do not change it."""
    import matplotlib.style

    with matplotlib.style.context(["default", _SETTINGS]):
        yield


def blank(height: float, width: float = WIDTH) -> "Figure":
    """A figure without background, of so many units; to be made within `drawing`."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasSVG(figure)
    figure.patch.set_visible(False)
    return figure


def scaled(axes: "Axes", which: Literal["x", "y"], low: float, high: float, log: bool) -> None:
    """Set the scale and the ends of an axis, with few round ticks told in plain digits."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if log:
        axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    wide = log and high > 8 * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8) if wide else MaxNLocator(5))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: significant(value)))
    axes.set(**{f"{which}lim": (low, high)})


def svg(figure: "Figure", *, title: str, told: Mapping[str, str], described: str = "", tabbed: bool = True) -> Html:
    """Write a figure as an inline SVG; the same figure gives the same bytes.

    Args:
        figure: From `blank`, drawn within `drawing`.
        title: The name of the picture; no two pictures of a page have the same.
        told: gid of an artist -> what it tells on hover, on focus and to a screen reader.
        described: What a screen reader says of the picture beyond its name.
        tabbed: Whether the marks are reached by the tab key; where they are hundreds, a table serves better.
    """
    file = io.StringIO()
    with drawing():
        figure.savefig(file, format="svg", metadata=_NO_METADATA, transparent=True)
    root = ElementTree.fromstring(file.getvalue())
    prefix = f"c{sha256(title.encode('utf-8', 'replace')).hexdigest()[:8]}-"
    used = {name for node in root.iter() for value in node.attrib.values() for name in _REFERENCE.findall(value)}
    writer = _Writer(prefix, used, told, "0" if tabbed else "-1")
    attributes = {
        "class": "plot",
        "viewBox": _clipped(root.attrib["viewBox"]),
        "role": "img",
        "aria-labelledby": f"{prefix}title",
        "aria-describedby": f"{prefix}desc" if described else None,
    }
    heads = [element("title", {"id": f"{prefix}title"}, title)]
    heads += [element("desc", {"id": f"{prefix}desc"}, described)] if described else []
    return element("svg", attributes, *heads, *writer.children(root))


class _Writer:
    """Writes the tree that matplotlib made with less: no fonts, no unused ids, two decimals, the page's colours."""

    def __init__(self, prefix: str, used: set[str], told: Mapping[str, str], tab: str) -> None:
        self.prefix, self.used, self.told, self.tab = prefix, used, told, tab

    def children(self, parent: ElementTree.Element) -> list[Html]:
        return [self.written(child) for child in parent if _tag(child) not in ("metadata", "style")]

    def written(self, node: ElementTree.Element) -> Html:
        tag, said = _tag(node), self.told.get(node.get("id", ""))
        inner: list[Html | str] = [node.text] if node.text and node.text.strip() else []
        inner += self.children(node)
        attributes = self._attributes(node)
        if said is not None:
            attributes |= {"class": "mark", "data-told": said, "tabindex": self.tab}
            inner.insert(0, element("title", {}, said))
        if tag == "g" and not attributes:
            return Html("".join(str(child) for child in inner))
        return element(tag, attributes, *inner)

    def _attributes(self, node: ElementTree.Element) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for key, value in node.attrib.items():
            name = key.rpartition("}")[2]
            if name == "id":
                if value in self.used:
                    found["id"] = self.prefix + value
                continue
            if name == "transform" and value.startswith(("rotate(-0 ", "rotate(0 ")):
                continue
            told = _clipped(value) if name in _GEOMETRY else value
            told = _REFERENCE.sub(lambda match: self.prefix + match.group(), told)
            if name == "style":
                told = ";".join(part for part in told.split("; ") if not part.startswith("font-family"))
                told = _coloured(told.replace(": ", ":"))
            elif told in _COLOURS:  # of a hatch's ground; a presentation attribute takes no variable
                name, told = "style", f"{name}:{_COLOURS[told]}"
            found[name] = told
        return found


def _tag(node: ElementTree.Element) -> str:
    return str(node.tag).rpartition("}")[2]


def _coloured(style: str) -> str:
    for drawn, shown in _COLOURS.items():
        style = style.replace(drawn, shown)
    return style


def _clipped(value: str) -> str:
    short = re.sub(r"-?\d+\.\d+", lambda match: f"{float(match.group()):.2f}".rstrip("0").rstrip("."), value)
    return " ".join(short.split())
