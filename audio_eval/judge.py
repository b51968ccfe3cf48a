"""Judge: scores of several clips against gates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from audio_eval.clip import Clip, Samples, UndefinedScore
from audio_eval.statistics import lower_bound, upper_bound
from audio_eval.suite import COST_RANK, Material, ReferenceClip, common, known_metrics
from precision.gates import Gate, Verdict


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A gate that could not be held against these clips, and why."""

    gate: Gate
    reason: str


@dataclass(frozen=True, slots=True)
class Undefined:
    """A score that a clip does not have; the gates on the metric count as broken."""

    metric: str
    clip: int
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gates found. Where judging stopped at a broken gate, the dearer gates are in none of the tuples."""

    verdicts: tuple[Verdict, ...]
    unjudged: tuple[Unjudged, ...]
    undefined: tuple[Undefined, ...]
    scores: tuple[Mapping[str, float], ...]
    """By clip: metric -> score, for the metrics that were reached; NaN where undefined."""

    @property
    def kept(self) -> bool:
        """Whether every gate that could be judged was kept, and there was one."""
        return bool(self.verdicts) and all(verdict.kept for verdict in self.verdicts)


def aggregate(gate: Gate, scores: Sequence[float], *, seed: int = 0) -> float:
    """The one number that the gate looks at; a NaN among the scores makes it NaN, which no gate keeps.

    Raises:
        ValueError: no scores, or a bound asked of fewer than two.
    """
    if not scores:
        raise ValueError(f"the gate on {gate.metric} has no clips to judge; give at least one")
    if gate.over == "mean":
        return float(np.mean(scores))
    if gate.over == "worst":
        return float(np.min(scores) if gate.min is not None else np.max(scores))
    if gate.over == "lower_bound":
        return lower_bound(scores, seed=seed)
    return upper_bound(scores, seed=seed)


def judge(gates: Sequence[Gate], scores: Sequence[Mapping[str, float]], *, seed: int = 0) -> tuple[Verdict, ...]:
    """Verdict of every gate, in the order given, over the scores of all clips.

    Bounds are one-sided 95 % BCa bootstrap bounds of the mean, drawn with `seed`; a paired comparison is a metric
    that is itself a difference (`pesq_change`).

    Raises:
        ValueError: a clip without a score that a gate needs, no clips, or a bound over fewer than two.
    """
    for gate in gates:
        missing = [index for index, clip in enumerate(scores) if gate.metric not in clip]
        if missing:
            raise ValueError(f"clips {missing} have no score of {gate.metric}, which a gate needs")
    return tuple(Verdict(gate, aggregate(gate, [clip[gate.metric] for clip in scores], seed=seed)) for gate in gates)


def judgeable(gates: Sequence[Gate], material: Material) -> tuple[tuple[Gate, ...], tuple[Unjudged, ...]]:
    """The gates that apply to such clips, and those that do not with the reason.

    Raises:
        ValueError: a gate on a metric that is not in the suite.
    """
    kept: list[Gate] = []
    left: list[Unjudged] = []
    for gate, metric in zip(gates, known_metrics(gate.metric for gate in gates), strict=True):
        reason = metric.inapplicable(material)
        if reason is None:
            kept.append(gate)
        else:
            left.append(Unjudged(gate, reason))
    return tuple(kept), tuple(left)


def stages(gates: Sequence[Gate]) -> tuple[tuple[str, ...], ...]:
    """The metrics of gates in the order in which they are worth asking: all cheap ones, then each dear one by itself.

    Each metric once, from cheap to dear within a stage, too; no stage is empty.

    Raises:
        ValueError: a gate on a metric that is not in the suite.
    """
    metrics = sorted(known_metrics({gate.metric for gate in gates}), key=lambda metric: COST_RANK[metric.name])
    cheap = tuple(metric.name for metric in metrics if not metric.dear)
    dear = tuple((metric.name,) for metric in metrics if metric.dear)
    return (cheap, *dear) if cheap else dear


def judge_in_order(
    gates: Sequence[Gate],
    references: Sequence[ReferenceClip],
    degraded: Sequence[Samples],
    *,
    stop_when_broken: bool = True,
    seed: int = 0,
) -> Judgement:
    """Score and judge, metrics from cheap to dear, all clips of one metric before the next.

    Args:
        gates: their order does not matter.
        references: one a clip, of one sample rate.
        degraded: [time] each, in the order of `references`.
        stop_when_broken: end at the first broken gate, for when only the answer is needed.
        seed: of the bootstrap.

    Returns:
        Verdicts in the order they were reached. A score that is undefined is NaN and breaks the gates on it.

    Raises:
        ValueError: no clips, numbers or rates that differ, an unknown metric, a bound over fewer than two clips.
    """
    rates = sorted({reference.sample_rate_hz for reference in references})
    if len(references) != len(degraded) or len(rates) != 1:
        raise ValueError(
            f"references and degraded clips must be as many and of one rate, "
            f"got {len(references)} at {rates} Hz and {len(degraded)}"
        )
    chosen, unjudged = judgeable(gates, common([reference.material for reference in references]))
    clips = [Clip(samples, rates[0]) for samples in degraded]
    scores: list[dict[str, float]] = [{} for _ in clips]
    verdicts: list[Verdict] = []
    undefined: list[Undefined] = []
    for name in sorted({gate.metric for gate in chosen}, key=COST_RANK.__getitem__):
        for index, (reference, clip) in enumerate(zip(references, clips, strict=True)):
            try:
                scores[index][name] = reference.score(clip, (name,))[name]
            except UndefinedScore as fault:
                scores[index][name] = float("nan")
                undefined.append(Undefined(name, index, str(fault)))
        found = judge([gate for gate in chosen if gate.metric == name], scores, seed=seed)
        verdicts.extend(found)
        if stop_when_broken and not all(verdict.kept for verdict in found):
            break
    return Judgement(tuple(verdicts), unjudged, tuple(undefined), tuple(scores))
