import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pesq
import pystoi
import pytest
import soundfile
import soxr

from audio_eval import perceptual
from audio_eval.clip import UndefinedScore
from audio_eval.pesq_process import PESQ_PROCESS, PesqProcess

RATE = 22050
ALL = [perceptual.pesq_wb, perceptual.pesq_nb, perceptual.stoi, perceptual.estoi]
PAIR = Path(__file__).parents[2].parent / "shared" / "voices" / "pesq_pair"


@pytest.fixture(scope="module")
def pair16(speech):
    sound = speech(16000)
    return sound, sound + 3e-3 * np.random.default_rng(5).standard_normal(len(sound))


def test_equals_the_packages_called_directly(pair16):
    clean, noisy = pair16
    first, second = clean.astype(np.float32), noisy.astype(np.float32)
    for function, mode in ((perceptual.pesq_wb, "wb"), (perceptual.pesq_nb, "nb")):
        direct = pesq.pesq(16000, first, second, mode)
        assert function(reference=first, degraded=second, sample_rate_hz=16000) == direct
    for function, extended in ((perceptual.stoi, False), (perceptual.estoi, True)):
        direct = pystoi.stoi(clean, noisy, 16000, extended=extended)
        assert function(reference=clean, degraded=noisy, sample_rate_hz=16000) == pytest.approx(direct, abs=1e-9)


def test_other_rates_pass_through_soxr_hq(clean, hiss):
    first, second = clean.astype(np.float32), (clean + 1e-3 * hiss).astype(np.float32)
    direct = pesq.pesq(16000, *(soxr.resample(x, RATE, 16000, quality="HQ") for x in (first, second)), "wb")
    assert perceptual.pesq_wb(reference=first, degraded=second, sample_rate_hz=RATE) == direct


@pytest.mark.skipif(not PAIR.is_dir(), reason="no ../shared/voices/pesq_pair beside the checkout")
def test_published_values_of_a_real_pair():
    # Source: README of the pesq package; STOI and ESTOI by pystoi 0.4.1.
    published = {
        perceptual.pesq_wb: 1.0832337141036987,
        perceptual.pesq_nb: 1.6072081327438354,
        perceptual.stoi: 0.6739177895331301,
        perceptual.estoi: 0.39044999103355366,
    }
    clean, noisy = (soundfile.read(PAIR / name)[0] for name in ("speech.wav", "speech_bab_0dB.wav"))
    for function, value in published.items():
        assert function(reference=clean, degraded=noisy, sample_rate_hz=16000) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("function", ALL)
def test_identity_is_best_and_noise_lowers(function, clean, hiss):
    scores = [
        function(reference=clean, degraded=clean + level * hiss, sample_rate_hz=RATE) for level in (0, 1e-3, 1e-2, 0.1)
    ]
    best = {perceptual.pesq_wb: 4.644, perceptual.pesq_nb: 4.549}.get(function, 1.0)
    assert scores[0] == pytest.approx(best, abs=1e-3)
    assert scores == sorted(scores, reverse=True)


def test_parity_is_pesq_of_clips_with_silence_around_them(clean, hiss):
    noisy = clean + 1e-2 * hiss
    framed = [
        np.concatenate([np.zeros(8000), soxr.resample(x, RATE, 16000, quality="HQ"), np.zeros(8000)])
        for x in (clean, noisy)
    ]
    parity = perceptual.pesq_parity(reference=clean, degraded=noisy, sample_rate_hz=RATE)
    assert parity == pytest.approx(pesq.pesq(16000, *framed, "wb"), abs=1e-4)


def test_change_against_natural_is_a_difference(clean, hiss):
    made, worse = clean + 1e-3 * hiss, clean + 5e-3 * hiss
    change = perceptual.pesq_change(reference=made, degraded=worse, natural=clean, sample_rate_hz=RATE)
    changes = []
    for silence in perceptual.CHANGE_SILENCE_SECONDS:
        before, after = (
            perceptual.pesq_wb(reference=clean, degraded=x, sample_rate_hz=RATE, silence_seconds=silence)
            for x in (made, worse)
        )
        changes.append(after - before)
    assert change == np.median(changes) < 0
    assert perceptual.pesq_change(reference=made, degraded=made, natural=clean, sample_rate_hz=RATE) == 0.0


def test_refusals_have_text(clean, speech):
    short = clean[4000:6000]
    for function in (perceptual.stoi, perceptual.estoi):
        with pytest.raises(UndefinedScore, match=r"at least 0\.4 s"):
            function(reference=short, degraded=short, sample_rate_hz=RATE)
        pause = np.concatenate([clean[2000:6000], np.zeros(RATE)])
        with pytest.raises(UndefinedScore, match="Not enough STFT frames"):
            function(reference=pause, degraded=pause, sample_rate_hz=RATE)
    with pytest.raises(UndefinedScore, match="1/4 of a second"):
        perceptual.pesq_wb(reference=short, degraded=short, sample_rate_hz=RATE)
    with pytest.raises(UndefinedScore, match="silent"):
        perceptual.pesq_wb(reference=clean, degraded=clean * 0, sample_rate_hz=RATE)
    telephone = speech(8000)
    with pytest.raises(UndefinedScore, match="use pesq_nb"):
        perceptual.pesq_wb(reference=telephone, degraded=telephone, sample_rate_hz=8000)
    assert perceptual.pesq_nb(reference=telephone, degraded=telephone, sample_rate_hz=8000) > 4.5


def test_estoi_leaves_the_global_generator_alone_and_repeats(clean, hiss):
    np.random.seed(3)
    state = np.random.get_state()[1].copy()
    scores = {perceptual.estoi(reference=clean, degraded=clean + 1e-2 * hiss, sample_rate_hz=RATE) for _ in range(2)}
    assert len(scores) == 1
    assert np.array_equal(state, np.random.get_state()[1])


def test_long_clips_are_cut_into_pieces(pair16):
    clean, noisy = (np.tile(x, 17)[: 16000 * 33].astype(np.float32) for x in pair16)
    half = len(clean) // 2
    pieces = [pesq.pesq(16000, clean[s], noisy[s], "wb") for s in (slice(0, half), slice(half, None))]
    assert perceptual.pesq_wb(reference=clean, degraded=noisy, sample_rate_hz=16000) == np.mean(pieces)


def test_the_child_that_died_is_started_again(pair16):
    first, second = (x.astype(np.float32) for x in pair16)
    before = PESQ_PROCESS.score("wb", 16000, first, second)
    child = PESQ_PROCESS._child
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert PESQ_PROCESS.score("wb", 16000, first, second) == before
    assert PESQ_PROCESS._child is not child


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os, sys; sys.stdin.buffer.read(10); os.abort()", "crashed"),
        ("import time; time.sleep(60)", r"no score within 0\.5 s"),
        ("print('not a reply')", "crashed"),
    ],
)
def test_crashes_and_hangs_become_errors(code, message, pair16):
    process = PesqProcess(timeout_seconds=0.5 if "sleep" in code else 20.0, command=(sys.executable, "-c", code))
    first, second = (x.astype(np.float32) for x in pair16)
    try:
        for _ in range(2):
            with pytest.raises(UndefinedScore, match=message):
                process.score("wb", 16000, first, second)
        assert process._child is None
    finally:
        process.close()


def test_a_script_without_a_main_guard_scores_and_leaves_no_child(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text(
        "import numpy as np\n"
        "from audio_eval.perceptual import pesq_wb\n"
        "from audio_eval.pesq_process import PESQ_PROCESS\n"
        "x = np.random.default_rng(0).standard_normal(16000) * 0.1\n"
        "print(pesq_wb(reference=x, degraded=x, sample_rate_hz=16000))\n"
        "print(PESQ_PROCESS._child.pid)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-W", "error", str(script)]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True, timeout=120
    )
    score, pid = ended.stdout.split()
    assert float(score) == pytest.approx(4.644, abs=1e-3)
    assert ended.stderr == ""
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
