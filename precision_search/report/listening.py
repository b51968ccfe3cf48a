"""Listening: players for reference and candidate of a few clips, with their spectrograms."""

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from precision_search.report.figures import amount, significant
from precision_search.report.markup import Html, element, joined, note, paragraph, section
from precision_search.report.results import Results
from precision_search.report.spectrogram import RANGE_DB, Samples, draw

MAX_CLIPS = 6
MAX_SECONDS = 5.0
AUDIO_BYTES = 3_300_000
"""Of all clips together, before base64 makes them a third larger: the page stays under 8 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One clip of one side, mono."""

    samples: Samples
    sample_rate_hz: int
    seconds: float
    """Of the whole file; `samples` is its beginning."""
    channels: int
    undefined: int
    """Samples that were NaN or infinite, and are silent here."""

    def to_wav(self) -> bytes:
        """The beginning as a 16-bit WAV; what exceeds full scale is cut off there."""
        file = io.BytesIO()
        codes = np.clip(np.rint(self.samples.astype(np.float64) * 32767), -32768, 32767).astype(np.int16)
        soundfile.write(file, codes, self.sample_rate_hz, format="WAV", subtype="PCM_16")
        return file.getvalue()


class UnreadableSample(ValueError):  # noqa: N818 - said in the report, and no reason to stop
    """A file of samples that holds no sound."""


def read_sample(path: Path, seconds: float = MAX_SECONDS, data_bytes: int = AUDIO_BYTES) -> Sample:
    """Read the beginning of a file, at most so many seconds and so many bytes at 16 bits.

    Raises:
        UnreadableSample: it is no sound file, or empty.
    """
    try:
        with soundfile.SoundFile(path) as file:
            rate, total, channels = int(file.samplerate), int(file.frames), int(file.channels)
            data = file.read(min(int(seconds * rate), data_bytes // 2), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UnreadableSample(f"{path.parent.name}/{path.name} cannot be read: {error}") from error
    if not len(data):
        raise UnreadableSample(f"{path.parent.name}/{path.name} is empty")
    finite = np.isfinite(data)
    mono: Samples = np.where(finite, data, np.float32(0)).mean(axis=1, dtype=np.float32)
    return Sample(mono, rate, total / rate, channels, int(np.size(data) - np.count_nonzero(finite)))


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
    pairs = [name for name in references if name in candidates]
    alone = sorted(set(references) ^ set(candidates))
    if not pairs:
        said = note("There are no samples: samples/reference and samples/candidate hold no WAV files of equal names.")
        return section("listening", "Listening", said)
    shown = shown_clips(results)
    parts = [
        paragraph(
            "The reference is the model at full precision, the candidate the policy found, in the arithmetic that was "
            "judged. The spectrograms share one "
            f"scale of {RANGE_DB:g} dB under the peak; the third shows the difference of the magnitudes, which does "
            "not see a shift of phase."
        )
    ]
    if len(shown) < len(pairs):
        parts.append(note(f"The first {len(shown)} of {len(pairs)} clips; all are in the folder samples."))
    if alone:
        parts.append(note(f"In one of the folders only, and not shown: {', '.join(alone)}."))
    share = AUDIO_BYTES // (2 * len(shown))
    clips = [_clip(results, Path(name).stem, references[name], candidates[name], share) for name in shown]
    return section("listening", "Listening", *parts, *clips)


def _clip(results: Results, name: str, reference: Path, candidate: Path, data_bytes: int) -> Html:
    heading = element("h3", {}, name)
    try:
        ours, theirs = (read_sample(path, data_bytes=data_bytes) for path in (reference, candidate))
    except UnreadableSample as fault:
        return element("article", {"class": "clip"}, heading, note(f"{fault}."))
    parts: list[Html] = [heading, *_scores(results, name), *(note(said) for said in _doubts(ours, theirs))]
    players = (_player(name, "reference", ours), _player(name, "candidate", theirs))
    parts.append(element("div", {"class": "players"}, *players))
    if ours.sample_rate_hz == theirs.sample_rate_hz:
        png = base64.b64encode(draw(ours.samples, theirs.samples, ours.sample_rate_hz)).decode()
        attributes = {"src": f"data:image/png;base64,{png}", "alt": _alt(name, ours, theirs), "loading": "lazy"}
        parts.append(element("img", attributes))
    return element("article", {"class": "clip"}, *parts)


def _player(name: str, side: str, sample: Sample) -> Html:
    wav = base64.b64encode(sample.to_wav()).decode()
    shown = len(sample.samples) / sample.sample_rate_hz
    cut = f", first {significant(shown, 2)} of {significant(sample.seconds, 2)} s" if sample.seconds > shown else ""
    attributes = {
        "controls": "",
        "preload": "none",
        "data-clip": name,
        "data-side": side,
        "data-rate": str(sample.sample_rate_hz),
        "data-seconds": f"{shown:.3f}",
        "aria-label": f"{name}, {side}",
        "src": f"data:audio/wav;base64,{wav}",
    }
    label = element("span", {}, element("strong", {}, side), f" {sample.sample_rate_hz:,} Hz{cut}")
    return element("div", {}, label, element("audio", attributes))


def _doubts(ours: Sample, theirs: Sample) -> list[str]:
    found = []
    if ours.sample_rate_hz != theirs.sample_rate_hz:
        found.append(
            f"The rates differ, {ours.sample_rate_hz} and {theirs.sample_rate_hz} Hz: no spectrogram is drawn."
        )
    elif ours.seconds != theirs.seconds:
        found.append(f"The lengths differ, {significant(ours.seconds, 5)} and {significant(theirs.seconds, 5)} s.")
    for side, sample in (("reference", ours), ("candidate", theirs)):
        if sample.channels > 1:
            found.append(f"The {side} has {sample.channels} channels, of which the mean is played.")
        if sample.undefined:
            found.append(f"The {side} has {amount(sample.undefined, 'sample')} of NaN or infinity, silent here.")
    return found


def _scores(results: Results, name: str) -> tuple[Html, ...]:
    scores = results.final.scores.get(name) if results.final is not None else None
    if not scores:
        return ()
    told = (joined((f"{metric} ", element("strong", {}, significant(value)))) for metric, value in scores.items())
    return (element("p", {"class": "scores"}, "Scores: ", joined(told, ", ")),)


def _alt(name: str, ours: Sample, theirs: Sample) -> str:
    length = min(len(ours.samples), len(theirs.samples))
    difference = ours.samples[:length].astype(np.float64) - theirs.samples[:length]
    power, left = (
        float(np.mean(np.square(signal))) for signal in (ours.samples[:length].astype(np.float64), difference)
    )
    level = f"{10 * math.log10(left / power):.1f} dB under the reference" if left > 0 and power > 0 else "silent"
    return (
        f"Spectrograms of {name}: reference, candidate and the difference of their magnitudes, "
        f"{length / ours.sample_rate_hz:.1f} s, 0 to {ours.sample_rate_hz / 2000:g} kHz. "
        f"The difference of the waveforms is {level}."
    )
