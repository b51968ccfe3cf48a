"""GemmModel: how long a product takes on a card that NVIDIA measured: a fitted formula, bent to go through the rows.

Residuals, logs of measured by formula, are interpolated on the grid of the table; the formula has the steps and slopes
between the points. Where a point of the grid was not measured its residual is the mean of those around it, and outside
of the grid that of its edge.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import product as corners_of
from typing import Any

import numpy as np

from backends.gemm_formula import GemmFormula, Numbers, Product
from backends.gemm_tables import DTYPES, DataType, GemmTable, bracket

FILE = "gemm_formula.json"
REACHES = ((0.15, 0.2, 0.2), (0.4, 0.1, 0.1))
"""Octaves of m, n and k over which a measured residual's weight in a gap falls to 1/e, the mean of two: what lies
around counts, and along m what has the same weights, farther."""
BITS: Mapping[DataType, int] = {"bf16": 16, "fp8": 8}


@dataclass(frozen=True, eq=False)
class GemmModel:
    """One card, in bf16 and FP8."""

    table: GemmTable
    formulas: Mapping[DataType, GemmFormula]
    errors: Mapping[DataType, Mapping[str, float]]
    """By type and evidence, `measured` or `calibrated`: relative error that 90 % of the held-out rows stay below."""
    _residuals: dict[DataType, Numbers] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, device_name: str) -> "GemmModel | None":
        """The model of a card of devices.yaml; None where that card was not measured."""
        return _models().get(device_name)

    def row_us(self, dtype: DataType, m: Any, n: Any, k: Any) -> Any:
        """Microseconds that the formula has for a row of the table: FP8 with the activation's quantization in it."""
        formula, bits = self.formulas[dtype], BITS[dtype]
        alone = formula.product_us(Product(m, n, k, left_bits=bits, right_bits=bits))
        return alone + formula.quantize_activation_us(m * k) if dtype == "fp8" else alone

    def correction(self, dtype: DataType, m: int, n: int, k: int) -> tuple[float, bool]:
        """What the formula is to be multiplied by at a size, and whether measured points lie all around it.

        Sizes below the grid get the correction of its edge, as a card pads them up. Beyond it half of that is left
        after an octave, a quarter after two: what holds there is the formula, not the edge.
        """
        axes = (self.table.m, self.table.n, self.table.k)
        sizes = [min(max(size, axis[0]), axis[-1]) for size, axis in zip((m, n, k), axes, strict=True)]
        inside = sizes == [m, n, k]
        beyond = math.prod(min(1.0, axis[-1] / size) for size, axis in zip((m, n, k), axes, strict=True))
        residuals, latency = self._residuals_of(dtype), self.table.latency_us[dtype]
        total = 0.0
        for points in corners_of(*(bracket(axis, size) for axis, size in zip(axes, sizes, strict=True))):
            place = tuple(index for index, _ in points)
            total += math.prod(share for _, share in points) * float(residuals[place])
            inside = inside and not math.isnan(latency[place])
        return math.exp(beyond * total), inside

    def predicted(self, dtype: DataType) -> Numbers:
        """Microseconds [m, n, k] at every point of the grid: as measured, and in the gaps as the points around tell."""
        m, n, k = self._grid()
        seconds: Numbers = self.row_us(dtype, m, n, k) * np.exp(self._residuals_of(dtype))
        return seconds

    def _residuals_of(self, dtype: DataType) -> Numbers:
        if dtype not in self._residuals:
            measured = np.log(self.table.latency_us[dtype] / self.row_us(dtype, *self._grid()))
            self._residuals[dtype] = _without_gaps(measured, (self.table.m, self.table.n, self.table.k))
        return self._residuals[dtype]

    def _grid(self) -> list[Numbers]:
        axes = (np.array(axis, np.float64) for axis in (self.table.m, self.table.n, self.table.k))
        return list(np.meshgrid(*axes, indexing="ij"))


def _without_gaps(values: Numbers, axes: tuple[tuple[int, ...], ...]) -> Numbers:
    """Put the weighted mean of all known values, near ones far above others, in the place of NaN."""
    known = ~np.isnan(values)
    if known.all():
        return values
    if not known.any():
        return np.zeros_like(values)
    parts = (np.where(known, values, 0.0), known.astype(np.float64))
    sums, shares = np.zeros_like(values), np.zeros_like(values)
    octaves = [np.log2(np.array(axis, np.float64)) for axis in axes]
    for reaches in REACHES:
        near = [np.exp(-np.abs(at[:, None] - at[None, :]) / reach) for at, reach in zip(octaves, reaches, strict=True)]
        blurred = [np.einsum("am,bn,ck,mnk->abc", *near, part, optimize=True) for part in parts]
        sums, shares = sums + blurred[0], shares + blurred[1]
    # Whole planes may be missing: far from all that is known the weights vanish, and the formula stands as it is.
    means = np.divide(sums, shares, out=np.zeros_like(sums), where=shares > np.finfo(np.float64).tiny)
    return np.where(known, values, means)


@cache
def _models() -> dict[str, GemmModel]:
    told = json.loads(files("backends").joinpath("data", FILE).read_text(encoding="utf-8"))
    models = {}
    for name, card in told["cards"].items():
        table = GemmTable.of(name)
        if table is None:
            raise ValueError(
                f"{FILE}: {name} has no table of measured products; benchmarks/cost.py --write makes both agree"
            )
        formulas = {
            dtype: GemmFormula(card["multiprocessors"]["value"], card["l2_mib"], **card[dtype]["formula"])
            for dtype in DTYPES
        }
        errors = {dtype: card[dtype]["error_90"] for dtype in DTYPES}
        models[name] = GemmModel(table, formulas, errors)
    return models
