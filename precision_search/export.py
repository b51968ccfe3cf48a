"""`precision-search export STUDY`: a policy as a folder that the target's own software runs, without this toolkit."""

import argparse
from pathlib import Path

from precision_search.commands import Answer
from precision_search.progress import Progress
from precision_search.selection import add_selection

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


def answer(parsed: argparse.Namespace) -> Answer:
    """Write the folder.

    Raises:
        CommandError, and what `choose` raises: nothing is written.
    """
    # Late: the compiled kernels of the exact arithmetic take a second to import.
    from precision_search.written import export_study

    progress = Progress(quiet=parsed.quiet or parsed.json)
    try:
        return export_study(parsed, progress)
    finally:
        progress.end()
