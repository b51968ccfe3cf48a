"""Pairs: audio files of a reference, of what is to be judged, and of natural recordings, brought together by name."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audio_eval.audio import AUDIO_SUFFIXES, AudioFileError, read_audio
from precision_search.progress import Progress

Samples = npt.NDArray[np.float32]
NAMED = 8
"""Names that a mistake lists before it only counts."""


@dataclass(frozen=True, slots=True, eq=False)
class PairedClip:
    """One clip: [time] in -1..1 of the reference, of what is to be judged, and of the recording if there is one."""

    name: str
    reference: Samples
    degraded: Samples
    natural: Samples | None = None


@dataclass(frozen=True, slots=True)
class Pairs:
    """Clips of one sample rate, sorted by name."""

    clips: tuple[PairedClip, ...]
    sample_rate_hz: int

    @property
    def seconds(self) -> float:
        """Seconds of audio of the reference."""
        return sum(len(clip.reference) for clip in self.clips) / self.sample_rate_hz


def read_pairs(reference: Path, degraded: Path, natural: Path | None, progress: Progress) -> Pairs:
    """Read two or three folders, or as many files.

    Files of folders belong together where their names agree but for the ending, and every file of `reference` and of
    `degraded` needs its partner; `natural` may hold more. Folders within folders are not looked into.

    Raises:
        AudioFileError: files are missing, cannot be read, or do not fit together; one message names every mistake.
    """
    given = {"reference": reference, "degraded": degraded} | ({} if natural is None else {"natural": natural})
    _refuse(list(_unfit(given)))
    mistakes: list[str] = []
    if reference.is_dir():
        paths = {role: _listed(path, mistakes) for role, path in given.items()}
        mistakes += _partners(given, paths)
    else:
        paths = {role: {reference.stem: path} for role, path in given.items()}
    names = sorted({*paths["reference"], *paths["degraded"]})
    read = _read(paths, names, mistakes, progress)
    rates = _rates(read, mistakes)
    clips = [
        PairedClip(name, *(found[role][0] for role in given))
        for name, found in read.items()
        if found.keys() == given.keys()
    ]
    mistakes += [
        f"{paths['natural'][clip.name]}: has {len(clip.natural)} samples and its reference {len(clip.reference)};"
        " cut both to the same speech, or leave --natural out"
        for clip in clips
        if clip.natural is not None and len(clip.natural) != len(clip.reference)
    ]
    _refuse(mistakes)
    return Pairs(tuple(clips), rates[0])


def _unfit(given: Mapping[str, Path]) -> Iterator[str]:
    """What is not there, or a folder where the others are files."""
    missing = [path for path in given.values() if not path.exists()]
    yield from (f"{path}: there is no such file or folder; check the path" for path in missing)
    if not missing and len({path.is_dir() for path in given.values()}) > 1:
        said = ", ".join(f"{path} is a {'folder' if path.is_dir() else 'file'}" for path in given.values())
        yield f"{said}; give folders or files, not both"


def _refuse(mistakes: Sequence[str]) -> None:
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise AudioFileError("\n  ".join([f"{count} in the clips", *mistakes]))


def _listed(folder: Path, mistakes: list[str]) -> dict[str, Path]:
    """The audio files of a folder by name without ending."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in AUDIO_SUFFIXES and not p.name.startswith("."))
    if not files:
        mistakes.append(f"{folder}: holds no .wav or .flac file; put mono clips there")
    twice = [name for name, count in Counter(path.stem for path in files).items() if count > 1]
    if twice:
        mistakes.append(f"{folder}: has two files of one name ({_some(twice)}); keep one ending")
    return {path.stem: path for path in files}


def _partners(given: Mapping[str, Path], paths: Mapping[str, Mapping[str, Path]]) -> Iterator[str]:
    for role, other in (("reference", "degraded"), ("degraded", "reference"), ("reference", "natural")):
        if paths.get(other):  # an empty folder is a mistake of its own
            alone = sorted(set(paths[role]) - set(paths[other]))
            if alone:
                yield f"{given[other]}: has no partner for {len(alone)} of {given[role]}: {_some(alone)}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _read(
    paths: Mapping[str, Mapping[str, Path]], names: Sequence[str], mistakes: list[str], progress: Progress
) -> dict[str, dict[str, tuple[Samples, int]]]:
    """Name -> role -> samples and rate, of what can be read."""
    found: dict[str, dict[str, tuple[Samples, int]]] = {}
    progress.begin("reading clips", len(names))
    for name in names:
        found[name] = {}
        for role, files in paths.items():
            if name in files:
                try:
                    found[name][role] = read_audio(files[name], recording=role != "degraded")
                except AudioFileError as fault:
                    mistakes.append(str(fault))
        progress.step(name)
    return found


def _rates(read: Mapping[str, Mapping[str, tuple[Samples, int]]], mistakes: list[str]) -> list[int]:
    """The sample rates, the commonest first; more than one is a mistake."""
    files: dict[int, list[str]] = {}
    for name, found in read.items():
        for role, (_, rate) in found.items():
            files.setdefault(rate, []).append(f"{role} {name}")
    rates = sorted(files, key=lambda rate: -len(files[rate]))
    if len(rates) > 1:
        others = "; ".join(f"{rate} Hz: {_some(files[rate])}" for rate in rates[1:])
        mistakes.append(
            f"clips have {len(rates)} sample rates, one is needed: {rates[0]} Hz for the most, {others}; resample them"
        )
    return rates
