import numpy as np
import pytest

from audio_eval import guards
from audio_eval.clip import UndefinedScore

RATE = 22050


def measure(guard, clean, degraded):
    return guard(reference=clean, degraded=degraded, sample_rate_hz=RATE)


def test_identical_clips_pass_every_guard(clean):
    expected = {guards.finite: 1.0, guards.polarity: 1.0}
    for guard in (guards.lag_samples, guards.gain_db, guards.dc, guards.clipping, guards.length_samples, *expected):
        assert measure(guard, clean, clean.copy()) == expected.get(guard, 0.0)


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
    late = sign * np.roll(clean, shift) + 1e-3 * hiss
    assert measure(guards.lag_samples, clean, late) == abs(shift)


def test_a_steady_tone_is_not_late_by_a_period():
    tone = np.sin(2 * np.pi * 441.0 * np.arange(RATE) / RATE)
    assert measure(guards.lag_samples, tone, tone * 0.9) == 0.0


def test_polarity_gain_and_dc(clean):
    assert measure(guards.polarity, clean, -clean) == -1.0
    assert measure(guards.gain_db, clean, clean / 2) == pytest.approx(6.0206, abs=1e-3)
    assert measure(guards.gain_db, clean, clean * 2) == pytest.approx(6.0206, abs=1e-3)
    assert measure(guards.gain_db, clean, -clean) == 0.0
    assert measure(guards.dc, clean, clean - 0.01) == pytest.approx(0.01)


def test_clipping_is_what_came_on_top(clean):
    loud = np.clip(clean * 4, -1.0, 1.0)
    share = np.mean(np.abs(loud) >= 1.0)
    assert share > 0.01
    assert measure(guards.clipping, clean, loud) == pytest.approx(share, rel=0.01)
    assert measure(guards.clipping, loud, loud) == 0.0
    assert measure(guards.clipping, loud, clean) == 0.0


def test_what_cannot_be_measured_says_so(clean):
    for guard in (guards.lag_samples, guards.polarity, guards.gain_db):
        with pytest.raises(UndefinedScore, match="silent"):
            measure(guard, clean, clean * 0)
    with pytest.raises(UndefinedScore, match="constant"):
        measure(guards.lag_samples, clean, np.full_like(clean, 0.5))
