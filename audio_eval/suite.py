"""Suite: the table of all metrics, cheap to dear, and scoring a clip with several at once."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from audio_eval import cepstra, frames, free_running, guards, perceptual, phase, pitch, spectra, stoi, tokens, visqol
from audio_eval.clip import Clip, Samples, UndefinedScore, as_clip
from audio_eval.output import Output, as_output, kind_of


@dataclass(frozen=True, slots=True)
class Material:
    """What there is of clips that are to be judged."""

    sample_rate_hz: int
    has_natural: bool
    """Whether every clip has a natural recording beside it."""
    has_sound: bool = True
    heads: tuple[str, ...] = ()
    """Names of the model's token heads."""
    free: bool = False
    """Whether nothing was forced on the model."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of the suite."""

    name: str
    function: Callable[..., float]
    unit: str
    better: Literal["higher", "lower"]
    needs_natural: bool = False
    additive: bool = False
    """Over sites whose errors are independent its square adds; where it is a power, it adds itself."""
    power: bool = False
    """Grows as the square of a small error, as a divergence does."""
    dear: bool = False
    """Costs about as much as all the cheap ones together: judged by itself, and only once those are kept."""
    above_hz: int = 0
    """Defined at sample rates above this only: of a band, those at which it has a bin below 0.92 of Nyquist."""
    heads: str = ""
    """Judged on the logits of heads of this kind, `text` or `audio`, and not on sound."""
    free: bool = False
    """Judged on renders with nothing forced on the model, whose lengths may differ; and on no others."""
    missing: Callable[[], str | None] | None = None
    """Says what is not installed that the metric needs, and how to get it."""

    def amplitude(self, value: float) -> float:
        """The value on the scale on which a search adds squares."""
        return math.sqrt(value) if self.power else value

    def of_amplitude(self, amplitude: float) -> float:
        """The value that has this amplitude."""
        return amplitude**2 if self.power else amplitude

    def misfit(self, material: Material) -> str | None:
        """Why the metric is for models or renders of another kind, or None where it is for this kind."""
        if self.free != material.free:
            return f"hears renders with {'nothing' if self.free else 'durations and tokens'} forced"
        if self.heads:
            named = any(kind_of(head) == self.heads for head in material.heads)
            return None if named else f"the model has no {self.heads} tokens"
        return None if material.has_sound else "the model makes no sound"

    def inapplicable(self, material: Material) -> str | None:
        """Why the metric says nothing about such clips, or None where it applies."""
        if (other := self.misfit(material)) is not None:
            return other
        if self.heads:
            return None
        if material.sample_rate_hz <= self.above_hz:
            return f"needs a sample rate above {self.above_hz} Hz, the clips have {material.sample_rate_hz} Hz"
        if self.needs_natural and not material.has_natural:
            return "needs the natural recording of every clip"
        return self.missing() if self.missing is not None else None


def _of_tokens(kind: str) -> tuple[Metric, ...]:
    return (
        Metric(f"{kind}_agreement", tokens.token_agreement, "share", "higher", heads=kind),
        Metric(f"{kind}_kl_nats", tokens.kl_nats, "nats a step", "lower", heads=kind, additive=True, power=True),
        Metric(f"{kind}_worst_kl_nats", tokens.worst_kl_nats, "nats", "lower", heads=kind),
    )


_TABLE = (
    *_of_tokens("text"),
    *_of_tokens("audio"),
    Metric("duration_change", free_running.duration_change, "share", "lower", free=True),
    Metric("f0_mean_cents", free_running.f0_mean_cents, "cents", "lower", free=True),
    Metric("f0_spread_cents", free_running.f0_spread_cents, "cents", "lower", free=True),
    Metric("voiced_share_change", free_running.voiced_share_change, "share", "lower", free=True),
    Metric("dtw_mcd_db", free_running.dtw_mcd_db, "dB", "lower", free=True),
    Metric("finite", guards.finite, "share", "higher"),
    Metric("length_samples", guards.length_samples, "samples", "lower"),
    Metric("clipping", guards.clipping, "share", "lower"),
    Metric("dc", guards.dc, "full scale", "lower"),
    Metric("gain_db", guards.gain_db, "dB", "lower"),
    Metric("gain_drift_db", guards.gain_drift_db, "dB", "lower"),
    Metric("polarity", guards.polarity, "sign", "higher"),
    Metric("pause_excess_db", frames.pause_excess_db, "dB", "lower"),
    Metric("lag_samples", guards.lag_samples, "samples", "lower"),
    Metric("worst_lsd_db", frames.worst_lsd_db, "dB", "lower"),
    Metric("fricative_db", frames.fricative_db, "dB", "lower"),
    Metric("lsd_db", spectra.lsd_db, "dB", "lower", additive=True),
    Metric("lsd_low_db", spectra.lsd_low_db, "dB", "lower", additive=True),
    Metric("lsd_mid_db", spectra.lsd_mid_db, "dB", "lower", additive=True, above_hz=8696),
    Metric("lsd_high_db", spectra.lsd_high_db, "dB", "lower", additive=True, above_hz=17392),
    Metric("top_rise_db", spectra.top_rise_db, "dB", "lower"),
    Metric("log_mel_l1", spectra.log_mel_l1, "neper", "lower", additive=True),
    Metric("mcd_db", cepstra.mcd_db, "dB", "lower"),
    Metric("group_delay_rad", phase.group_delay_rad, "rad", "lower", additive=True),
    Metric("instantaneous_frequency_rad", phase.instantaneous_frequency_rad, "rad", "lower", additive=True),
    Metric("worst_instantaneous_frequency_rad", phase.worst_instantaneous_frequency_rad, "rad", "lower"),
    Metric("absolute_phase_rad", phase.absolute_phase_rad, "rad", "lower"),
    Metric("spectral_convergence", spectra.spectral_convergence, "ratio", "lower"),
    Metric("log_magnitude", spectra.log_magnitude, "neper", "lower"),
    Metric("f0_cents", pitch.f0_cents, "cents", "lower"),
    Metric("f0_drift_cents", pitch.f0_drift_cents, "cents", "lower"),
    Metric("voicing_error", pitch.voicing_error, "share", "lower"),
    Metric("stoi", stoi.stoi, "share", "higher", dear=True),
    Metric("estoi", stoi.estoi, "share", "higher", dear=True),
    Metric("pesq_nb", perceptual.pesq_nb, "MOS-LQO", "higher", dear=True),
    Metric("pesq_wb", perceptual.pesq_parity, "MOS-LQO", "higher", dear=True, above_hz=15999),
    Metric("visqol", visqol.visqol, "MOS-LQO", "higher", dear=True, above_hz=15999, missing=visqol.missing),
    Metric("pesq_change", perceptual.pesq_change, "MOS-LQO", "higher", dear=True, needs_natural=True, above_hz=15999),
)
METRICS: MappingProxyType[str, Metric] = MappingProxyType({metric.name: metric for metric in _TABLE})
"""Every metric by name, in the order of their cost."""
COST_RANK: MappingProxyType[str, int] = MappingProxyType({name: rank for rank, name in enumerate(METRICS)})
"""Place of each metric in the order from cheap to dear."""


def known_metrics(names: Iterable[str]) -> tuple[Metric, ...]:
    """The metrics of these names, in the order given.

    Raises:
        ValueError: names that are not in METRICS, all of them named.
    """
    names = tuple(names)
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise ValueError(f"unknown metrics {', '.join(map(repr, unknown))}; known are {', '.join(METRICS)}")
    return tuple(METRICS[name] for name in names)


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceClip:
    """A reference against which many degraded clips are scored; its spectra, pitch and PESQ are computed once.

    About 2 MB a second of audio are kept once everything was asked for.

    Args:
        reference: float32 or float64 [time] in -1..1, or an Output with that, logits or both.
        sample_rate_hz: of all clips.
        natural: the recording that the reference imitates, of equal length, where there is one.
        free: nothing was forced on the model.
    """

    reference: Samples | Output
    sample_rate_hz: int
    natural: Samples | None = None
    free: bool = False
    _clip: Clip | None = field(init=False, repr=False)
    _natural: Clip | None = field(init=False, repr=False)
    _output: Output = field(init=False, repr=False)

    def __post_init__(self) -> None:
        output = as_output(self.reference)
        natural = None if self.natural is None else Clip(self.natural, self.sample_rate_hz)
        clip = None if output.samples is None else as_clip(output.samples, self.sample_rate_hz)
        object.__setattr__(self, "_clip", clip)
        object.__setattr__(self, "_natural", natural)
        object.__setattr__(self, "_output", output)

    @property
    def material(self) -> Material:
        """What there is to judge by."""
        return Material(
            self.sample_rate_hz,
            has_natural=self._natural is not None,
            has_sound=self._clip is not None,
            heads=tuple(self._output.logits),
            free=self.free,
        )

    def score(self, degraded: Samples | Clip | Output, metrics: Iterable[str]) -> dict[str, float]:
        """Score of every metric named, by name.

        To score several metrics one by one give a Clip, or an Output of one: it remembers what was computed from it.

        Raises:
            ValueError: an unknown name.
            UndefinedScore: a metric has no value for this pair; the text names it.
        """
        chosen = known_metrics(metrics)
        output = as_output(degraded)
        clip = None if output.samples is None else as_clip(output.samples, self.sample_rate_hz)
        scores: dict[str, float] = {}
        for metric in chosen:
            try:
                reason = metric.inapplicable(self.material)
                if reason is not None:
                    raise UndefinedScore(reason)
                scores[metric.name] = self._score(metric, clip, output)
            except UndefinedScore as fault:
                raise UndefinedScore(f"{metric.name}: {fault}") from fault
        return scores

    def _score(self, metric: Metric, clip: Clip | None, output: Output) -> float:
        if metric.heads:
            return metric.function(reference=self._output.heads(metric.heads), degraded=output.heads(metric.heads))
        if clip is None:
            raise UndefinedScore("the degraded clip has no sound")
        given = {"natural": self._natural} if metric.needs_natural else {}
        return metric.function(reference=self._clip, degraded=clip, sample_rate_hz=self.sample_rate_hz, **given)


def common(materials: Sequence[Material]) -> Material:
    """What all of some clips of one rate have."""
    return Material(
        materials[0].sample_rate_hz,
        has_natural=all(material.has_natural for material in materials),
        has_sound=all(material.has_sound for material in materials),
        heads=tuple(head for head in materials[0].heads if all(head in material.heads for material in materials)),
        free=all(material.free for material in materials),
    )


def score(
    metrics: Iterable[str],
    *,
    reference: Samples,
    degraded: Samples,
    natural: Samples | None = None,
    sample_rate_hz: int,
) -> dict[str, float]:
    """Score of every metric named for one pair; `ReferenceClip.score` where a reference is used again."""
    return ReferenceClip(reference, sample_rate_hz, natural).score(degraded, metrics)
