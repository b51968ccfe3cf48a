import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from audio_eval.clip import UndefinedScore
from audio_eval.pesq_process import PesqPool

QUESTION = ("wb", 16000)
CODE_OF_A_CHILD_THAT_ANSWERS = (
    "import struct, sys, time\n"
    "while len(head := sys.stdin.buffer.read(10)) == 10:\n"
    "    sys.stdin.buffer.read(8 * struct.unpack('<2sII', head)[2])\n"
    "    time.sleep({pause})\n"
    "    sys.stdout.buffer.write(struct.pack('<2sId', b'ok', 8, 4.5))\n"
    "    sys.stdout.buffer.flush()\n"
)


@pytest.fixture(scope="module")
def pieces(speech):
    sound = speech(16000).astype(np.float32)
    return sound, sound + np.float32(3e-3) * np.random.default_rng(5).standard_normal(len(sound)).astype(np.float32)


@pytest.fixture
def pool(request):
    made = PesqPool(**getattr(request, "param", {}))
    yield made
    made.close()


def children(pool):
    return [process.child.pid for process in pool.processes if process.child is not None]


def answering(pause):
    return (sys.executable, "-c", CODE_OF_A_CHILD_THAT_ANSWERS.format(pause=pause))


def test_one_thread_needs_one_child(pool, pieces):
    scores = {pool.score(*QUESTION, *pieces, timeout_seconds=20.0) for _ in range(3)}
    assert len(scores) == len(children(pool)) == 1


def test_the_child_that_died_is_started_again(pool, pieces):
    before = pool.score(*QUESTION, *pieces, timeout_seconds=20.0)
    (process,) = (process for process in pool.processes if process.child is not None)
    died = process.child
    os.kill(died.pid, signal.SIGKILL)
    died.wait()
    assert pool.score(*QUESTION, *pieces, timeout_seconds=20.0) == before
    assert process.child is not died


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os, sys; sys.stdin.buffer.read(10); os.abort()", r"crashed on these clips \(exit -6\)"),
        ("import time; time.sleep(60)", r"no score within 0\.5 s"),
        ("print('not a reply')", "crashed"),
    ],
)
def test_crashes_and_hangs_become_errors(code, message, pieces):
    pool = PesqPool(command=(sys.executable, "-c", code))
    for _ in range(2):
        with pytest.raises(UndefinedScore, match=message):
            pool.score(*QUESTION, *pieces, timeout_seconds=0.5 if "sleep" in code else 20.0)
    assert not children(pool)


def test_threads_score_at_once_with_a_child_each(pieces):
    pool = PesqPool(most=4, command=answering(0.5))
    start = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        scores = list(threads.map(lambda _: pool.score(*QUESTION, *pieces, timeout_seconds=20.0), range(8)))
    assert scores == [4.5] * 8
    assert len(children(pool)) == 4
    # One after another they would take 4 s.
    assert time.monotonic() - start < 3.5
    pool.close()
    assert not children(pool)


@pytest.mark.parametrize("pool", [{"most": 2}], indirect=True)
def test_more_threads_than_children_wait_and_score_alike(pool, pieces):
    noise = np.random.default_rng(9).standard_normal((6, len(pieces[0]))).astype(np.float32)
    degraded = [pieces[0] + np.float32(10.0 ** (-step / 2 - 1)) * row for step, row in enumerate(noise)]

    def score(second):
        return pool.score(*QUESTION, pieces[0], second, timeout_seconds=60.0)

    one_by_one = [score(second) for second in degraded]
    assert len(set(one_by_one)) == 6
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(score, degraded)) == one_by_one
    assert len(children(pool)) == 2


def test_a_late_answer_is_not_the_next_ones(pieces):
    pool = PesqPool(most=1, command=answering(0.3))
    with pytest.raises(UndefinedScore, match="no score within"):
        pool.score(*QUESTION, *pieces, timeout_seconds=0.1)
    assert pool.score(*QUESTION, *pieces, timeout_seconds=20.0) == 4.5
    pool.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_children_of_its_own(pool, pieces):
    before = pool.score(*QUESTION, *pieces, timeout_seconds=20.0)
    (mine,) = children(pool)
    asked = threading.Event()
    # A thread that scores while the process forks: its child and its place in the queue are not there afterwards.
    thread = threading.Thread(
        target=lambda: (asked.set(), pool.score(*QUESTION, *pieces, timeout_seconds=20.0)), daemon=True
    )
    thread.start()
    asked.wait()
    reading, writing = os.pipe()
    forked = os.fork()
    if forked == 0:
        # Nothing may leave this branch: pytest would run on twice.
        try:
            scored = pool.score(*QUESTION, *pieces, timeout_seconds=20.0)
            os.write(writing, f"{scored!r} {children(pool)[0]}".encode())
            pool.close()
        finally:
            os._exit(0)
    thread.join()
    os.close(writing)
    assert os.waitpid(forked, 0)[1] == 0
    with os.fdopen(reading) as pipe:
        score, its = pipe.read().split()
    assert float(score) == before
    assert int(its) != mine
    assert mine in children(pool)
    assert pool.score(*QUESTION, *pieces, timeout_seconds=20.0) == before


def test_a_script_without_a_main_guard_scores_and_leaves_no_child(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text(
        "import numpy as np\n"
        "from audio_eval.perceptual import pesq_wb\n"
        "from audio_eval.pesq_process import PESQ_POOL\n"
        "x = np.random.default_rng(0).standard_normal(16000) * 0.1\n"
        "print(pesq_wb(reference=x, degraded=x, sample_rate_hz=16000))\n"
        "print(*(process.child.pid for process in PESQ_POOL.processes if process.child))\n"
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
