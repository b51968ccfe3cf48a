import numpy as np
import pytest

from audio_eval.judge import judge, judge_in_order, judgeable
from audio_eval.profiles import PROFILES
from audio_eval.suite import Material, ReferenceClip
from precision.gates import Gate

RATE = 22050


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
    for over in ("mean", "worst", "lower_bound", "upper_bound"):
        (verdict,) = judge([Gate("lsd_db", over, max=9.0)], [{"lsd_db": 1.0}, {"lsd_db": nan}])
        assert not verdict.kept
    with pytest.raises(ValueError, match=r"clips \[1\] have no score of lsd_db"):
        judge([Gate("lsd_db", max=1.0)], [{"lsd_db": 1.0}, {}])
    with pytest.raises(ValueError, match="no clips to judge"):
        judge([Gate("lsd_db", max=1.0)], [])


def test_what_does_not_apply_is_set_aside_with_the_reason():
    gates, left = judgeable(PROFILES["transparent"], Material(16000, has_natural=False))
    assert {unjudged.gate.metric for unjudged in left} == {"lsd_high_db", "pesq_change"}
    assert all(unjudged.gate.metric in unjudged.reason for unjudged in left)
    assert len(gates) + len(left) == len(PROFILES["transparent"])
    assert judgeable(PROFILES["8bit"], Material(RATE, has_natural=True))[1] == ()


def test_identity_keeps_every_gate_of_every_profile(references):
    for gates in PROFILES.values():
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
    assert len(whole.verdicts) == len(PROFILES["transparent"])
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
