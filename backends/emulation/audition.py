"""Audition: a voice's clips rendered under policies, and scored against its own fp32 renders."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from audio_eval.judge import Unjudged, judge, judgeable, stages
from audio_eval.output import Output
from audio_eval.scoring import score_each
from audio_eval.suite import METRICS, Material, ReferenceClip
from backends.emulation.engine import EmulatedEngine
from backends.emulation.preparation import Preparation
from backends.emulation.replay import DamageProbe
from calibrate.calibration import Calibration
from precision.gates import Gate, Verdict
from precision.policy import Policy, Scheme
from voice.model import Clip, Rendering, Voice

HELD_BYTES = 1 << 30
"""Memory for the recordings that spare a damage measurement what lies before its site."""

Scores = Mapping[str, float]
"""Metric -> value of one clip; NaN where the metric has none, which no gate keeps."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The gates that apply to a set of clips, parted into those whose metrics add over sites, and the others."""

    gates: tuple[Gate, ...]
    unjudged: tuple[Unjudged, ...]
    free: tuple[Gate, ...] = ()
    """Gates on what the model does when nothing is forced on it: a last check, which no search hears."""

    @classmethod
    def of(cls, gates: Sequence[Gate], material: Material, clips: int) -> "Bench":
        """Part the gates that apply to so many clips from those that cannot be judged, and from the free ones."""
        forced = [gate for gate in gates if not METRICS[gate.metric].free]
        free = tuple(gate for gate in gates if METRICS[gate.metric].free)
        return cls(*judgeable(forced, material, clips=clips), free)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that a gate is on."""
        return tuple(dict.fromkeys(gate.metric for gate in self.gates))

    @property
    def additive(self) -> tuple[str, ...]:
        """Metrics, cheap ones all, whose damage adds in power over sites: a search steers by them."""
        return tuple(metric for metric in self.metrics if METRICS[metric].additive)

    @property
    def others(self) -> tuple[tuple[str, ...], ...]:
        """Metrics that only judge, in stages from cheap to dear."""
        return stages([gate for gate in self.gates if not METRICS[gate.metric].additive])

    @property
    def budgets(self) -> dict[str, float]:
        """Threshold of each additive metric, as an amplitude; the tightest where it has several gates."""
        found: dict[str, float] = {}
        for gate in self.gates:
            if gate.metric in self.additive:
                threshold = METRICS[gate.metric].amplitude(gate.threshold)
                found[gate.metric] = min(threshold, found.get(gate.metric, math.inf))
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
            record: keep the results of every site under a base (fp32, or a policy), to measure changes with.
        """
        self.clips = tuple(clips)
        self._voice = voice
        self._preparation = preparation
        self._calibration = calibration
        self._limit = HELD_BYTES if record else 0
        self._base: Policy | None = None
        self._probe = self._probed(None)
        rate = voice.sample_rate_hz
        self.outputs = tuple(output_of(self._probe.reference(clip)) for clip in clips)
        """What fp32 makes of each clip."""
        self.references = tuple(
            ReferenceClip(output, rate, clip.natural) for output, clip in zip(self.outputs, clips, strict=True)
        )

    def damage(self, site: str, scheme: Scheme, metrics: Sequence[str]) -> dict[str, float]:
        """Mean over the clips of each metric with one site under a scheme, all others in fp32; as an amplitude.

        A render that a metric cannot be given of (NaN, Inf) damages infinitely.
        """
        probe = self._around(None)
        return self._amplitudes([probe.render(site, scheme, clip) for clip in self.clips], metrics)

    def damage_around(self, policy: Policy, site: str, scheme: Scheme, metrics: Sequence[str]) -> dict[str, float]:
        """As `damage`, of a whole policy with one site of it under another scheme.

        The policy is rendered once; changes of one policy are best asked for one after the other.
        """
        probe = self._around(policy)
        return self._amplitudes([probe.render(site, scheme, clip) for clip in self.clips], metrics)

    def render(self, policy: Policy, index: int, near: Policy | None = None) -> Output:
        """One clip under a policy; the same by way of one `near` it, less what is not behind a site that differs.

        Args:
            policy: of all sites.
            index: of the clip.
            near: recorded when it is first named, and until another is; None: the policy is computed whole.
        """
        clip = self.clips[index]
        if near is None or not self._limit:
            return output_of(EmulatedEngine(self._voice, policy, self._preparation, self._calibration).render(clip))
        changes = {site: scheme for site, scheme in policy.schemes if near[site] != scheme}
        return output_of(self._around(near).render_changed(changes, clip))

    def _around(self, base: Policy | None) -> DamageProbe:
        """A probe that stands on a base; there is memory for the recordings of one at a time."""
        if base != self._base:
            self._probe, self._base = self._probed(base), base
        return self._probe

    def _probed(self, base: Policy | None) -> DamageProbe:
        return DamageProbe(
            self._voice, self.clips, self._preparation, self._calibration, base=base, limit_bytes=self._limit
        )

    def _amplitudes(self, rendered: Sequence[Rendering], metrics: Sequence[str]) -> dict[str, float]:
        found = [self.score(index, output_of(rendering), metrics) for index, rendering in enumerate(rendered)]
        means = {metric: float(np.mean([scores[metric] for scores in found])) for metric in metrics}
        return {
            metric: METRICS[metric].amplitude(mean) if math.isfinite(mean) else math.inf
            for metric, mean in means.items()
        }

    def score(self, index: int, rendered: Output, metrics: Sequence[str]) -> dict[str, float]:
        """Scores of a render of one clip, NaN where a metric has none."""
        return score_each(self.references[index], rendered, metrics)[0]


def output_of(rendering: Rendering) -> Output:
    """A rendering as numpy arrays."""
    logits = {head: _array(values) for head, values in rendering.logits.items()}
    return Output(None if rendering.waveform is None else _array(rendering.waveform), logits)


def _array(values: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = values.detach().float().cpu().numpy()
    return array


def excess(verdict: Verdict) -> float:
    """By how much of its threshold a gate is broken, negative where it is kept; NaN where it has no value."""
    return -verdict.margin / (abs(verdict.gate.threshold) or 1.0)
