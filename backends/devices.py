"""Device: a card, and what is known of it; every figure with its source."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal, Protocol, get_args

import yaml

Architecture = Literal["wormhole", "blackhole", "ada", "hopper", "blackwell"]
BackendName = Literal["tenstorrent", "hopper"]
Case = Literal["low", "middle", "high"]
"""Which end of the ranges a cost is computed from: `low` is the cheapest outcome, so the highest rates."""

PASSES: Mapping[str, int] = MappingProxyType({"lofi": 1, "hifi2": 2, "hifi3": 3, "hifi4": 4})
TENSIX: tuple[Architecture, ...] = ("wormhole", "blackhole")
RATE_KINDS = ("fp8", "int8", "bf16", "tf32", "fp32")
_TENSIX_FIGURES = ("tflops_per_core_ghz", "cores", "clock_ghz", "sram_bytes_per_core_clock")
_FIGURES = (
    "sram_mb",
    "memory_gb",
    "memory_gb_per_s",
    "memory_efficiency",
    "gemm_efficiency",
    "overhead_us",
    "power_w",
)
_OPTIONAL_FIGURES = ("price_usd", "cloud_usd_per_hour")
_NETWORK = "noc_bytes_per_core_clock"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its range and where it is from; raises ValueError where it has no source or no order."""

    value: float
    source: str
    date: str
    low: float
    high: float
    doubt: str | None = None

    def __post_init__(self) -> None:
        """Refuse what has no source, is not positive, or whose range does not hold its value."""
        if not self.source.strip() or not self.date.strip():
            raise ValueError(f"a figure needs a source and a date, got source={self.source!r} date={self.date!r}")
        if not all(math.isfinite(number) and number > 0 for number in (self.low, self.value, self.high)):
            raise ValueError(f"a figure is positive and finite, got low={self.low} value={self.value} high={self.high}")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"low <= value <= high must hold, got {self.low}, {self.value}, {self.high}")

    @classmethod
    def of(cls, value: float, source: str, date: str) -> "Figure":
        """A figure without a range."""
        return cls(value, source, date, value, value)

    def as_gain(self, case: Case) -> float:
        """The value for a case where more is cheaper (rates, bandwidths, cores)."""
        return {"low": self.high, "middle": self.value, "high": self.low}[case]

    def as_cost(self, case: Case) -> float:
        """The value for a case where more is dearer (prices, overheads)."""
        return {"low": self.low, "middle": self.value, "high": self.high}[case]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a report."""
        data: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high}
        data |= {"source": self.source, "date": self.date}
        return data | ({"doubt": self.doubt} if self.doubt else {})


Quantizes = Literal["none", "static", "dynamic"]
"""What a launch does to its activation beside multiplying it: nothing, scale it, or find a scale first."""


class OwnProducts(Protocol):
    """What the user's own card was measured at: `backends.hopper.measured_results.MeasuredResults`."""

    def seconds(
        self, dtype: str, m: int, n: int, k: int, quantizes: Quantizes = "none", cache: str | None = None
    ) -> float | None:
        """Seconds of [m, k] by [k, n]; None where it was not measured."""


@dataclass(frozen=True, slots=True)
class Device:
    """A card: rates, memories, power and prices. SRAM is a Tensix card's L1 or an NVIDIA card's L2 cache."""

    name: str
    title: str
    architecture: Architecture
    backend: BackendName | None
    """The backend that builds for it; None where the card serves as a cost baseline only."""
    rates_tflops: Mapping[str, Figure] = field(hash=False)
    """Dense peak: by fidelity (`lofi` ... `hifi4`) on Tensix, by operand format (`fp8`, `bf16` ...) elsewhere."""
    sram_gb_per_s: Figure
    sram_mb: Figure
    memory_gb: Figure
    memory_gb_per_s: Figure
    memory_efficiency: Figure
    """Share of the memory bandwidth that is reached."""
    gemm_efficiency: Figure
    """Share of the peak rate that large matrix products reach."""
    overhead_us: Figure
    """Time of one launch that neither computes nor moves data."""
    power_w: Figure
    cores: Figure | None = None
    noc_gb_per_s: Figure | None = None
    """Into one Tensix core, over the network that joins them; None where it is not counted."""
    price_usd: Figure | None = None
    cloud_usd_per_hour: Figure | None = None
    own: OwnProducts | None = field(default=None, compare=False, repr=False)
    """What the user's card of this kind was measured at, which goes before all else: the recipe's `target.measured`."""

    @property
    def is_tensix(self) -> bool:
        """Whether rates go by fidelity and tensors by tiles of 32 x 32."""
        return self.architecture in TENSIX

    @property
    def tile(self) -> int:
        """Multiple to which m, n and k of a product are padded: a Tensix tile, or a tensor core's fragment."""
        return 32 if self.is_tensix else 16

    def figures(self) -> dict[str, Figure]:
        """Every figure by name, for a report's list of sources."""
        named = {f"rates_tflops.{key}": figure for key, figure in self.rates_tflops.items()}
        for name in ("cores", "noc_gb_per_s", "sram_gb_per_s", *_FIGURES, *_OPTIONAL_FIGURES):
            figure = getattr(self, name)
            if figure is not None:
                named[name] = figure
        return named


def _joined(*texts: str | None) -> str | None:
    return "; ".join(dict.fromkeys(text for text in texts if text)) or None


def _product(left: Figure, right: Figure) -> Figure:
    """Product of two figures: the ranges multiply end by end, sources and doubts are joined."""
    return Figure(
        value=left.value * right.value,
        source=_joined(left.source, right.source) or "",
        date=_joined(left.date, right.date) or "",
        low=left.low * right.low,
        high=left.high * right.high,
        doubt=_joined(left.doubt, right.doubt),
    )


def _scaled(figure: Figure, scale: float) -> Figure:
    return replace(figure, value=figure.value * scale, low=figure.low * scale, high=figure.high * scale)


def _figure(data: object, where: str, mistakes: list[str]) -> Figure | None:
    if not isinstance(data, dict):
        mistakes.append(f"{where}: a figure is a mapping with value, source and date, got {data!r}")
        return None
    unknown = sorted(set(data) - {"value", "low", "high", "source", "date", "doubt"})
    if unknown:
        mistakes.append(f"{where}: unknown keys {', '.join(map(str, unknown))}")
        return None
    numbers = {key: data[key] for key in ("value", "low", "high") if key in data}
    wrong = [key for key, number in numbers.items() if isinstance(number, bool) or not isinstance(number, int | float)]
    if wrong or not ("value" in numbers or {"low", "high"} <= set(numbers)):
        mistakes.append(f"{where}: needs a number as value, or as low and high, got {numbers}")
        return None
    value = float(numbers["value"]) if "value" in numbers else (numbers["low"] + numbers["high"]) / 2
    try:
        return Figure(
            value=value,
            source=str(data.get("source") or ""),
            date=str(data.get("date") or ""),
            low=float(numbers.get("low", value)),
            high=float(numbers.get("high", value)),
            doubt=data.get("doubt"),
        )
    except ValueError as error:
        mistakes.append(f"{where}: {error}")
        return None


def _device(name: str, data: object, mistakes: list[str]) -> Device | None:
    before = len(mistakes)
    if not isinstance(data, dict):
        mistakes.append(f"{name}: a device is a mapping, got {data!r}")
        return None
    architecture: Any = data.get("architecture")
    backend: Any = data.get("backend")
    if architecture not in get_args(Architecture):
        mistakes.append(f"{name}.architecture: {architecture!r} is none of {', '.join(get_args(Architecture))}")
    if backend is not None and backend not in get_args(BackendName):
        mistakes.append(f"{name}.backend: {backend!r} is neither null nor one of {', '.join(get_args(BackendName))}")
    tensix = architecture in TENSIX
    needed = (*_FIGURES, *(_TENSIX_FIGURES if tensix else ("sram_gb_per_s", "rates_tflops")))
    optional = (*_OPTIONAL_FIGURES, _NETWORK) if tensix else _OPTIONAL_FIGURES
    allowed = {"title", "architecture", "backend", *needed, *optional}
    mistakes.extend(f"{name}.{key}: unknown key" for key in data if key not in allowed)
    mistakes.extend(f"{name}.{key}: missing" for key in needed if key not in data)
    found: dict[str, Figure] = {}
    for key in (*needed, *optional):
        if key != "rates_tflops" and data.get(key) is not None:
            figure = _figure(data[key], f"{name}.{key}", mistakes)
            if figure is not None:
                found[key] = figure
    rates: dict[str, Figure] = {}
    if not tensix:
        table = data.get("rates_tflops")
        for key, entry in (table if isinstance(table, dict) else {}).items():
            if key not in RATE_KINDS:
                mistakes.append(f"{name}.rates_tflops.{key}: none of {', '.join(RATE_KINDS)}")
            figure = _figure(entry, f"{name}.rates_tflops.{key}", mistakes)
            if figure is not None:
                rates[key] = figure
        if "bf16" not in rates:
            mistakes.append(f"{name}.rates_tflops: needs at least bf16")
    if len(mistakes) > before:
        return None
    network = found.pop(_NETWORK, None)
    tensix_figures = [found.pop(key) for key in _TENSIX_FIGURES] if tensix else []
    if tensix:
        per_core, cores, clock, l1 = tensix_figures
        lofi = _product(_product(cores, clock), per_core)
        rates = {fidelity: _scaled(lofi, 1 / passes) for fidelity, passes in PASSES.items()}
        found |= {"cores": cores, "sram_gb_per_s": _product(_product(cores, clock), l1)}
        found |= {} if network is None else {"noc_gb_per_s": _product(clock, network)}
    title = str(data.get("title", name))
    figures: dict[str, Any] = {**found}
    return Device(
        name=name,
        title=title,
        architecture=architecture,
        backend=backend,
        rates_tflops=MappingProxyType(rates),
        **figures,
    )


def parse_devices(text: str) -> Mapping[str, Device]:
    """Devices of a YAML text, by name, in its order.

    Raises:
        ValueError: naming every mistake of the text, one a line: a figure without a source or a date, a range that does
            not hold its value, a number that is not positive, an unknown or a missing key.
    """
    data = yaml.safe_load(text)
    table = data.get("devices") if isinstance(data, dict) else None
    if not isinstance(table, dict) or not table:
        raise ValueError("a table of devices needs a mapping `devices` with at least one card in it")
    mistakes: list[str] = []
    devices = {str(name): _device(str(name), entry, mistakes) for name, entry in table.items()}
    if mistakes:
        raise ValueError("\n".join([f"{len(mistakes)} mistakes in the table of devices:", *mistakes]))
    return MappingProxyType({name: device for name, device in devices.items() if device is not None})


@lru_cache(maxsize=1)
def load_devices() -> Mapping[str, Device]:
    """The cards of the package's own table, by name; ValueError as `parse_devices` has it."""
    return parse_devices(files("backends").joinpath("devices.yaml").read_text(encoding="utf-8"))
