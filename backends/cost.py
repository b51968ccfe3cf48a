"""CostModel: what one site takes under one scheme on one card, and what unlike neighbours take beside.

Where NVIDIA measured products of the card, or the user did, those are taken; else the roofline of its figures.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from backends import gemm_timing
from backends.devices import Case, Device
from backends.evidence import Evidence as Evidence
from backends.gemm import OUTPUT_BITS, SCALED, rate_key
from backends.gemm import Gemm as Gemm
from backends.gemm_timing import Timing, launch_timing, own_timing
from precision.blocks import stored_bits
from precision.policy import Scheme
from precision.site import Site

OVERLAP_LOSS = 0.1
"""Share of the shorter of compute and memory time that the longer one does not hide; an assumption."""
SRAM_SHARE = 0.5
"""Share of SRAM that tensors may take before they count as being in DRAM; an assumption."""
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
    "on Tensix each core makes a block of the result, and what it lacks of an operand comes over the network from the "
    "cores that hold it: one operand whole to all, or rows and columns of both, whichever is less; of this and the way "
    f"from memory the longer hides all but {OVERLAP_LOSS} of the shorter",
    "on Tensix a result is stored in bf16, or in fp32 by a site that reads fp32, and for a reader of its writer's own "
    "format in that one; any other reader takes a typecast for itself: a launch that reads the elements in one format "
    "and writes them in the other at the memory's rate, two for a product of activations, both of which are taken to "
    "lie as the later one does",
    "no typecast is folded into the output type of the operation before, as ttnn allows where all readers want one "
    "format: the emulation does not do it; on NVIDIA the operation before writes any format at no cost",
    *gemm_timing.ASSUMPTIONS,
)


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
    evidence: Evidence = "roofline"
    """What the seconds rest on. The parts are those of the roofline, none of them longer than the whole."""


BF16 = Scheme("bf16", "bf16", "bf16")
_NOTHING = SiteCost(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, "overhead")


@dataclass(frozen=True, slots=True)
class CostModel:
    """A card that serves `streams` real-time streams together, in chunks of `chunk_seconds` of audio.

    `site_cost(site, scheme).seconds` at fixed `streams` is what a search minimizes: it adds over sites, and by the
    roofline is strictly smaller for fewer passes, a faster operand format or fewer stored bits of a weight or an input.
    Where products were measured, FP8 of a static scale is never dearer than bf16; FP8 that finds its own scale may be.
    What unlike neighbours take beside that, `boundary_cost`, adds up too.
    """

    device: Device
    streams: int = 32
    chunk_seconds: float = 0.5
    case: Case = "middle"
    weights_on_chip: bool = False
    fused_quantization: bool = True
    """Whether the operation before writes a statically scaled format itself; otherwise a pass of its own does."""
    tables: bool = True
    """Whether measured products go before the roofline."""

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
        tables: bool = True,
    ) -> "CostModel":
        """A model for a card and all sites of a voice model, which decide whether weights stay in SRAM."""
        weight_bytes = sum(site.weight_elements for site in sites) * OUTPUT_BITS / 8
        fits = weight_bytes <= SRAM_SHARE * device.sram_mb.low * 1e6
        return cls(device, streams=streams, chunk_seconds=chunk_seconds, case=case, weights_on_chip=fits, tables=tables)

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
        roof = self._roofline(gemm, scheme)
        timing = self._timing(gemm, scheme)
        if timing is None:
            return roof
        seconds = timing.seconds * {"low": 1 - timing.error, "middle": 1.0, "high": 1 + timing.error}[self.case]
        parts = {f"{name}_seconds": getattr(roof, f"{name}_seconds") for name in ("compute", "memory", "overhead")}
        shorter = {name: min(part, seconds) for name, part in parts.items()}
        return replace(roof, seconds=seconds, evidence=timing.evidence, **shorter)

    def _timing(self, gemm: Gemm, scheme: Scheme) -> Timing | None:
        """What a launch takes by what was measured of the card; None where nothing was."""
        if self.device.is_tensix:
            return None
        rate, chip = rate_key(self.device, scheme, gemm.has_weights), self.weights_on_chip
        dynamic = rate == "fp8" and scheme.activation_scale == "dynamic"
        timing = None
        if self.tables and self.device.own is not None:
            timing = own_timing(self.device.own, gemm, scheme, dynamic=dynamic, weights_on_chip=chip)
        if timing is None and self.tables:
            timing = launch_timing(self.device.name, gemm, scheme, rate, dynamic=dynamic, weights_on_chip=chip)
        if timing is not None:
            return self._with_passes(timing, gemm, scheme, quantized=dynamic)
        if not self.tables or scheme == BF16:
            return None
        # A rate that nobody measured stands to bf16 as the roofline has it, or it would look faster than what was.
        as_bf16 = self._timing(gemm, BF16)
        if as_bf16 is None:
            return None
        middle = replace(self, case="middle")
        share = middle._roofline(gemm, scheme).seconds / middle._roofline(gemm, BF16).seconds
        return Timing(as_bf16.seconds * share, "roofline", as_bf16.error)

    def _with_passes(self, timing: Timing, gemm: Gemm, scheme: Scheme, quantized: bool) -> Timing:
        """A product with the passes beside it: the activation's quantization where it is not in there, and a bias."""
        passes = [] if quantized else self._quantizing_bytes(gemm, scheme)
        passes += [2 * _written_bytes(gemm, scheme)] if scheme.bias_apart else []
        if not passes:
            return timing
        beside = sum(map(self._pass_seconds, passes)) + len(passes) * self.device.overhead_us.as_cost(self.case) * 1e-6
        return Timing(timing.seconds + beside, "roofline", timing.error)

    def _roofline(self, gemm: Gemm, scheme: Scheme) -> SiteCost:
        """Cost of one launch by the card's figures alone."""
        device, case = self.device, self.case
        k, n, m = (_padded(extent, device.tile) for extent in (gemm.k, gemm.n, gemm.m))
        rate = device.rates_tflops[rate_key(device, scheme, gemm.has_weights)].as_gain(case) * 1e12
        compute = 2 * m * k * n * gemm.count / (rate * device.gemm_efficiency.as_gain(case))

        activation_bits = stored_bits(scheme.activation)
        weight_bytes = k * n * gemm.count * stored_bits(scheme.weight) / 8 if gemm.has_weights else 0.0
        read_bytes = (gemm.input_elements + gemm.right_elements) * activation_bits / 8
        written_bytes = _written_bytes(gemm, scheme)
        quantizing = self._quantizing_bytes(gemm, scheme)
        passes = [read_bytes + sum(quantizing) + written_bytes]
        if scheme.bias_apart:
            passes.append(2 * written_bytes)
        launches = len(passes) + len(quantizing)
        activation_bytes = sum(passes)

        memory = sum(map(self._pass_seconds, passes))
        memory += weight_bytes / (self._sram_bytes_per_s if self.weights_on_chip else self._dram_bytes_per_s)
        network = self._network_seconds(gemm, scheme)
        memory = max(memory, network) + OVERLAP_LOSS * min(memory, network)

        overhead = launches * device.overhead_us.as_cost(case) * 1e-6
        seconds = max(compute, memory) + OVERLAP_LOSS * min(compute, memory) + overhead
        longest = max(compute, memory, overhead)
        bound_by: Literal["compute", "memory", "overhead"] = "overhead"
        if longest > overhead:
            bound_by = "compute" if compute >= memory else "memory"
        return SiteCost(seconds, compute, memory, overhead, weight_bytes, activation_bytes, bound_by)

    def _network_seconds(self, gemm: Gemm, scheme: Scheme) -> float:
        """Seconds in which the cores of a Tensix card get what other cores hold of a product's operands.

        Each of a grid of cores makes a block of the result: it holds its part of one operand, or of both, and the rest
        of its rows and columns come over the network. Of the three ways to cut, the one that moves least is taken.
        """
        device, case = self.device, self.case
        if device.noc_gb_per_s is None or device.cores is None:
            return 0.0
        cores = max(1.0, device.cores.as_gain(case) / gemm.count)
        side = math.sqrt(cores)
        right_bits = stored_bits(scheme.weight if gemm.has_weights else scheme.activation)
        left = gemm.input_elements / gemm.count * stored_bits(scheme.activation) / 8
        right = gemm.k * gemm.n * right_bits / 8
        whole = min(left, right, (left + right) / side)
        return whole * (1 - 1 / cores) / (device.noc_gb_per_s.as_gain(case) * 1e9)

    def _quantizing_bytes(self, gemm: Gemm, scheme: Scheme) -> list[float]:
        """Bytes of the pass that scales the activation; none where the operation before does."""
        if scheme.activation not in SCALED or (self.fused_quantization and scheme.activation_scale == "static"):
            return []
        return [(gemm.input_elements + gemm.right_elements) * (OUTPUT_BITS + stored_bits(scheme.activation)) / 8]

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


def _written_bytes(gemm: Gemm, scheme: Scheme) -> float:
    return gemm.m * gemm.n * gemm.count * max(OUTPUT_BITS, stored_bits(scheme.activation)) / 8


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
