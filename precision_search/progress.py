"""Progress: one line on the terminal that says what is done, how far, and how long it will take."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

EVERY_SECONDS = 10.0  # between lines where the output is no terminal
TELLING = 4  # steps before it is said how long the rest takes; the first of them holds the start of the workers


class Progress:
    """A stage of known length; silent where `quiet`."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._quiet = quiet
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._stage = ""
        self._total = 0
        self._done = 0
        self._skipped = 0
        self._begun: float | None = None
        self._shown = time.monotonic()

    def begin(self, stage: str, total: int = 0) -> None:
        """Begin a stage of so many steps; 0 where that is not known."""
        self._finish_line()
        self._stage, self._total, self._done, self._skipped = stage, total, 0, 0
        self._begun = None
        self._shown = -EVERY_SECONDS
        self._show("")

    @contextmanager
    def aside(self, stage: str, total: int = 0) -> Iterator[None]:
        """Be in another stage for a while; the one before goes on where it was, and its clock stood still."""
        held = self._stage, self._total, self._done, self._skipped
        begun, left = self._begun, time.monotonic()
        self.begin(stage, total)
        yield
        self._finish_line()
        self._stage, self._total, self._done, self._skipped = held
        self._begun = None if begun is None else begun + time.monotonic() - left

    def step(self, note: str = "", *, skipped: bool = False) -> None:
        """Count one step; `skipped` ones (found in the study) do not enter the estimate."""
        self._done += 1
        self._skipped += skipped
        if self._begun is None and not skipped:
            self._begun = time.monotonic()
        self._show(note)

    def say(self, text: str) -> None:
        """Say something on a line of its own."""
        self._finish_line()
        if not self._quiet:
            print(text, file=self._stream, flush=True)

    def end(self) -> None:
        """End the last stage."""
        self._finish_line()

    def _show(self, note: str) -> None:
        now = time.monotonic()
        last = self._done >= self._total > 0
        if self._quiet or (not self._terminal and now - self._shown < EVERY_SECONDS and not last):
            return
        self._shown = now
        count = f" {self._done} of {self._total}" if self._total else ""
        elapsed = 0.0 if self._begun is None else now - self._begun
        text = f"{self._stage}{count}{_left(self._done - self._skipped, self._total - self._done, elapsed)}"
        text += f"  {note}" if note else ""
        if self._terminal:
            print(f"\r\x1b[K{text[:119]}", end="", file=self._stream, flush=True)
        else:
            print(text, file=self._stream, flush=True)

    def _finish_line(self) -> None:
        if self._terminal and not self._quiet and self._stage:
            print(file=self._stream, flush=True)
        self._stage = ""


def _left(done: int, left: int, elapsed: float) -> str:
    """What is said of the rest: the steps after the first took so long."""
    if done < TELLING or left < 1:
        return ""
    seconds = round(elapsed / (done - 1) * left)
    return f", at most {seconds // 60}:{seconds % 60:02d} left"
