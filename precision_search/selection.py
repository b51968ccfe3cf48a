"""Selection: what `export` and `plan` both ask: which policy, for which card, on how much sound."""

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import get_args

from backends.tenstorrent.cards import CARDS
from backends.tenstorrent.lower.builder import Between
from precision_search.commands import CommandError
from precision_search.lowering import Asked

CHUNK_MS = 80.0
LONGEST_CHUNK_MS = 2000.0


def add_selection(sub: argparse.ArgumentParser) -> None:
    """Add what `export` and `plan` both ask: which policy, for which card, on how much sound."""
    sub.add_argument("study", metavar="STUDY", help="a study folder; or a recipe, for its baseline")
    sub.add_argument("--policy", type=Path, metavar="FILE", help="a policy file (default: the study's own)")
    sub.add_argument("--card", choices=tuple(CARDS), help="the card (default: the study's)")
    sub.add_argument("--clip", metavar="NAME", help="the clip that gives the shapes (default: the shortest held back)")
    sub.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help="take no more of the clip, from its middle; a shorter clip is taken whole",
    )
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of a recipe, as model.checkpoint=PATH"
    )
    sub.add_argument(
        "--stream",
        action="store_true",
        help="a program of one chunk (of a decoder: of one row), its state kept on the card",
    )
    sub.add_argument(
        "--chunk-ms", type=_milliseconds, metavar="MS", help=f"length of a chunk with --stream (default: {CHUNK_MS:g})"
    )
    sub.add_argument(
        "--no-host", action="store_true", help="refuse where anything would be left in torch on the host, by name"
    )
    sub.add_argument(
        "--between",
        choices=get_args(Between),
        default="fp32",
        help="in what results between sites are kept: fp32, as the policy was heard (default), or bf16, half the"
        " traffic and not what was heard (evaluate --lowered bf16 tells)",
    )
    sub.add_argument("--json", action="store_true", help="print JSON in place of text")


def _milliseconds(text: str) -> float:
    number = _seconds(text)
    if not 1 <= number <= LONGEST_CHUNK_MS:
        raise argparse.ArgumentTypeError(
            f"a chunk has 1 to {LONGEST_CHUNK_MS:g} ms, got {text}; leave --stream out for a whole clip"
        )
    return number


def chunk_ms_of(parsed: argparse.Namespace) -> float | None:
    """Length of a chunk that was asked for; None for a program of the whole clip.

    Raises:
        CommandError: a chunk was asked for, and no stream.
    """
    if parsed.chunk_ms is not None and not parsed.stream:
        raise CommandError("--chunk-ms: is the length of a stream's chunk; add --stream, or leave it out")
    return (parsed.chunk_ms or CHUNK_MS) if parsed.stream else None


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
            f"ttnn 0.81.1 has no wheel for Python {sys.version_info[0]}.{sys.version_info[1]}; make an"
            " environment with CPython 3.12 on x86-64 Linux, and there: pip install 'precision-search[tenstorrent]'"
        )
    raise CommandError(
        "ttnn is not installed: pip install 'precision-search[tenstorrent]' (wheels are for x86-64 Linux)"
    )


def require(*packages: str, extra: str) -> None:
    """Refuse an environment without packages of an extra, before anything is computed.

    Raises:
        CommandError: naming all that are missing, and what to install.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise CommandError(f"{' and '.join(missing)} not installed: pip install 'precision-search[{extra}]'")


def asked_of(parsed: argparse.Namespace) -> Asked:
    """What was asked, as `choose` takes it."""
    return Asked(
        source=parsed.study,
        policy=parsed.policy,
        card=parsed.card,
        clip=parsed.clip,
        seconds=parsed.seconds,
        overrides=parsed.set,
        between=parsed.between,
        route=getattr(parsed, "route", None),
    )
