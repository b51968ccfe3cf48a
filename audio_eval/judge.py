"""Judge: scores of several clips against gates, cheap metrics first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from audio_eval.clip import UndefinedScore
from audio_eval.scoring import Degraded, Told, Undefined, remembering, score_clips, threads
from audio_eval.statistics import Summary, describe, lower_bound, tail, upper_bound
from audio_eval.suite import COST_RANK, METRICS, Material, ReferenceClip, common, known_metrics
from precision.gates import BOUNDS, Gate, Verdict


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A gate that could not be held against these clips, and why."""

    gate: Gate
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gates found."""

    verdicts: tuple[Verdict, ...]
    """From cheap to dear."""
    unjudged: tuple[Unjudged, ...]
    undefined: tuple[Undefined, ...]
    scores: tuple[Mapping[str, float], ...]
    """By clip: metric -> score, for the metrics that were reached; NaN where undefined."""
    unreached: tuple[Gate, ...] = ()
    """Where judging stopped at a broken gate: the dearer ones, of which nothing is known."""
    seed: int = 0
    """Of the bootstrap."""

    @property
    def kept(self) -> bool:
        """Whether every gate that could be judged was kept, and there was one.

        All must be, so none is made easier for their number; `audio_eval.statistics` says why.
        """
        return bool(self.verdicts) and not self.unreached and all(verdict.kept for verdict in self.verdicts)

    def statistics(self) -> dict[str, Summary]:
        """What the clips say of each metric that was reached."""
        return summaries(self.scores, seed=self.seed)


def summaries(scores: Sequence[Mapping[str, float]], *, seed: int = 0) -> dict[str, Summary]:
    """Summary of every metric that the clips have a score of, by name."""
    return {name: describe([clip[name] for clip in scores], METRICS[name].better, seed=seed) for name in scores[0]}


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
    if gate.over == "tail":
        return tail(scores, "higher" if gate.min is not None else "lower")
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


def judgeable(
    gates: Sequence[Gate], material: Material, *, clips: int | None = None
) -> tuple[tuple[Gate, ...], tuple[Unjudged, ...]]:
    """The gates that apply to such clips, and those that do not with the reason.

    Gates on what such a model does not make at all are in neither: a profile has gates for models of every kind.

    Args:
        gates: on metrics of the suite.
        material: what there is of the clips.
        clips: their number; where it is known to be one, gates on a confidence bound do not apply.

    Raises:
        ValueError: a gate on a metric that is not in the suite.
    """
    kept: list[Gate] = []
    left: list[Unjudged] = []
    for gate, metric in zip(gates, known_metrics(gate.metric for gate in gates), strict=True):
        if metric.misfit(material) is not None:
            continue
        reason = metric.inapplicable(material)
        if reason is None and clips == 1 and gate.over in BOUNDS:
            reason = "a confidence bound needs at least 2 clips"
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
    degraded: Sequence[Degraded],
    *,
    stop_when_broken: bool = True,
    workers: int = 1,
    told: Told | None = None,
    seed: int = 0,
) -> Judgement:
    """Score and judge, metrics from cheap to dear.

    Where judging may stop, all clips of one metric come before the next; else a clip is scored with all of them, which
    takes less memory. The scores are the same.

    Args:
        gates: their order does not matter; `stages` has the order in which they are judged.
        references: one a clip, of one sample rate; they remember what was computed from them.
        degraded: one a clip, in the order of `references`. What cannot be heard (no samples, not mono) breaks gates.
        stop_when_broken: end at the first metric with a broken gate, for when only the answer is needed.
        workers: threads.
        told: called here with the index of each clip that is done; where judging may stop, of every metric anew.
        seed: of the bootstrap.

    Returns:
        Verdicts in the order they were reached. A score that is undefined is NaN and breaks the gates on it.

    Raises:
        ValueError: no clips, numbers or rates that differ, an unknown metric, no worker.
    """
    rates = sorted({reference.sample_rate_hz for reference in references})
    if len(references) != len(degraded) or len(rates) != 1:
        raise ValueError(
            f"references and degraded clips must be as many and of one rate, "
            f"got {len(references)} at {rates} Hz and {len(degraded)}"
        )
    material = common([reference.material for reference in references])
    chosen, unjudged = judgeable(gates, material, clips=len(references))
    order = tuple(chain.from_iterable(stages(chosen)))
    rounds = [(name,) for name in order] if stop_when_broken else [order]
    if stop_when_broken:
        degraded = [_kept(clip, rates[0]) for clip in degraded]
    scores: list[dict[str, float]] = [{} for _ in degraded]
    verdicts: list[Verdict] = []
    undefined: list[Undefined] = []
    unreached = list(chosen)
    with threads(workers) as mapped:
        for names in rounds:
            found, faults = score_clips(names, zip(references, degraded, strict=True), mapped=mapped, told=told)
            for clip, more in zip(scores, found, strict=True):
                clip.update(more)
            undefined += faults
            verdicts += judge([gate for name in names for gate in unreached if gate.metric == name], scores, seed=seed)
            unreached = [gate for gate in unreached if gate.metric not in names]
            if stop_when_broken and not all(verdict.kept for verdict in verdicts):
                break
    return Judgement(tuple(verdicts), unjudged, tuple(undefined), tuple(scores), tuple(unreached), seed)


def _kept(degraded: Degraded, sample_rate_hz: int) -> Degraded:
    """As a clip that remembers from one metric to the next; what cannot be heard as it is, for its scores to say so."""
    try:
        return remembering(degraded, sample_rate_hz)
    except UndefinedScore:
        return degraded
