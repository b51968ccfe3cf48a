"""Studies: the commands that look at what searches left: a list, one of them, several side by side, and exports."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from precision.study import StudyError
from precision_search import compare
from precision_search.commands import Answer, CommandError
from precision_search.exporting import SITES, write_tables
from precision_search.overview import SHARES, Overview, find_studies, read_overview
from precision_search.table import gate_lines, number_text
from precision_search.tracking import TrackingError, track

_EPILOG = """examples:
  precision-search study ls                                     every study below studies/
  precision-search study show studies/tts_blackhole             one of them, also while it runs
  precision-search study compare studies/a studies/b            the same as: precision-search compare
  precision-search study export studies/a --csv tables/         candidates.csv, sites.csv, damage.csv
  precision-search study export studies/a --mlflow sqlite:///runs.db
exit codes: 0 done, 2 bad input"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `study ls|show|compare|export` to the command's parsers."""
    text = "List, show, compare and export studies."
    study = subparsers.add_parser(
        "study", help=text, description=text, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    study.set_defaults(answer=answer)
    actions = study.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, said: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=said, description=said)
        sub.add_argument("--json", action="store_true", help="print JSON in place of text")
        return sub

    listing = action("ls", "List every study below a folder.")
    listing.add_argument("folder", type=Path, nargs="?", default=Path("studies"), metavar="FOLDER")
    show = action("show", "Show a study: what it was asked, its verdict, its front and the end of its log.")
    show.add_argument("study", type=Path, metavar="STUDY", help="a study folder; its search may be running")
    compare.add_parser(actions)
    export = action("export", "Write a study as CSV tables, or into MLflow.")
    export.add_argument("study", type=Path, metavar="STUDY", help="a study folder")
    export.add_argument("--csv", type=Path, metavar="DIR", help="folder for candidates.csv, sites.csv and damage.csv")
    export.add_argument(
        "--mlflow",
        nargs="?",
        const="",
        metavar="URI",
        help="a tracking store, as sqlite:///runs.db or http://host:5000 (default: the one MLflow is set to)",
    )


def answer(parsed: argparse.Namespace) -> Answer:
    """Do what was asked of studies.

    Raises:
        StudyError: there is no such folder, no study in it, half of one, or a line of it is corrupt.
        CommandError: too little was asked, or MLflow cannot do it.
    """
    if parsed.action == "ls":
        return list_studies(parsed.folder)
    if parsed.action == "show":
        return show_study(parsed.study)
    return export_study(parsed.study, parsed.csv, parsed.mlflow)


def list_studies(root: Path) -> Answer:
    """Every study below a folder; one that cannot be read is listed with the reason."""
    if not root.is_dir():
        raise CommandError(f"{root}: there is no such folder; name the one that your studies are in")
    folders = find_studies(root)
    if not folders:
        raise CommandError(f"{root}: holds no study; `precision-search run` makes one")
    rows, lines, reasons = [], [_LIST_HEAD], []
    for folder in folders:
        try:
            overview = read_overview(folder)
        except StudyError as error:
            row: dict[str, Any] = {"study": str(folder), "state": "unreadable", "why": str(error)}
            reasons.append(f"unreadable: {error}")
        else:
            row = overview.to_dict()
        rows.append(row)
        lines.append(_list_line(_below(folder, root), row))
    return Answer({"studies": rows}, "\n".join([*lines, *reasons, _LIST_FOOT]))


_LIST_HEAD = (
    f"{'study':30} {'recipe':20} {'model':10} {'device':8} {'state':31} {'ms/s':>8} {'ratio':>7} {'LoFi':>6}"
    f" {'BFP8':>6} {'FP8':>6} {'heard':>5} {'seconds':>7}  last written"
)
_LIST_FOOT = (
    "ms/s: of the card per second of audio, at the recipe's cost.streams; ratio: USD a stream, card bought, to those of"
    " the card it is set against, the L40S"
)


def _list_line(name: str, row: Mapping[str, Any]) -> str:
    if row["state"] == "unreadable":
        return f"{name:30} unreadable"
    cost = None if row["seconds_cost"] is None else 1e3 * row["seconds_cost"]
    shares = "".join(f" {'-' if row[share] is None else format(row[share], '6.1%'):>6}" for share in SHARES)
    named = f"{name:30} {row['recipe'] or '-':20} {row['model'] or '-':10} {row['device'] or '-':8}"
    figures = f"{number_text(cost):>8} {number_text(row['ratio']):>7}{shares} {row['heard']:5} {row['seconds']:7.0f}"
    return f"{named} {_state(row):31} {figures}  {row['written']}"


def _state(row: Mapping[str, Any]) -> str:
    if row["state"] != "unfinished":
        return str(row["state"])
    return f"{row['damages']} damages, {row['heard']} heard so far"


def _below(folder: Path, root: Path) -> str:
    return str(folder.relative_to(root)) if folder != root else str(folder)


def show_study(folder: Path) -> Answer:
    """One study: header, verdict, gates, shares, front, and the end of its log; also while it is written."""
    overview = read_overview(folder)
    row = overview.to_dict()
    data = row | {
        "header": dict(overview.study.header),
        "message": overview.summary.get("message"),
        "gates": overview.gates,
        "front": overview.front(),
        "sites": dict(overview.policy),
        "last": overview.last_lines(),
    }
    return Answer(data, _show_text(overview, data))


def _show_text(overview: Overview, data: Mapping[str, Any]) -> str:
    lines = [f"{data['study']}: {data['recipe']}, {data['model']} on {data['device'] or 'a card not known'}"]
    lines += [f"  {key:14} {value}" for key, value in data["header"].items() if key not in ("recipe", "model")]
    lines.append("")
    if overview.results is None:
        lines.append(
            f"  unfinished: {data['damages']} damages measured, {data['settled']} settled, {data['heard']} policies"
            f" heard, the last line {overview.age_seconds:.0f} s ago; a run that was stopped goes on by --resume"
        )
        which = "the cheapest policy kept so far" if overview.best is not None else "no policy was kept so far"
    else:
        verdict = "every gate kept" if data["state"] == "kept" else "GATES BROKEN"
        lines.append(f"  {verdict}; {data['evaluations']} policies heard, {data['seconds']:.0f} s")
        which = "the policy"
        if data["state"] != "kept" and data["message"]:
            lines.append(f"  {data['message']}")
    if overview.best is not None:
        which += f" {overview.best.digest}: {1e3 * overview.best.seconds_cost:.4g} ms of the card a second of audio"
    lines.append(f"  {which}")
    if data["ratio"] is not None:
        ratio, price = number_text(data["ratio"]), number_text(data["usd_per_stream"])
        lines.append(f"  USD per concurrent stream: {price}, {ratio} of what {data['against'] or 'the L40S'} takes")
    shares = zip(("LoFi share of MACs", "bfp8_b share of weights", "FP8 share of MACs"), SHARES, strict=True)
    lines += [f"  {said:25} {data[name]:7.1%}" for said, name in shares if data[name] is not None]
    if data["gates"]:
        lines += ["", *(f"  {line}" for line in gate_lines(data["gates"]))]
    lines += ["", *_front_lines(data["front"]), "", "  the end of the log"]
    return "\n".join([*lines, *(f"    {line}" for line in data["last"])])


def _front_lines(front: Sequence[Mapping[str, Any]]) -> list[str]:
    if not front:
        return ["  no policy was heard yet"]
    lines = ["  heard on the search's clips and beaten by none, in cost and most binding gate:"]
    lines.append(f"    {'policy':16} {'ms/s':>9} {'kept':>6} {'over threshold':>15}  most binding gate")
    for row in front:
        kept, gate = "kept" if row["kept"] else "broken", f"{row['metric']} ({row['over']})"
        lines.append(f"    {row['digest']:16} {1e3 * row['seconds_cost']:9.4g} {kept:>6} {row['excess']:15.2%}  {gate}")
    return lines


def export_study(folder: Path, tables: Path | None, store: str | None) -> Answer:
    """Write a study's tables, or track it in MLflow, or both; an empty `store` is the one that MLflow is set to."""
    if tables is None and store is None:
        raise CommandError("study export: say where to: --csv DIR, --mlflow [URI], or both")
    overview = read_overview(folder)
    data: dict[str, Any] = {"study": str(folder)}
    lines = []
    if tables is not None:
        written = write_tables(overview, tables)
        data["files"] = [str(path) for path in written]
        lines += data["files"]
        if overview.results is None:
            lines.append(f"{SITES} is left out: the study has not ended")
    if store is not None:
        try:
            data["mlflow"] = track(overview, store or None)
        except TrackingError as error:
            raise CommandError(str(error)) from error
        run = data["mlflow"]
        was = "is there as" if run["known"] else "is tracked as"
        lines.append(f"{folder} {was} run {run['run_id']} of experiment {run['experiment']} in {run['uri']}")
    return Answer(data, "\n".join(lines))
