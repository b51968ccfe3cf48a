"""`precision-search export STUDY`: a policy as a folder that the target's own software runs, without this toolkit."""

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.tenstorrent.cards import CARDS
from precision_search.commands import Answer, CommandError
from precision_search.progress import Progress

_EPILOG = """examples:
  precision-search export studies/tts_blackhole --out voice_p150/         the study's policy, for its own card
  precision-search export studies/tts_blackhole --card wormhole_n150 --policy mine.yaml --out voice_n150/
  precision-search export tts_blackhole --seconds 1 --out baseline/       a recipe's baseline, no search needed
  precision-search export studies/a --stream --chunk-ms 80 --out live/    a program that runs chunk by chunk

the folder: model.py (plain calls of ttnn), weights/ by ttnn's own packer, policy.yaml, run.py, a sample with the output
to be expected and its tolerance, README.md. It needs ttnn and nothing else of this toolkit:
  python run.py --plan                                                    no card: the library checks every operation
  python run.py --device 0 --input sample/input.npz --output out.npz
shapes are those of the clip: a program is for inputs of one length. No card is needed to export.
exit codes: 0 written, 2 bad input, 130 stopped (nothing is left behind)"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `export`."""
    text = "Write a study's policy as a folder that runs on its card without this toolkit."
    sub = subparsers.add_parser(
        "export", help=text, description=text, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_selection(sub)
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; must be new or empty")
    sub.add_argument(
        "--backend", choices=("tenstorrent",), default="tenstorrent", help="what it is to run on (default: tenstorrent)"
    )
    sub.add_argument("--quiet", action="store_true", help="no progress")
    sub.set_defaults(answer=answer)


def add_selection(sub: argparse.ArgumentParser) -> None:
    """Add what `export` and `plan` both ask: which policy, for which card, on how much sound."""
    sub.add_argument("study", metavar="STUDY", help="a study folder; or a recipe, for its baseline")
    sub.add_argument("--policy", type=Path, metavar="FILE", help="a policy file (default: the study's own)")
    sub.add_argument("--card", choices=tuple(CARDS), help="the card (default: the study's)")
    sub.add_argument("--clip", metavar="NAME", help="the clip that gives the shapes (default: the shortest held back)")
    sub.add_argument("--seconds", type=_seconds, metavar="S", help="take no more of the clip, from its middle")
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of a recipe, as model.checkpoint=PATH"
    )
    sub.add_argument("--stream", action="store_true", help="a program of one chunk, its state kept on the card")
    sub.add_argument(
        "--chunk-ms", type=_seconds, default=80.0, metavar="MS", help="length of a chunk with --stream (default: 80)"
    )
    sub.add_argument(
        "--no-host", action="store_true", help="refuse where anything would be left in torch on the host, by name"
    )
    sub.add_argument("--json", action="store_true", help="print JSON in place of text")


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"a number above 0 is needed, got {text}")
    return number


def require_ttnn() -> None:
    """Refuse an environment without ttnn, before anything is computed.

    Raises:
        CommandError: saying what to install, and where it can be.
    """
    if importlib.util.find_spec("ttnn") is not None:
        return
    if sys.version_info < (3, 12):
        raise CommandError(
            f"ttnn 0.81.1 has no wheel for Python {sys.version_info.major}.{sys.version_info.minor}; make an"
            " environment with CPython 3.12 on x86-64 Linux, and there: pip install 'precision-search[tenstorrent]'"
        )
    raise CommandError(
        "ttnn is not installed: pip install 'precision-search[tenstorrent]' (wheels are for x86-64 Linux)"
    )


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


def answer(parsed: argparse.Namespace) -> Answer:
    """Write the folder.

    Raises:
        CommandError, and what `choose` raises: nothing is written.
    """
    # Late: torch and the model are needed for nothing else of the parser.
    from precision_search.lowering import export_study

    progress = Progress(quiet=parsed.quiet or parsed.json)
    try:
        return export_study(parsed, progress)
    finally:
        progress.end()
