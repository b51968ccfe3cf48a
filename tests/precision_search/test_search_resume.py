"""A run stopped in the middle of any of its stages goes on to the same policy, and repeats nothing that was found."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from precision.study import Study
from tests.families.searching import command

EXACT = (
    "gates=[{metric: lsd_db, max: 1.6}, {metric: group_delay_rad, max: 0.2}]",
    "schemes.half={weight: bfp8_b, activation: bf16, fidelity: hifi2}",
    "space=[{match: '*', allow: [bf16, half, lofi, bold]}]",
    "search.evaluations=16",
)
SAMPLED = ("search.method=tpe",)
STOPPED = 130


@dataclass(frozen=True)
class Whole:
    """A study that ran to its end."""

    folder: Path
    overrides: tuple[str, ...]

    @property
    def log(self) -> list[dict[str, Any]]:
        return log_of(self.folder)

    def place(self, stage: str) -> int:
        """Number of a record in the middle of a stage, the header not counted."""
        log = self.log
        proving = 1 + next(
            number
            for number, record in enumerate(log)
            if record.get("arithmetic", "").endswith("blackhole") and kept(record)
        )
        found = {
            "searching": [n for n, record in enumerate(log[:proving]) if record.get("split") == "search"],
            "measuring anew": [n for n, record in enumerate(log) if record["kind"] == "around"],
            "proving": list(range(proving, len(log))),
        }[stage]
        assert len(found) > 2, stage
        return found[len(found) // 2]


def kept(record: Mapping[str, Any]) -> bool:
    return all(gate["kept"] for gate in record["gates"])


def log_of(folder: Path) -> list[dict[str, Any]]:
    """Records of a log but its header, without the time that each took."""
    lines = [json.loads(line) for line in (folder / "study.jsonl").read_text().splitlines()[1:]]
    return [{key: value for key, value in line.items() if key != "elapsed_seconds"} for line in lines]


def run(made: Path, folder: Path, overrides: tuple[str, ...], *more: str) -> int:
    changes = [part for override in overrides for part in ("--set", override)]
    return command("run", made / "tiny.yaml", "--out", folder, "--quiet", "--workers", 1, *changes, *more)


@pytest.fixture(scope="module", autouse=True)
def _prediction_is_soon_found_wanting() -> Iterator[None]:
    """What this vocoder damages adds up well: doubt it where others would not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("precision.search.remeasure.TRIALS", 4)
        patch.setattr("precision.search.remeasure.DISPERSION", 0.001)
        yield


@pytest.fixture(scope="module")
def exact(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole") / "study"
    assert run(made, folder, EXACT) == 0
    return Whole(folder, EXACT)


@pytest.fixture(scope="module")
def sampled(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("sampled") / "study"
    assert run(made, folder, SAMPLED) == 0
    return Whole(folder, SAMPLED)


@pytest.mark.parametrize(
    ("method", "stage"),
    [
        ("exact", "searching"),
        ("exact", "measuring anew"),
        ("exact", "proving"),
        pytest.param("sampled", "searching", marks=pytest.mark.slow),
    ],
)
def test_a_stage_cut_short_goes_on_to_the_same_policy(request, made, tmp_path, monkeypatch, method, stage):
    whole: Whole = request.getfixturevalue(method)
    folder, last, append = tmp_path / "study", whole.place(stage), Study.append
    written = 0

    def stop(study: Study, record: Mapping[str, Any]) -> None:
        nonlocal written
        if written == last:  # what was found is lost before it is told
            raise KeyboardInterrupt
        append(study, record)
        written += 1

    monkeypatch.setattr(Study, "append", stop)
    assert run(made, folder, whole.overrides) == STOPPED
    monkeypatch.setattr(Study, "append", append)
    assert log_of(folder) == whole.log[:last]
    assert not (folder / "policy.yaml").exists()
    assert run(made, folder, whole.overrides, "--resume") == 0
    assert (folder / "policy.yaml").read_bytes() == (whole.folder / "policy.yaml").read_bytes()
    assert log_of(folder) == whole.log
    keys = [evaluated(record) for record in whole.log]
    assert len(set(keys)) == len(keys)


def evaluated(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What a record is of."""
    parts = ("kind", "key", "name", "digest", "policy_digest", "split", "arithmetic")
    return tuple(str(record.get(part)) for part in parts)


def test_damages_are_measured_anew_around_what_was_found(exact):
    around = [record for record in exact.log if record["kind"] == "around"]
    summary = json.loads((exact.folder / "summary.json").read_text())
    assert summary["remeasured"]
    policies = {record["key"][0] for record in around}
    heard = {candidate.digest for candidate in Study.read(exact.folder).candidates("search")}
    assert policies <= heard, "around policies that were heard"
    assert {record["site"] for record in around} > {"conv_pre"}
