"""CostModel: a roofline of one site under one scheme on one card, and of what unlike neighbours take beside."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from backends.devices import Case, Device
from precision.blocks import stored_bits
from precision.policy import Scheme
from precision.site import Site

OVERLAP_LOSS = 0.1
"""Share of the shorter of compute and memory time that the longer one does not hide; an assumption."""
SRAM_SHARE = 0.5
"""Share of SRAM that tensors may take before they count as being in DRAM; an assumption."""
OUTPUT_BITS = 16
"""Narrowest format in which a site's output is written; an assumption (the next site's format is its own choice)."""
ASSUMPTIONS: tuple[str, ...] = (
    f"a launch takes the longer of compute and memory time, {OVERLAP_LOSS} of the shorter, and a fixed overhead",
    "one launch per site, chunk and batch; operations between the sites (norms, activations, softmax) are not counted",
    "m, n and k are padded to 32 on Tensix and to 16 on NVIDIA; grouped convolutions run as one product a group",
    "weights are read once per chunk for all streams of a batch; from SRAM only where all weights of the model, at 16 "
    f"bits each, take at most {SRAM_SHARE} of it",
    f"activations of a launch are in SRAM where they take at most {SRAM_SHARE} of it, in DRAM otherwise",
    f"a site reads its input in the scheme's activation format and writes at least {OUTPUT_BITS} bits",
    "static scales of fp8 and int8 are applied by the operation before, at no cost; dynamic ones take their own pass",
    "a product runs at the rate of its wider operand: a format of the weights alone saves bytes, not time to compute",
    "fp32 accumulation costs nothing",
    "a bias apart is an operation of its own, which reads and writes the result once more",
    "on Tensix a result is stored in bf16, or in fp32 by a site that reads fp32, and for a reader of its writer's own "
    "format in that one; any other reader takes a typecast for itself: a launch that reads the elements in one format "
    "and writes them in the other at the memory's rate, two for a product of activations, both of which are taken to "
    "lie as the later one does",
    "no typecast is folded into the output type of the operation before, as ttnn allows where all readers want one "
    "format: the emulation does not do it; on NVIDIA the operation before writes any format at no cost",
)

_SPEED = ("fp8", "int8", "bf16", "tf32", "fp32")
_KINDS = {"fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "int8": "int8", "bf16": "bf16", "fp16": "bf16", "tf32": "tf32"}
_KINDS |= {"fp32": "fp32", "mxfp8_e4m3": "fp8", "mxfp8_e5m2": "fp8"}
_SCALED = ("fp8_e4m3", "fp8_e5m2", "int8")


@dataclass(frozen=True, slots=True)
class SiteCost:
    """What one site costs, per second of audio of one stream (times in seconds, so a share of the card)."""

    seconds: float
    compute_seconds: float
    memory_seconds: float
    overhead_seconds: float
    weight_bytes: float
    """Bytes that the weights take on the card, padding included; 0 for a product of two activations."""
    activation_bytes: float
    """Bytes of activations read and written per second of audio of one stream."""
    bound_by: Literal["compute", "memory", "overhead"]


_NOTHING = SiteCost(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, "overhead")


@dataclass(frozen=True, slots=True)
class Gemm:
    """One launch: `count` products of [m, k] by [k, n]. `input_elements` is what is read of the left operands."""

    m: int
    k: int
    n: int
    count: int
    input_elements: float
    has_weights: bool

    @property
    def right_elements(self) -> int:
        """What is read of the right operands where they are activations; 0 where they are weights."""
        return 0 if self.has_weights else self.k * self.n * self.count


def rate_key(device: Device, scheme: Scheme, has_weights: bool = True) -> str:
    """Key of `device.rates_tflops` at which a product under `scheme` runs.

    Raises:
        ValueError: where the scheme names no fidelity on a Tensix card, or the card has no rate for its formats.
    """
    if device.is_tensix:
        if scheme.fidelity is None:
            raise ValueError(f"scheme {scheme.name!r} names no fidelity, {device.name} needs one: lofi ... hifi4")
        return scheme.fidelity
    formats = (scheme.activation, scheme.weight) if has_weights else (scheme.activation,)
    for name in formats:
        if name not in _KINDS or (name.startswith("mx") and device.architecture != "blackwell"):
            raise ValueError(
                f"scheme {scheme.name!r}: {device.name} has no rate for {name!r}; use a format it multiplies"
            )
    kinds = {_KINDS[name] for name in formats}
    key = "bf16" if kinds == {"fp8", "int8"} else max(kinds, key=_SPEED.index)
    if key == "tf32" and key not in device.rates_tflops:
        key = "fp32"
    if key not in device.rates_tflops:
        known = ", ".join(device.rates_tflops)
        raise ValueError(f"scheme {scheme.name!r}: {device.name} has no rate for {key!r}, only {known}")
    return key


@dataclass(frozen=True, slots=True)
class CostModel:
    """Roofline of a card that serves `streams` real-time streams together, in chunks of `chunk_seconds` of audio.

    `site_cost(site, scheme).seconds` at fixed `streams` is what a search minimizes: it adds over sites, and is strictly
    smaller for fewer passes, a faster operand format or fewer stored bits of a weight or an input. What unlike
    neighbours take beside that, `boundary_cost`, adds up too.
    """

    device: Device
    streams: int = 32
    chunk_seconds: float = 0.5
    case: Case = "middle"
    weights_on_chip: bool = False
    fused_quantization: bool = True
    """Whether the operation before writes a statically scaled format itself; otherwise a pass of its own does."""

    def __post_init__(self) -> None:
        """Refuse a batch of no streams and a chunk of no length."""
        if self.streams < 1 or not self.chunk_seconds > 0:
            raise ValueError(f"streams >= 1 and chunk_seconds > 0, got {self.streams} and {self.chunk_seconds}")

    @classmethod
    def of(
        cls,
        device: Device,
        sites: Iterable[Site],
        streams: int = 32,
        chunk_seconds: float = 0.5,
        case: Case = "middle",
    ) -> "CostModel":
        """A model for a card and all sites of a voice model, which decide whether weights stay in SRAM."""
        weight_bytes = sum(site.weight_elements for site in sites) * OUTPUT_BITS / 8
        fits = weight_bytes <= SRAM_SHARE * device.sram_mb.low * 1e6
        return cls(device, streams=streams, chunk_seconds=chunk_seconds, case=case, weights_on_chip=fits)

    def with_streams(self, streams: int) -> "CostModel":
        """The same model with another batch."""
        return replace(self, streams=streams)

    def gemm_of(self, site: Site) -> Gemm:
        """The launch that serves one chunk of all streams: weights are shared by the streams, activations are not."""
        rows = site.rows_per_second * self.chunk_seconds
        has_weights = site.weight_elements > 0
        if has_weights:
            m, count = math.ceil(rows * self.streams - 1e-9), site.groups
        else:
            m, count = math.ceil(rows - 1e-9), site.groups * self.streams
        m = max(m, 1)
        return Gemm(m, site.k, site.n, count, m * _channels(site) * count, has_weights)

    def site_cost(self, site: Site, scheme: Scheme) -> SiteCost:
        """Cost of a site under a scheme; ValueError where the card has no rate for the scheme's formats."""
        return self._a_second(self.gemm_cost(self.gemm_of(site), scheme))

    def boundary_cost(self, site: Site, before: Scheme, scheme: Scheme) -> SiteCost:
        """Cost of making the input of a site anew where the site that feeds it stores another format: a typecast.

        Args:
            site: The site that reads.
            before: Scheme of the site that feeds it, `site.fed_by`.
            scheme: Scheme of the reader.

        Returns:
            Seconds and bytes per second of audio of one stream, in no weights and no products; zeros where nothing
            needs converting, on NVIDIA always: a format that takes a pass of its own there has it in `site_cost`.

        Raises:
            ValueError: where a format is unknown.
        """
        stored = _stored(before)
        if not self.device.is_tensix or scheme.activation in (before.activation, stored):
            return _NOTHING
        gemm = self.gemm_of(site)
        operands = [gemm.input_elements] if gemm.has_weights else [gemm.input_elements, gemm.right_elements]
        moved_bits = stored_bits(stored) + stored_bits(scheme.activation)
        passes = [elements * moved_bits / 8 for elements in operands]
        memory = math.fsum(map(self._pass_seconds, passes))
        overhead = len(passes) * self.device.overhead_us.as_cost(self.case) * 1e-6
        bound_by: Literal["memory", "overhead"] = "memory" if memory > overhead else "overhead"
        return self._a_second(SiteCost(memory + overhead, 0.0, memory, overhead, 0.0, sum(passes), bound_by))

    def typecasts(self, sites: Iterable[Site], policy: Mapping[str, Scheme]) -> dict[str, SiteCost]:
        """Cost of every boundary that has one, by the site that reads, in the order of `sites`.

        Raises:
            KeyError: where a site, or what feeds it, has no scheme.
        """
        schemes = dict(policy.items())
        boundaries = {
            site.name: self.boundary_cost(site, schemes[site.fed_by], schemes[site.name])
            for site in sites
            if site.fed_by is not None
        }
        return {reader: cost for reader, cost in boundaries.items() if cost.seconds > 0}

    def policy_seconds(self, sites: Sequence[Site], policy: Mapping[str, Scheme]) -> float:
        """Seconds of the card per second of audio of one stream, boundaries included.

        Raises:
            KeyError: where a site, or what feeds it, has no scheme.
            ValueError: where the card has no rate for a scheme's formats.
        """
        schemes = dict(policy.items())
        alone = [self.site_cost(site, schemes[site.name]).seconds for site in sites]
        return math.fsum([*alone, *(cost.seconds for cost in self.typecasts(sites, schemes).values())])

    def _a_second(self, launch: SiteCost) -> SiteCost:
        """A launch's cost, per second of audio of one stream."""
        share = 1 / (self.chunk_seconds * self.streams)
        return replace(
            launch,
            seconds=launch.seconds * share,
            compute_seconds=launch.compute_seconds * share,
            memory_seconds=launch.memory_seconds * share,
            overhead_seconds=launch.overhead_seconds * share,
            activation_bytes=launch.activation_bytes * share,
        )

    def gemm_cost(self, gemm: Gemm, scheme: Scheme) -> SiteCost:
        """Cost of one launch: times in seconds, bytes in all."""
        device, case = self.device, self.case
        k, n, m = (_padded(extent, device.tile) for extent in (gemm.k, gemm.n, gemm.m))
        rate = device.rates_tflops[rate_key(device, scheme, gemm.has_weights)].as_gain(case) * 1e12
        compute = 2 * m * k * n * gemm.count / (rate * device.gemm_efficiency.as_gain(case))

        activation_bits = stored_bits(scheme.activation)
        weight_bytes = k * n * gemm.count * stored_bits(scheme.weight) / 8 if gemm.has_weights else 0.0
        read_elements = gemm.input_elements + gemm.right_elements
        read_bytes = read_elements * activation_bits / 8
        written_bytes = gemm.m * gemm.n * gemm.count * max(OUTPUT_BITS, activation_bits) / 8
        launches = 1
        scaled = scheme.activation in _SCALED
        if scaled and not (self.fused_quantization and scheme.activation_scale == "static"):
            launches = 2
            read_bytes += read_elements * (OUTPUT_BITS + activation_bits) / 8
        passes = [read_bytes + written_bytes]
        if scheme.bias_apart:
            launches += 1
            passes.append(2 * written_bytes)
        activation_bytes = sum(passes)

        memory = sum(map(self._pass_seconds, passes))
        memory += weight_bytes / (self._sram_bytes_per_s if self.weights_on_chip else self._dram_bytes_per_s)

        overhead = launches * device.overhead_us.as_cost(case) * 1e-6
        seconds = max(compute, memory) + OVERLAP_LOSS * min(compute, memory) + overhead
        longest = max(compute, memory, overhead)
        bound_by: Literal["compute", "memory", "overhead"] = "overhead"
        if longest > overhead:
            bound_by = "compute" if compute >= memory else "memory"
        return SiteCost(seconds, compute, memory, overhead, weight_bytes, activation_bytes, bound_by)

    @property
    def _dram_bytes_per_s(self) -> float:
        device, case = self.device, self.case
        return device.memory_gb_per_s.as_gain(case) * 1e9 * device.memory_efficiency.as_gain(case)

    @property
    def _sram_bytes_per_s(self) -> float:
        return self.device.sram_gb_per_s.as_gain(self.case) * 1e9

    def _pass_seconds(self, moved_bytes: float) -> float:
        """Seconds that one launch moves its activations for: in SRAM where they leave room there, else in DRAM."""
        held = SRAM_SHARE * self.device.sram_mb.as_gain(self.case) * 1e6
        return moved_bytes / (self._sram_bytes_per_s if moved_bytes <= held else self._dram_bytes_per_s)


def _stored(scheme: Scheme) -> str:
    """Format in which a site on Tensix stores its result for readers of any format (as its emulation does)."""
    return "fp32" if scheme.activation == "fp32" else "bf16"


def _padded(extent: int, tile: int) -> int:
    return -(-extent // tile) * tile


def _channels(site: Site) -> int:
    """Elements of input a row needs anew: the channels, where k counts each of them once a tap of the kernel."""
    if site.op in ("conv1d", "conv2d") and len(site.weight_shape) > 1:
        return min(site.k, site.weight_shape[1])
    if site.op == "conv_transpose1d" and site.weight_shape:
        return min(site.k, max(1, site.weight_shape[0] // site.groups))
    return site.k
