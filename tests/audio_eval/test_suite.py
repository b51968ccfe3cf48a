import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_eval.clip import UndefinedScore
from audio_eval.output import Output
from audio_eval.profiles import PROFILES
from audio_eval.suite import COST_RANK, METRICS, ReferenceClip, score

RATE = 22050
ZERO_AT_BEST = [name for name, metric in METRICS.items() if metric.better == "lower"]
LOGITS = {head: np.random.default_rng(1).standard_normal((30, 50)) for head in ("text", "audio.0", "audio.1")}


def metrics_for(material):
    return [name for name, metric in METRICS.items() if metric.inapplicable(material) is None]


def test_identical_clips_get_the_best_score_of_every_metric(clean):
    best = {"pesq_wb": 4.644, "pesq_nb": 4.549, "pesq_change": 0.0, "visqol": 5.0}
    output, asked = Output(clean, LOGITS), set()
    for reference in (ReferenceClip(output, RATE, clean), ReferenceClip(output, RATE, free=True)):
        names = metrics_for(reference.material)
        asked.update(names)
        for name, value in reference.score(Output(clean.copy(), LOGITS), names).items():
            expected = 0.0 if name in ZERO_AT_BEST else best.get(name, 1.0)
            assert value == pytest.approx(expected, abs=1e-3), name
    assert asked | {"visqol"} == set(METRICS)


def test_a_model_without_sound_is_judged_by_its_tokens_and_one_without_tokens_by_its_sound(clean):
    text = ReferenceClip(Output(None, {"text": LOGITS["text"]}), RATE)
    assert metrics_for(text.material) == ["text_agreement", "text_kl_nats", "text_worst_kl_nats"]
    moved = Output(None, {"text": LOGITS["text"] + 0.1 * np.random.default_rng(2).standard_normal((30, 50))})
    scores = text.score(moved, metrics_for(text.material))
    assert 0 < scores["text_kl_nats"] < scores["text_worst_kl_nats"] < 0.1
    with pytest.raises(UndefinedScore, match="lsd_db: the model makes no sound"):
        text.score(moved, ("lsd_db",))
    with pytest.raises(UndefinedScore, match="text_kl_nats: the model has no text tokens"):
        ReferenceClip(clean, RATE).score(clean, ("text_kl_nats",))
    with pytest.raises(UndefinedScore, match="duration_change: hears renders with nothing forced"):
        ReferenceClip(clean, RATE).score(clean, ("duration_change",))
    with pytest.raises(UndefinedScore, match="lsd_db: hears renders with durations and tokens forced"):
        ReferenceClip(clean, RATE, free=True).score(clean, ("lsd_db",))


def test_a_power_is_added_as_it_is_and_an_amplitude_as_its_square():
    assert METRICS["text_kl_nats"].amplitude(0.04) == pytest.approx(0.2)
    assert METRICS["text_kl_nats"].of_amplitude(0.2) == pytest.approx(0.04)
    assert METRICS["lsd_db"].amplitude(0.04) == METRICS["lsd_db"].of_amplitude(0.04) == 0.04


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
        "text_kl_nats",
        "audio_kl_nats",
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
    with pytest.raises(ValueError, match="unknown metrics 'mos', 'snr'; known are text_agreement"):
        score(("mos", "lsd_db", "snr"), reference=clean, degraded=clean, sample_rate_hz=RATE)
    with pytest.raises(UndefinedScore, match="pesq_change: needs the natural recording"):
        score(("pesq_change",), reference=clean, degraded=clean, sample_rate_hz=RATE)
    with pytest.raises(UndefinedScore, match=r"lsd_db: clips must have one length, got \d+ samples"):
        score(("lsd_db",), reference=clean, degraded=clean[:-1], sample_rate_hz=RATE)
    with pytest.raises(UndefinedScore, match="int16; divide by its full scale"):
        score(("lsd_db",), reference=clean, degraded=np.zeros(100, np.int16), sample_rate_hz=RATE)
    with pytest.raises(UndefinedScore, match="mono array"):
        score(("lsd_db",), reference=clean, degraded=np.zeros((2, 100)), sample_rate_hz=RATE)
    narrow = speech(16000)
    with pytest.raises(UndefinedScore, match="lsd_high_db: needs a sample rate above 17392 Hz"):
        score(("lsd_high_db",), reference=narrow, degraded=narrow, sample_rate_hz=16000)


def test_every_metric_is_defined_above_the_rate_that_it_names(speech):
    sound = speech(24000)
    for metric in METRICS.values():
        if metric.above_hz and not metric.needs_natural and metric.missing is None:
            rate = metric.above_hz + 1
            found = score((metric.name,), reference=sound, degraded=sound, sample_rate_hz=rate)
            assert np.isfinite(found[metric.name]), metric.name


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
