"""KV cache in FP8 or 16 bits: what a step of the decoder remembers, stored in place and read by attention.

Keys and values are written once, as codes beside a scale, and widened a layer at a time where attention reads them; the
GEMM path has no product of two activations in FP8, so that is what the cache's format saves: memory, half of it against
bf16, and the more streams on a card.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from backends.base import Arithmetic, Prepared
from backends.hopper.kv_storage import CacheFormat, Stored, rounded, scale_of
from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.policy import Scheme
from voice.codec_decoder import Past
from voice.decoder import SpeechDecoder
from voice.decoder_step import Step
from voice.site_call import SiteCall
from voice.transformer import Attention, Cache, Places


@dataclass(frozen=True, slots=True)
class CacheBytes:
    """What the cache of one stream takes."""

    stored: int
    """Keys, values and scales of all layers."""
    in_bf16: int
    """The same keys and values in bf16."""
    a_row: int
    """Keys and values of one row of 80 ms, in all layers: what a step writes."""
    read_a_step: int
    """Keys and values that a step reads: all that there is room for, since its shapes do not change."""


def attention_sites(decoder: SpeechDecoder) -> dict[str, tuple[str, str]]:
    """Names of the products that read keys and values, by the path of their attention, in the order of layers."""
    paths = [path for path, module in decoder.named_modules() if isinstance(module, Attention)]
    return {path: (f"{path}#qk", f"{path}#pv") for path in paths}


def calibrated_scales(decoder: SpeechDecoder, calibration: Calibration, fmt: str) -> dict[str, Tensor]:
    """Scale [1, 1, 1] of what each product of attention reads, by its site: keys at `#qk`, values at `#pv`.

    Raises:
        UncalibratedSiteError: the right operand of a product was never measured.
    """
    sites = [site for pair in attention_sites(decoder).values() for site in pair]
    return {site: scale_of(torch.tensor(calibration.amax(site, "right")), fmt).view(1, 1, 1) for site in sites}


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """The cache of one layer at one position; fulfils `voice.transformer.Rows`."""

    keys: Stored
    values: Stored
    position: Tensor

    def with_row(self, keys: Tensor, values: Tensor, places: Places) -> Cache:
        """See `Rows.with_row`; writes in place, and gives what is stored."""
        self.keys.write(keys, self.position)
        self.values.write(values, self.position)
        return Cache(self.keys.read(), self.values.read())


class CachedStep:
    """A step of the decoder that keeps its states in place, keys and values in a format of their own.

    Fulfils `gemm_graph.InPlaceStep`: in `GemmEngine.running()` its sites compute under the policy, and
    `GemmEngine.graph` captures it.
    """

    def __init__(self, decoder: SpeechDecoder, form: CacheFormat, scales: Mapping[str, Tensor] | None = None) -> None:
        """Start a stream, on the device of the decoder's weights.

        Args:
            decoder: that of the engine: `engine.module`.
            form: how keys and values are stored.
            scales: by site, as `calibrated_scales` gives them; None takes those of the first row.
        """
        config = decoder.config
        device = next(decoder.parameters()).device
        shape = (config.kv_heads, config.max_rows, config.head_size)
        self.form = form
        self.parts = Step(decoder).parts
        """What the results are."""
        self._step = Step(decoder)
        self._layers = [
            tuple(Stored(shape, form, None if scales is None else scales[site], device) for site in sites)
            for sites in attention_sites(decoder).values()
        ]
        self._past = [torch.zeros(kept, device=device) for kept in decoder.codec.states().values()]

    def __call__(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        """Read one row: `text` [1], `codes` [codebooks] and `position` [1], as `Step.forward`; gives `parts`."""
        position = inputs["position"]
        past = Past(self._past)
        with torch.no_grad():
            caches = [_Row(keys, values, position) for keys, values in self._layers]
            parts, _ = self._step.read(inputs["text"], inputs["codes"], position, caches, past)
            for kept, new in zip(self._past, past.new, strict=True):
                kept.copy_(new)
        return parts

    def states(self) -> list[Tensor]:
        """All that it writes to."""
        kept = [tensor for pair in self._layers for stored in pair for tensor in stored.tensors()]
        return [*kept, *self._past]

    def reset(self) -> None:
        """Begin another stream in the same memory."""
        for stored in (stored for pair in self._layers for stored in pair):
            stored.reset()
        for kept in self._past:
            kept.zero_()

    def bytes(self) -> CacheBytes:
        """What this stream's keys and values take; the codec's states are not among them."""
        stored = [stored for pair in self._layers for stored in pair]
        codes = sum(part.codes.nbytes for part in stored)
        scales = sum(part.scale.nbytes for part in stored if part.scale is not None)
        elements = sum(part.codes.numel() for part in stored)
        return CacheBytes(codes + scales, 2 * elements, codes // stored[0].codes.shape[1], codes)


@dataclass(frozen=True, slots=True, eq=False)
class RoundedCache:
    """An arithmetic whose products of attention read keys and values as a cache has them; fulfils `Arithmetic`.

    So what a cache's format does to a model can be heard and searched before any card has it.
    """

    arithmetic: Arithmetic
    form: CacheFormat
    scales: Mapping[str, Tensor]
    """By site, as `calibrated_scales` gives them; of a wide format the sites alone count."""

    @property
    def name(self) -> str:
        """See `Arithmetic.name`."""
        return f"{self.arithmetic.name}, KV cache in {self.form.format}"

    def prepare(self, call: SiteCall, scheme: Scheme, moments: Moments | None = None) -> Prepared:
        """See `Arithmetic.prepare`."""
        return self.arithmetic.prepare(call, scheme, moments)

    def compute(self, call: SiteCall, scheme: Scheme, prepared: Prepared, calibration: Calibration | None) -> Tensor:
        """See `Arithmetic.compute`."""
        scale = self.scales.get(call.site)
        if scale is not None:
            call = replace(call, weight=rounded(call.weight, self.form, scale))
        return self.arithmetic.compute(call, scheme, prepared, calibration)
