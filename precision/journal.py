"""Journal: a file of JSON lines that is only ever appended to, by one process at a time, and survives a kill."""

import contextlib
import errno
import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

try:
    fcntl: ModuleType | None = importlib.import_module("fcntl")
except ImportError:  # not on Windows
    fcntl = None

_UNLOCKABLE = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StudyError(RuntimeError):
    """A study that cannot be used or written; the message says what to do."""


def failed(what: str, error: OSError) -> StudyError:
    """Word a failed write: what could not be written, why, and what to do."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return StudyError(f"{what} could not be written: {reason}; make room and go on with --resume, nothing is lost")
    return StudyError(f"{what} could not be written: {reason}; check the folder, or choose another with --out")


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a kill, sees the old content or the new, never a part.

    Text is written as UTF-8 with the line ends it has.

    Raises:
        StudyError: the disk is full or the folder cannot be written to; the old file stands.
    """
    data = content.encode() if isinstance(content, str) else content
    # In the same folder, since a rename is atomic only within one file system.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise failed(str(path), error) from error


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read every whole line, and the bytes they take: what follows them was cut off by a kill.

    Raises:
        StudyError: the file cannot be read, or a whole line is not a JSON object with a kind.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror or error}") from error
    whole = content.rfind(b"\n") + 1
    records = []
    for number, line in enumerate(content[:whole].split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise _corrupt(path, number, f"is not JSON ({error})") from error
        if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
            raise _corrupt(path, number, "is not an object with a kind")
        records.append(record)
    return records, whole


def _corrupt(path: Path, number: int, why: str) -> StudyError:
    return StudyError(f"{path} line {number} {why}: the file was changed by something else; delete the line to go on")


class Journal:
    """The file, opened and locked for appending; `records` are the lines it held when it was opened.

    A last line that a kill has cut short is dropped from the file. The lock ends with `close`, or with the process.

    Raises:
        StudyError: another process has it open, it cannot be read or written, or a line in it is corrupt.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: Path | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise failed(str(path), error) from error
        try:
            self._lock()
            self.records, self._size = read_lines(path)
            if os.fstat(self._descriptor).st_size > self._size:
                os.ftruncate(self._descriptor, self._size)
        except BaseException:
            self.close()
            raise

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record as a line; when this returns it is on the disk.

        Raises:
            StudyError: the disk is full or the file cannot be written; what was written before stands.
        """
        line = (json.dumps(record, allow_nan=False, separators=(", ", ": ")) + "\n").encode()
        try:
            written = os.write(self._descriptor, line)
            while written < len(line):  # only a full disk or a limit cuts a write short; the next one says which
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except BaseException as error:
            # Take back the part that was written, so that the next line does not follow half of this one.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            if isinstance(error, OSError):
                raise failed(str(self.path), error) from error
            raise
        self._size += len(line)

    def close(self) -> None:
        """Close the file and let others open it; closing twice does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._held is not None:
            self._held.unlink(missing_ok=True)
            self._held = None

    def _lock(self) -> None:
        if fcntl is not None:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StudyError(
                    f"another run is writing {self.path}; wait for it, or choose a folder with --out"
                ) from error
            except OSError as error:
                if error.errno not in _UNLOCKABLE:  # a network file system may know no locks
                    raise failed(str(self.path), error) from error
            else:
                return
        lock = self.path.with_suffix(".lock")
        try:
            descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError as error:
            said = f"another run is writing {self.path}, or was killed: if none runs, delete {lock} and try again"
            raise StudyError(said) from error
        except OSError as error:
            raise failed(str(lock), error) from error
        os.write(descriptor, f"{os.getpid()}\n".encode())
        os.close(descriptor)
        self._held = lock
