"""GemmTable: how long matrix products took on NVIDIA's cards, in bf16 and in FP8, as NVIDIA measured them; data/NOTICE.

A row of FP8 is the whole of a linear layer of TensorRT-LLM: the activation arrives in bf16, its largest magnitude is
found, it is quantized, and multiplied. A static scale needs no largest magnitude, and an engine may have the operation
before write FP8; the product alone then remains, which no row has.
"""

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

DataType = Literal["bf16", "fp8"]
DTYPES: tuple[DataType, ...] = ("bf16", "fp8")
CARDS: Mapping[str, str] = {"h100_sxm": "H100 SXM", "h200_sxm": "H200 SXM", "l40s": "L40S"}
"""Names of devices.yaml -> what they are called; no other card was measured."""
SOURCE = "NVIDIA, TensorRT-LLM 1.3.0rc20"
FILE = "gemm.npz"

_LEAST_US = 0.5
_STEPS = 2900  # codes an octave: 0.5 us to 3 s in 16 bits, each within 0.012 %


@dataclass(frozen=True, slots=True, eq=False)
class GemmTable:
    """Latencies of [m, k] by [k, n] on one card, on a grid of m, n and k; between its points logs are interpolated."""

    device: str
    """As devices.yaml has it."""
    m: tuple[int, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]
    latency_us: Mapping[DataType, NDArray[np.float64]] = field(repr=False)
    """By type of the operands, [m, n, k] of the grid; NaN where nothing was measured."""

    @classmethod
    def of(cls, device_name: str) -> "GemmTable | None":
        """The table of a card of devices.yaml; None where that card was not measured."""
        return _tables().get(device_name)

    @property
    def title(self) -> str:
        """What the card is called."""
        return CARDS.get(self.device, self.device)

    def seconds(self, dtype: DataType, m: int, n: int, k: int) -> float | None:
        """Seconds of one product; None outside of what was measured, which is never guessed at.

        Args:
            dtype: of both operands; fp8 begins and ends in bf16, with the activation's quantization in it.
            m: rows of the activation.
            n: output features.
            k: reduction length.
        """
        corners = [bracket(axis, value) for axis, value in ((self.m, m), (self.n, n), (self.k, k))]
        if not all(corners):
            return None
        table = self.latency_us[dtype]
        # In logs: latencies are powers of the sizes over long stretches, and a straight line there.
        total = 0.0
        for (row, share_m), (column, share_n), (depth, share_k) in product(*corners):
            total += share_m * share_n * share_k * math.log(table[row, column, depth])
        return None if math.isnan(total) else math.exp(total) * 1e-6

    def fp8_speedup(self, m: int, n: int, k: int) -> float | None:
        """Seconds of bf16 by those of FP8, the activation's quantization included; None as of `seconds`."""
        bf16, fp8 = (self.seconds(dtype, m, n, k) for dtype in DTYPES)
        return None if bf16 is None or fp8 is None else bf16 / fp8


def encoded(latency_us: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Latencies as the file holds them: logs in 16 bits, 0 for NaN.

    Raises:
        ValueError: a latency does not fit: it is under 0.5 us, or over 3 s.
    """
    known = ~np.isnan(latency_us)
    steps = np.round(np.log2(latency_us[known] / _LEAST_US) * _STEPS) + 1
    if steps.size and not (steps.min() >= 1 and steps.max() <= np.iinfo(np.uint16).max):
        least, most = float(latency_us[known].min()), float(latency_us[known].max())
        raise ValueError(f"latencies are from {least} to {most} us, and the file holds those from 0.5 us to 3 s")
    codes = np.zeros(latency_us.shape, np.uint16)
    codes[known] = steps.astype(np.uint16)
    return codes


def decoded(codes: NDArray[np.uint16]) -> NDArray[np.float64]:
    """What `encoded` was given, to 0.012 %; microseconds, NaN where nothing was measured."""
    latency_us = _LEAST_US * np.exp2((codes.astype(np.float64) - 1) / _STEPS)
    return np.where(codes == 0, np.nan, latency_us)


@cache
def _tables() -> dict[str, GemmTable]:
    with files("backends").joinpath("data", FILE).open("rb") as file, np.load(file) as held:
        m, n, k = (tuple(held[axis].tolist()) for axis in "mnk")
        return {
            name: GemmTable(name, m, n, k, {dtype: decoded(held[f"{name}_{dtype}"]) for dtype in DTYPES})
            for name in CARDS
        }


def bracket(axis: tuple[int, ...], value: int) -> tuple[tuple[int, float], ...]:
    """Indices of the points of an axis that a value lies on or between, with weights in logs; none outside."""
    if not axis[0] <= value <= axis[-1]:
        return ()
    above = bisect.bisect_left(axis, value)
    if axis[above] == value:
        return ((above, 1.0),)
    low, high = axis[above - 1], axis[above]
    share = math.log(value / low) / math.log(high / low)
    return ((above - 1, 1 - share), (above, share))
