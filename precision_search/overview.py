"""Overview: what a study's folder tells of it, finished, running or left half way, by this code or by older."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from backends.emulation.audition import excess
from precision.candidate import Candidate, numbers, verdict_line
from precision.gates import Verdict
from precision.study import LOG, Study, StudyError, pareto
from precision_search.report.gates import gate_rows
from precision_search.report.results import Results, read_results

SHARES = ("lofi_mac_share", "bfp8_weight_share", "fp8_mac_share")
TAIL = 6
"""Lines of the log that are told."""


@dataclass(frozen=True)
class Overview:
    """A study as far as it is."""

    folder: Path
    study: Study
    results: Results | None
    """What its end left; None where it has not ended."""
    written: float
    """When its log was last written to, in seconds of Unix time."""

    @property
    def summary(self) -> Mapping[str, Any]:
        """The summary; empty where it has not ended."""
        return {} if self.results is None else self.results.summary

    @property
    def state(self) -> str:
        """`kept` and `broken` of one that ended, or `unfinished`."""
        return str(self.summary["verdict"]) if self.results is not None else "unfinished"

    @cached_property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe it was begun with, as plain data; empty where neither log nor folder has it."""
        try:
            data = yaml.safe_load(self.study.recipe or "")
        except yaml.YAMLError:
            data = None
        return data if isinstance(data, dict) else {}

    @property
    def device(self) -> str | None:
        """The card; None where nothing tells."""
        target = self.recipe.get("target")
        named = self.summary.get("device") or (target.get("device") if isinstance(target, dict) else None)
        return None if named is None else str(named)

    @cached_property
    def searched(self) -> tuple[Candidate, ...]:
        """The policies heard on the search's clips, in order."""
        return self.study.candidates("search")

    @cached_property
    def best(self) -> Candidate | None:
        """The policy of the summary; of a study that has not ended the cheapest that was kept so far."""
        if self.results is not None and self.results.final is not None:
            return self.results.final
        return min((heard for heard in self.searched if heard.kept), key=lambda heard: heard.seconds_cost, default=None)

    @property
    def policy(self) -> Mapping[str, str]:
        """Site -> scheme of `best`; empty where there is none."""
        if self.results is not None and self.results.chosen:
            return self.results.chosen
        return {} if self.best is None else self.best.policy

    @property
    def gates(self) -> list[dict[str, Any]]:
        """The gates of the summary, or of the best so far, as `precision.candidate.verdict_line` has them."""
        if self.results is None:
            return [] if self.best is None else [verdict_line(verdict) for verdict in self.best.gates]
        return [
            {
                "metric": gate.metric,
                "over": gate.over,
                "side": gate.side,
                "threshold": gate.threshold,
                **numbers({"value": gate.value, "margin": math.nan if gate.margin is None else gate.margin}),
                "kept": gate.kept,
            }
            for gate in gate_rows(self.results)
        ]

    def front(self) -> list[dict[str, Any]]:
        """The heard policies that none beats in both cost and most binding gate, dearest last."""
        bound = [binding(heard) for heard in self.searched]
        points = [
            (heard.seconds_cost, math.nan if found is None else excess(found))
            for heard, found in zip(self.searched, bound, strict=True)
        ]
        rows = []
        for index in pareto(points):
            heard, found = self.searched[index], bound[index]
            assert found is not None
            gate = {"metric": found.gate.metric, "over": found.gate.over, "excess": points[index][1]}
            rows.append({"digest": heard.digest, "seconds_cost": heard.seconds_cost, **gate, "kept": heard.kept})
        return rows

    def damage(self, site: str, scheme: str) -> dict[str, float]:
        """Metric -> damage of a site under a scheme; empty where it was not measured."""
        if self.results is not None:
            row = next((row for row in self.results.sites if row.name == site), None)
            option = row.option(scheme) if row is not None else None
            return dict(option.damage) if option is not None else {}
        for record in self.study.records("damage"):
            if record["site"] == site and record["scheme"] == scheme:
                return {metric: float(value) for metric, value in record["damage"].items()}
        return {}

    def to_dict(self) -> dict[str, Any]:
        """What a list of studies tells; None where it is not known (yet)."""
        header, cost = self.study.header, self.summary.get("cost") or {}
        candidates = self.study.candidates()
        damages = self.study.records("damage")
        settled = [record for record in damages if record.get("settled") is not None]
        spent = math.fsum(heard.elapsed_seconds for heard in candidates)
        return {
            "study": str(self.folder),
            "recipe": header.get("recipe"),
            "model": header.get("model"),
            "device": self.device,
            "state": self.state,
            "damages": len(damages) - len(settled),
            "settled": len(settled),
            "heard": len(candidates),
            "evaluations_limit": self.recipe.get("search", {}).get("evaluations"),
            "policy": None if self.best is None else self.best.digest,
            "seconds_cost": None if self.best is None else self.best.seconds_cost,
            "usd_per_stream": (cost.get("usd_per_stream") or {}).get("candidate"),
            "ratio": cost.get("ratio"),
            "against": self.summary.get("against"),
            **{name: self.summary.get(name) for name in SHARES},
            "evaluations": self.summary.get("evaluations", len(candidates)),
            "seconds": self.summary.get("seconds", round(spent, 1)),
            "written": datetime.fromtimestamp(self.written, UTC).isoformat(timespec="seconds"),
        }

    def last_lines(self) -> list[str]:
        """The end of the log, a line of text a record."""
        return [_told(record) for record in self.study.tail(TAIL)]

    @property
    def age_seconds(self) -> float:
        """Since the log was last written to."""
        return max(0.0, time.time() - self.written)


def find_studies(root: Path) -> list[Path]:
    """Every folder below `root`, itself included, that holds a study, by name."""
    return sorted(log.parent for log in root.rglob(LOG))


def read_overview(folder: Path) -> Overview:
    """Read a study's folder; of one that has ended all that its end left.

    Raises:
        StudyError: there is no such folder, no study in it, only half of what a study leaves, or a line of its log is
            corrupt.
    """
    if not folder.is_dir():
        raise StudyError(f"{folder}: there is no such folder; `precision-search study ls` lists the studies")
    if not (folder / LOG).is_file():
        raise StudyError(f"{folder}: holds no study (no {LOG}); `precision-search study ls {folder}` lists those below")
    ended = (folder / "summary.json").is_file()
    written = (folder / LOG).stat().st_mtime
    try:
        results = read_results(folder) if ended else None
        return Overview(folder, Study.read(folder) if results is None else results.study, results, written)
    except ValueError as error:
        raise StudyError(str(error)) from error


def binding(heard: Candidate) -> Verdict | None:
    """The gate that is broken most, or kept by least; None where none has a value.

    A gate that is kept by exactly nothing is a count or a flag (finite, lengths), which is kept so or not at all; it is
    named only where there is no other.
    """
    found = [verdict for verdict in heard.gates if not math.isnan(verdict.margin)]
    return max(found, key=lambda verdict: (verdict.margin != 0.0, excess(verdict)), default=None)


def percent_text(verdict: Verdict) -> str:
    """A gate and by how much it is kept or broken."""
    beyond = 100 * excess(verdict)
    side = "beyond" if beyond > 0 else "inside"
    return f"{verdict.gate.metric} ({verdict.gate.over}) {abs(beyond):.3g} % {side} its threshold"


def _told(record: Mapping[str, Any]) -> str:
    kind = record["kind"]
    if kind in ("damage", "around"):
        values = ", ".join(f"{metric} {float(value):.4g}" for metric, value in record["damage"].items())
        where = f" in policy {record['key'][0]}" if kind == "around" else ""
        settled = "" if record.get("settled") is None else f" (not measured: {record['settled']})"
        return f"damage of {record['site']} as {record['scheme']}{where}: {values}{settled}"
    if kind == "candidate":
        heard = Candidate.from_dict(record)
        found = binding(heard)
        clips = "the clips held back" if heard.split == "held_back" else "the search's clips"
        where = f" in {heard.arithmetic}" if heard.arithmetic else ""
        said = f"policy {heard.digest} {'kept' if heard.kept else 'broken'} on {clips}{where}"
        return said if found is None else f"{said}: {percent_text(found)}"
    rest = json.dumps({key: value for key, value in record.items() if key != "kind"}, ensure_ascii=False)
    return f"{kind}: {rest if len(rest) <= 90 else rest[:87] + '...'}"
