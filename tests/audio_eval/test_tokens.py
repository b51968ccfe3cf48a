import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import rel_entr, softmax

from audio_eval import tokens
from audio_eval.clip import UndefinedScore
from audio_eval.tokens import Heads, kl_nats, token_agreement, worst_kl_nats

METRICS = [token_agreement, kl_nats, worst_kl_nats]
DISTANCES = [kl_nats, worst_kl_nats]


def decoder(seed=0, steps=200, vocabulary=300, scale=4.0):
    return np.random.default_rng(seed).standard_normal((steps, vocabulary)) * scale


def moved(logits, by, seed=1):
    return logits + by * np.random.default_rng(seed).standard_normal(logits.shape)


def log(*probabilities):
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities))


def test_hand_computed_divergences():
    reference = log([0.5, 0.5], [0.25, 0.75])
    degraded = log([0.75, 0.25], [0.25, 0.75])
    first = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert kl_nats(reference=reference, degraded=degraded) == pytest.approx(first / 2, rel=1e-14)
    assert worst_kl_nats(reference=reference, degraded=degraded) == pytest.approx(first, rel=1e-14)
    assert token_agreement(reference=reference, degraded=degraded) == 1.0
    # The direction: the other way round it is another number.
    back = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert worst_kl_nats(reference=degraded, degraded=reference) == pytest.approx(back, rel=1e-14)
    assert abs(first - back) > 0.01


@pytest.mark.parametrize("by", [1e-4, 0.01, 1.0, 8.0])
def test_equals_torch_and_scipy(by):
    reference, degraded = decoder(), moved(decoder(), by)
    ours = kl_nats(reference=reference, degraded=degraded)
    logs = [torch.log_softmax(torch.from_numpy(x), dim=1) for x in (degraded, reference)]
    theirs = torch.nn.functional.kl_div(logs[0], logs[1], reduction="batchmean", log_target=True).item()
    assert ours == pytest.approx(theirs, rel=1e-9)
    entries = rel_entr(softmax(reference, axis=1), softmax(degraded, axis=1))
    assert ours == pytest.approx(entries.sum(axis=1).mean(), rel=1e-6)
    assert worst_kl_nats(reference=reference, degraded=degraded) == pytest.approx(entries.sum(axis=1).max(), rel=1e-6)
    same = (torch.from_numpy(reference).argmax(1) == torch.from_numpy(degraded).argmax(1)).double().mean().item()
    assert token_agreement(reference=reference, degraded=degraded) == pytest.approx(same)


def test_small_noise_costs_half_its_variance():
    # Second order: KL is half the variance, under p, of what was added to the logits.
    reference, noise = decoder(steps=50), 1e-3 * moved(np.zeros((50, 300)), 1.0)
    p = softmax(reference, axis=1)
    variance = (p * noise**2).sum(axis=1) - (p * noise).sum(axis=1) ** 2
    assert kl_nats(reference=reference, degraded=reference + noise) == pytest.approx(variance.mean() / 2, rel=1e-2)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_stable_at_large_logits(kind):
    reference = np.array([[1e4, -1e4, 9999.0], [-1e4, -1e4, -1e4]], kind)
    degraded = np.array([[1e4, -1e4, 9998.0], [-1e4, -1e4, -1e4]], kind)
    # float16 holds every eighth at that size: the gap between the two likely tokens is what it stores.
    gaps = [float(x[0, 0]) - float(x[0, 2]) for x in (reference, degraded)]
    small = log([1, math.exp(-gaps[0])], [1, 1])[:, :], log([1, math.exp(-gaps[1])], [1, 1])
    expected = kl_nats(reference=small[0], degraded=small[1])
    assert kl_nats(reference=reference, degraded=degraded) == pytest.approx(expected, abs=1e-11)
    far = np.array([[1e4, -1e4]], kind)
    assert kl_nats(reference=far, degraded=-far) == pytest.approx(2 * float(far[0, 0] - kind(0)), rel=1e-3)


finite = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(2, 9)),
    elements=st.floats(-1e4, 1e4, allow_nan=False),
)


@settings(max_examples=100)
@given(logits=finite, data=st.data())
def test_never_negative_zero_for_identical_and_blind_to_a_constant(logits, data):
    other = data.draw(arrays.arrays(np.float64, logits.shape, elements=st.floats(-1e4, 1e4)))
    shift = data.draw(arrays.arrays(np.float64, (len(logits), 1), elements=st.floats(-1e4, 1e4)))
    for distance in DISTANCES:
        assert distance(reference=logits, degraded=logits.copy()) == 0.0
        score = distance(reference=logits, degraded=other)
        assert score >= 0.0
        assert distance(reference=logits, degraded=other + shift) == pytest.approx(score, rel=1e-9, abs=1e-9)
        assert distance(reference=logits + shift, degraded=other) == pytest.approx(score, rel=1e-9, abs=1e-9)
    mean, worst = (distance(reference=logits, degraded=other) for distance in DISTANCES)
    assert mean <= worst * (1 + 1e-12)
    assert 0.0 <= token_agreement(reference=logits, degraded=other) <= 1.0
    assert token_agreement(reference=logits, degraded=logits) == 1.0


def test_equal_logits_choose_the_lowest_token():
    tied = np.array([[1.0, 1.0, 0.0]])
    assert token_agreement(reference=tied, degraded=np.array([[2.0, 1.0, 0.0]])) == 1.0
    assert token_agreement(reference=tied, degraded=np.array([[1.0, 2.0, 0.0]])) == 0.0


def test_heads_count_alike_and_the_worst_of_them_is_found():
    reference = {"text": decoder(0, 40, 500), "audio.0": decoder(1, 80, 64), "audio.1": decoder(2, 80, 64)}
    degraded = {head: logits.copy() for head, logits in reference.items()}
    degraded["audio.1"] = moved(degraded["audio.1"], 0.1)
    degraded["audio.1"][17] = decoder(9, 1, 64)[0]
    for metric in (token_agreement, kl_nats):
        alone = [metric(reference=reference[head], degraded=degraded[head]) for head in reference]
        assert metric(reference=reference, degraded=degraded) == pytest.approx(np.mean(alone))
    derailed = worst_kl_nats(reference=reference["audio.1"][17:18], degraded=degraded["audio.1"][17:18])
    assert worst_kl_nats(reference=reference, degraded=degraded) == pytest.approx(derailed)


def test_one_derailed_step_does_not_hide():
    reference = decoder(steps=1000)
    degraded = moved(reference, 0.02)
    calm = worst_kl_nats(reference=reference, degraded=degraded)
    degraded[400] = np.roll(degraded[400], 7)
    assert kl_nats(reference=reference, degraded=degraded) < 0.02
    assert token_agreement(reference=reference, degraded=degraded) > 0.98
    assert worst_kl_nats(reference=reference, degraded=degraded) > 1000 * calm


def test_what_is_masked():
    reference, degraded = log([0.5, 0.5, 0.0]), log([0.25, 0.75, 0.0])
    plain = kl_nats(reference=reference[:, :2], degraded=degraded[:, :2])
    assert kl_nats(reference=reference, degraded=degraded) == pytest.approx(plain, rel=1e-14)
    # Masked in the reference alone: what the degraded gives that token, the others lack.
    lost = kl_nats(reference=reference, degraded=log([0.4, 0.4, 0.2]))
    assert lost == pytest.approx(-math.log(0.8), rel=1e-14)
    for metric in DISTANCES:
        with pytest.raises(
            UndefinedScore, match=r"head tokens: .* rules out tokens .* in 1 steps, the first of them st"
        ):
            metric(reference=log([0.5, 0.5], [0.4, 0.6]), degraded=log([0.5, 0.5], [0.0, 1.0]))
        with pytest.raises(UndefinedScore, match="rules out tokens"):
            metric(reference=np.zeros((2, 3)), degraded=np.array([[0.0, 0.0, -1.7e308]] * 2))
    # A mask of a large negative number is a mask.
    lowest = float(np.finfo(np.float32).min)
    masked = [np.where(np.isinf(x), lowest, x) for x in (reference, degraded)]
    assert kl_nats(reference=masked[0], degraded=masked[1]) == pytest.approx(plain, rel=1e-14)


def with_one(value):
    logits = decoder(steps=6, vocabulary=5)
    logits[3, 2] = value
    return logits


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("reference", "degraded", "text"),
    [
        (decoder(), with_one(0.0), r"must have one shape, got \(200, 300\) of reference and \(6, 5\)"),
        (with_one(0.0), with_one(np.nan), "1 steps have no distribution; step 3 has NaN or"),
        (with_one(np.inf), with_one(0.0), "step 3 has NaN or"),
        (np.full((2, 3), -np.inf), np.zeros((2, 3)), "2 steps have no distribution; step 0 has all tokens masked"),
        (np.zeros((0, 5)), np.zeros((0, 5)), r"vocabulary of 2 or more\], got \(0, 5\)"),
        (np.zeros((5, 1)), np.zeros((5, 1)), r"got \(5, 1\)"),
        (np.zeros(5), np.zeros(5), r"got \(5,\)"),
        (np.zeros((2, 3), int), np.zeros((2, 3), int), "floating point, got int64"),
        ({}, {}, "no token head"),
        ({"text": decoder()}, {"audio.0": decoder()}, "has the heads text and the degraded audio.0"),
        ({"text": decoder()}, decoder(), "has the heads text and the degraded tokens"),
    ],
)
def test_hostile_logits_get_a_clear_error(metric, reference, degraded, text):
    with pytest.raises(UndefinedScore, match=text):
        metric(reference=reference, degraded=degraded)


anything = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, 1e4, -1e308, 1e308, 5e-324]))


def outcome(metric, reference, degraded):
    """The score, or the text of why there is none."""
    try:
        return metric(reference=reference, degraded=degraded)
    except UndefinedScore as fault:
        return str(fault)


@settings(max_examples=200)
@given(
    pair=st.tuples(st.integers(0, 3), st.integers(0, 4)).flatmap(
        lambda shape: st.tuples(*[arrays.arrays(np.float64, shape, elements=anything)] * 2)
    )
)
def test_any_numbers_give_a_finite_score_or_a_clear_error(pair):
    for metric in METRICS:
        found = outcome(metric, *pair)
        assert "head" in found if isinstance(found, str) else 0.0 <= found < np.inf


def test_heads_score_as_their_arrays_and_compute_once(monkeypatch):
    reference, degraded = decoder(), moved(decoder(), 0.3)
    plain = {metric: metric(reference=reference, degraded=degraded) for metric in METRICS}
    kept = Heads(reference), Heads({tokens.ONLY_HEAD: degraded})
    calls = []
    relative = Heads.relative
    monkeypatch.setattr(Heads, "relative", lambda self, head: calls.append(head) or relative(self, head))
    for _ in range(2):
        for metric in METRICS:
            assert metric(reference=kept[0], degraded=kept[1]) == plain[metric]
    assert len(calls) == 4  # a normalizer for each, and once both for their divergence


def test_a_large_vocabulary_in_blocks(monkeypatch):
    reference, degraded = decoder(vocabulary=5000), moved(decoder(vocabulary=5000), 0.5)
    whole = kl_nats(reference=reference, degraded=degraded)
    monkeypatch.setattr(tokens, "BLOCK", 12345)
    assert kl_nats(reference=reference, degraded=degraded) == pytest.approx(whole, rel=1e-13)
