import importlib
import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from audio_eval import visqol as module
from audio_eval.clip import UndefinedScore
from audio_eval.suite import METRICS, Material, ReferenceClip
from audio_eval.visqol import visqol

RATE = 16000
installed = pytest.mark.skipif(
    importlib.util.find_spec("visqol") is None, reason="the extra visqol (visqol-python) is not installed"
)


@pytest.fixture(scope="module")
def pair16(speech):
    sound = speech(RATE)
    return sound, np.random.default_rng(5).standard_normal(len(sound))


def test_without_the_package_the_error_names_the_extra(monkeypatch, clean):
    monkeypatch.setattr(module, "PACKAGE", "visqol_that_nobody_has")
    with pytest.raises(UndefinedScore, match=r"pip install 'precision-search\[visqol\]'"):
        visqol(reference=clean, degraded=clean, sample_rate_hz=22050)
    reason = METRICS["visqol"].inapplicable(Material(22050, has_natural=False))
    assert (
        reason == module.missing() == ("visqol needs the package visqol-python: pip install 'precision-search[visqol]'")
    )
    assert METRICS["pesq_wb"].inapplicable(Material(22050, has_natural=False)) is None


def test_the_package_is_imported_late():
    command = [sys.executable, "-c", "import sys, audio_eval.suite; print('visqol' in sys.modules)"]
    root = Path(__file__).parents[2]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, timeout=120)
    assert ended.stdout == "False\n"


@installed
def test_equals_the_package_called_directly(pair16):
    clean, hiss = pair16
    noisy = clean + 1e-2 * hiss
    api = importlib.import_module("visqol").VisqolApi()
    api.create(mode="speech", use_lattice_model=False)
    single = (x.astype(np.float32).astype(np.float64) for x in (clean, noisy))
    expected = api.measure_from_arrays(*single, RATE).moslqo
    assert visqol(reference=clean, degraded=noisy, sample_rate_hz=RATE) == expected
    assert ReferenceClip(clean, RATE).score(noisy, ("visqol",)) == {"visqol": expected}


@installed
def test_identity_is_best_and_noise_lowers(pair16):
    clean, hiss = pair16
    levels = (0, 1e-4, 1e-3, 1e-2, 0.1)
    scores = [visqol(reference=clean, degraded=clean + x * hiss, sample_rate_hz=RATE) for x in levels]
    assert scores[0] == pytest.approx(5.0, abs=1e-9)
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 3.0


@installed
def test_threads_take_turns(pair16):
    clean, hiss = pair16
    noisy = [clean + level * hiss for level in (1e-3, 3e-3, 1e-2, 3e-2)]

    def score(degraded):
        return visqol(reference=clean, degraded=degraded, sample_rate_hz=RATE)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(score, noisy)) == [score(degraded) for degraded in noisy]


@installed
def test_refusals_have_text(pair16, speech):
    clean, _ = pair16
    refused = {
        r"at least 0\.7 s": (clean[:8000], clean[:8000]),
        "degraded clip is silent": (clean, clean * 0),
        "reference clip is silent": (clean * 0, clean),
        "NaN or Inf": (clean, clean * np.nan),
        "one length": (clean, clean[1:]),
    }
    for message, (reference, degraded) in refused.items():
        with pytest.raises(UndefinedScore, match=message):
            visqol(reference=reference, degraded=degraded, sample_rate_hz=RATE)
    telephone = speech(8000)
    with pytest.raises(UndefinedScore, match="16 kHz or more"):
        visqol(reference=telephone, degraded=telephone, sample_rate_hz=8000)
