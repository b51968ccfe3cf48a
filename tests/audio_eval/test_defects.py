import itertools

import numpy as np
import pytest
from scipy import signal

from audio_eval.clip import Clip
from audio_eval.gauntlet import sound, timing
from audio_eval.gauntlet.defects import DEFECTS
from audio_eval.gauntlet.harmless import HARMLESS
from audio_eval.gauntlet.places import (
    PAUSE_DB,
    curve,
    levels_db,
    loud_moment,
    pauses,
    soft_fricatives,
    voiced_moment,
)
from audio_eval.pitch import track

RATE = 22050


@pytest.fixture(scope="module")
def spoken(clean):
    """Speech-like sound with a fricative that is soft, and a pause."""
    sound = clean.copy()
    noise = np.random.default_rng(5).standard_normal(4410)
    sound[22050:26460] = 0.02 * noise / np.max(np.abs(noise))
    sound[:2205] *= 1e-3
    return sound.astype(np.float32)


def harmonic(f0_hz=150.0, seconds=2.0, phases=(0.3, 1.1, -0.7, 2.0)):
    time = np.arange(round(seconds * RATE)) / RATE
    return 0.1 * sum(np.cos(2 * np.pi * k * f0_hz * time + p) for k, p in enumerate(phases, start=1))


def level(samples):
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))


def frames_of(mask):
    return np.repeat(mask, round(0.02 * RATE))


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=lambda defect: defect.name)
def test_what_holds_for_every_defect(defect, spoken):
    before = spoken.copy()
    planted = [defect.plant(spoken, RATE, strength, 3) for strength in defect.strengths]
    assert np.array_equal(spoken, before)
    for samples in planted:
        assert samples.dtype == np.float32
        assert samples.shape == spoken.shape
        assert not np.array_equal(samples, spoken)
    again = defect.plant(spoken.astype(np.float64), RATE, defect.strengths[-1], 3)
    assert np.allclose(again, planted[-1], atol=1e-6, equal_nan=True)
    assert list(defect.strengths) == sorted(set(defect.strengths))
    assert defect.named is None or defect.strengths[0] <= defect.named <= defect.strengths[-1]
    assert defect.unit
    assert defect.imitates


GROWING = [
    name
    for name in DEFECTS
    # What moves sound in time moves it from one period to the next; NaN has no distance.
    if name not in ("phase_slip", "pitch_drift", "repeated_frame", "dropped_frame", "delay", "nan_in_silence")
]


@pytest.mark.parametrize("name", GROWING)
def test_distance_grows_with_strength(name, spoken):
    defect = DEFECTS[name]
    distances = [level(defect.plant(spoken, RATE, s, 3) - spoken) for s in defect.strengths]
    assert all(after > before for before, after in itertools.pairwise(distances))


@pytest.mark.parametrize("name", ["hiss_in_pauses", "phase_slip", "dropout", "reverberant_smear", "nan_in_silence"])
def test_seed_decides_what_is_drawn(name, spoken):
    plant, strength = DEFECTS[name].plant, DEFECTS[name].strengths[-1]
    one, same, other = (plant(spoken, RATE, strength, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same, equal_nan=True)
    assert not np.array_equal(one, other, equal_nan=True)


def test_lost_band_needs_a_band():
    assert [DEFECTS["band_lost"].applicable(rate) for rate in (8000, 16000, 22050)] == [False, False, True]
    assert all(d.applicable(8000) for d in DEFECTS.values() if d.name != "band_lost")


def test_hiss_has_its_level_in_pauses_and_is_nowhere_else(spoken):
    added = sound.hiss_in_pauses(spoken, RATE, -60.0, 0).astype(np.float64) - spoken
    place = curve(pauses(spoken, RATE), len(spoken), RATE)
    assert level(added[place == 1.0]) == pytest.approx(-60.0, abs=0.2)
    assert not np.any(added[place == 0.0])
    assert np.mean(place) > 0.1


def test_pauses_are_quiet_and_never_none(spoken):
    levels = levels_db(spoken, RATE)
    assert set(np.flatnonzero(levels <= levels.max() - PAUSE_DB)) <= set(np.flatnonzero(pauses(spoken, RATE)))
    steady = harmonic()
    assert np.mean(pauses(steady, RATE)) >= 0.1


def test_fricatives_lose_their_high_band_and_nothing_else_does(spoken):
    found = soft_fricatives(spoken, RATE)
    assert found[51:59].all()
    assert found.sum() < 20
    collapsed = sound.fricative_collapse(spoken, RATE, 12.0, 0)
    inside = slice(22950, 25560)
    high = signal.butter(8, 5000, "high", fs=RATE, output="sos")
    drop = level(signal.sosfiltfilt(high, collapsed)[inside]) - level(signal.sosfiltfilt(high, spoken)[inside])
    assert drop == pytest.approx(-12.0, abs=0.3)
    untouched = curve(found, len(spoken), RATE) == 0.0
    assert np.array_equal(collapsed[untouched], spoken[untouched])


@pytest.mark.parametrize(("tone_hz", "change_db"), [(500, 0.0), (7000, 0.0), (9000, -20.0), (10500, -20.0)])
def test_band_above_8_khz_is_weaker_by_its_strength(tone_hz, change_db):
    tone = 0.3 * np.sin(2 * np.pi * tone_hz * np.arange(RATE) / RATE)
    inner = slice(2000, -2000)
    lost = sound.band_lost(tone, RATE, 20.0, 0)
    assert level(lost[inner]) - level(tone[inner]) == pytest.approx(change_db, abs=0.1)


def test_gain_and_polarity(spoken):
    assert np.allclose(sound.gain_loss(spoken, RATE, 2.0, 0), 0.98 * spoken, rtol=1e-6, atol=0.0)
    assert np.array_equal(sound.polarity_flip(spoken, RATE, 1.0, 0), -spoken)


def test_clipping_cuts_the_peak_flat(spoken):
    clipped = sound.clipping(spoken, RATE, 30.0, 0)
    limit = 0.7 * np.max(np.abs(spoken))
    assert np.max(np.abs(clipped)) == pytest.approx(limit, rel=1e-6)
    below = np.abs(spoken) < limit
    assert np.array_equal(clipped[below], spoken[below])


def test_smear_has_its_level_and_its_decay():
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)
    tail = sound.reverberant_smear(noise, RATE, -20.0, 1) - noise
    assert level(tail) - level(noise) == pytest.approx(-20.0, abs=1.0)
    click = np.zeros(RATE)
    click[0] = 1.0
    decay = sound.reverberant_smear(click, RATE, 0.0, 1)[1:]
    halves = [level(decay[round(start * RATE) : round((start + 0.05) * RATE)]) for start in (0.0, 0.15)]
    assert halves[1] - halves[0] == pytest.approx(-60.0 * 0.15 / sound.TAIL_SECONDS, abs=3.0)
    assert np.allclose(decay[round(sound.TAIL_SECONDS * RATE) :], 0.0, atol=1e-12)


@pytest.mark.parametrize("share", [0.01, 1.0, 100.0])
def test_rail_holds_one_stretch(share, spoken):
    stuck = sound.rail_pinned(spoken, RATE, share, 0)
    at = np.flatnonzero(np.abs(stuck) == 1.0)
    assert len(at) == max(1, round(len(spoken) * share / 100.0))
    assert at[-1] - at[0] + 1 == len(at)
    assert len(set(stuck[at])) == 1


def test_nan_fall_into_the_quietest_frame(spoken):
    broken = sound.nan_in_silence(spoken, RATE, 10.0, 0)
    at = np.flatnonzero(np.isnan(broken))
    quietest = int(np.argmin(levels_db(spoken, RATE)))
    assert len(at) == 10
    assert set(at // round(0.02 * RATE)) == {quietest}


@pytest.mark.parametrize("radians", [0.1, 0.8, 1.6])
def test_slip_turns_the_harmonics_by_multiples(radians):
    f0_hz = 150.0
    steady = harmonic(f0_hz)
    slipped = timing.phase_slip(steady, RATE, radians, 0)
    moment, found = voiced_moment(steady, RATE, 0)
    assert found == pytest.approx(f0_hz, rel=0.01)
    assert np.allclose(slipped[:moment], steady[:moment], atol=1e-6)
    window = slice(moment + 200, moment + 200 + 20 * 147)
    turn = np.exp(-2j * np.pi * f0_hz * np.arange(len(steady)) / RATE)
    for k in (1, 2, 3, 4):
        before, after = (np.sum((samples * turn**k)[window]) for samples in (steady, slipped))
        assert np.angle(after / before * np.exp(1j * k * radians * f0_hz / found)) == pytest.approx(0.0, abs=0.03)


def test_slip_falls_inside_a_vowel(spoken):
    for seed in range(8):
        moment, f0_hz = voiced_moment(spoken, RATE, seed)
        middle = track(Clip(spoken, RATE))
        frame = round(moment / RATE / 0.01)
        assert middle.voiced[frame - 3 : frame + 4].all()
        assert 80.0 < f0_hz < 160.0


def test_slip_needs_a_voice(hiss):
    with pytest.raises(ValueError, match="no frame of the clip is voiced"):
        timing.phase_slip(0.1 * hiss, RATE, 1.0, 0)


def test_drift_is_up_then_down_and_ends_where_it_began():
    steady = harmonic(seconds=2.0)
    drifted = timing.pitch_drift(steady, RATE, 10.0, 0)
    found = 1200 * np.log2(track(Clip(drifted, RATE)).f0_hz / track(Clip(steady, RATE)).f0_hz)
    for start, cents in ((5, 10.0), (55, -10.0), (105, 10.0)):
        assert np.median(found[start : start + 38]) == pytest.approx(cents, abs=0.5)
    at_a_second = slice(RATE - 20, RATE + 20)
    assert np.allclose(drifted[at_a_second], steady[at_a_second], atol=0.004)


def test_drift_of_nothing_changes_nothing(spoken):
    assert np.allclose(timing.pitch_drift(spoken, RATE, 0.0, 0), spoken, atol=2e-5)


@pytest.mark.parametrize("milliseconds", [1.0, 10.0, 40.0])
def test_buffers(milliseconds, spoken):
    count = round(milliseconds * RATE / 1000)
    moment = loud_moment(spoken, RATE, 4)
    twice = timing.repeated_frame(spoken, RATE, milliseconds, 4)
    assert np.array_equal(twice[: moment + count], spoken[: moment + count])
    assert np.array_equal(twice[moment + count :], spoken[moment:-count])
    once = timing.dropped_frame(spoken, RATE, milliseconds, 4)
    assert np.array_equal(once[:moment], spoken[:moment])
    assert np.array_equal(once[moment:-count], spoken[moment + count :])
    assert not np.any(once[-count:])
    silenced = timing.dropout(spoken, RATE, milliseconds, 4)
    assert not np.any(silenced[moment : moment + count])
    assert np.array_equal(
        np.delete(silenced, np.s_[moment : moment + count]), np.delete(spoken, np.s_[moment : moment + count])
    )


def test_faults_fall_into_speech(spoken):
    levels = levels_db(spoken, RATE)
    moments = [loud_moment(spoken, RATE, seed) for seed in range(20)]
    assert len(set(moments)) > 5
    assert all(levels[moment // round(0.02 * RATE)] >= levels.max() - 20.0 for moment in moments)


def test_delay_is_in_whole_samples(spoken):
    late = timing.delay(spoken, RATE, 3.0, 0)
    assert not np.any(late[:3])
    assert np.array_equal(late[3:], spoken[:-3])


@pytest.mark.parametrize("change", HARMLESS.values(), ids=lambda change: change.name)
def test_what_holds_for_every_harmless_change(change, spoken):
    changed = change.apply(spoken, RATE, 0)
    assert changed.dtype == np.float32
    assert changed.shape == spoken.shape
    assert not np.array_equal(changed, spoken)
    assert np.array_equal(changed, change.apply(spoken, RATE, 0))
    assert change.what


def test_harmless_changes_are_what_they_say(spoken):
    changed = {name: change.apply(spoken, RATE, 0).astype(np.float64) for name, change in HARMLESS.items()}
    original = spoken.astype(np.float64)
    assert np.max(np.abs(changed["16_bit"] - original)) <= 0.5 / 32768
    assert np.all(changed["16_bit"] * 32768 % 1 == 0)
    assert np.max(np.abs(changed["fp16_samples"] - original) / np.maximum(np.abs(original), 2.0**-14)) <= 2.0**-11
    assert level(changed["quieter"]) - level(original) == pytest.approx(-0.1, abs=1e-5)
    assert level(changed["louder"]) - level(original) == pytest.approx(0.1, abs=1e-5)
    dither = changed["dither"] - original
    assert level(dither) == pytest.approx(-90.0, abs=0.1)
    assert np.max(np.abs(dither)) <= np.sqrt(6.0) * 10 ** (-90 / 20) * 1.001
    assert np.mean((dither / np.std(dither)) ** 4) == pytest.approx(2.4, abs=0.05)  # of a triangle


@pytest.mark.parametrize("name", ["soxr_hq", "soxr_vhq"])
@pytest.mark.parametrize("rate", [16000, 22050, 48000])
def test_round_trip_keeps_what_is_under_nine_tenths_of_nyquist(name, rate):
    time = np.arange(rate) / rate
    tones = sum(0.1 * np.sin(2 * np.pi * f * rate / 2 * time + f) for f in (0.05, 0.4, 0.9)) * np.hanning(rate)
    # At ratios of large numbers soxr begins to fall a little early: by 0.007 dB at nine tenths.
    assert level(HARMLESS[name].apply(tones, rate, 0) - tones) - level(tones) < -60.0
