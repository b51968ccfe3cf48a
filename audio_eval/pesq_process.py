"""PesqPool: lasting children that run PESQ, so that its crashes and hangs become errors here.

A child is a plain `python pesq_worker.py`, not a multiprocessing one: nothing imports the caller's main module again,
so scripts and notebooks need no guard. One is started when a score is asked for and none is free, again after it died,
and anew in a forked process; it ends with its parent, whose end closes its stdin.
"""

import atexit
import os
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from audio_eval.clip import UndefinedScore
from audio_eval.pesq_worker import REPLY, REQUEST

Audio32 = npt.NDArray[np.float32]


class PesqProcess:
    """A child that scores, for one thread at a time.

    Args:
        command: what to start; the default is the worker beside this file.
    """

    def __init__(self, command: tuple[str, ...] | None = None) -> None:
        # -P: this folder must not come before the standard library on the child's path.
        self.command = command or (sys.executable, "-P", str(Path(__file__).with_name("pesq_worker.py")))
        self.child: subprocess.Popen[bytes] | None = None

    def score(self, mode: str, rate: int, reference: Audio32, degraded: Audio32, *, timeout_seconds: float) -> float:
        """PESQ of two pieces of equal length at 8000 or 16000 Hz; `mode` is wb or nb.

        Raises:
            UndefinedScore: PESQ refused the pieces, crashed on them, or did not answer in time.
        """
        request = struct.pack(REQUEST, mode.encode(), rate, len(reference)) + reference.tobytes() + degraded.tobytes()
        child = self._started()
        late = threading.Event()

        def stop() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(timeout_seconds, stop)
        timer.start()
        try:
            status, body = _exchange(child, request)
        except (EOFError, OSError) as fault:
            self.close()
            if late.is_set():
                raise UndefinedScore(f"PESQ gave no score within {timeout_seconds:.2g} s") from fault
            raise UndefinedScore(f"PESQ's own code crashed on these clips (exit {child.returncode})") from fault
        except BaseException:
            # Ctrl-C between question and answer: the next score must not read this one's answer.
            self.close()
            raise
        finally:
            timer.cancel()
            timer.join()
            if late.is_set():
                self.close()
        if status != b"ok":
            raise UndefinedScore(f"PESQ has no score for these clips: {body.decode(errors='replace')}")
        value: float = struct.unpack("<d", body)[0]
        return value

    def _started(self) -> subprocess.Popen[bytes]:
        if self.child is None or self.child.poll() is not None:
            self.close()
            # Without buffers: what is in one when another thread forks would be written twice.
            self.child = subprocess.Popen(self.command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self.child

    def close(self) -> None:
        """End the child, if there is one; the next score starts another."""
        child, self.child = self.child, None
        if child is not None:
            child.kill()
            child.wait()
            _let_go(child)

    def forget(self) -> None:
        """Let go of a child that belongs to the process from which this one was forked."""
        child, self.child = self.child, None
        if child is not None:
            _let_go(child)
            child.returncode = 0  # It is not ours to wait for.


class PesqPool:
    """Children that score at once, one for every thread that asks; safe to share between threads and to fork.

    Args:
        most: children at most; by default as many as there are processors. A thread beyond waits for a free one.
        command: as in PesqProcess.
    """

    def __init__(self, most: int | None = None, command: tuple[str, ...] | None = None) -> None:
        self._most = most or os.cpu_count() or 1
        self._command = command
        self._renew()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _renew(self) -> None:
        self.processes = [PesqProcess(self._command) for _ in range(self._most)]
        # Last in, first out: no second child is started while the first can do it all.
        self._free: queue.LifoQueue[PesqProcess] = queue.LifoQueue()
        for process in self.processes:
            self._free.put(process)

    def _forked(self) -> None:
        # Two processes must not talk on one pipe, and locks may be held by threads that are not here.
        for process in self.processes:
            process.forget()
        self._renew()

    @contextmanager
    def lent(self) -> Iterator[PesqProcess]:
        """A child for one thread, once one is free: who keeps it for several scores does not wait between them."""
        process = self._free.get()
        try:
            yield process
        finally:
            self._free.put(process)

    def score(self, mode: str, rate: int, reference: Audio32, degraded: Audio32, *, timeout_seconds: float) -> float:
        """As `PesqProcess.score`; the time begins once a child is free."""
        with self.lent() as process:
            return process.score(mode, rate, reference, degraded, timeout_seconds=timeout_seconds)

    def close(self) -> None:
        """End every child; the next scores start others."""
        for process in self.processes:
            process.close()


def _let_go(child: subprocess.Popen[bytes]) -> None:
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            stream.close()


def _exchange(child: subprocess.Popen[bytes], request: bytes) -> tuple[bytes, bytes]:
    assert child.stdin is not None
    assert child.stdout is not None
    left = memoryview(request)
    while left:
        left = left[child.stdin.write(left) :]
    status, length = struct.unpack(REPLY, _read(child.stdout, struct.calcsize(REPLY)))
    return status, _read(child.stdout, length)


def _read(stream: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


PESQ_POOL = PesqPool()
