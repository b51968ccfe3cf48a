"""Whatever is given as sound, every metric gives a finite score or says why there is none, within ten seconds."""

import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_eval.clip import Clip, UndefinedScore
from audio_eval.suite import METRICS, ReferenceClip

LONGEST_CALL_SECONDS = 10.0
RATES = (8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000)
# Ranges of seconds, and how many of 200 examples have them; some metrics need a second for a second.
LENGTHS = {(0.0, 0.0): 6, (0.0, 0.02): 30, (0.02, 0.4): 90, (0.4, 1.0): 62, (1.0, 3.0): 11, (3.0, 20.0): 1}


def bursts(time, rng, on, period):
    return 0.3 * rng.standard_normal(len(time)) * (time % period < on)


def impulses(time, every):
    train = np.zeros(len(time))
    train[::every] = 0.9
    return train


SOUNDS = {
    "speech": lambda t, rng, speech: np.resize(speech, len(t)),
    "noise": lambda t, rng, speech: 0.1 * rng.standard_normal(len(t)),
    "silence": lambda t, rng, speech: np.zeros(len(t)),
    "constant": lambda t, rng, speech: np.full(len(t), 0.5),
    "one sample": lambda t, rng, speech: 0.9 * (np.arange(len(t)) == len(t) // 2),
    "impulse train": lambda t, rng, speech: impulses(t, 160),
    "slow impulses": lambda t, rng, speech: impulses(t, 5000),
    "tone": lambda t, rng, speech: 0.5 * np.sin(2 * np.pi * 440.0 * t),
    "chirp": lambda t, rng, speech: 0.5 * np.sin(2 * np.pi * (100.0 + 200.0 * t) * t),
    "many bursts": lambda t, rng, speech: bursts(t, rng, 0.219, 0.438),
    "bursts": lambda t, rng, speech: bursts(t, rng, 0.95, 1.2),
    "square": lambda t, rng, speech: np.sign(np.sin(2 * np.pi * 100.0 * t)),
    "pause, then speech": lambda t, rng, speech: np.resize(speech, len(t)) * (t > t.mean() if len(t) else t),
    "walk": lambda t, rng, speech: 0.01 * np.cumsum(rng.standard_normal(len(t))),
}


def with_one(value):
    def put(x):
        spoiled = x.copy()
        spoiled[len(x) // 3 : len(x) // 3 + 1] = value
        return spoiled

    return put


DAMAGES = {
    "none": lambda x: x,
    "quiet": lambda x: 1e-3 * x,
    "tiny": lambda x: 1e-30 * x,
    "denormal": lambda x: 1e-310 * x,
    "huge": lambda x: 1e30 * x,
    "beyond float32": lambda x: 1e200 * x,
    "loud": lambda x: 1e5 * x,
    "clipped": lambda x: np.clip(50.0 * x, -1.0, 1.0),
    "offset": lambda x: x + 0.9,
    "negated": lambda x: -x,
    "one NaN": with_one(np.nan),
    "all NaN": lambda x: np.full(len(x), np.nan),
    "one Inf": with_one(-np.inf),
    "one huge sample": with_one(1e6),
    "half silent": lambda x: x * (np.arange(len(x)) < len(x) // 2),
    "reversed": lambda x: x[::-1],
    "rolled": lambda x: np.roll(x, len(x) // 2),
    "rounded to 3 bits": lambda x: np.rint(4.0 * x) / 4.0,
}
MISFITS = {
    "longer": lambda x: np.append(x, 0.1),
    "shorter": lambda x: x[:-1],
    "empty": lambda x: x[:0],
    "integers": lambda x: np.zeros(len(x), np.int16),
    "half precision": lambda x: np.zeros(len(x), np.float16),
    "complex": lambda x: np.zeros(len(x), np.complex128),
    "stereo": lambda x: np.stack([x, x]),
    "column": lambda x: x[:, None],
}


def outcome(call):
    """What `call` gives, or the text of why it gives nothing."""
    try:
        return call()
    except UndefinedScore as fault:
        text = str(fault)
    assert len(text) > 25
    return text


@dataclass
class Tally:
    """What came of the calls."""

    scores: Counter = field(default_factory=Counter)
    errors: Counter = field(default_factory=Counter)
    slowest: tuple = (0.0, "")

    def call(self, reference, degraded, name, told):
        """Score once, and hold what is held of every call."""
        start = time.monotonic()
        found = outcome(lambda: reference.score(degraded, (name,))[name])
        took = time.monotonic() - start
        if isinstance(found, str):
            # What is no clip at all is refused before any metric is asked.
            assert found.startswith(f"{name}: " if isinstance(degraded, Clip) else "audio is "), (found, told)
            self.errors[name] += 1
        else:
            assert np.isfinite(found), (name, told)
            self.scores[name] += 1
        assert took < LONGEST_CALL_SECONDS, (name, told, took)
        self.slowest = max(self.slowest, (took, f"{name} of {told}"))


lengths = st.sampled_from([span for span, count in LENGTHS.items() for _ in range(count)]).flatmap(
    lambda span: st.floats(*span)
)
sounds = st.tuples(
    st.sampled_from(sorted(SOUNDS)), st.sampled_from([*DAMAGES, *["none"] * 2 * len(DAMAGES)]), st.integers(0, 3)
)
pairs = st.fixed_dictionaries(
    {
        "rate": st.sampled_from(RATES),
        "seconds": lengths,
        "reference": sounds,
        "degraded": st.one_of(st.none(), sounds, sounds),
        "damage": st.sampled_from(sorted(DAMAGES)),
        "misfit": st.sampled_from([*MISFITS, *[None] * 9 * len(MISFITS)]),
        "spoils": st.sampled_from(["reference", "degraded"]),
        "natural": st.one_of(st.none(), sounds),
        "types": st.tuples(*[st.sampled_from([np.float32, np.float64])] * 2),
    }
)


def make(what, time, speech):
    kind, damage, seed = what
    return DAMAGES[damage](SOUNDS[kind](time, np.random.default_rng(seed), speech))


def score_all(told, speech_at, tally):
    """Every metric of one pair."""
    rate = told["rate"]
    instants = np.arange(round(told["seconds"] * rate)) / rate
    speech = speech_at(rate)
    with np.errstate(all="ignore"):
        clips = {"reference": make(told["reference"], instants, speech)}
        # None: the degraded clip is the reference, damaged.
        source = clips["reference"] if told["degraded"] is None else make(told["degraded"], instants, speech)
        clips["degraded"] = DAMAGES[told["damage"]](source)
        for name, dtype in zip(clips, told["types"], strict=True):
            clips[name] = clips[name].astype(dtype)
        natural = clips["reference"] if told["natural"] is None else make(told["natural"], instants, speech)
    if told["misfit"] is not None:
        clips[told["spoils"]] = MISFITS[told["misfit"]](clips[told["spoils"]])
    references = outcome(
        lambda: {free: ReferenceClip(clips["reference"], rate, natural, free=free) for free in (False, True)}
    )
    if isinstance(references, str):
        tally.errors["reference"] += 1
        return
    degraded = outcome(lambda: Clip(clips["degraded"], rate))
    for name, metric in METRICS.items():
        tally.call(references[metric.free], clips["degraded"] if isinstance(degraded, str) else degraded, name, told)


@pytest.fixture(scope="module")
def speech_at(speech):
    kept = {}

    def at(rate):
        if rate not in kept:
            kept[rate] = speech(rate, seconds=1.5)
        return kept[rate]

    # What compiles at its first call does so here.
    for free in (False, True):
        reference = ReferenceClip(at(16000), 16000, at(16000), free=free)
        reference.score(
            at(16000), [name for name, metric in METRICS.items() if metric.inapplicable(reference.material) is None]
        )
    return at


def examine(examples, speech_at):
    tally = Tally()

    @settings(max_examples=examples, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(pairs)
    def one(told):
        score_all(told, speech_at, tally)

    one()
    return tally


def test_hostile_clips_get_a_score_or_a_reason(speech_at):
    tally = examine(60, speech_at)
    assert min(tally.scores.total(), tally.errors.total()) > 300


@pytest.mark.slow
def test_a_thousand_hostile_clips_get_a_score_or_a_reason(speech_at):
    tally = examine(1000, speech_at)
    print(tally)
    for name, metric in METRICS.items():
        if not metric.heads and metric.missing is None:
            assert tally.scores[name] > 50, name
            assert tally.errors[name] > 50 or name in ("finite", "length_samples"), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "reference", "degraded"),
    [
        (16000, "noise", "slow impulses"),
        (16000, "many bursts", "many bursts"),
        (96000, "speech", "noise"),
    ],
)
def test_twenty_seconds_of_what_pesq_aligns_longest(rate, reference, degraded, speech_at):
    told = {
        "rate": rate,
        "seconds": 20.0,
        "reference": (reference, "none", 0),
        "degraded": (degraded, "none", 1),
        "damage": "none",
        "misfit": None,
        "natural": None,
        "types": (np.float32, np.float32),
    }
    tally = Tally()
    score_all(told, speech_at, tally)
    assert tally.scores["lsd_db"] == 1
    print(tally.slowest, {name: tally.scores[name] for name in ("pesq_nb", "pesq_wb", "pesq_change")})
