"""The gauntlet on a few clips of the embedded voice: what `transparent` must refuse, and must not."""

import math

import numpy as np
import pytest

from audio_eval.gauntlet.applied import AppliedGates, Yardstick
from audio_eval.gauntlet.defects import DEFECTS
from audio_eval.gauntlet.harmless import HARMLESS
from audio_eval.gauntlet.panel import Panel
from audio_eval.gauntlet.trial import Begun, Caught, Finding, Trial
from audio_eval.profiles import PROFILES
from precision.gates import Gate
from voice.embedded import EmbeddedVoice, bundled_clips

REFUSED_AT = {defect.name: defect.named for defect in DEFECTS.values() if defect.named is not None} | {
    "hiss_in_pauses": -65.0,
    "phase_slip": 0.8,
    "fricative_collapse": 4.0,
    "band_lost": 4.0,
    "whistle": -30.0,
    "clipping": 10.0,
    "reverberant_smear": -20.0,
    "rail_pinned": 0.1,
}
"""Strengths that anybody hears, where none is promised."""


@pytest.fixture(scope="module")
def panel():
    voice = EmbeddedVoice.load()
    clips = bundled_clips()[6:9]
    return Panel([voice.sound(c).numpy() for c in clips], voice.sample_rate_hz, [c.natural for c in clips])


@pytest.fixture(scope="module")
def transparent(panel):
    return AppliedGates.of(PROFILES["transparent"], panel)


def trial_of(panel, name, strengths=None):
    defect, rate = DEFECTS[name], panel.sample_rate_hz

    def degraded(strength):
        return [defect.plant(clip, rate, strength, seed) for seed, clip in enumerate(panel.originals)]

    return Trial(panel, degraded, strengths or defect.strengths, defect.whole, defect.monotone)


def test_every_defect_has_a_strength_to_be_refused_at():
    assert set(REFUSED_AT) == set(DEFECTS)


@pytest.mark.parametrize("name", [name for name in DEFECTS if DEFECTS[name].applicable(16000)])
def test_transparent_refuses(name, panel, transparent):
    trial = trial_of(panel, name, (REFUSED_AT[name],))
    for scope in ("every", "one"):
        assert trial.refused(transparent, scope, REFUSED_AT[name]), f"{name} in {scope} clip escapes"


def test_transparent_refuses_a_lost_band(speech):
    panel = Panel([speech(22050, seed=seed).astype(np.float32) for seed in range(3)], 22050)
    trial, applied = trial_of(panel, "band_lost"), AppliedGates.of(PROFILES["transparent"], panel)
    for scope in ("every", "one"):
        assert trial.refused(applied, scope, REFUSED_AT["band_lost"])


@pytest.mark.parametrize("change", HARMLESS.values(), ids=lambda change: change.name)
def test_transparent_keeps_what_is_harmless(change, panel, transparent):
    changed = [change.apply(clip, panel.sample_rate_hz, seed) for seed, clip in enumerate(panel.originals)]
    assert transparent.broken(panel.score(changed, transparent.metrics)) == ()


def test_transparent_keeps_what_is_unchanged(transparent):
    assert transparent.broken(transparent.ideal) == ()
    assert all(transparent.used(gate, transparent.ideal) == 0.0 for gate in transparent.gates)


def test_gates_that_do_not_apply_are_left_out(panel, transparent):
    assert {gate.metric for gate in transparent.gates} >= {"pesq_change", "estoi", "lsd_mid_db"}
    assert "lsd_high_db" not in transparent.metrics
    without = Panel(panel.originals[:1], panel.sample_rate_hz)
    assert "pesq_change" not in AppliedGates.of(PROFILES["transparent"], without).metrics


GAIN = Gate("gain_db", "worst", max=0.2)
MEAN_GAIN = Gate("gain_db", "mean", max=0.2)


def loss_of(db):
    return 100.0 * (1.0 - 10.0 ** (-db / 20.0))


@pytest.fixture(scope="module")
def quick(speech):
    return Panel([speech(16000, 0.5, seed=seed).astype(np.float32) for seed in range(4)], 16000)


@pytest.mark.parametrize(
    ("gate", "scope", "db"),
    [(GAIN, "every", 0.2), (GAIN, "one", 0.2), (MEAN_GAIN, "every", 0.2), (MEAN_GAIN, "one", 0.8)],
)
def test_where_a_defect_is_caught(gate, scope, db, quick):
    strengths = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    found = trial_of(quick, "gain_loss", strengths).caught(AppliedGates.of((gate,), quick), scope)
    assert found.gates == (gate,)
    assert found.begun.exact
    # A sixteenth of an octave.
    assert loss_of(db) <= found.begun.strength <= loss_of(db) * 2.0 ** (1 / 16) * 1.0001


def test_what_is_never_caught_and_what_always_is(quick):
    trial = trial_of(quick, "gain_loss")
    assert trial.caught(AppliedGates.of((Gate("gain_db", "worst", max=20.0),), quick), "every") is None
    always = trial.caught(AppliedGates.of((Gate("gain_db", "worst", max=0.001),), quick), "every")
    assert always.begun == Begun(DEFECTS["gain_loss"].strengths[0], exact=False)


def test_a_gap_is_no_catch(quick):
    """Refused at 1 and at 4 but not at 2: caught from 4 on, as what is grosser must be caught, too."""
    quieter = {1.0: 0.5, 2.0: 1.0, 4.0: 0.5}
    trial = Trial(quick, lambda s: [quieter[s] * clip for clip in quick.originals], (1.0, 2.0, 4.0), monotone=False)
    assert trial.caught(AppliedGates.of((GAIN,), quick), "every").begun == Begun(4.0, exact=True)


def test_whole_strengths_stay_whole(quick):
    trial = trial_of(quick, "delay", (1.0, 20.0))
    found = trial.caught(AppliedGates.of((Gate("lag_samples", "worst", max=6.0),), quick), "every")
    assert found.begun.strength == 7.0


def test_scores_are_asked_for_once(quick):
    asked = []

    def degraded(strength):
        asked.append(strength)
        return [0.5 * clip for clip in quick.originals]

    trial = Trial(quick, degraded, (1.0,))
    first = trial.scores(1.0, ("gain_db",))
    assert trial.scores(1.0, ("gain_db", "dc"))[0]["gain_db"] == first[0]["gain_db"] == pytest.approx(6.02, abs=0.01)
    assert asked == [1.0]


def test_yardstick(quick):
    gates = AppliedGates.of((GAIN, Gate("lsd_db", "mean", max=0.5), Gate("polarity", "worst", min=1.0)), quick)
    quieter = [10.0 ** (-0.1 / 20.0) * clip for clip in quick.originals]
    yardstick = Yardstick(gates, quick.score(quieter, gates.metrics))
    assert yardstick.gates[0] == GAIN
    assert [gate.metric for gate in yardstick.gates] == ["gain_db", "lsd_db"]
    assert yardstick.used(GAIN) == pytest.approx(0.5, abs=1e-4)
    found = trial_of(quick, "gain_loss").find(yardstick)
    assert found.even.strength == pytest.approx(loss_of(0.1), rel=0.05)
    assert found.own_even.strength == pytest.approx(loss_of(0.1), rel=0.05)
    assert found.every.begun.strength == pytest.approx(loss_of(0.2), rel=0.05)
    assert not found.held(None)
    assert trial_of(quick, "polarity_flip").find(yardstick).held(1.0)


def test_what_overtakes_a_yardstick_for_a_while_does_so_first_there(quick):
    """Further off than the yardstick at 2, and no longer at 4."""
    gates = AppliedGates.of((GAIN,), quick)
    yardstick = Yardstick(gates, quick.score([0.99 * clip for clip in quick.originals], gates.metrics))
    share = {1.0: 1.0, 2.0: 0.9, 4.0: 1.0}
    trial = Trial(quick, lambda s: [share[s] * clip for clip in quick.originals], (1.0, 2.0, 4.0), monotone=False)
    found = trial.find(yardstick)
    assert found.even is None
    assert (found.own_gate, found.own_even) == (GAIN, Begun(2.0, exact=True))


def test_what_is_used_up(quick):
    gates = AppliedGates.of((Gate("polarity", "worst", min=1.0), Gate("estoi", "mean", min=0.9), GAIN), quick)
    flipped = quick.score([-clip for clip in quick.originals], gates.metrics)
    polarity, estoi = (next(g for g in gates.gates if g.metric == name) for name in ("polarity", "estoi"))
    assert gates.used(polarity, flipped) == math.inf
    assert gates.used(GAIN, flipped) == pytest.approx(0.0, abs=1e-6)
    broken = [np.full_like(clip, np.nan) for clip in quick.originals]
    assert gates.used(estoi, quick.score(broken, ("estoi",))) == math.inf
    assert gates.tightest(flipped) == polarity


BEGUN = {strength: Caught(Begun(strength, exact=True), (GAIN,)) for strength in (1.0, 3.0)}


@pytest.mark.parametrize(
    ("every", "one", "even", "named", "held"),
    [
        (1.0, 1.0, 2.0, None, True),
        (3.0, 3.0, 2.0, None, False),
        (3.0, 3.0, None, None, True),
        (1.0, None, 2.0, None, True),
        (1.0, None, 2.0, 2.0, False),
        (1.0, 3.0, 2.0, 2.0, False),
        (1.0, 1.0, 2.0, 2.0, True),
        (None, None, None, None, False),
    ],
)
def test_what_is_held(every, one, even, named, held):
    begun = None if even is None else Begun(even, exact=True)
    assert Finding(BEGUN.get(every), BEGUN.get(one), begun, None, None).held(named) is held
