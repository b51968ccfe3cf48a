"""Suite: the table of all metrics, cheap to dear, and scoring a clip with several at once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from audio_eval import guards, perceptual, phase, pitch, spectra
from audio_eval.clip import Clip, Samples, UndefinedScore, as_clip


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of the suite."""

    name: str
    function: Callable[..., float]
    unit: str
    better: Literal["higher", "lower"]
    needs_natural: bool = False
    additive: bool = False
    """Amplitude-like: over sites whose errors are independent its square adds."""
    above_hz: int = 0
    """Defined at sample rates above this only."""

    def inapplicable(self, sample_rate_hz: int, *, has_natural: bool) -> str | None:
        """Why the metric says nothing about such clips, or None where it applies."""
        if sample_rate_hz <= self.above_hz:
            return f"{self.name} needs a sample rate above {self.above_hz} Hz, the clips have {sample_rate_hz} Hz"
        if self.needs_natural and not has_natural:
            return f"{self.name} needs the natural recording of every clip"
        return None


_TABLE = (
    Metric("finite", guards.finite, "share", "higher"),
    Metric("length_samples", guards.length_samples, "samples", "lower"),
    Metric("clipping", guards.clipping, "share", "lower"),
    Metric("dc", guards.dc, "full scale", "lower"),
    Metric("gain_db", guards.gain_db, "dB", "lower"),
    Metric("polarity", guards.polarity, "sign", "higher"),
    Metric("pause_excess_db", spectra.pause_excess_db, "dB", "lower"),
    Metric("lag_samples", guards.lag_samples, "samples", "lower"),
    Metric("lsd_db", spectra.lsd_db, "dB", "lower", additive=True),
    Metric("lsd_low_db", spectra.lsd_low_db, "dB", "lower", additive=True),
    Metric("lsd_mid_db", spectra.lsd_mid_db, "dB", "lower", additive=True, above_hz=8000),
    Metric("lsd_high_db", spectra.lsd_high_db, "dB", "lower", additive=True, above_hz=16000),
    Metric("log_mel_l1", spectra.log_mel_l1, "neper", "lower", additive=True),
    Metric("group_delay_rad", phase.group_delay_rad, "rad", "lower", additive=True),
    Metric("instantaneous_frequency_rad", phase.instantaneous_frequency_rad, "rad", "lower", additive=True),
    Metric("absolute_phase_rad", phase.absolute_phase_rad, "rad", "lower"),
    Metric("spectral_convergence", spectra.spectral_convergence, "ratio", "lower"),
    Metric("log_magnitude", spectra.log_magnitude, "neper", "lower"),
    Metric("f0_cents", pitch.f0_cents, "cents", "lower"),
    Metric("voicing_error", pitch.voicing_error, "share", "lower"),
    Metric("pesq_nb", perceptual.pesq_nb, "MOS-LQO", "higher"),
    Metric("pesq_wb", perceptual.pesq_parity, "MOS-LQO", "higher", above_hz=15999),
    Metric("stoi", perceptual.stoi, "share", "higher"),
    Metric("estoi", perceptual.estoi, "share", "higher"),
    Metric("pesq_change", perceptual.pesq_change, "MOS-LQO", "higher", needs_natural=True, above_hz=15999),
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
        reference: float32 or float64 [time] in -1..1.
        sample_rate_hz: of all clips.
        natural: the recording that the reference imitates, of equal length, where there is one.
    """

    reference: Samples
    sample_rate_hz: int
    natural: Samples | None = None
    _clip: Clip = field(init=False, repr=False)
    _natural: Clip | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        natural = None if self.natural is None else Clip(self.natural, self.sample_rate_hz)
        object.__setattr__(self, "_clip", Clip(self.reference, self.sample_rate_hz))
        object.__setattr__(self, "_natural", natural)

    def score(self, degraded: Samples | Clip, metrics: Iterable[str]) -> dict[str, float]:
        """Score of every metric named, by name.

        Raises:
            ValueError: an unknown name.
            UndefinedScore: a metric has no value for this pair; the text names it.
        """
        chosen = known_metrics(metrics)
        clip = as_clip(degraded, self.sample_rate_hz)
        scores: dict[str, float] = {}
        for metric in chosen:
            reason = metric.inapplicable(self.sample_rate_hz, has_natural=self._natural is not None)
            if reason is not None:
                raise UndefinedScore(reason)
            try:
                if metric.needs_natural:
                    scores[metric.name] = metric.function(
                        reference=self._clip,
                        degraded=clip,
                        natural=self._natural,
                        sample_rate_hz=self.sample_rate_hz,
                    )
                else:
                    scores[metric.name] = metric.function(
                        reference=self._clip, degraded=clip, sample_rate_hz=self.sample_rate_hz
                    )
            except UndefinedScore as fault:
                raise UndefinedScore(f"{metric.name}: {fault}") from fault
        return scores


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
