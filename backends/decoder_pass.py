"""DecoderCost: what one pass of an autoregressive speech decoder takes of a card, for a batch of streams.

Products of weights are those of `CostModel`: measured where NVIDIA measured the card, else the roofline.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from backends.cost import OVERLAP_LOSS, CostModel
from backends.devices import Case, Device
from backends.evidence import Evidence, evidence_shares
from backends.gemm import Gemm, rate_key
from precision.blocks import stored_bits
from precision.policy import Scheme
from precision.site import Site
from voice.decoder_config import FRAMES_A_SECOND, DecoderConfig

FRAME_SECONDS = 1 / FRAMES_A_SECOND
LAYER_LAUNCHES: Mapping[Case, int] = {"low": 2, "middle": 4, "high": 6}
"""Of what lies between the products of a layer: two norms with residual sum and quantization; then rotary positions
with the cache's new row, and SwiGLU; then quantizations of their own. An assumption."""
PASS_LAUNCHES: Mapping[Case, int] = {"low": 2, "middle": 4, "high": 8}
"""Beside the layers: embeddings, the last norm, sampling of every head. An assumption."""
CODEC_LAUNCHES: Mapping[Case, int] = {"low": 0, "middle": 1, "high": 2}
"""Behind each product of the codec: what it kept before is joined, and the nonlinearity. An assumption."""
OTHER_BYTES = 2
"""Of a weight that no site multiplies: embeddings, norms, biases."""
_HEADS = "heads"
_FUSED = {"query": "qkv", "key": "qkv", "value": "qkv", "gate": "gate_up", "up": "gate_up"}

ASSUMPTIONS: tuple[str, ...] = (
    "a pass is one CUDA graph, or one trace: launches in a row, each with the card's fixed overhead; query, key and"
    " value are one product where they take one scheme, gate and up one, all heads one",
    "a product of weights takes what the cost model has of it, weights from DRAM; at the high end FP8 takes no less"
    " than with the quantization that a static scale leaves to the operation before",
    "attention is one fused launch a layer that reads the keys and values of every stream once, in the format of the"
    " scheme's activation at the product that reads them, rows of a head padded to 16; scores stay on chip",
    f"operations between products take {LAYER_LAUNCHES['low']}, {LAYER_LAUNCHES['middle']} or {LAYER_LAUNCHES['high']}"
    f" launches a layer and {PASS_LAUNCHES['low']}, {PASS_LAUNCHES['middle']} or {PASS_LAUNCHES['high']} a pass, each"
    f" reading and writing the rows once on chip; of the codec {CODEC_LAUNCHES['low']}, {CODEC_LAUNCHES['middle']} or"
    f" {CODEC_LAUNCHES['high']} a product",
    "embeddings, norms and biases are stored in 16 bits; typecasts between unlike neighbours are not counted",
)


@dataclass(frozen=True, slots=True)
class PassCost:
    """Seconds of one pass, by its parts."""

    layers: float
    """Products of weights in the transformer's layers."""
    attention: float
    heads: float
    between: float
    """What lies between products."""
    codec: float
    evidence: Mapping[Evidence, float] = field(default_factory=dict)
    """Shares of all of it by what they rest on; attention and what lies between products rest on the roofline."""

    @property
    def transformer(self) -> float:
        """All but the codec."""
        return self.layers + self.attention + self.heads + self.between

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.transformer + self.codec


@dataclass(frozen=True, slots=True)
class _Launch:
    """A product of weights, or several that read the same."""

    is_head: bool
    k: int
    columns: int
    scheme: Scheme


@dataclass(frozen=True, eq=False)
class DecoderCost:
    """A decoder on a card, each site under its scheme."""

    device: Device
    config: DecoderConfig
    sites: tuple[Site, ...]
    """Of a step, as `voice.decoder_sites.step_discovery` finds them; attention counts by the configuration."""
    policy: Mapping[str, Scheme]
    """Scheme of every site, products of attention among them."""
    parameters: int
    """Weights of the whole model."""
    case: Case = "middle"
    measured: bool = True
    """Whether measured products go before the roofline."""
    _codecs: dict[int, list[tuple[Evidence, float]]] = field(default_factory=dict, init=False, repr=False)
    _timed: dict[tuple[int, int, int, Scheme], tuple[Evidence, float]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        """Refuse a policy that leaves sites out."""
        missing = [site.name for site in self.sites if site.name not in self.policy]
        if missing:
            raise ValueError(f"every site needs a scheme; none for {', '.join(missing[:4])} ({len(missing)} sites)")

    def pass_cost(self, streams: int, context: int, rows: int = 1, *, answers: int | None = None) -> PassCost:
        """Cost of a pass that reads some rows of every stream.

        Args:
            streams: that share the pass, 1 and up.
            context: rows of keys and values that each row looks at, the mean over streams.
            rows: of each stream: 1 of a step, more of a prompt or where drafted rows are checked.
            answers: rows of each stream that go through the heads; all of them where None.
        """
        parts: dict[str, list[tuple[Evidence, float]]] = {"layers": [], "heads": [], "codec": []}
        for launch in self._launches:
            if launch.is_head:
                m = streams * (rows if answers is None else answers)
                parts["heads"].append(self._product(m, launch.k, launch.columns, launch.scheme))
            else:
                parts["layers"].append(self._product(streams * rows, launch.k, launch.columns, launch.scheme))
        parts["codec"] = self._codec(streams * rows)
        attention, between = self._attention_seconds(streams, context, rows), self._between_seconds(streams * rows)
        everything = [*itertools.chain(*parts.values()), ("roofline", attention), ("roofline", between)]
        sums = {name: math.fsum(seconds for _, seconds in found) for name, found in parts.items()}
        return PassCost(sums["layers"], attention, sums["heads"], between, sums["codec"], evidence_shares(everything))

    def product_seconds(self, m: int, k: int, n: int, scheme: Scheme) -> float:
        """Seconds of [m, k] by weights [k, n]; ValueError where the card has no rate for the scheme."""
        return self._product(m, k, n, scheme)[1]

    def _product(self, m: int, k: int, n: int, scheme: Scheme) -> tuple[Evidence, float]:
        key = (m, k, n, scheme)
        if key not in self._timed:
            model, gemm = self._model(m), Gemm(m, k, n, 1, m * k, True)
            cost = model.gemm_cost(gemm, scheme)
            seconds = cost.seconds
            if self.case == "high" and rate_key(self.device, scheme) == "fp8" and cost.evidence != "roofline":
                whole = model.gemm_cost(gemm, replace(scheme, activation_scale="dynamic"))
                seconds = max(seconds, whole.seconds)
            self._timed[key] = (cost.evidence, seconds)
        return self._timed[key]

    def _codec(self, rows: int) -> list[tuple[Evidence, float]]:
        if rows not in self._codecs:
            model, beside = self._model(rows), CODEC_LAUNCHES[self.case] * self._overhead
            sites = [site for site in self.sites if _in_codec(site)]
            costs = [model.gemm_cost(model.gemm_of(site), self._of(site)) for site in sites]
            self._codecs[rows] = [(cost.evidence, cost.seconds) for cost in costs] + [("roofline", beside)] * len(sites)
        return self._codecs[rows]

    def _model(self, streams: int) -> CostModel:
        return CostModel(
            self.device,
            streams=streams,
            chunk_seconds=FRAME_SECONDS,
            case=self.case,
            tables=self.measured,
        )

    @property
    def weight_bytes(self) -> float:
        """Bytes of the whole model."""
        stored = sum(site.weight_elements * stored_bits(self._of(site).weight) / 8 for site in self.sites)
        return stored + OTHER_BYTES * max(0, self.parameters - sum(site.weight_elements for site in self.sites))

    @cached_property
    def row_bytes(self) -> float:
        """Bytes that keys and values of one row of a stream take, in all layers."""
        config = self.config
        bits = [stored_bits(scheme.activation) for scheme in self._attention]
        return math.fsum(config.kv_heads * config.head_size * each / 8 for each in bits)

    @cached_property
    def weight_macs(self) -> float:
        """Multiply-accumulates with weights of one row, codec and heads included."""
        return sum(site.macs_per_second for site in self.sites if site.weight_elements) * FRAME_SECONDS

    def live_bytes(self, rows: int) -> float:
        """Bytes of activations that a pass of so many rows holds at its widest, in 16 bits and logits in 32."""
        widest = max((launch.columns for launch in self._launches if not launch.is_head), default=0)
        logits = sum(launch.columns for launch in self._launches if launch.is_head)
        return rows * (2.0 * (widest + 4 * self.config.width) + 4.0 * logits)

    def _attention_seconds(self, streams: int, context: int, rows: int) -> float:
        config, tile = self.config, 16
        sharing = config.heads // config.kv_heads
        padded = math.ceil(rows * sharing / tile) * tile
        # Keys and values are read, and each row of queries comes and goes.
        moved = streams * (context * self.row_bytes + rows * config.layers * config.heads * config.head_size * 2 * 2)
        memory = moved / self._dram_bytes_per_s
        compute = 0.0
        for scheme in self._attention:
            rate = self.device.rates_tflops[rate_key(self.device, scheme, has_weights=False)].as_gain(self.case) * 1e12
            operations = 2.0 * streams * config.kv_heads * padded * context * config.head_size
            compute += operations / (rate * self.device.gemm_efficiency.as_gain(self.case))
        return max(memory, compute) + OVERLAP_LOSS * min(memory, compute) + config.layers * self._overhead

    def _between_seconds(self, rows: int) -> float:
        launches = self.config.layers * LAYER_LAUNCHES[self.case] + PASS_LAUNCHES[self.case]
        moved = 2 * 2.0 * rows * self.config.width
        return launches * (self._overhead + moved / (self.device.sram_gb_per_s.as_gain(self.case) * 1e9))

    @cached_property
    def _launches(self) -> tuple["_Launch", ...]:
        """Products of weights outside the codec, those that are one launch together."""
        columns: dict[tuple[str, int, Scheme], int] = {}
        for site in self.sites:
            if site.weight_elements and not _in_codec(site):
                key = (_launch_name(site), site.k, self._of(site))
                columns[key] = columns.get(key, 0) + site.n
        return tuple(_Launch(name == _HEADS, k, width, scheme) for (name, k, scheme), width in columns.items())

    @cached_property
    def _attention(self) -> tuple[Scheme, ...]:
        """Schemes of the products that read keys and values, two a layer."""
        return tuple(self._of(site) for site in self.sites if not (site.weight_elements or _in_codec(site)))

    def _of(self, site: Site) -> Scheme:
        return self.policy[site.name]

    @property
    def _overhead(self) -> float:
        return self.device.overhead_us.as_cost(self.case) * 1e-6

    @property
    def _dram_bytes_per_s(self) -> float:
        device, case = self.device, self.case
        return device.memory_gb_per_s.as_gain(case) * 1e9 * device.memory_efficiency.as_gain(case)


def _launch_name(site: Site) -> str:
    module, _, part = site.name.rpartition(".")
    if site.name == "text_head" or module == "audio_heads":
        return _HEADS
    return f"{module}.{_FUSED[part]}" if part in _FUSED else site.name


def _in_codec(site: Site) -> bool:
    return site.name.startswith("codec.")
