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
from precision.differences import header_differences
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
    def create(cls, folder: Path, header: Header, recipe: str | None = None) -> "Study":
        """Start a study, making the folder where there is none; the recipe's YAML, if given, is its second record.

        Raises:
            StudyError: the folder holds a study, another run is writing it, or it cannot be written.
        """
        journal = Journal(folder / LOG)
        try:
            if journal.records:
                raise StudyError(f"{folder} holds a study already; go on with --resume, or choose a folder with --out")
            return cls._begun(folder, header, recipe, journal)
        except BaseException:
            journal.close()
            raise

    @classmethod
    def _begun(cls, folder: Path, header: Header, recipe: str | None, journal: Journal) -> "Study":
        journal.append({"kind": "header", **header})
        study = cls(folder, header, [], journal)
        study._tell(recipe)
        return study

    def _tell(self, recipe: str | None) -> None:
        """Log the recipe where it is not there: a study may have been killed before it was."""
        if recipe is not None and not self.records("recipe"):
            self.append({"kind": "recipe", "text": recipe})

    @classmethod
    def open(cls, folder: Path, header: Header, recipe: str | None = None) -> "Study":
        """Go on with a study; one killed before its header was whole starts anew.

        Raises:
            StudyError: there is none, it was made with another header (the message lists what differs, old -> new, and
                the recipe's keys if `recipe` is given), another run is writing it, or a line in it is corrupt.
        """
        if not (folder / LOG).is_file():
            raise StudyError(f"{folder} holds no study to resume; run without --resume")
        journal = Journal(folder / LOG)
        try:
            if not journal.records:
                return cls._begun(folder, header, recipe, journal)
            old, lines = _split_header(folder, journal.records)
            study = cls(folder, old, lines, journal)
            if differing := header_differences(old, header, study.recipe, recipe):
                said = f"{folder} holds the study of something else (old -> new):"
                told = [f"  {line}" for line in differing]
                raise StudyError("\n".join([said, *told, "choose another folder with --out, or delete this one"]))
            study._tell(recipe)
            return study
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

    @property
    def recipe(self) -> str | None:
        """YAML of the recipe it was begun with; None where the log does not have it, nor, of older code, the folder."""
        for record in self.records("recipe"):
            return str(record.get("text", ""))
        try:
            return (self.folder / "recipe.yaml").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

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

    def tail(self, count: int) -> tuple[dict[str, Any], ...]:
        """The last lines of the log, at most `count`, in order; the header is not one of them."""
        return tuple(dict(line) for line in self._lines[-count:])

    def add_damage(self, site: str, scheme: Scheme, damage: Mapping[str, float], *, settled: str | None = None) -> None:
        """Log the damage of one site under one scheme, in each metric's unit; StudyError as in `append`.

        `settled` says why it was not measured; what is logged then is what it is taken for.
        """
        key = evaluation_key(site, scheme)
        line = {"kind": "damage", "site": site, "scheme": scheme.name, "key": key, "damage": numbers(damage)}
        self.append(line if settled is None else {**line, "settled": settled})

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
