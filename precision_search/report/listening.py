"""Listening: players for reference and candidate of a few clips, and maps of what differs between them."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from precision_search.report.clip_scores import clip_scores, tightest
from precision_search.report.figures import MISSING, amount, significant
from precision_search.report.maps import SCALES, figures
from precision_search.report.markup import (
    Html,
    cell,
    element,
    folded,
    note,
    number_cell,
    paragraph,
    row,
    row_head,
    section,
    table,
)
from precision_search.report.results import Results
from precision_search.report.sample import AUDIO_BYTES, Sample, UnreadableSample, read_sample
from precision_search.report.spectrogram import Maps, maps

MAX_CLIPS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A clip of both sides."""

    name: str
    reference: Sample
    candidate: Sample
    maps: Maps | None
    """None where the rates differ."""

    @property
    def snr_db(self) -> float:
        """Level of the reference over that of the waveforms' difference, dB; infinite where there is none."""
        length = min(len(self.reference.samples), len(self.candidate.samples))
        ours, theirs = (side.samples[:length].astype(np.float64) for side in (self.reference, self.candidate))
        power, left = float(np.mean(np.square(ours))), float(np.mean(np.square(ours - theirs)))
        return math.inf if left == 0 else 10 * math.log10(power / left) if power > 0 else math.nan


def shown_clips(results: Results) -> tuple[str, ...]:
    """The names of the files that are shown: the first that both sides have."""
    references, candidates = _files(results)
    return tuple(name for name in references if name in candidates)[:MAX_CLIPS]


def _files(results: Results) -> tuple[dict[str, Path], dict[str, Path]]:
    folder = results.folder / "samples"
    references, candidates = (
        {path.name: path for path in sorted((folder / side).glob("*.wav"))} for side in ("reference", "candidate")
    )
    return references, candidates


def listening(results: Results) -> Html:
    """The section of the players."""
    references, candidates = _files(results)
    shown, alone = shown_clips(results), sorted(set(references) ^ set(candidates))
    pairs = len(references.keys() & candidates.keys())
    if not pairs:
        said = note("There are no samples: samples/reference and samples/candidate hold no WAV files of equal names.")
        return section("listening", "Listening", said)
    parts = [
        paragraph(
            "The reference is the model at full precision, the candidate the policy found, in the arithmetic that was "
            "judged."
        )
    ]
    if len(shown) < pairs:
        parts.append(note(f"The first {len(shown)} of {pairs} clips; all are in the folder samples."))
    if alone:
        parts.append(note(f"In one of the folders only, and not shown: {', '.join(alone)}."))
    share = AUDIO_BYTES // (2 * len(shown))
    clips = [_read(references[name], candidates[name], share) for name in shown]
    parts += [*_overview(results, clips), *_key(clips)]
    parts += [_article(results, number, clip) for number, clip in enumerate(clips)]
    return section("listening", "Listening", *parts)


@dataclass(frozen=True, slots=True)
class Unread:
    """A clip that holds no sound."""

    name: str
    why: str


def _read(reference: Path, candidate: Path, data_bytes: int) -> Clip | Unread:
    try:
        ours, theirs = (read_sample(path, data_bytes=data_bytes) for path in (reference, candidate))
    except UnreadableSample as fault:
        return Unread(reference.stem, str(fault))
    same = ours.sample_rate_hz == theirs.sample_rate_hz
    found = maps(ours.samples, theirs.samples, ours.sample_rate_hz) if same else None
    return Clip(reference.stem, ours, theirs, found)


def _overview(results: Results, clips: Sequence[Clip | Unread]) -> list[Html]:
    rows = []
    for number, clip in enumerate(clips):
        if isinstance(clip, Unread) or clip.maps is None:
            continue
        values = (clip.reference.seconds, clip.snr_db, *clip.maps.difference_db, *clip.maps.phase_rad)
        tight = [found.to_html() for found in tightest(results, clip.name)[:1]]
        link = element("a", {"href": f"#clip-{number}"}, clip.name)
        told = (number_cell(significant(value, 3 if index < 2 else 2)) for index, value in enumerate(values))
        rows.append(row(row_head(link), *told, cell(tight[0] if tight else MISSING)))
    if not rows:
        return []
    heads = ("Clip", "Seconds", "SNR, dB", "Level, dB", "95 %", "Phase, rad", "95 %", "Tightest gate")
    caption = (
        "Every clip: its signal-to-noise ratio, and the size of the differences of level and phase: the median, and "
        "what 95 % of the map stay within"
    )
    return [table(caption, heads, rows, "clips")]


def _key(clips: Sequence[Clip | Unread]) -> list[Html]:
    transforms = dict.fromkeys(str(clip.maps.transform) for clip in clips if isinstance(clip, Clip) and clip.maps)
    if not transforms:
        return []
    said = f"The maps are made of short-time Fourier transforms: {'; '.join(transforms)}. "
    return [paragraph(said, "Frequency rises upwards, time goes to the right."), *(scale.to_html() for scale in SCALES)]


def _article(results: Results, number: int, clip: Clip | Unread) -> Html:
    attributes = {"class": "clip", "id": f"clip-{number}"}
    heading = element("h3", {}, clip.name)
    if isinstance(clip, Unread):
        return element("article", attributes, heading, note(f"{clip.why}."))
    players = (_player(clip.name, "reference", clip.reference), _player(clip.name, "candidate", clip.candidate))
    parts = [*(note(said) for said in _doubts(clip)), element("div", {"class": "players"}, *players)]
    if clip.maps is not None:
        parts.append(figures(clip.name, clip.maps) if number == 0 else _folded(clip.name, clip.maps))
    return element("article", attributes, heading, *parts, *clip_scores(results, clip.name))


def _folded(name: str, maps: Maps) -> Html:
    """The maps of a clip after the first, which on a phone fill a screen."""
    (_, level), (_, phase) = maps.difference_db, maps.phase_rad
    within = f"95 % within {significant(level, 2)} dB and {significant(phase, 2)} rad"
    return folded(f"Maps of {name}: {within}", figures(name, maps))


def _player(name: str, side: str, sample: Sample) -> Html:
    wav = base64.b64encode(sample.to_wav()).decode()
    shown = len(sample.samples) / sample.sample_rate_hz
    cut = f", first {significant(shown, 2)} of {significant(sample.seconds, 2)} s" if sample.seconds > shown else ""
    attributes = {
        "controls": "",
        "preload": "metadata",
        "data-clip": name,
        "data-side": side,
        "data-rate": str(sample.sample_rate_hz),
        "data-seconds": f"{shown:.3f}",
        "aria-label": f"{name}, {side}",
        "src": f"data:audio/wav;base64,{wav}",
    }
    label = element("span", {}, element("strong", {}, side), f" {sample.sample_rate_hz:,} Hz{cut}")
    return element("div", {}, label, element("audio", attributes))


def _doubts(clip: Clip) -> list[str]:
    ours, theirs = clip.reference, clip.candidate
    found = []
    if ours.sample_rate_hz != theirs.sample_rate_hz:
        found.append(f"The rates differ, {ours.sample_rate_hz} and {theirs.sample_rate_hz} Hz: no map is drawn.")
    elif ours.seconds != theirs.seconds:
        found.append(f"The lengths differ, {significant(ours.seconds, 5)} and {significant(theirs.seconds, 5)} s.")
    for side, sample in (("reference", ours), ("candidate", theirs)):
        if sample.channels > 1:
            found.append(f"The {side} has {sample.channels} channels, of which the mean is played.")
        if sample.undefined:
            found.append(f"The {side} has {amount(sample.undefined, 'sample')} of NaN or infinity, silent here.")
    return found
