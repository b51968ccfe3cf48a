"""New folder: one that is there as a whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from precision_search.commands import CommandError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes it at the end; whatever stops the work before leaves nothing.

    Raises:
        CommandError: `out` is there and not empty, or cannot be written.
    """
    check_free(out)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        if out.is_dir():
            out.rmdir()
        unfinished.rename(out)
    except OSError as error:
        raise CommandError(f"{out}: cannot be written: {error.strerror or error}; nothing is left of it") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check_free(out: Path) -> None:
    """Refuse a folder that holds something, or a file; CommandError."""
    if out.is_dir() and any(out.iterdir()):
        raise CommandError(f"{out}: is not empty; name a new folder by --out, or clear it")
    if out.exists() and not out.is_dir():
        raise CommandError(f"{out}: is a file, and an export is a folder; name another by --out")
