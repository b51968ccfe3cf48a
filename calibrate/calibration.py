"""Calibration: how large the activations of each site get."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Operand = Literal["input", "left", "right"]
"""`input` of a site with weights; `left` and `right` of a product of two activations."""
Method = Literal["amax", "percentile", "mse"]
METHODS: tuple[Method, ...] = ("amax", "percentile", "mse")


class UncalibratedSiteError(LookupError):
    """A static scale was asked for and never measured."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The magnitude that a static scale maps to the largest value of a format, for each site and operand."""

    method: Method
    ranges: tuple[tuple[str, Operand, float], ...]
    """(site, operand, magnitude), in the order of first calls; finite, >= 0. 0: only zeros were seen."""

    def amax(self, site: str, operand: Operand) -> float:
        """Give the magnitude to scale by.

        Raises:
            UncalibratedSiteError: nothing was observed there.
        """
        for name, which, value in self.ranges:
            if name == site and which == operand:
                return value
        raise UncalibratedSiteError(
            f"site {site!r}: no calibrated range of its {operand}; observe clips that reach it, or use a scheme with"
            " activation_scale dynamic"
        )

    def __iter__(self) -> Iterator[str]:
        """Names of the calibrated sites, each once."""
        return iter(dict.fromkeys(name for name, _, _ in self.ranges))

    def to_dict(self) -> dict[str, object]:
        """Plain data: {"method": ..., "ranges": {site: {operand: magnitude}}}."""
        ranges: dict[str, dict[str, float]] = {}
        for site, operand, value in self.ranges:
            ranges.setdefault(site, {})[operand] = value
        return {"method": self.method, "ranges": ranges}

    @classmethod
    def of(cls, method: Method, ranges: Mapping[str, Mapping[Operand, float]]) -> "Calibration":
        """Make a calibration of plain data, keeping its order."""
        flat = [(site, operand, value) for site, operands in ranges.items() for operand, value in operands.items()]
        return cls(method, tuple(flat))
