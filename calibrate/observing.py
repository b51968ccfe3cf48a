"""Observing: a context in which a model's activations are measured while it runs."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import numpy as np
from torch import Tensor

from calibrate.calibration import METHODS, Calibration, Method, Operand
from calibrate.histogram import MagnitudeHistogram
from precision.formats import FORMATS, Format, round_to


class ObservedCall(Protocol):
    """What is looked at of one call of a site."""

    @property
    def site(self) -> str:
        """Name of the site."""

    @property
    def x(self) -> Tensor:
        """First operand, an activation."""

    @property
    def weight(self) -> Tensor:
        """Second operand."""

    @property
    def is_product(self) -> bool:
        """Whether the second operand is an activation, too."""

    def compute(self) -> Tensor:
        """Compute the call as the model has it."""


Attach = Callable[[Callable[[ObservedCall], Tensor]], AbstractContextManager[object]]
"""Opens an interception that hands every site call of a model to the handler, and closes it on exit."""


class Observer:
    """Statistics of every operand that is an activation; memory is 127 kB an operand, whatever the number of clips."""

    def __init__(self, method: Method, percentile: float, fmt: Format) -> None:
        self._method: Method = method
        self._percentile = percentile
        self._format = fmt
        self._histograms: dict[tuple[str, Operand], MagnitudeHistogram] = {}

    def handle(self, call: ObservedCall) -> Tensor:
        """Count the operands of a call and compute it unchanged.

        Raises:
            ValueError: an operand has NaN or Inf; the message names the site.
        """
        if call.is_product:
            self._add(call.site, "left", call.x)
            self._add(call.site, "right", call.weight)
        else:
            self._add(call.site, "input", call.x)
        return call.compute()

    def calibration(self) -> Calibration:
        """Ranges of everything observed so far.

        Raises:
            ValueError: no site was called.
        """
        if not self._histograms:
            raise ValueError("nothing was observed; render at least one clip while observing")
        ranges = tuple((site, operand, self._range(held)) for (site, operand), held in self._histograms.items())
        return Calibration(self._method, ranges)

    def _add(self, site: str, operand: Operand, values: Tensor) -> None:
        try:
            self._histograms.setdefault((site, operand), MagnitudeHistogram()).add(values)
        except ValueError as error:
            raise ValueError(
                f"site {site!r}, {operand}: {error}; calibrate on clips that the model survives"
            ) from error

    def _range(self, histogram: MagnitudeHistogram) -> float:
        if self._method == "amax":
            return histogram.amax
        if self._method == "percentile":
            return histogram.percentile(self._percentile)
        return least_squares_range(histogram, self._format)


def least_squares_range(histogram: MagnitudeHistogram, fmt: Format) -> float:
    """Magnitude to map to the format's largest value for the least squared error of rounding and clipping.

    Tried are amax * 2**(-i / 8), i = 0..40; of equal ones the largest.
    """
    middles, counts = histogram.bins()
    best, least = histogram.amax, np.inf
    if best == 0:
        return 0.0
    for exponent in range(41):
        candidate = histogram.amax * 2.0 ** (-exponent / 8)
        scale = candidate / fmt.max_value
        error = round_to(middles / scale, fmt) * scale - middles
        loss = float((counts * error**2).sum())
        if loss < least:
            best, least = candidate, loss
    return best


@contextmanager
def observing(
    attach: Attach, method: Method = "amax", *, percentile: float = 99.99, fmt: str = "fp8_e4m3"
) -> Iterator[Observer]:
    """Measure activations of everything the model computes inside the context; leaves nothing behind.

    Args:
        attach: opens an interception for a handler.
        method: amax, percentile, or mse (least squared error of rounding to `fmt`).
        percentile: in (0, 100]; read by percentile only.
        fmt: a format with a largest value that is scaled to; read by mse only.

    Yields:
        The observer; ask it for its `calibration()` after the last clip.

    Raises:
        ValueError: unknown method or format, percentile out of range; NaN or Inf among activations.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must lie in (0, 100], got {percentile}")
    if fmt not in FORMATS or FORMATS[fmt].overflow != "saturate":
        known = ", ".join(name for name, row in FORMATS.items() if row.overflow == "saturate")
        raise ValueError(f"fmt must be a scaled format ({known}), got {fmt!r}")
    observer = Observer(method, percentile, FORMATS[fmt])
    with attach(observer.handle):
        yield observer
