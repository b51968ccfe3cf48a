"""Maps: the spectrograms of a clip and what differs between them, as small pictures in classes of colour."""

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from precision_search.report.figures import significant
from precision_search.report.markup import Html, element, joined
from precision_search.report.spectrogram import PHASE_FLOOR_DB, RANGE_DB, Levels, Maps

NO_PHASE = "#8c8c8c"
"""Where the reference has no energy; no class of phase error is a grey."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Classes of a quantity, and their colours."""

    name: str
    unit: str
    edges: tuple[float, ...]
    """Rising, between neighbouring classes; as many above 0 as below it, or all below."""
    colours: tuple[str, ...]
    """One more than there are edges, as #rrggbb."""
    said: str
    """What the shades mean, also in black and white."""

    @classmethod
    def of(cls, name: str, unit: str, edges: Sequence[float], colormap: str, said: str) -> "Scale":
        """A scale whose classes take their colours evenly from a colormap of matplotlib."""
        shades = colormaps[colormap]
        colours = tuple(to_hex(shades(float(at))) for at in np.linspace(0, 1, len(edges) + 1))
        return cls(name, unit, tuple(edges), colours, said)

    def classes(self, values: Levels) -> NDArray[np.uint8]:
        """The class of each value."""
        return np.digitize(values, self.edges).astype(np.uint8)

    def to_html(self) -> Html:
        """The classes side by side, each edge told between two of them."""
        chips = (
            element("li", {}, element("i", {"style": f"background:{colour}"}), told)
            for colour, told in zip(self.colours, self._told(), strict=True)
        )
        listed = element("ol", {"aria-hidden": "true"}, *chips)
        name = element("strong", {}, f"{self.name}, {self.unit}")
        return element("div", {"class": "scale"}, name, listed, element("span", {}, self.said))

    def _told(self) -> list[str]:
        """Of each class the edge from which it goes on, away from 0; of a level that is the lower one."""
        signed = self.edges[0] < 0 < self.edges[-1]
        inner = [_signed(edge) for edge in self.edges]
        if not signed:
            return [f"< {inner[0]}", *inner]
        middle = len(inner) // 2
        return [f"\u2264 {inner[0]}", *inner[1:middle], "0", *inner[middle:-1], f"\u2265 {inner[-1]}"]


def _signed(value: float) -> str:
    text = significant(value, 2)
    return f"+{text}" if value > 0 else text.replace("-", "\u2212")


def _both(*edges: float) -> tuple[float, ...]:
    return (*(-edge for edge in reversed(edges)), *edges)


LEVEL = Scale.of(
    "Level",
    "dB",
    tuple(float(edge) for edge in np.arange(-RANGE_DB + 10, 0, 10)),
    "magma",
    "Under the highest level of the two clips; the lighter, the louder.",
)
DIFFERENCE = Scale.of(
    "Difference",
    "dB",
    _both(0.25, 0.5, 1.0, 2.0, 4.0),
    "cividis",
    "Candidate less reference: lighter (yellow) where the candidate is louder, darker (blue) where it is quieter, "
    f"middle grey where they are equal. Whatever is more than {RANGE_DB:g} dB under the peak counts as that low.",
)
PHASE = Scale.of(
    "Phase error",
    "rad",
    _both(0.03, 0.1, 0.3, 1.0, 2.0),
    "twilight_shifted",
    "Wrapped to \u00b1\u03c0: the darker, the further off; red is ahead, blue behind. Plain grey where the reference "
    f"is more than {PHASE_FLOOR_DB:g} dB under the peak: there the phase means nothing.",
)
SCALES = (LEVEL, DIFFERENCE, PHASE)


def figures(name: str, maps: Maps) -> Html:
    """The four maps of a clip: reference, candidate, difference and phase error."""
    nyquist = maps.transform.sample_rate_hz / 2000
    span = f"{significant(maps.seconds)} s, 0 to {significant(nyquist)} kHz"
    middle, most = (significant(value, 2) for value in maps.difference_db)
    ahead, off = (significant(value, 2) for value in maps.phase_rad)
    half, nearly = (significant(maps.below_hz(share) / 1000, 2) for share in (0.5, 0.95))
    told = (
        (
            "Reference",
            LEVEL.classes(maps.reference),
            LEVEL,
            f"95 % of the energy under {nearly} kHz",
            f"Spectrogram of the reference of {name}, {span}: half of its energy lies under {half} kHz, 95 % under "
            f"{nearly} kHz",
        ),
        (
            "Candidate",
            LEVEL.classes(maps.candidate),
            LEVEL,
            "on the same scale",
            f"Spectrogram of the candidate of {name}, {span}: it differs from the reference by {middle} dB in the "
            f"median and by at most {most} dB in 95 % of what is heard",
        ),
        (
            "Difference",
            DIFFERENCE.classes(maps.difference),
            DIFFERENCE,
            f"median {middle} dB, 95 % within {most} dB",
            f"Level of the candidate less that of the reference of {name}, {span}: median size {middle} dB, 95 % "
            f"within {most} dB",
        ),
        (
            "Phase error",
            np.where(maps.phased, PHASE.classes(maps.phase), len(PHASE.colours)).astype(np.uint8),
            PHASE,
            f"median {ahead} rad, 95 % within {off} rad",
            f"Phase error of the candidate of {name}, {span}: median size {ahead} rad, 95 % within {off} rad, in the "
            f"{100 * maps.phased_share:.0f} % of the map where the reference has energy",
        ),
    )
    shown = (
        element(
            "figure",
            {"class": "map"},
            element("figcaption", {}, element("strong", {}, title), f" {caption}"),
            _field(indices, (*scale.colours, NO_PHASE), f"{alt}.", maps),
        )
        for title, indices, scale, caption, alt in told
    )
    return element("div", {"class": "maps"}, *shown)


def _field(indices: NDArray[np.uint8], colours: Sequence[str], alt: str, maps: Maps) -> Html:
    """A map with its axes, which are text, so that they are as large on a phone as anywhere."""
    png = base64.b64encode(to_png(indices[::-1], colours)).decode()
    image = {"src": f"data:image/png;base64,{png}", "alt": alt, "loading": "lazy", "decoding": "async"}
    size = {"width": str(indices.shape[1]), "height": str(indices.shape[0])}
    nyquist = maps.transform.sample_rate_hz / 2000
    ticks = [_tick("up", "bottom", value / nyquist, text) for value, text in _ticks(nyquist, "kHz")]
    ticks += [_tick("along", "left", value / maps.seconds, text) for value, text in _ticks(maps.seconds, "s")]
    return element("div", {"class": "field"}, element("img", image | size), joined(ticks))


def _tick(kind: str, side: str, share: float, text: str) -> Html:
    return element("span", {"class": kind, "style": f"{side}:{100 * share:.1f}%", "aria-hidden": "true"}, text)


def _ticks(high: float, unit: str) -> list[tuple[float, str]]:
    """From 0 up, three to five; the first tells the unit."""
    step = next(step * ten for ten in (0.001, 0.01, 0.1, 1.0, 10.0) for step in (1, 2, 5) if 4.5 * step * ten > high)
    values = [step * count for count in range(int(high / step + 1e-9) + 1)]
    return [(value, f"0 {unit}" if value == 0 else significant(value)) for value in values]


def to_png(indices: NDArray[np.uint8], colours: Sequence[str]) -> bytes:
    """A picture of at most 16 colours as a PNG of 4 bits a point; the same bytes for the same points.

    The format is that of the W3C's Portable Network Graphics (Third Edition), with colour type 3.

    Args:
        indices: [rows, columns], the top row first, each an index into the colours.
        colours: As #rrggbb.
    """
    height, width = indices.shape
    even = np.pad(indices, ((0, 0), (0, width % 2)))
    packed = (even[:, ::2] << 4) | even[:, 1::2]
    lines = np.pad(packed, ((0, 0), (1, 0)))  # a line begins with its filter, 0 being none
    header = struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0)
    palette = bytes.fromhex("".join(colour.removeprefix("#") for colour in colours))
    parts = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
