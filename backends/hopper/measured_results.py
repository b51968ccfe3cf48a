"""MeasuredResults: what `benchmarks/hopper_gpu.py` found on a machine, read back from the JSON that it writes.

The file says of each part what was measured, or why it was not; a number that nobody measured is not in it.
"""

import bisect
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from backends.hopper.accumulation import AccumulationModel
from backends.hopper.fake_quantization import Kernel

VERSION = 1
PARTS = ("numerics", "gemm", "sites", "kernels")

Quantizes = Literal["none", "static", "dynamic"]
"""What is done to the activation within the time: nothing (it comes in the format), or one pass, or amax and a pass."""


class MeasuredResultsError(ValueError):
    """A file is no results of the benchmark, or of another version of it."""


@dataclass(frozen=True, slots=True)
class GemmTime:
    """How long [m, k] by [k, n] took; medians."""

    m: int
    n: int
    k: int
    dtype: str
    """`bf16` or `fp8_e4m3`, of both operands; the result is bf16."""
    quantizes: Quantizes
    us: float
    spread_us: float
    """90th less 10th percentile of the runs."""
    cache: Literal["cold", "warm"]
    """Whether the operands come from DRAM, as where a model's weights do not fit the L2 cache."""


@dataclass(frozen=True, slots=True)
class KernelTime:
    """How long one way to quantize a tensor took; medians."""

    operation: str
    """`fake_quantize` or `fake_quantize_dynamic`."""
    fmt: str
    elements: int
    kernel: str
    """`torch`, `compiled` (torch.compile of the same) or `triton`."""
    us: float
    spread_us: float


@dataclass(frozen=True, slots=True)
class FittedSum:
    """The accumulation model that explained the FP8 products best, for one setting of fast accumulation."""

    fast: bool
    model: AccumulationModel
    equal: float
    """Share of results equal to the bit, 0..1, over the products that it was fitted to."""
    max_ulp: int
    """Largest distance of a result, in float32 values."""


@dataclass(frozen=True, slots=True)
class MeasuredResults:
    """One run of the benchmark on one machine."""

    device: str
    """The card's name as its driver has it, or the CPU's."""
    on_card: bool
    """Whether it ran on a CUDA device. On a CPU the times only prove that the benchmark runs."""
    environment: Mapping[str, object]
    gemms: tuple[GemmTime, ...] = ()
    kernels: tuple[KernelTime, ...] = ()
    sums: tuple[FittedSum, ...] = ()
    not_measured: Mapping[str, str] = field(default_factory=dict)
    """Part -> why it is not there."""

    @classmethod
    def load(cls, path: Path) -> "MeasuredResults":
        """Read a results file.

        Raises:
            MeasuredResultsError: it cannot be read, is of another version, or something in it is missing or wrong.
        """
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MeasuredResultsError(
                f"{path}: cannot be read ({error}); run benchmarks/hopper_gpu.py again"
            ) from error
        if not isinstance(told, dict) or told.get("version") != VERSION:
            got = told.get("version") if isinstance(told, dict) else type(told).__name__
            raise MeasuredResultsError(
                f"{path}: version {got}, this reads version {VERSION}; run benchmarks/hopper_gpu.py again"
            )
        try:
            return cls._of(told)
        except (KeyError, TypeError, ValueError) as error:
            raise MeasuredResultsError(f"{path}: {_said(error)}; run benchmarks/hopper_gpu.py again") from error

    @classmethod
    def _of(cls, told: Mapping[str, Any]) -> "MeasuredResults":
        environment = told["environment"]
        parts: dict[str, Mapping[str, Any]] = {part: told[part] for part in PARTS}
        missing = {
            part: str(held[why]) for part, held in parts.items() for why in ("not_measured", "failed") if why in held
        }
        gemms = [row for part in ("gemm", "sites") for row in parts[part].get("rows", ())]
        return cls(
            device=str(environment["device"]),
            on_card=environment["type"] == "cuda",
            environment=environment,
            gemms=tuple(dict.fromkeys(_made(GemmTime, row) for row in gemms)),
            kernels=tuple(_made(KernelTime, row) for row in parts["kernels"].get("rows", ())),
            sums=tuple(_sum(held) for held in parts["numerics"].get("fitted", ())),
            not_measured=missing,
        )

    def seconds(
        self, dtype: str, m: int, n: int, k: int, quantizes: Quantizes = "none", cache: str | None = None
    ) -> float | None:
        """Seconds of one product, between measured m of the same n and k interpolated in logs.

        Args:
            dtype: `bf16` or `fp8_e4m3`.
            m: rows of the activation.
            n: output features.
            k: reduction length.
            quantizes: what is done to the activation within the time.
            cache: `cold` or `warm`; None takes either, cold first.

        Returns:
            None outside of what was measured, and always where no card measured it: a CPU says nothing of a card.
        """
        if not self.on_card:
            return None
        for state in (cache,) if cache else ("cold", "warm"):
            alike = (dtype, n, k, quantizes, state)
            found = {
                row.m: row.us for row in self.gemms if (row.dtype, row.n, row.k, row.quantizes, row.cache) == alike
            }
            us = _between(found, m)
            if us is not None:
                return us * 1e-6
        return None

    def kernel(self, operation: str, elements: int) -> Kernel:
        """Say which kernel of ours was faster at the measured size next to this one; torch where none was measured.

        The median difference counts only where it is above the spreads of both.
        """
        rows = [row for row in self.kernels if row.operation == operation and row.kernel in ("torch", "triton")]
        if not self.on_card or not rows or elements < 1:
            return "torch"
        nearest = min(rows, key=lambda row: abs(math.log(row.elements / elements))).elements
        best: dict[str, KernelTime] = {}
        for row in rows:
            if row.elements == nearest and (row.kernel not in best or row.us > best[row.kernel].us):
                best[row.kernel] = row  # of several formats the slowest
        if len(best) < 2:
            return "torch"
        gain = best["torch"].us - best["triton"].us
        return "triton" if gain > max(best["torch"].spread_us, best["triton"].spread_us) else "torch"

    def accumulation(self, fast: bool) -> FittedSum | None:
        """The fitted accumulation model, with or without fast accumulation; None where none was fitted on a card."""
        return next((held for held in self.sums if held.fast is fast), None) if self.on_card else None


_Row = TypeVar("_Row", GemmTime, KernelTime)


def _made(kind: type[_Row], row: Mapping[str, Any]) -> _Row:
    made = kind(**{held.name: row[held.name] for held in fields(kind)})
    if not (math.isfinite(made.us) and made.us > 0 and made.spread_us >= 0):
        raise ValueError(f"times must be above zero and finite, got {made}")
    return made


def _sum(held: Mapping[str, Any]) -> FittedSum:
    return FittedSum(bool(held["fast"]), AccumulationModel(**held["model"]), float(held["equal"]), int(held["max_ulp"]))


def _between(found: Mapping[int, float], m: int) -> float | None:
    if m in found:
        return found[m]
    axis = sorted(found)
    above = bisect.bisect_left(axis, m)
    if above in (0, len(axis)):
        return None
    low, high = axis[above - 1], axis[above]
    share = math.log(m / low) / math.log(high / low)
    return math.exp((1 - share) * math.log(found[low]) + share * math.log(found[high]))


def _said(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def results_of(paths: Iterable[Path], device: str) -> MeasuredResults | None:
    """The last of several results files that a card whose name contains `device` has written; None if there is none.

    Raises:
        MeasuredResultsError: a file cannot be read.
    """
    found = [
        held for held in map(MeasuredResults.load, paths) if held.on_card and device.lower() in held.device.lower()
    ]
    return found[-1] if found else None
