"""Vectors: the arrays of one .npz file; Layout: what a file of some kind holds, and what must come out."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

Array = npt.NDArray[Any]
Chip = Literal["wh", "bh"]
_Made = TypeVar("_Made")
FIDELITY = "(?P<fidelity>LoFi|HiFi2|HiFi3|HiFi4)"


class UncheckedError(ValueError):
    """An array cannot be checked; the message says why, and what to do."""


class Vectors(Mapping[str, Array]):
    """The arrays of one file, each read when it is first asked for; to be used in a `with` statement.

    Raises:
        KeyError: an array that is not there is asked for.
        OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error: the file cannot be read, or is none.
    """

    def __init__(self, path: Path, *, one_chip: bool = False) -> None:
        """Open a file; `one_chip`: an array of one chip says nothing about the other."""
        self.path = path
        self.one_chip = one_chip
        self._stream = path.open("rb")
        try:
            archive = np.load(self._stream, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise ValueError("it is a single array, not an .npz archive of named ones")
        except BaseException:
            self._stream.close()
            raise
        self._file = archive
        self._read: dict[str, Array] = {}
        self._made: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()
        self._stream.close()

    def __getitem__(self, key: str) -> Array:
        """Read an array."""
        if key not in self._read:
            self._read[key] = self._file[key]
        return self._read[key]

    def __iter__(self) -> Iterator[str]:
        """Names in the order of the file."""
        return iter(self._file.files)

    def __len__(self) -> int:
        """How many arrays there are."""
        return len(self._file.files)

    def floats(self, key: str) -> npt.NDArray[np.float32]:
        """Read float32 values, or binary32 (uint32) or bf16 (uint16) patterns, as float32 with their bits kept.

        Raises:
            UncheckedError: it is not there, or of another type.
        """
        if key not in self:
            raise UncheckedError(f"needs {key}, which the file lacks")
        array = np.ascontiguousarray(self[key])
        if array.dtype == np.uint16:
            array = array.astype(np.uint32) << 16
        if array.dtype not in (np.float32, np.uint32):
            raise UncheckedError(f"needs {key} in float32, or as uint32 or uint16 patterns, not {array.dtype}")
        return array.view(np.float32)

    def once(self, key: str, make: Callable[[], _Made]) -> _Made:
        """What `make` gives, kept under a name, since many results share their operands."""
        if key not in self._made:
            self._made[key] = make()
        return cast(_Made, self._made[key])

    def chips(self, key: str) -> tuple[Chip, ...]:
        """Chips that must give an array ending in `wh` or `bh`: Wormhole's alone stands for Blackhole's, too."""
        if key.endswith("bh"):
            return ("bh",)
        return ("wh",) if self.one_chip or key[:-2] + "bh" in self else ("wh", "bh")

    def chip(self) -> Chip:
        """The chip that the file's name ends in.

        Raises:
            UncheckedError: it ends in none.
        """
        for chip in ("wh", "bh"):
            if self.path.stem.endswith(f"_{chip}"):
                return chip
        raise UncheckedError(f"the chip is not known: name the file {self.path.stem}_wh.npz or {self.path.stem}_bh.npz")


@dataclass(frozen=True, slots=True)
class Layout:
    """What files of one kind hold."""

    name: str
    holds: str
    """For the help: names of the arrays, and what they are."""
    marks: re.Pattern[str]
    """A file with an array of such a name is of this layout."""
    inputs: re.Pattern[str]
    """Names of arrays that are given and not checked."""
    compute: Callable[[Vectors, str], Mapping[str, Array]]
    """What an array must be, bit for bit: one result, or one a chip, under words that say which; UncheckedError where
    it is not known."""


def match(pattern: str, key: str) -> re.Match[str]:
    """Take a name apart; UncheckedError where it does not have that form."""
    found = re.fullmatch(pattern, key)
    if found is None:
        raise UncheckedError("the layout has no array of that name")
    return found
