"""The command `precision-search`: what a person types, and what is said when it cannot be done."""

import argparse
import errno
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from precision_search import commands
from precision_search.progress import Progress

STOPPED = 130
BAD_INPUT = 2
BROKEN = 1

_EPILOG = """examples:
  precision-search run tts_blackhole                      search the embedded voice for a Blackhole card
  precision-search run recipes/hifigan_blackhole.yaml --set model.checkpoint=generator_v2.pt --set data.audio=wavs/
  precision-search check my_recipe.yaml                   find every mistake without running anything
  precision-search run tts_blackhole --resume             go on where a run was stopped
exit codes: 0 every gate kept, 1 a gate broken, 2 bad input, 130 stopped (run again with --resume)"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="precision-search",
        description="Find the cheapest precision of each layer of a voice model that keeps its sound, and price it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *, recipe: bool) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(name, help=text, description=text)
        sub.add_argument("--json", action="store_true", help="print JSON in place of a table")
        if recipe:
            sub.add_argument("recipe", help="a recipe file, or the name of a recipe that the package brings")
            sub.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="KEY=VALUE",
                help="replace a value, as model.checkpoint=PATH",
            )
        return sub

    run = command("run", "Search a recipe and write its study folder.", recipe=True)
    run.add_argument("--out", type=Path, metavar="DIR", help="study folder (default: studies/<recipe>)")
    run.add_argument("--resume", action="store_true", help="go on with the study in that folder, if there is one")
    run.add_argument(
        "--workers", type=_count, default=os.cpu_count() or 1, metavar="N", help="processes (default: one a core)"
    )
    run.add_argument("--quiet", action="store_true", help="no progress")
    command("check", "Check a recipe, its model, its clips and its space; run nothing.", recipe=True)
    command("sites", "List the sites of a recipe's model, and the share of its computation that they are.", recipe=True)
    command("formats", "List the number formats that a scheme may name.", recipe=False)
    command("devices", "List the cards, their rates and prices with sources.", recipe=False)
    evaluate = command("evaluate", "Hold a policy of a study against the gates again.", recipe=False)
    evaluate.add_argument("study", type=Path, help="a study folder")
    evaluate.add_argument("--policy", type=Path, help="a policy file (default: the study's own)")
    evaluate.add_argument(
        "--exact", action="store_true", help="in the target's arithmetic to the bit, as the verdict of a run (minutes)"
    )
    report = command("report", "Write the report of a study again.", recipe=False)
    report.add_argument("study", type=Path, help="a study folder")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"at least 1 process is needed, got {count}")
    return count


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code."""
    sys.exit(_run(build_parser().parse_args(arguments)))


def _run(parsed: argparse.Namespace) -> int:
    try:
        return _dispatch(parsed)
    except commands.INPUT_ERRORS as error:
        print(f"precision-search: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(
            "\nprecision-search: stopped; nothing measured is lost: the same command with --resume goes on",
            file=sys.stderr,
        )
        return STOPPED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        print(
            f"precision-search: {error}; free some space or name another folder, then --resume goes on", file=sys.stderr
        )
        return BAD_INPUT


def _dispatch(parsed: argparse.Namespace) -> int:
    if parsed.command == "run":
        return _run_recipe(parsed)
    if parsed.command in ("check", "sites"):
        found = getattr(commands, parsed.command)(parsed.recipe, parsed.set)
    elif parsed.command == "evaluate":
        found = _evaluate(parsed)
    elif parsed.command == "report":
        found = commands.report(parsed.study)
    else:
        found = getattr(commands, parsed.command)()
    _print(found, as_json=parsed.json)
    return BROKEN if found.data.get("verdict") == "broken" else 0


def _evaluate(parsed: argparse.Namespace) -> "commands.Answer":
    progress = Progress(quiet=parsed.json)
    try:
        return commands.evaluate(parsed.study, parsed.policy, exact=parsed.exact, progress=progress)
    finally:
        progress.end()


def _run_recipe(parsed: argparse.Namespace) -> int:
    progress = Progress(quiet=parsed.quiet or parsed.json)
    try:
        found = commands.run(
            parsed.recipe, parsed.set, parsed.out, resume=parsed.resume, workers=parsed.workers, progress=progress
        )
    finally:
        progress.end()
    _print(found, as_json=parsed.json)
    return BROKEN if found.data["verdict"] == "broken" else 0


def _print(found: "commands.Answer", *, as_json: bool) -> None:
    data: Any = found.data
    print(json.dumps(data, indent=1) if as_json else found.text)
