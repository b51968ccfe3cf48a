"""PesqProcess: one lasting child that runs PESQ, so that its crashes and hangs become errors here.

The child is a plain `python pesq_worker.py`, not a multiprocessing one: nothing imports the caller's main module
again, so scripts and notebooks need no guard. It is started at the first score, again after it died, and anew in a
forked process; it ends with its parent, whose end closes its stdin.
"""

import atexit
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from audio_eval.clip import UndefinedScore
from audio_eval.pesq_worker import REPLY, REQUEST

TIMEOUT_SECONDS = 120.0
"""For one piece of at most 30 s: half a second of work for speech, up to 20 s where utterances are many."""


class PesqProcess:
    """A child that scores; safe to share between threads.

    Args:
        timeout_seconds: after it the child is stopped and the score undefined.
        command: what to start; the default is the worker beside this file.
    """

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS, command: tuple[str, ...] | None = None) -> None:
        # -P: this folder must not come before the standard library on the child's path.
        self.command = command or (sys.executable, "-P", str(Path(__file__).with_name("pesq_worker.py")))
        self.timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def score(
        self, mode: str, rate: int, reference: npt.NDArray[np.float32], degraded: npt.NDArray[np.float32]
    ) -> float:
        """PESQ of two pieces of equal length at 8000 or 16000 Hz; `mode` is wb or nb.

        Raises:
            UndefinedScore: PESQ refused the pieces, crashed on them, or did not answer in time.
        """
        request = struct.pack(REQUEST, mode.encode(), rate, len(reference)) + reference.tobytes() + degraded.tobytes()
        with self._lock:
            child = self._started()
            late = threading.Event()

            def stop() -> None:
                late.set()
                child.kill()

            timer = threading.Timer(self.timeout_seconds, stop)
            timer.start()
            try:
                status, body = _exchange(child, request)
            except (EOFError, OSError) as fault:
                self._stop()
                if late.is_set():
                    raise UndefinedScore(f"PESQ gave no score within {self.timeout_seconds:g} s") from fault
                raise UndefinedScore(f"PESQ's own code crashed on these clips (exit {child.returncode})") from fault
            except BaseException:
                # Ctrl-C between question and answer: the next score must not read this one's answer.
                self._stop()
                raise
            finally:
                timer.cancel()
        if status != b"ok":
            raise UndefinedScore(f"PESQ has no score for these clips: {body.decode(errors='replace')}")
        value: float = struct.unpack("<d", body)[0]
        return value

    def close(self) -> None:
        """End the child, if there is one; the next score starts another."""
        with self._lock:
            self._stop()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():
            # A forked process shares its parent's pipes; two must not talk on one.
            self._child, self._owner = None, os.getpid()
            atexit.register(self.close)
        if self._child is None or self._child.poll() is not None:
            self._stop()
            self._child = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._child

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue


def _exchange(child: subprocess.Popen[bytes], request: bytes) -> tuple[bytes, bytes]:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(request)
    child.stdin.flush()
    status, length = struct.unpack(REPLY, _read(child.stdout, struct.calcsize(REPLY)))
    return status, _read(child.stdout, length)


def _read(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


PESQ_PROCESS = PesqProcess()
