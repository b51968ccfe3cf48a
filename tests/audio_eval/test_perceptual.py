import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pesq
import pytest
import soundfile
import soxr

from audio_eval import perceptual
from audio_eval.clip import Clip, UndefinedScore
from audio_eval.perceptual import pesq_change, pesq_nb, pesq_parity, pesq_wb
from audio_eval.pesq_process import PESQ_POOL, PesqPool, PesqProcess

RATE = 22050
PAIR = Path(__file__).parents[2].parent / "shared" / "voices" / "pesq_pair"
START, QUARTER, THIRDS = 1600, 64, (0, 85, 170)
"""0.1 s of silence at 16 kHz; parts of the 256 samples between PESQ's frames."""


@pytest.fixture(scope="module")
def pair16(speech):
    sound = speech(16000)
    return sound, sound + 3e-3 * np.random.default_rng(5).standard_normal(len(sound))


@pytest.fixture
def answers(monkeypatch):
    """Sets what PESQ is to answer, one after another, and tells the starts it was asked with."""

    def prepare(*values):
        left = list(values)
        starts = []

        class Pool:
            @contextmanager
            def lent(self):
                yield self

            def score(self, mode, rate, reference, degraded, *, timeout_seconds):
                assert (mode, rate) == ("wb", 16000)
                assert 0.0 < timeout_seconds <= 9.0
                starts.append(int(np.argmax(reference != 0.0)))
                return left.pop(0)

        monkeypatch.setattr(perceptual, "PESQ_POOL", Pool())
        return starts

    return prepare


def directly(reference, degraded, shift=None, mode="wb"):
    """PESQ of 16 kHz float32 by the package, with silence of START samples around the clips."""
    if shift is not None:
        edges = np.zeros(START + shift, np.float32), np.zeros(START, np.float32)
        reference, degraded = (np.concatenate([edges[0], x, edges[1]]) for x in (reference, degraded))
    return pesq.pesq(16000, reference, degraded, mode)


def test_equals_the_package_called_directly(pair16):
    first, second = (x.astype(np.float32) for x in pair16)
    for function, mode in ((pesq_wb, "wb"), (pesq_nb, "nb")):
        assert function(reference=first, degraded=second, sample_rate_hz=16000) == directly(first, second, mode=mode)


def test_other_rates_pass_through_soxr_hq(clean, hiss):
    first, second = clean.astype(np.float32), (clean + 1e-3 * hiss).astype(np.float32)
    expected = directly(*(soxr.resample(x, RATE, 16000, quality="HQ") for x in (first, second)))
    assert pesq_wb(reference=first, degraded=second, sample_rate_hz=RATE) == expected


@pytest.mark.skipif(not PAIR.is_dir(), reason="no ../shared/voices/pesq_pair beside the checkout")
def test_published_values_of_a_real_pair():
    # Source: README of the pesq package.
    clean, noisy = (soundfile.read(PAIR / name)[0] for name in ("speech.wav", "speech_bab_0dB.wav"))
    for function, value in ((pesq_wb, 1.0832337141036987), (pesq_nb, 1.6072081327438354)):
        assert function(reference=clean, degraded=noisy, sample_rate_hz=16000) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(("function", "best"), [(pesq_wb, 4.644), (pesq_parity, 4.644), (pesq_nb, 4.549)])
def test_identity_is_best_and_noise_lowers(function, best, clean, hiss):
    levels = (0, 1e-3, 1e-2, 0.1)
    scores = [function(reference=clean, degraded=clean + x * hiss, sample_rate_hz=RATE) for x in levels]
    assert scores[0] == pytest.approx(best, abs=1e-3)
    assert scores == sorted(scores, reverse=True)


def test_parity_is_pesq_of_clips_with_silence_around_them(pair16):
    first, second = (x.astype(np.float32) for x in pair16)
    starts = [directly(first, second, shift) for shift in (0, QUARTER)]
    expected = starts[1] if starts[0] < 4.3 and starts[1] > starts[0] + 0.1 else starts[0]
    assert pesq_parity(reference=first, degraded=second, sample_rate_hz=16000) == expected


@pytest.mark.parametrize(
    ("answered", "score", "heard"),
    [
        ((4.31,), 4.31, (0,)),
        ((4.29, 4.36), 4.29, (0, QUARTER)),
        ((3.90, 4.57), 4.57, (0, QUARTER)),
        ((4.20, 3.60), 4.20, (0, QUARTER)),
    ],
)
def test_parity_asks_again_where_pesq_seems_lost(answered, score, heard, answers, pair16):
    starts = answers(*answered)
    assert pesq_parity(reference=pair16[0], degraded=pair16[1], sample_rate_hz=16000) == score
    assert starts == [START + shift for shift in heard]


def test_parity_is_not_lost_by_one_unlucky_start(speech):
    # Noise that nobody hears, and a start in which PESQ splits an utterance of clips that are in time.
    first = np.concatenate([np.zeros(QUARTER), speech(16000, 3.0, 40)]).astype(np.float32)
    noise = np.random.default_rng(40).standard_normal(len(first) - QUARTER).astype(np.float32)
    second = first + np.concatenate([np.zeros(QUARTER, np.float32), np.float32(3e-4) * noise])
    assert directly(first, second, 0) < 4.1
    assert pesq_parity(reference=first, degraded=second, sample_rate_hz=16000) > 4.5


@pytest.mark.parametrize(
    ("answered", "change"),
    [
        # Candidate and reference in each start: 3.00 and 3.10, then 3.01 and 3.08.
        ((3.10, 3.00, 3.08, 3.01), -0.085),
        ((3.10, 3.00, 3.08, 2.60, 3.05, 3.02), -0.10),
        ((3.10, 3.00, 2.60, 3.08, 3.05, 2.99), -0.06),
    ],
)
def test_change_is_the_mean_of_two_starts_that_agree_or_the_median_of_three(answered, change, answers, pair16):
    starts = answers(*answered)
    clean, noisy = pair16
    found = pesq_change(reference=noisy, degraded=clean, natural=clean, sample_rate_hz=16000)
    assert found == pytest.approx(change, abs=1e-12)
    assert starts[::2] == [START + shift for shift in THIRDS][: len(starts) // 2]


def test_change_against_natural_equals_the_package_called_directly(pair16):
    natural, made = (x.astype(np.float32) for x in pair16)
    worse = made + np.float32(3e-3) * np.random.default_rng(6).standard_normal(len(made)).astype(np.float32)
    changes = [directly(natural, worse, shift) - directly(natural, made, shift) for shift in THIRDS]
    expected = np.median(changes[:2] if abs(changes[0] - changes[1]) <= 0.05 else changes)
    assert pesq_change(reference=made, degraded=worse, natural=natural, sample_rate_hz=16000) == expected < 0
    assert pesq_change(reference=made, degraded=made, natural=natural, sample_rate_hz=16000) == 0.0


def test_the_reference_against_natural_is_heard_once(answers, pair16):
    clean, noisy = pair16
    starts = answers(3.10, 3.00, 3.08, 3.01, 2.90, 2.92)
    reference, natural = Clip(noisy, 16000), Clip(clean, 16000)
    for degraded in (clean, 0.5 * clean):
        pesq_change(reference=reference, degraded=degraded, natural=natural, sample_rate_hz=16000)
    assert len(starts) == 6


def test_refusals_have_text(clean, speech):
    short = clean[4000:6000]
    with pytest.raises(UndefinedScore, match="1/4 of a second"):
        pesq_wb(reference=short, degraded=short, sample_rate_hz=RATE)
    for function in (pesq_wb, pesq_nb, pesq_parity):
        with pytest.raises(UndefinedScore, match="silent"):
            function(reference=clean, degraded=clean * 0, sample_rate_hz=RATE)
    telephone = speech(8000)
    with pytest.raises(UndefinedScore, match="use pesq_nb"):
        pesq_parity(reference=telephone, degraded=telephone, sample_rate_hz=8000)
    assert pesq_nb(reference=telephone, degraded=telephone, sample_rate_hz=8000) > 4.5
    with pytest.raises(UndefinedScore, match="one length"):
        pesq_change(reference=clean, degraded=clean, natural=clean[1:], sample_rate_hz=RATE)


def test_long_clips_are_cut_into_pieces(pair16):
    clean, noisy = (np.tile(x, 17)[: 16000 * 33].astype(np.float32) for x in pair16)
    third = len(clean) // 3
    pieces = [directly(clean[s : s + third], noisy[s : s + third]) for s in (0, third, 2 * third)]
    assert pesq_wb(reference=clean, degraded=noisy, sample_rate_hz=16000) == np.mean(pieces)


def test_more_utterances_than_pesq_has_room_for():
    # 64 in 28 s; its tables hold 50, and at once they crash it.
    rng = np.random.default_rng(1)
    bursts = 0.3 * rng.standard_normal(28 * 16000) * (np.arange(28 * 16000) % 7000 < 3500)
    noisy = bursts + 1e-3 * rng.standard_normal(len(bursts))
    with pytest.raises(UndefinedScore, match=r"crashed on these clips \(exit -11\)"):
        PESQ_POOL.score("wb", 16000, *(x.astype(np.float32) for x in (bursts, noisy)), timeout_seconds=60.0)
    assert 2.9 < pesq_wb(reference=bursts, degraded=noisy, sample_rate_hz=16000) < 3.0


def test_waiting_for_a_child_is_no_time_of_pesqs(monkeypatch, pair16):
    def slow(process, mode, rate, reference, degraded, *, timeout_seconds):
        assert timeout_seconds > 0.2
        time.sleep(0.1)
        return 3.0

    monkeypatch.setattr(perceptual, "PESQ_POOL", PesqPool(1))
    monkeypatch.setattr(perceptual, "LONGEST_CALL_SECONDS", 0.5)
    monkeypatch.setattr(PesqProcess, "score", slow)
    clean, noisy = pair16
    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(pesq_parity, reference=clean, degraded=noisy, sample_rate_hz=16000) for _ in range(6)]
        assert [score.result() for score in asked] == [3.0] * 6


def test_a_call_ends_in_time_whatever_pesq_does(monkeypatch, pair16):
    pool = PesqPool(command=(sys.executable, "-c", "import time; time.sleep(60)"))
    monkeypatch.setattr(perceptual, "PESQ_POOL", pool)
    monkeypatch.setattr(perceptual, "LONGEST_CALL_SECONDS", 0.5)
    clean = np.tile(pair16[0], 9)[: 16 * 16000]
    monkeypatch.setattr(perceptual, "LONGEST_CALL_SHARE", 0.0)
    start = time.monotonic()
    with pytest.raises(UndefinedScore, match=r"no score within 0\.\d+ s \(from 0\.00 s to 8\.00 s\)"):
        pesq_change(reference=clean, degraded=clean, natural=clean, sample_rate_hz=16000)
    assert time.monotonic() - start < 5.0
    pool.close()
