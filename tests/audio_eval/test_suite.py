import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_eval.clip import UndefinedScore
from audio_eval.profiles import PROFILES
from audio_eval.suite import COST_RANK, METRICS, ReferenceClip, score

RATE = 22050
ZERO_AT_BEST = [name for name, metric in METRICS.items() if metric.better == "lower"]


def test_identical_clips_get_the_best_score_of_every_metric(clean):
    scores = score(METRICS, reference=clean, degraded=clean.copy(), natural=clean, sample_rate_hz=RATE)
    best = {"pesq_wb": 4.644, "pesq_nb": 4.549, "pesq_change": 0.0}
    for name, value in scores.items():
        expected = 0.0 if name in ZERO_AT_BEST else best.get(name, 1.0)
        assert value == pytest.approx(expected, abs=1e-3), name


def test_the_table(clean):
    assert list(COST_RANK) == list(METRICS)
    additive = {name for name, metric in METRICS.items() if metric.additive}
    assert additive == {
        "lsd_db",
        "lsd_low_db",
        "lsd_mid_db",
        "lsd_high_db",
        "group_delay_rad",
        "instantaneous_frequency_rad",
        "log_mel_l1",
    }
    assert [name for name, metric in METRICS.items() if metric.needs_natural] == ["pesq_change"]
    for gates in PROFILES.values():
        for gate in gates:
            assert (gate.min is not None) == (METRICS[gate.metric].better == "higher")


def test_a_reused_reference_scores_as_a_fresh_one_and_computes_once(clean, hiss):
    names = ("lsd_db", "group_delay_rad", "f0_cents", "log_mel_l1", "estoi", "pesq_wb", "pesq_change")
    noisy = [clean + level * hiss for level in (1e-3, 3e-3)]
    natural = clean + 5e-4 * hiss
    reference = ReferenceClip(clean, RATE, natural)
    for degraded in noisy:
        fresh = score(names, reference=clean, degraded=degraded, natural=natural, sample_rate_hz=RATE)
        assert reference.score(degraded, names) == fresh
    assert reference._clip.stft(1024) is reference._clip.stft(1024)


def test_a_caller_cannot_change_a_reference_afterwards(clean):
    mine = clean.copy()
    reference = ReferenceClip(mine, RATE)
    mine[:] = 0.0
    assert reference.score(clean, ("lsd_db",)) == {"lsd_db": 0.0}


def test_errors_name_the_metric_and_the_cure(clean, speech):
    with pytest.raises(ValueError, match="unknown metrics 'mos', 'snr'; known are finite"):
        score(("mos", "lsd_db", "snr"), reference=clean, degraded=clean, sample_rate_hz=RATE)
    with pytest.raises(UndefinedScore, match="pesq_change needs the natural recording"):
        score(("pesq_change",), reference=clean, degraded=clean, sample_rate_hz=RATE)
    with pytest.raises(UndefinedScore, match=r"lsd_db: clips must have one length, got \d+ samples"):
        score(("lsd_db",), reference=clean, degraded=clean[:-1], sample_rate_hz=RATE)
    with pytest.raises(UndefinedScore, match="int16; divide by its full scale"):
        score(("lsd_db",), reference=clean, degraded=np.zeros(100, np.int16), sample_rate_hz=RATE)
    with pytest.raises(UndefinedScore, match="mono array"):
        score(("lsd_db",), reference=clean, degraded=np.zeros((2, 100)), sample_rate_hz=RATE)
    narrow = speech(16000)
    with pytest.raises(UndefinedScore, match="lsd_high_db needs a sample rate above 16000 Hz"):
        score(("lsd_high_db",), reference=narrow, degraded=narrow, sample_rate_hz=16000)


LENGTHS = st.sampled_from([1, 2, 700, 5000, 12000])
KINDS = st.sampled_from(["speech", "noise", "zeros", "constant", "nan", "one nan", "inf", "huge", "tiny", "impulse"])


def hostile(kind, length, speech):
    sound = np.resize(speech(RATE, seconds=0.6), length)
    rng = np.random.default_rng(length)
    made = {
        "speech": sound,
        "noise": rng.standard_normal(length) * 0.1,
        "zeros": np.zeros(length),
        "constant": np.full(length, 0.5),
        "nan": np.full(length, np.nan),
        "one nan": np.where(np.arange(length) == length // 2, np.nan, sound),
        "inf": np.where(np.arange(length) == 0, np.inf, sound),
        "huge": sound * 1e200,
        "tiny": sound * 1e-200,
        "impulse": (np.arange(length) == length // 2) * 0.9,
    }
    return made[kind]


def outcome(reference, degraded, name):
    """The score, or the text of why there is none."""
    try:
        return reference.score(degraded, (name,))[name]
    except UndefinedScore as fault:
        return str(fault)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(kinds=st.tuples(KINDS, KINDS), lengths=st.tuples(LENGTHS, LENGTHS), same=st.booleans())
def test_hostile_clips_get_a_finite_score_or_a_clear_error(kinds, lengths, same, speech):
    first = hostile(kinds[0], lengths[0], speech)
    second = hostile(kinds[1], lengths[0] if same else lengths[1], speech)
    reference = ReferenceClip(first, RATE, first)
    for name in METRICS:
        found = outcome(reference, second, name)
        assert found.startswith(f"{name}") if isinstance(found, str) else np.isfinite(found), name


@pytest.mark.parametrize("kind", ["constant", "noise", "impulse", "zeros", "tiny", "nan"])
def test_long_enough_hostile_pairs_reach_the_packages(kind, speech):
    second = hostile(kind, 12000, speech)
    reference = ReferenceClip(
        second if kind in ("constant", "noise", "impulse") else hostile("speech", 12000, speech), RATE
    )
    for name in ("pesq_wb", "stoi", "estoi", "f0_cents", "group_delay_rad"):
        found = outcome(reference, second, name)
        assert found.startswith(f"{name}: ") if isinstance(found, str) else np.isfinite(found)
