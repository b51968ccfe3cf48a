"""The command `precision-search`: what a person types, and what is said when it cannot be done."""

import argparse
import errno
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from audio_eval.profiles import PROFILES
from precision_search import commands, compare, coverage, export, init, notebooks, plan, presets, pricing, studies
from precision_search.progress import Progress

_JUDGE = """Hold audio against fidelity gates: two folders of WAV or FLAC whose files are paired by name without ending,
or two files. No model and no study is needed."""

_JUDGE_EPILOG = """examples:
  precision-search judge fp32/ int8/                          every gate of the profile transparent
  precision-search judge fp32/ int8/ --natural recordings/    and PESQ's change against natural speech
  precision-search judge a.wav b.wav --profile 8bit --stop    the verdict alone, cheap metrics first
  precision-search judge fp32/ int8/ --free                   renders whose lengths the model chose itself
  precision-search judge fp32/ int8/ --gates gates.yaml --csv scores.csv --json found.json

clips: mono, all of one sample rate, both of a pair of one length; nothing is aligned, as a shift is a fault to find.
12 clips of 3 s or more are a good beginning; the table says what they can resolve.
gates.yaml, as in a recipe:
  gates: {profile: transparent, replace: [{metric: estoi, min: 0.99}], add: [{metric: lsd_db, over: tail, max: 3.5}]}
exit codes: 0 every gate kept, 1 a gate broken, 2 bad input"""

STOPPED = 130
BAD_INPUT = 2
BROKEN = 1

_EPILOG = """examples:
  precision-search run tts_blackhole                      search the embedded voice for a Blackhole card
  precision-search run recipes/hifigan_blackhole.yaml --set model.checkpoint=generator_v2.pt --set data.audio=wavs/
  precision-search init embedded --device h100_sxm        write a commented recipe for a model it has looked at
  precision-search sites --model hf:kyutai/mimi           where any model multiplies, and which share of it is found
  precision-search check my_recipe.yaml                   find every mistake without running anything
  precision-search run tts_blackhole --resume             go on where a run was stopped
  precision-search cost tts_blackhole                     price its baseline and its cheapest policy; hear nothing
  precision-search study ls                               list the studies below studies/; show and export them
  precision-search compare studies/a studies/b            two studies or more side by side, also as a page (--html FILE)
  precision-search report studies/a --notebook            a notebook that reads a study: fidelity, cost or formats
  precision-search plan studies/tts_blackhole             have the card's own library check and plan every operation
  precision-search export studies/tts_blackhole --out DIR write a folder that runs on the card without this toolkit
  precision-search judge fp32/ int8/                      hold any two folders of audio against the gates, clip by clip
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
        "--workers",
        type=_where,
        default=os.cpu_count() or 1,
        metavar="WHERE",
        help="a number of processes (default: one a core); ray, for all processors of the Ray cluster that this machine"
        " is part of; or ray://HOST:PORT, for those of another",
    )
    run.add_argument(
        "--exhaustive",
        action="store_true",
        help="prove the optimum of a small space, from the cheapest policy up (as --set search.method=exhaustive)",
    )
    run.add_argument("--quiet", action="store_true", help="no progress")
    run.add_argument(
        "--no-cache", action="store_true", help="measure anew what other studies measured, and keep nothing for others"
    )
    command("check", "Check a recipe, its model, its clips and its space; run nothing.", recipe=True)
    command("formats", "List the number formats that a scheme may name.", recipe=False)
    command("devices", "List the cards, their rates and prices with sources.", recipe=False)
    evaluate = command("evaluate", "Hold a policy of a study against the gates again.", recipe=False)
    evaluate.add_argument("study", type=Path, help="a study folder")
    evaluate.add_argument("--policy", type=Path, help="a policy file (default: the study's own)")
    evaluate.add_argument(
        "--exact", action="store_true", help="in the target's arithmetic to the bit, as the verdict of a run (minutes)"
    )
    evaluate.add_argument(
        "--lowered",
        nargs="?",
        choices=("fp32", "bf16"),
        const="fp32",
        metavar="BETWEEN",
        help="as the program for a Tenstorrent card computes it that export --between BETWEEN writes (minutes)",
    )
    report = command("report", "Write the report of a study again, or a notebook that reads it.", recipe=False)
    report.add_argument("study", type=Path, help="a study folder")
    notebooks.add_arguments(report)
    _add_judge(
        subparsers.add_parser(
            "judge",
            help="Hold two folders of audio against fidelity gates.",
            description=_JUDGE,
            epilog=_JUDGE_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    for module in (coverage, init, presets, pricing, studies, compare, plan, export):
        module.add_parser(subparsers)
    return parser


def _add_judge(judge: argparse.ArgumentParser) -> None:
    judge.add_argument("reference", type=Path, metavar="REFERENCE", help="folder or file: the clips as they should be")
    judge.add_argument(
        "degraded", type=Path, metavar="DEGRADED", help="folder or file: the same clips as they came out"
    )
    judge.add_argument(
        "--natural", type=Path, metavar="FOLDER", help="the recordings that the reference imitates, of equal lengths"
    )
    promise = judge.add_mutually_exclusive_group()
    promise.add_argument("--profile", choices=tuple(PROFILES), default="transparent", help="default: transparent")
    promise.add_argument("--gates", type=Path, metavar="FILE", help="YAML with the gates to hold, or a recipe")
    judge.add_argument("--json", metavar="FILE", help="write all that was found; - prints it in place of the table")
    judge.add_argument("--csv", type=Path, metavar="FILE", help="write the scores, a row a clip")
    judge.add_argument(
        "--workers", type=_count, default=os.cpu_count() or 1, metavar="N", help="threads (default: one a core)"
    )
    judge.add_argument(
        "--free",
        action="store_true",
        help="nothing was forced on the model: lengths may differ; durations, pitch and spectra aligned in time count",
    )
    extent = judge.add_mutually_exclusive_group()
    extent.add_argument("--all", action="store_true", help="score every metric of every clip (default)")
    extent.add_argument(
        "--stop",
        action="store_true",
        help="stop at the first metric with a broken gate; keeps all clips in memory, 4 MB a second of audio",
    )
    judge.add_argument("--quiet", action="store_true", help="no progress")


def _where(text: str) -> int | str:
    if text == "ray":
        return text
    if text.startswith("ray://"):
        with suppress(ValueError):  # a port that is none
            if urlsplit(text).hostname and urlsplit(text).port != 0:
                return text
    if not text.lstrip("-").isdecimal():
        raise argparse.ArgumentTypeError(f"a number of processes, ray, or ray://HOST:PORT is needed, got {text}")
    return _count(text)


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"at least 1 worker is needed, got {count}")
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
        rest = "; nothing measured is lost: the same command with --resume goes on" if parsed.command == "run" else ""
        print(f"\nprecision-search: stopped{rest}", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # who reads the table has seen enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
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
    if "answer" in parsed:
        found = parsed.answer(parsed)
    elif parsed.command == "check":
        found = commands.check(parsed.recipe, parsed.set)
    elif parsed.command == "evaluate":
        found = _evaluate(parsed)
    elif parsed.command == "judge":
        found = _judge(parsed)
        parsed.json = parsed.json == "-"
    elif parsed.command == "report":
        found = notebooks.answer(parsed)
    else:
        found = getattr(commands, parsed.command)()
    _print(found, as_json=parsed.json)
    return BROKEN if found.data.get("verdict") == "broken" else 0


def _evaluate(parsed: argparse.Namespace) -> "commands.Answer":
    progress = Progress(quiet=parsed.json)
    try:
        if parsed.lowered:
            from precision_search.lowered import evaluate_lowered  # the way to a card takes seconds to import

            return evaluate_lowered(parsed.study, parsed.policy, parsed.lowered, progress)
        return commands.evaluate(parsed.study, parsed.policy, exact=parsed.exact, progress=progress)
    finally:
        progress.end()


def _judge(parsed: argparse.Namespace) -> "commands.Answer":
    progress = Progress(quiet=parsed.quiet)
    try:
        return commands.judge(
            parsed.reference,
            parsed.degraded,
            parsed.natural,
            profile=parsed.profile,
            gates=parsed.gates,
            stop=parsed.stop,
            free=parsed.free,
            workers=parsed.workers,
            json_path=None if parsed.json in (None, "-") else Path(parsed.json),
            csv_path=parsed.csv,
            progress=progress,
        )
    finally:
        progress.end()


def _run_recipe(parsed: argparse.Namespace) -> int:
    progress = Progress(quiet=parsed.quiet or parsed.json)
    try:
        found = commands.run(
            parsed.recipe,
            [*parsed.set, *(("search.method=exhaustive",) if parsed.exhaustive else ())],
            parsed.out,
            resume=parsed.resume,
            workers=parsed.workers,
            cached=not parsed.no_cache,
            progress=progress,
        )
    finally:
        progress.end()
    _print(found, as_json=parsed.json)
    return BROKEN if found.data["verdict"] == "broken" else 0


def _print(found: "commands.Answer", *, as_json: bool) -> None:
    data: Any = found.data
    print(json.dumps(data, indent=1) if as_json else found.text)
