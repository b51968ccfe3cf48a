"""Audition: a voice's clips rendered under policies, and scored against its own fp32 renders."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from audio_eval.clip import Samples, UndefinedScore
from audio_eval.judge import Unjudged, judge, judgeable
from audio_eval.suite import METRICS, ReferenceClip
from backends.emulation.engine import EmulatedEngine
from backends.emulation.preparation import Preparation
from backends.emulation.replay import DamageProbe
from calibrate.calibration import Calibration
from precision.gates import Gate, Verdict
from precision.policy import Policy, Scheme
from voice.model import Clip, Voice

HELD_BYTES = 1 << 30
"""Memory for the recordings that spare a damage measurement what lies before its site."""

Scores = Mapping[str, float]
"""Metric -> value of one clip; NaN where the metric has none, which no gate keeps."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The gates that apply to a set of clips, parted into those whose metrics add over sites, and the others."""

    gates: tuple[Gate, ...]
    unjudged: tuple[Unjudged, ...]

    @classmethod
    def of(cls, gates: Sequence[Gate], clips: Sequence[Clip], sample_rate_hz: int) -> "Bench":
        """Part the gates that apply to these clips from those that cannot be judged on them."""
        natural = all(clip.natural is not None for clip in clips)
        return cls(*judgeable(gates, sample_rate_hz=sample_rate_hz, has_natural=natural))

    @property
    def additive(self) -> tuple[str, ...]:
        """Metrics, cheap ones all, whose damage adds in power over sites: a search steers by them."""
        return tuple(dict.fromkeys(gate.metric for gate in self.gates if METRICS[gate.metric].additive))

    @property
    def others(self) -> tuple[str, ...]:
        """Metrics that only judge."""
        return tuple(dict.fromkeys(gate.metric for gate in self.gates if not METRICS[gate.metric].additive))

    @property
    def budgets(self) -> dict[str, float]:
        """Threshold of each additive metric; the tightest where it has several gates."""
        found: dict[str, float] = {}
        for gate in self.gates:
            if gate.metric in self.additive:
                found[gate.metric] = min(gate.threshold, found.get(gate.metric, math.inf))
        return found

    def verdicts(self, scores: Sequence[Scores], *, seed: int) -> tuple[Verdict, ...]:
        """Verdicts of the gates whose metric was scored."""
        return judge([gate for gate in self.gates if gate.metric in scores[0]], scores, seed=seed)


class Audition:
    """The clips of one split; whatever their references need is computed once."""

    def __init__(
        self,
        voice: Voice,
        clips: Sequence[Clip],
        preparation: Preparation,
        calibration: Calibration | None,
        *,
        record: bool,
    ) -> None:
        """Render the references.

        Args:
            voice: deterministic.
            clips: of unique names, at least one.
            preparation: shared with other auditions of the voice.
            calibration: for static scales.
            record: keep the fp32 results of every site, to measure damage with.
        """
        self.clips = tuple(clips)
        self._voice = voice
        self._preparation = preparation
        self._calibration = calibration
        limit = HELD_BYTES if record else 0
        self._probe = DamageProbe(voice, clips, preparation, calibration, limit_bytes=limit)
        rate = voice.sample_rate_hz
        self.references = tuple(ReferenceClip(_samples(self._probe.reference(c)), rate, c.natural) for c in clips)

    def damage(self, site: str, scheme: Scheme, metrics: Sequence[str]) -> dict[str, float]:
        """Mean over the clips of each metric with one site under a scheme, all others in fp32.

        A render that a metric cannot be given of (NaN, Inf) damages infinitely.
        """
        found = []
        for index, clip in enumerate(self.clips):
            found.append(self.score(index, _samples(self._probe.render(site, scheme, clip)), metrics))
        means = {metric: float(np.mean([scores[metric] for scores in found])) for metric in metrics}
        return {metric: mean if math.isfinite(mean) else math.inf for metric, mean in means.items()}

    def render(self, policy: Policy, index: int) -> Samples:
        """One clip under a policy."""
        engine = EmulatedEngine(self._voice, policy, self._preparation, self._calibration)
        return _samples(engine.render(self.clips[index]))

    def score(self, index: int, rendered: Samples, metrics: Sequence[str]) -> dict[str, float]:
        """Scores of a render of one clip."""
        scores: dict[str, float] = {}
        for metric in metrics:
            try:
                scores[metric] = self.references[index].score(rendered, (metric,))[metric]
            except UndefinedScore:
                scores[metric] = math.nan
        return scores


def _samples(waveform: Tensor) -> Samples:
    samples: Samples = waveform.detach().cpu().numpy()
    return samples


def excess(verdict: Verdict) -> float:
    """By how much of its threshold a gate is broken, negative where it is kept; NaN where it has no value."""
    return -verdict.margin / (abs(verdict.gate.threshold) or 1.0)
