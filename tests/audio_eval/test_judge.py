import math
from collections import Counter
from itertools import chain

import numpy as np
import pytest

from audio_eval.clip import Clip
from audio_eval.judge import aggregate, judge, judge_in_order, judgeable, stages
from audio_eval.output import Output
from audio_eval.profiles import PROFILES
from audio_eval.scoring import score_clips, score_each, threads
from audio_eval.statistics import describe
from audio_eval.suite import COST_RANK, METRICS, Material, ReferenceClip
from precision.gates import Gate

RATE = 22050
SOUND = {
    name: [gate for gate in gates if not (METRICS[gate.metric].heads or METRICS[gate.metric].free)]
    for name, gates in PROFILES.items()
}


@pytest.fixture(scope="module")
def references(speech):
    clips = [speech(RATE, seconds=1.5, seed=seed) for seed in range(3)]
    rng = np.random.default_rng(0)
    return [ReferenceClip(clip, RATE, clip + 1e-4 * rng.standard_normal(len(clip))) for clip in clips]


def test_mean_worst_and_bounds():
    scores = [{"pesq_wb": 4.5, "lsd_db": 1.0}, {"pesq_wb": 4.1, "lsd_db": 3.0}]
    gates = (
        Gate("pesq_wb", "mean", min=4.4),
        Gate("pesq_wb", "worst", min=4.2),
        Gate("lsd_db", "worst", max=3.0),
        Gate("lsd_db", "upper_bound", max=1.5),
    )
    verdicts = judge(gates, scores)
    assert [verdict.gate for verdict in verdicts] == list(gates)
    assert [verdict.value for verdict in verdicts[:3]] == [4.3, 4.1, 3.0]
    assert [verdict.kept for verdict in verdicts] == [False, False, True, False]
    assert 2.0 < verdicts[3].value <= 3.0


def test_nan_breaks_and_missing_scores_raise():
    nan = float("nan")
    for over in ("mean", "worst", "tail", "lower_bound", "upper_bound"):
        (verdict,) = judge([Gate("lsd_db", over, max=9.0)], [{"lsd_db": 1.0}, {"lsd_db": nan}])
        assert not verdict.kept
    with pytest.raises(ValueError, match=r"clips \[1\] have no score of lsd_db"):
        judge([Gate("lsd_db", max=1.0)], [{"lsd_db": 1.0}, {}])
    with pytest.raises(ValueError, match="no clips to judge"):
        judge([Gate("lsd_db", max=1.0)], [])


def test_what_does_not_apply_is_set_aside_with_the_reason():
    gates, left = judgeable(PROFILES["transparent"], Material(16000, has_natural=False))
    assert {unjudged.gate.metric for unjudged in left} == {"lsd_high_db", "pesq_change"}
    assert all(unjudged.reason.startswith("needs ") for unjudged in left)
    kinds = {METRICS[gate.metric].heads or METRICS[gate.metric].free for gate in gates}
    assert kinds == {False}, "gates for other kinds of models are in neither"
    assert len(gates) + len(left) == len(SOUND["transparent"])
    assert judgeable(PROFILES["8bit"], Material(RATE, has_natural=True))[1] == ()


def test_identity_keeps_every_gate_of_every_profile(references):
    for gates in SOUND.values():
        judgement = judge_in_order(gates, references, [reference.reference for reference in references])
        assert judgement.kept
        assert len(judgement.verdicts) == len(gates)
        assert judgement.unjudged == judgement.undefined == ()


@pytest.mark.parametrize(
    ("metric", "damage"),
    [
        ("polarity", lambda x: -x),
        ("gain_db", lambda x: x * 0.95),
        ("dc", lambda x: x + 0.002),
        ("lag_samples", lambda x: np.roll(x, 1)),
        ("length_samples", lambda x: x[:-1]),
        ("finite", lambda x: np.where(np.arange(len(x)) == 5, np.nan, x)),
        ("clipping", lambda x: np.where(np.abs(x) > 0.3, np.sign(x), x)),
        ("pause_excess_db", lambda x: x + 1e-3 * np.random.default_rng(2).standard_normal(len(x))),
    ],
)
def test_one_bad_clip_breaks_its_gate(metric, damage, references):
    degraded = [reference.reference for reference in references]
    degraded = [damage(degraded[0]), *degraded[1:]] if metric != "pause_excess_db" else [damage(x) for x in degraded]
    gates = [gate for gate in PROFILES["transparent"] if gate.metric == metric]
    judgement = judge_in_order(gates, references, degraded)
    assert not judgement.kept


def test_stops_at_the_first_broken_gate_cheap_before_dear(references):
    degraded = [-reference.reference for reference in references]
    short = judge_in_order(PROFILES["transparent"], references, degraded)
    assert not short.kept
    assert short.verdicts[-1].gate.metric == "polarity"
    assert "pesq_wb" not in short.scores[0]
    whole = judge_in_order(PROFILES["transparent"], references, degraded, stop_when_broken=False)
    assert len(whole.verdicts) == len(SOUND["transparent"])
    assert whole.verdicts[: len(short.verdicts)] == short.verdicts


def test_undefined_scores_break_their_gates_and_say_why(references):
    degraded = [reference.reference * 0 for reference in references]
    judgement = judge_in_order(PROFILES["8bit"], references, degraded, stop_when_broken=False)
    assert not judgement.kept
    broken = {verdict.gate.metric for verdict in judgement.verdicts if not verdict.kept}
    assert {"gain_db", "polarity", "pesq_wb", "f0_cents", "group_delay_rad"} <= broken
    assert any(item.metric == "pesq_wb" and "silent" in item.reason and item.clip == 0 for item in judgement.undefined)


def test_unequal_numbers_and_rates_are_refused(references, clean):
    with pytest.raises(ValueError, match="as many and of one rate"):
        judge_in_order(PROFILES["8bit"], references, [clean])
    with pytest.raises(ValueError, match="as many and of one rate"):
        judge_in_order(PROFILES["8bit"], [], [])
    with pytest.raises(ValueError, match="unknown metrics 'mos'"):
        judge_in_order([Gate("mos", min=4.0)], references, [reference.reference for reference in references])


def test_the_tail_lies_on_the_side_of_the_threshold():
    scores = [4.0, 4.2, *[4.5] * 10]
    assert aggregate(Gate("pesq_wb", "tail", min=4.2), scores) == pytest.approx(4.0 + 0.55 * 0.2)
    assert aggregate(Gate("lsd_db", "tail", max=3.0), [-score for score in scores]) == pytest.approx(-4.11)


def test_stages_go_from_cheap_to_dear():
    names = ["pesq_change", "lsd_db", "estoi", "pesq_wb", "finite", "pesq_wb", "f0_cents"]
    found = stages([Gate(name, min=0.0) for name in names])
    assert found == (("finite", "lsd_db", "f0_cents"), ("estoi",), ("pesq_wb",), ("pesq_change",))
    assert stages([Gate("pesq_wb", min=0.0)]) == (("pesq_wb",),)
    assert stages([]) == ()
    for gates in PROFILES.values():
        order = list(chain.from_iterable(stages(gates)))
        assert sorted(order) == sorted({gate.metric for gate in gates})
        assert order == sorted(order, key=lambda name: (METRICS[name].dear, COST_RANK[name]))
    with pytest.raises(ValueError, match="unknown metrics 'mos'"):
        stages([Gate("mos", min=4.0)])


def noisy(references):
    rng = np.random.default_rng(6)
    return [reference.reference + 2e-3 * rng.standard_normal(len(reference.reference)) for reference in references]


@pytest.fixture(scope="module")
def whole(references):
    return judge_in_order(PROFILES["transparent"], references, noisy(references), stop_when_broken=False)


def fresh(references):
    return [ReferenceClip(r.reference, r.sample_rate_hz, r.natural) for r in references]


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("workers", [2, 3])
def test_numbers_depend_neither_on_threads_nor_on_the_order(workers, stop, whole, references):
    gates = [Gate("pesq_change", "lower_bound", min=-9.0), Gate("estoi", min=0.0), Gate("lsd_db", max=99.0)]
    once = judge_in_order(gates, fresh(references), noisy(references), stop_when_broken=stop, workers=workers)
    assert once.kept
    for found, expected in zip(once.scores, whole.scores, strict=True):
        assert found == {name: expected[name] for name in ("lsd_db", "estoi", "pesq_change")}


def test_threads_find_the_same_faults_in_the_same_order(references):
    degraded = [references[0].reference * 0, references[1].reference[:-3], np.zeros(0)]
    one, many = (
        judge_in_order(PROFILES["transparent"], references, degraded, stop_when_broken=False, workers=workers)
        for workers in (1, 3)
    )
    assert one.undefined == many.undefined
    assert [verdict.kept for verdict in one.verdicts] == [verdict.kept for verdict in many.verdicts]
    assert [item.metric for item in one.undefined] == sorted(
        (item.metric for item in one.undefined), key=lambda name: (METRICS[name].dear, COST_RANK[name])
    )


def test_what_was_not_reached_is_told_and_not_kept(references):
    gates = (Gate("polarity", "worst", min=1.0), Gate("estoi", min=0.9), Gate("pesq_wb", min=4.0))
    degraded = [-reference.reference for reference in references]
    stopped = judge_in_order(gates, references, degraded)
    assert stopped.unreached == gates[1:]
    assert set(stopped.statistics()) == {"polarity"}
    assert judge_in_order(gates, references, degraded, stop_when_broken=False).unreached == ()


def test_statistics_of_every_metric_that_was_reached(whole):
    found = whole.statistics()
    assert set(found) == set(whole.scores[0])
    for name in ("lsd_db", "pesq_wb"):
        values = [clip[name] for clip in whole.scores]
        assert found[name] == describe(values, METRICS[name].better)
        assert found[name].worst == (min if name == "pesq_wb" else max)(values)
    assert found["lsd_db"].resolvable_change > 0.0


def test_one_clip_has_no_bounds_but_the_rest_is_judged(references):
    found = judge_in_order(PROFILES["transparent"], references[:1], [references[0].reference])
    assert found.kept
    assert [(left.gate.metric, left.reason) for left in found.unjudged] == [
        ("pesq_change", "a confidence bound needs at least 2 clips")
    ]
    assert math.isnan(found.statistics()["lsd_db"].lower_bound)


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros((2, 9)), np.zeros(9, dtype=np.int16)])
@pytest.mark.parametrize("stop", [False, True])
def test_what_cannot_be_heard_breaks_gates_and_raises_nothing(bad, stop, references):
    degraded = [references[0].reference, bad, references[2].reference]
    found = judge_in_order(PROFILES["8bit"], references, degraded, stop_when_broken=stop)
    assert not found.kept
    assert {item.clip for item in found.undefined} == {1}
    assert "audio is" in found.undefined[0].reason
    assert found.scores[0]["finite"] == 1.0


def test_every_clip_is_told_in_order(references):
    gates = [Gate("finite", min=1.0), Gate("lsd_db", max=1.0)]
    originals = [reference.reference for reference in references]
    for stop, expected in ((False, [0, 1, 2]), (True, [0, 1, 2, 0, 1, 2])):
        told: list[int] = []
        judge_in_order(gates, references, originals, stop_when_broken=stop, workers=2, told=told.append)
        assert told == expected


def test_nothing_is_computed_twice_for_one_reference(references, monkeypatch):
    computed = Counter()
    transform = Clip._transform

    def counted(self, n_fft):
        computed[id(self), n_fft] += 1
        return transform(self, n_fft)

    monkeypatch.setattr(Clip, "_transform", counted)
    held, originals = fresh(references), noisy(references)
    for _ in range(2):
        judge_in_order([Gate("lsd_db", max=9.0), Gate("group_delay_rad", max=9.0)], held, originals, workers=3)
    own = [count for (clip, _), count in computed.items() if clip in {id(reference._clip) for reference in held}]
    assert own
    assert set(own) == {1}


def test_an_error_of_the_caller_ends_it(references):
    def told(index):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        judge_in_order(PROFILES["8bit"], references, noisy(references), workers=2, told=told)
    with pytest.raises(ValueError, match="at least 1 worker"):
        judge_in_order(PROFILES["8bit"], references, noisy(references), workers=0)


def test_scores_of_clips_made_as_they_are_asked_for(references, whole):
    with threads(2) as mapped:
        pairs = zip(fresh(references), map(Output, noisy(references)), strict=True)
        scores, undefined = score_clips(("lsd_db", "f0_cents"), pairs, mapped=mapped)
    assert undefined == []
    assert scores == [{name: clip[name] for name in ("lsd_db", "f0_cents")} for clip in whole.scores]


def test_a_score_that_is_undefined_is_nan_with_its_reason(references):
    scores, reasons = score_each(references[0], references[0].reference[:-1], ("length_samples", "lsd_db"))
    assert scores["length_samples"] == 1.0
    assert math.isnan(scores["lsd_db"])
    assert list(reasons) == ["lsd_db"]
    assert "one length" in reasons["lsd_db"]
