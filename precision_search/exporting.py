"""Exporting: a study as tables of plain text, for spreadsheets and data frames."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.emulation.audition import excess
from precision.candidate import Candidate
from precision.study import StudyError, write_atomic
from precision_search.overview import Overview, binding

CANDIDATES, SITES, DAMAGE = "candidates.csv", "sites.csv", "damage.csv"


def write_tables(overview: Overview, folder: Path) -> list[Path]:
    """Write candidates.csv and damage.csv, and of a study that has ended sites.csv; NaN and infinities are texts.

    Raises:
        StudyError: the folder cannot be made or written to, or the study lacks its sites.
    """
    tables = {CANDIDATES: candidate_rows(overview), DAMAGE: damage_rows(overview)}
    if overview.results is not None:
        tables[SITES] = site_rows(overview)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{folder} cannot be made: {error.strerror or error}; name another folder by --csv") from error
    for name, rows in tables.items():
        write_atomic(folder / name, csv_text(rows))
    return [folder / name for name in tables]


def candidate_rows(overview: Overview) -> list[dict[str, Any]]:
    """A row for each policy heard, in the order first tried.

    Columns: digest, split, arithmetic, kept, seconds_cost (of the card per second of audio), elapsed_seconds; the gate
    that binds, and by how much of its threshold it is exceeded; `gate METRIC OVER` for every gate; `predicted METRIC`
    and `measured METRIC` (the mean over the clips) of the metrics that add over sites.
    """
    return [_candidate_row(heard) for heard in overview.study.candidates()]


def _candidate_row(heard: Candidate) -> dict[str, Any]:
    worst = binding(heard)
    row: dict[str, Any] = {
        "digest": heard.digest,
        "split": heard.split,
        "arithmetic": heard.arithmetic,
        "kept": heard.kept,
        "seconds_cost": heard.seconds_cost,
        "elapsed_seconds": heard.elapsed_seconds,
        "worst_gate": "" if worst is None else f"{worst.gate.metric} {worst.gate.over}",
        "worst_excess": "" if worst is None else excess(worst),
    }
    row |= {f"gate {verdict.gate.metric} {verdict.gate.over}": verdict.value for verdict in heard.gates}
    for metric, predicted in heard.predicted.items():
        row[f"predicted {metric}"] = predicted
        scores = [scores[metric] for scores in heard.scores.values() if metric in scores]
        row[f"measured {metric}"] = sum(scores) / len(scores) if scores else ""
    return row


def site_rows(overview: Overview) -> list[dict[str, Any]]:
    """A row for each site, in the model's order: what it computes, and the scheme that was chosen for it.

    Raises:
        StudyError: sites.json is not there, or is not a list of sites.
    """
    path = overview.folder / "sites.json"
    try:
        sites = json.loads(path.read_text(encoding="utf-8"))
        return [
            {
                "site": site["name"],
                "op": site["op"],
                "weight_shape": "x".join(map(str, site["weight_shape"])),
                "k": site.get("k", ""),
                "n": site.get("n", ""),
                "groups": site.get("groups", ""),
                "macs_per_second": site["macs_per_second"],
                "scheme": overview.policy.get(site["name"], ""),
            }
            for site in sites
        ]
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read: {error}") from error
    except (KeyError, TypeError) as error:
        raise StudyError(f"{path} is not a list of sites ({error!r}); run the search to its end again") from error


def damage_rows(overview: Overview) -> list[dict[str, Any]]:
    """A row for each site, scheme and metric that is in the log, in its order.

    Beside the damage the modelled seconds of the card that the option takes per second of audio, known of a study that
    has ended, and why it was settled without being measured, where it was.
    """
    seconds = _option_seconds(overview)
    return [
        {
            "site": record["site"],
            "scheme": record["scheme"],
            "metric": metric,
            "damage": value,
            "seconds": seconds.get((record["site"], record["scheme"]), ""),
            "settled": record.get("settled", ""),
        }
        for record in overview.study.records("damage")
        for metric, value in record["damage"].items()
    ]


def _option_seconds(overview: Overview) -> dict[tuple[str, str], float]:
    if overview.results is None:
        return {}
    table = json.loads((overview.folder / "damage.json").read_text(encoding="utf-8"))  # as the results have checked
    return {
        (site["name"], option["scheme"]): option["seconds"]
        for site in table["sites"]
        for option in site["options"]
        if option.get("seconds") is not None
    }


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, under the heads of all of them in order of first appearance; empty text where there is none."""
    heads = list(dict.fromkeys(_heads(rows)))
    text = io.StringIO()
    if heads:
        writer = csv.DictWriter(text, heads, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def _heads(rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for row in rows:
        yield from row
