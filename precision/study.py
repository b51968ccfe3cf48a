"""Study: the append-only log of what was tried, so that a killed search goes on where it was."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from precision.candidate import Candidate, Split, floats, numbers
from precision.journal import Journal, StudyError, read_lines, write_atomic
from precision.policy import Scheme
from precision.site import Site

__all__ = [
    "LOG",
    "Candidate",
    "Split",
    "Study",
    "StudyError",
    "evaluation_key",
    "pareto",
    "sites_digest",
    "write_atomic",
]

LOG = "study.jsonl"
Header = Mapping[str, str | int | float | bool | None]
"""What makes results comparable, by name: digests of recipe, checkpoint, sites and clips; versions of the code."""


class Study:
    """The log of one search, open for appending (`create`, `open`) or for reading (`read`); a context manager."""

    def __init__(
        self, folder: Path, header: Header, lines: Sequence[Mapping[str, Any]], journal: Journal | None
    ) -> None:
        """For `create`, `open` and `read`; not to be called from elsewhere."""
        self.folder = folder
        self.header = dict(header)
        self._lines = list(lines)
        self._journal = journal
        self._damages: dict[str, dict[str, float]] = {}
        self._candidates: dict[tuple[str, str, str], Candidate] = {}
        for line in self._lines:
            self._index(line)

    @classmethod
    def create(cls, folder: Path, header: Header) -> "Study":
        """Start a study, making the folder where there is none.

        Raises:
            StudyError: the folder holds a study, another run is writing it, or it cannot be written.
        """
        journal = Journal(folder / LOG)
        try:
            if journal.records:
                raise StudyError(f"{folder} holds a study already; go on with --resume, or choose a folder with --out")
            journal.append({"kind": "header", **header})
            return cls(folder, header, [], journal)
        except BaseException:
            journal.close()
            raise

    @classmethod
    def open(cls, folder: Path, header: Header) -> "Study":
        """Go on with a study; one killed before its header was whole starts anew.

        Raises:
            StudyError: there is none, it was made with another header (the message lists what differs, old -> new),
                another run is writing it, or a line in it is corrupt.
        """
        if not (folder / LOG).is_file():
            raise StudyError(f"{folder} holds no study to resume; run without --resume")
        journal = Journal(folder / LOG)
        try:
            if not journal.records:
                journal.append({"kind": "header", **header})
                return cls(folder, header, [], journal)
            old, lines = _split_header(folder, journal.records)
            differing = [
                f"  {key}: {_told(old, key)} -> {_told(header, key)}"
                for key in dict.fromkeys([*old, *header])
                if key not in old or key not in header or old[key] != header[key]
            ]
            if differing:
                said = f"{folder} holds the study of something else (old -> new):"
                raise StudyError("\n".join([said, *differing, "choose another folder with --out, or delete this one"]))
            return cls(folder, header, lines, journal)
        except BaseException:
            journal.close()
            raise

    @classmethod
    def read(cls, folder: Path) -> "Study":
        """Look at a study, also while a run is writing it; nothing can be added.

        Raises:
            StudyError: there is none, or a line in it is corrupt.
        """
        records, _ = read_lines(folder / LOG)
        header, lines = _split_header(folder, records)
        return cls(folder, header, lines, None)

    def damage(self, site: str, scheme: Scheme) -> dict[str, float] | None:
        """Metric -> damage of one site under one scheme; None where it was not measured."""
        found = self._damages.get(evaluation_key(site, scheme))
        return dict(found) if found is not None else None

    def candidate(self, digest: str, split: Split, arithmetic: str = "") -> Candidate | None:
        """What was found of a policy on a split of the clips in an arithmetic; None where it was not tried so."""
        return self._candidates.get((digest, split, arithmetic))

    def candidates(self, split: Split | None = None) -> tuple[Candidate, ...]:
        """Every candidate, in the order first tried; of one split where that is given."""
        return tuple(candidate for candidate in self._candidates.values() if split in (None, candidate.split))

    def records(self, kind: str) -> tuple[dict[str, Any], ...]:
        """Every line of a kind as it stands in the log, in order; the header is `header`, not a record."""
        return tuple(dict(line) for line in self._lines if line["kind"] == kind)

    def add_damage(self, site: str, scheme: Scheme, damage: Mapping[str, float]) -> None:
        """Log the damage of one site under one scheme, in each metric's unit; StudyError as in `append`."""
        key = evaluation_key(site, scheme)
        self.append({"kind": "damage", "site": site, "scheme": scheme.name, "key": key, "damage": numbers(damage)})

    def add_candidate(self, candidate: Candidate) -> None:
        """Log a candidate; StudyError as in `append`."""
        self.append(candidate.to_dict())

    def append(self, record: Mapping[str, Any]) -> None:
        """Log a record of any kind; when this returns it is on the disk.

        Raises:
            StudyError: the study is read-only or closed, the disk is full or the file cannot be written; the study
                stays as it was.
            ValueError: the record has no kind, is a header, or holds NaN or an infinity.
        """
        if self._journal is None:
            raise StudyError(f"{self.folder} is open for reading, or closed; open it with Study.open to add to it")
        if not isinstance(record.get("kind"), str) or record["kind"] == "header":
            raise ValueError(f"a record must have a kind other than header, got {record.get('kind')!r}")
        self._journal.append(record)
        self._lines.append(dict(record))
        self._index(record)

    def _index(self, line: Mapping[str, Any]) -> None:
        try:
            if line["kind"] == "damage":
                self._damages[line["key"]] = floats(line["damage"])
            elif line["kind"] == "candidate":
                candidate = Candidate.from_dict(line)
                self._candidates[candidate.digest, candidate.split, candidate.arithmetic] = candidate
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            told = json.dumps(dict(line))[:80]
            raise StudyError(f"{self.folder / LOG} holds a line that lacks a part ({error!r}): {told}") from error

    def close(self) -> None:
        """Let other runs open the study; it stays readable."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def evaluation_key(site: str, scheme: Scheme) -> str:
    """Address of a measurement by what was measured: the scheme's content counts, its name does not; 16 hex digits."""
    content = scheme.to_dict()
    del content["name"]
    return _digest([site, content])


def sites_digest(sites: Sequence[Site]) -> str:
    """Hash of a model's sites, for a study's header: 16 hexadecimal digits."""
    return _digest([asdict(site) for site in sites])


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats, less being better in both, in rising order of the first coordinate.

    Of equal points the first stands for all; a point with a NaN is never on the front.

    >>> pareto([(1.0, 5.0), (2.0, 2.0), (3.0, 3.0), (2.0, 2.0)])
    [0, 1]
    """
    whole = [index for index, point in enumerate(points) if not any(math.isnan(value) for value in point)]
    front: list[int] = []
    for index in sorted(whole, key=lambda index: (*points[index], index)):
        if not front or points[index][1] < points[front[-1]][1]:
            front.append(index)
    return front


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def _split_header(folder: Path, records: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], Sequence[dict[str, Any]]]:
    if not records or records[0]["kind"] != "header":
        raise StudyError(f"{folder / LOG} does not begin with a header; it is no study, or only just begun")
    return {key: value for key, value in records[0].items() if key != "kind"}, records[1:]


def _told(header: Header, key: str) -> str:
    return str(header[key]) if key in header else "(not given)"
