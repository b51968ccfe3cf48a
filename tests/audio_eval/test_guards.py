import numpy as np
import pytest
from scipy.signal import hilbert

from audio_eval import guards
from audio_eval.clip import UndefinedScore

RATE = 22050


def measure(guard, clean, degraded, rate=RATE):
    return guard(reference=clean, degraded=degraded, sample_rate_hz=rate)


def bf16(samples):
    """Rounded to eight significant bits, ties to even."""
    bits = samples.astype(np.float32).view(np.uint32)
    bits = bits + 0x7FFF + ((bits >> 16) & 1)
    return (bits & 0xFFFF0000).astype(np.uint32).view(np.float32)


def harmless(clean, hiss):
    yield from (bf16(clean), clean.astype(np.float16).astype(np.float64), np.round(clean * 32767) / 32767)
    yield clean + 10 ** (-90 / 20) * hiss
    yield clean * 10 ** (-0.1 / 20)


def late(samples, by):
    """Delayed by a part of a sample."""
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(len(samples)) * by)
    return np.fft.irfft(np.fft.rfft(samples) * turn, len(samples))


SIGNLESS = (
    guards.lag_samples,
    guards.gain_db,
    guards.gain_drift_db,
    guards.dc,
    guards.clipping,
    guards.length_samples,
)


def test_identical_clips_pass_every_guard(clean):
    expected = {guards.finite: 1.0, guards.polarity: 1.0}
    for guard in (*SIGNLESS, *expected):
        assert measure(guard, clean, clean.copy()) == expected.get(guard, 0.0)


def test_harmless_changes_pass_every_guard(clean, hiss):
    for changed in harmless(clean, hiss):
        assert measure(guards.lag_samples, clean, changed) == 0.0
        assert measure(guards.clipping, clean, changed) == 0.0
        assert measure(guards.polarity, clean, changed) == 1.0
        assert measure(guards.gain_db, clean, changed) < 0.101
        assert measure(guards.gain_drift_db, clean, changed) < 0.002
        assert measure(guards.dc, clean, changed) < 1e-5


def test_finite_counts_and_does_not_raise(clean):
    broken = clean.copy()
    broken[: len(broken) // 4] = np.nan
    broken[-1] = np.inf
    assert measure(guards.finite, clean, broken) == pytest.approx(0.75, abs=1e-3)
    assert measure(guards.finite, clean, broken[:10]) == 0.0


def test_length_without_sign(clean):
    assert measure(guards.length_samples, clean, clean[:-3]) == 3.0
    assert measure(guards.length_samples, clean[:-3], clean) == 3.0


@pytest.mark.parametrize("shift", [1, -1, 40, -700])
@pytest.mark.parametrize("sign", [1, -1])
def test_lag_is_found_through_noise_and_polarity(shift, sign, clean, hiss):
    degraded = sign * np.roll(clean, shift) + 1e-3 * hiss
    assert measure(guards.lag_samples, clean, degraded) == abs(shift)


def test_lag_is_the_nearest_whole_sample(clean):
    assert [measure(guards.lag_samples, clean, late(clean, by)) for by in (0.4, 0.6, -0.4, -0.6)] == [0, 1, 0, 1]


@pytest.mark.parametrize("hertz", [100.0, 441.0, 3000.0])
def test_a_long_steady_tone_is_not_late_by_a_period_but_by_a_sample(hertz, hiss):
    tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(10 * RATE) / RATE)
    noisy = bf16(tone) + 0.005 * np.resize(hiss, len(tone))
    assert measure(guards.lag_samples, tone, noisy) == 0.0
    assert measure(guards.lag_samples, tone, np.roll(noisy, 1)) == 1.0


def test_polarity(clean, hiss):
    assert measure(guards.polarity, clean, 0.1 * clean + 1e-3 * hiss) == 1.0
    assert measure(guards.polarity, clean, 1e-3 * hiss - clean) == -1.0


def test_polarity_of_half_a_second(clean):
    flipped = clean.copy()
    flipped[RATE // 4 : RATE] *= -1
    assert np.dot(clean, flipped) > 0
    assert measure(guards.polarity, clean, flipped) == -1.0


def test_clips_in_quadrature_have_no_polarity(clean):
    with pytest.raises(UndefinedScore, match=r"correlate by -?0\.0. only"):
        measure(guards.polarity, clean, np.imag(hilbert(clean)))
    assert measure(guards.polarity, clean, np.real(hilbert(clean) * np.exp(1.2j))) == 1.0
    assert measure(guards.polarity, clean, np.real(hilbert(clean) * np.exp(2.0j))) == -1.0


def test_gain(clean):
    assert measure(guards.gain_db, clean, clean / 2) == pytest.approx(6.0206, abs=1e-3)
    assert measure(guards.gain_db, clean, clean * 2) == pytest.approx(6.0206, abs=1e-3)
    assert measure(guards.gain_db, clean, -clean) == 0.0
    assert measure(guards.gain_db, clean, clean * 0.98) == pytest.approx(0.1755, abs=1e-4)


def test_a_level_that_drifts_shows_where_the_mean_level_does_not(speech):
    clean = speech(RATE, seconds=4.0)
    second_half = np.arange(len(clean)) >= len(clean) // 2
    down, balanced = clean * 10 ** (-0.3 * second_half / 20), clean * 10 ** ((0.15 - 0.3 * second_half) / 20)
    assert measure(guards.gain_drift_db, clean, down) == pytest.approx(0.3, abs=1e-6)
    assert measure(guards.gain_drift_db, clean, balanced) == pytest.approx(0.3, abs=1e-6)
    assert measure(guards.gain_db, clean, balanced) < 0.02
    assert measure(guards.gain_drift_db, clean, clean / 2) == pytest.approx(0.0, abs=1e-9)
    gone = np.where(second_half, 0.0, clean)
    assert measure(guards.gain_drift_db, clean, gone) == pytest.approx(100.0)


def test_level_where_a_clip_is_shorter_than_two_stretches(clean):
    short = clean[: RATE // 2]
    down = np.where(np.arange(len(short)) >= len(short) // 2, 0.9 * short, short)
    assert measure(guards.gain_drift_db, short, down) == pytest.approx(20 * np.log10(1 / 0.9), abs=1e-6)
    assert measure(guards.gain_drift_db, short[:1] + 0.1, short[:1] + 0.1) == 0.0


def test_dc(clean):
    assert measure(guards.dc, clean, clean - 0.01) == pytest.approx(0.01)
    assert measure(guards.dc, clean[:100], clean[:100] + 0.01) == pytest.approx(0.01)
    assert measure(guards.dc, clean + 0.2, clean + 0.2) == 0.0


def test_dc_that_changes_its_sign_does_not_cancel(clean):
    swing = 0.01 * np.where(np.arange(len(clean)) < len(clean) // 2, 1.0, -1.0)
    assert abs(np.mean(swing)) < 1e-9
    assert measure(guards.dc, clean, clean + swing) == pytest.approx(0.01)


def test_clipping_at_full_scale(clean):
    loud = np.clip(clean * 4, -1.0, 1.0)
    share = np.mean(np.abs(loud) >= 1.0)
    assert share > 0.01
    assert 0.5 * share < measure(guards.clipping, clean, loud) <= share
    assert measure(guards.clipping, clean, 4 * clean) > 0.5 * share  # what no file can hold is cut off, too
    assert measure(guards.clipping, loud, loud) == 0.0
    assert measure(guards.clipping, loud, clean) == 0.0


def test_clipping_of_a_reference_beyond_full_scale(clean):
    loud = clean * (1.25 / np.max(np.abs(clean)))
    assert measure(guards.clipping, loud, loud) == 0.0
    assert measure(guards.clipping, loud, loud.astype(np.float16).astype(np.float64)) == 0.0
    assert measure(guards.clipping, loud, np.clip(loud, -1.0, 1.0)) > 1e-4
    assert measure(guards.clipping, loud, 1.1 * loud) > 1e-4


@pytest.mark.parametrize("then", [np.asarray, bf16, lambda cut: np.round(cut * 32767) / 32767, lambda cut: cut / 3])
@pytest.mark.parametrize("side", [(-1, 1), (0, 1), (-1, 0)])
def test_flat_tops_are_seen_at_any_level(then, side, clean):
    top = np.max(np.abs(clean))
    shares = []
    for part in (0.95, 0.9, 0.8, 0.6):
        low, high = (
            end * part * top if end else end * top or sign * top for end, sign in zip(side, (-1, 1), strict=True)
        )
        shares.append(measure(guards.clipping, clean, then(np.clip(clean, low, high))))
    assert shares[1] > 1e-4
    assert shares == sorted(shares)


def test_output_stuck_at_a_rail(clean):
    top = np.max(np.abs(clean))
    size = round(0.002 * RATE)
    quiet = int(np.argmin(np.convolve(np.square(clean), np.ones(size), "valid")))
    for rail in (top, -top, 1.0):
        stuck = clean.copy()
        stuck[quiet : quiet + size] = rail
        assert measure(guards.clipping, clean, stuck) == pytest.approx(size / len(clean), rel=0.03)
    assert measure(guards.clipping, clean, 0.3 * np.sign(clean)) > 0.5
    assert measure(guards.clipping, clean, np.full_like(clean, 0.3)) > 0.5


@pytest.mark.parametrize("drive", [2.0, 6.0, 20.0])
def test_a_limiter_of_the_model_is_not_its_candidates_fault(drive, clean, hiss):
    for reference in (np.tanh(drive * clean), np.clip(drive * clean, -0.7, 0.7)):
        for changed in harmless(reference, hiss):
            assert measure(guards.clipping, reference, changed) == 0.0
    noisy = np.tanh(drive * (clean + 2e-3 * hiss))
    assert measure(guards.clipping, np.tanh(drive * clean), noisy) < 1e-4


def test_what_cannot_be_measured_says_so(clean):
    for guard in (guards.lag_samples, guards.polarity, guards.gain_db, guards.gain_drift_db):
        with pytest.raises(UndefinedScore, match="silent"):
            measure(guard, clean, clean * 0)
    for guard in (guards.lag_samples, guards.polarity):
        with pytest.raises(UndefinedScore, match="constant"):
            measure(guard, clean, np.full_like(clean, 0.5))
