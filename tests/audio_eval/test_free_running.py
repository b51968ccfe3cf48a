import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft

from audio_eval import free_running, pitch
from audio_eval.cepstra import mcd_db
from audio_eval.clip import Clip, UndefinedScore
from audio_eval.free_running import dtw_mcd_db

RATE = 16000
PITCH = [free_running.f0_mean_cents, free_running.f0_spread_cents]
METRICS = [free_running.duration_change, *PITCH, free_running.voiced_share_change, dtw_mcd_db]


def buzz(f0_hz):
    """A voice without formants: harmonics of a pitch given sample by sample."""
    angle = 2 * np.pi * np.cumsum(f0_hz) / RATE
    return 0.3 * sum(np.sin(k * angle) / k for k in range(1, 20))


def glide(seconds, centre_hz, swing_cents):
    time = np.arange(round(seconds * RATE)) / RATE
    return centre_hz * 2.0 ** (swing_cents / 1200 * np.sin(2 * np.pi * time))


def compare(metric, reference, degraded):
    return metric(reference=reference, degraded=degraded, sample_rate_hz=RATE)


@pytest.mark.parametrize("metric", METRICS)
def test_zero_for_identical_clips_and_for_a_change_of_level(metric, speech):
    sound = speech(RATE)
    assert compare(metric, sound, sound.copy()) == 0.0
    assert compare(metric, sound, 0.5 * sound) == pytest.approx(0.0, abs=0.02)
    for _ in range(2):
        assert compare(metric, Clip(sound, RATE), Clip(sound.copy(), RATE)) == 0.0


def test_duration_is_a_share_of_the_reference(speech):
    sound = speech(RATE)
    assert compare(free_running.duration_change, sound, sound[: int(0.9 * len(sound))]) == pytest.approx(0.1)
    assert compare(free_running.duration_change, sound[: len(sound) // 2], sound) == pytest.approx(1.0)


@pytest.mark.parametrize("cents", [-50.0, 10.0, 100.0, 1200.0])
def test_a_transposed_voice_of_another_length(cents):
    reference, degraded = buzz(glide(2.0, 120.0, 150)), buzz(glide(3.0, 120.0 * 2 ** (cents / 1200), 150))
    assert compare(free_running.f0_mean_cents, reference, degraded) == pytest.approx(abs(cents), abs=2.0)
    assert compare(free_running.f0_spread_cents, reference, degraded) == pytest.approx(0.0, abs=2.0)


def test_a_flatter_voice():
    # A sine of 150 cents has a standard deviation of 150 / sqrt(2).
    reference, degraded = buzz(glide(2.0, 120.0, 150)), buzz(glide(2.0, 120.0, 50))
    assert compare(free_running.f0_spread_cents, reference, degraded) == pytest.approx(100 / np.sqrt(2), abs=2.0)
    assert compare(free_running.f0_mean_cents, reference, degraded) < 2.0


def test_lost_voice_is_a_share_of_frames():
    reference = buzz(glide(2.0, 120.0, 100))
    degraded = np.concatenate([reference[: 3 * len(reference) // 4], np.zeros(len(reference) // 4)])
    assert compare(free_running.voiced_share_change, reference, degraded) == pytest.approx(0.25, abs=0.02)
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)
    assert compare(free_running.voiced_share_change, reference, noise) > 0.9


def test_octave_errors_are_lost_voice_and_no_intonation():
    steady = buzz(glide(2.0, 120.0, 100))
    time = np.arange(len(steady)) / RATE
    fallen = np.where(time < 1.8, steady, 0.3 * np.sin(2 * np.pi * 495 * time))
    assert compare(free_running.f0_spread_cents, steady, fallen) < 10.0
    assert compare(free_running.voiced_share_change, steady, fallen) == pytest.approx(0.1, abs=0.02)
    found = pitch.track(Clip(fallen, RATE))
    cents = 1200 * np.log2(found.f0_hz[found.voiced])
    assert np.std(cents) > 300.0
    # All of it an octave higher is another voice, not a mistake of the tracker.
    assert compare(free_running.f0_mean_cents, steady, buzz(glide(2.0, 240.0, 100))) == pytest.approx(1200, abs=2.0)


@pytest.mark.parametrize("metric", PITCH)
def test_too_little_voice_for_statistics(metric, speech):
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    with pytest.raises(UndefinedScore, match=r"the degraded clip has 0\.\d+ s of voice, 0\.10 s are needed"):
        compare(metric, speech(RATE), noise)
    with pytest.raises(UndefinedScore, match="the reference clip has"):
        compare(metric, noise, speech(RATE))


def cepstra(sound, floor):
    """c1 to c24 of log mel magnitudes every 5 ms [24, frames], written down once more."""
    frames = {"n_fft": 1024, "hop_length": 80, "pad_mode": "reflect"}
    power = librosa.feature.melspectrogram(y=sound, sr=RATE, n_mels=80, fmax=0.92 * RATE / 2, **frames)
    log_magnitude = 0.5 * np.log(np.maximum(power, floor or 1e-8 * power.max()))
    return fft.dct(log_magnitude, type=2, axis=0)[1:25] / 80, 1e-8 * power.max()


def warped(distances):
    """Mean distance along the cheapest path through [frames, frames], by plain recursion."""
    rows, columns = distances.shape
    best = np.full((rows + 1, columns + 1, 2), np.inf)
    best[0, 0] = 0.0
    for i in range(rows):
        for j in range(columns):
            steps = [best[i, j], best[i, j + 1], best[i + 1, j]]
            cost, length = min(steps, key=lambda step: step[0])
            best[i + 1, j + 1] = cost + distances[i, j], length + 1
    return best[-1, -1, 0] / best[-1, -1, 1]


def test_warped_distortion_is_the_direct_formula(speech):
    sounds = speech(RATE, seconds=1.0), speech(RATE, seconds=0.8, seed=2) + 0.001
    first, floor = cepstra(sounds[0], None)
    second, _ = cepstra(sounds[1], floor)
    ours = compare(dtw_mcd_db, *sounds)
    distances = 10 / np.log(10) * np.sqrt(2 * np.sum((first[:, :, None] - second[:, None, :]) ** 2, axis=0))
    assert ours == pytest.approx(warped(distances), rel=1e-4)
    _, path = librosa.sequence.dtw(first, second, metric="euclidean")
    differences = first[:, path[:, 0]] - second[:, path[:, 1]]
    direct = 10 / np.log(10) * np.mean(np.sqrt(2 * np.sum(differences**2, axis=0)))
    assert ours == pytest.approx(direct, rel=1e-4)


def test_in_step_it_is_the_distortion_of_equal_lengths(speech, monkeypatch):
    monkeypatch.setattr(free_running, "WARP_HOP_SECONDS", 1024 / 4 / RATE)
    sound = speech(RATE)
    noisy = sound + 1e-4 * np.random.default_rng(0).standard_normal(len(sound))
    assert compare(dtw_mcd_db, sound, noisy) == pytest.approx(compare(mcd_db, sound, noisy), rel=1e-3)


def test_timing_is_forgiven_and_another_sound_is_not():
    def vowels(seconds):
        time = np.arange(round(seconds * RATE)) / RATE / seconds
        voice, hertz = buzz(np.full(len(time), 120.0)), np.fft.rfftfreq(len(time), 1 / RATE)
        shaped = [
            np.fft.irfft(np.fft.rfft(voice) * sum(np.exp(-(((hertz - f) / 200.0) ** 2)) + 0.01 for f in formants))
            for formants in ((700, 1200, 2600), (300, 2200, 2900))
        ]
        mix = 0.5 + 0.5 * np.tanh(20 * (time - 0.5))
        return (1 - mix) * shaped[0] + mix * shaped[1]

    sound, slow = vowels(1.0), vowels(1.5)
    assert compare(dtw_mcd_db, sound, slow) < 1.0
    assert compare(dtw_mcd_db, sound, slow[: len(slow) // 2]) > 3.0
    assert compare(dtw_mcd_db, sound, slow[::-1].copy()) > 2.0


def test_warped_distortion_grows_with_noise(speech):
    sound = speech(RATE)
    hiss = np.random.default_rng(3).standard_normal(len(sound))
    scores = [compare(dtw_mcd_db, sound, sound + level * hiss) for level in (0.0, 1e-5, 1e-4, 1e-3, 1e-2)]
    assert scores == sorted(scores)
    assert scores[0] == 0.0
    assert scores[-1] > 3.0


def test_what_is_too_long_or_too_short_to_align(speech):
    sound = speech(RATE)
    for other in (np.resize(sound, 31 * RATE), sound[:1000]):
        with pytest.raises(UndefinedScore, match=r"clips of 0.064 to 30 s can be aligned, got (31|0).\d* s"):
            compare(dtw_mcd_db, sound, other)


@pytest.mark.parametrize("metric", METRICS)
def test_hostile_clips_get_a_clear_error(metric, speech):
    sound = speech(RATE)
    for value in (np.nan, np.inf):
        broken = np.where(np.arange(len(sound)) == 7, value, sound)
        with pytest.raises(UndefinedScore, match="the degraded clip has NaN or Inf"):
            compare(metric, sound, broken)
    with pytest.raises(UndefinedScore, match="the degraded clip is silent"):
        compare(metric, sound, sound * 0.0)
    with pytest.raises(UndefinedScore, match="the reference clip is silent"):
        compare(metric, sound * 1e-7, sound)
    with pytest.raises(UndefinedScore, match="peaks at 5e"):
        compare(metric, sound, sound * 1e7)
    with pytest.raises(UndefinedScore, match="mono array"):
        compare(metric, sound, np.zeros(0))
    if metric is not free_running.duration_change:
        with pytest.raises(UndefinedScore, match=r"too short|clips of 0.064 to 30 s"):
            compare(metric, sound, sound[3000:3300])


KINDS = st.sampled_from(["speech", "noise", "constant", "impulse", "tone", "one nan", "huge", "tiny"])


def hostile(kind, length, speech):
    sound = np.resize(speech(RATE, seconds=0.6), length)
    rng = np.random.default_rng(length)
    return {
        "speech": sound,
        "noise": rng.standard_normal(length) * 0.1,
        "constant": np.full(length, 0.5),
        "impulse": (np.arange(length) == length // 2) * 0.9,
        "tone": 0.5 * np.sin(np.arange(length) * 0.05),
        "one nan": np.where(np.arange(length) == length // 2, np.nan, sound),
        "huge": sound * 1e200,
        "tiny": sound * 1e-200,
    }[kind]


def outcome(metric, reference, degraded):
    """The score, or the text of why there is none."""
    try:
        return compare(metric, reference, degraded)
    except UndefinedScore as fault:
        return str(fault)


@settings(max_examples=60)
@given(kinds=st.tuples(KINDS, KINDS), lengths=st.tuples(*[st.integers(1, 12000)] * 2))
def test_any_two_clips_give_a_finite_score_or_a_clear_error(kinds, lengths, speech):
    clips = [hostile(kind, length, speech) for kind, length in zip(kinds, lengths, strict=True)]
    for metric in METRICS:
        found = outcome(metric, *clips)
        assert len(found) > 20 if isinstance(found, str) else 0.0 <= found < np.inf
