"""Audio: reading what users bring, writing samples, and the one resampler."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from scipy.io import wavfile

from audio_eval.clip import Samples

RESAMPLER = "soxr HQ"
"""Named in reports: another resampler gives other scores (PESQ moves by more than 1)."""
AUDIO_SUFFIXES = (".flac", ".wav")
LOWEST_RATE_HZ = 8000
SHORTEST_SECONDS = 0.5
SILENT_DB = -60.0
EIGHT_BIT = ("PCM_S8", "PCM_U8", "ULAW", "ALAW")


class AudioFileError(ValueError):
    """A file or folder cannot be used as audio; the text names it and says what to do."""


def resample(samples: Samples, from_hz: int, to_hz: int) -> npt.NDArray[np.float32]:
    """Mono [time] at another rate, by soxr's HQ recipe, as float32; the same samples where the rates agree."""
    converted = np.array(samples, dtype=np.float32)
    if from_hz == to_hz:
        return converted
    result: npt.NDArray[np.float32] = soxr.resample(converted, from_hz, to_hz, quality="HQ")
    return result


def read_audio(path: str | Path, *, recording: bool = True) -> tuple[npt.NDArray[np.float32], int]:
    """Samples (float32 mono [time] in -1..1) and sample rate in Hz of a WAV or FLAC file.

    Args:
        path: of the file.
        recording: refuse what no recording should be: shorter than 0.5 s, silent (no sample above -60 dB of full
            scale), NaN or Inf in it. In what a model made all of this is a finding, not a mistake of who brings it.

    Raises:
        AudioFileError: the file is missing, empty, cut off, no audio, stereo, 8-bit, under 8 kHz, or no recording.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioFileError(f"{path}: there is no such file; check the path")
    if path.stat().st_size == 0:
        raise AudioFileError(f"{path}: the file is empty; replace it")
    try:
        with soundfile.SoundFile(path) as file:
            channels, subtype, rate, frames = file.channels, file.subtype, file.samplerate, file.frames
            _refuse_header(path, channels, subtype, rate)
            samples: npt.NDArray[np.float32] = file.read(dtype="float32")
    except soundfile.LibsndfileError as fault:
        raise AudioFileError(f"{path}: not audio that can be read ({fault.error_string}); give WAV or FLAC") from fault
    if len(samples) < frames:
        raise AudioFileError(f"{path}: cut off after {len(samples)} of {frames} samples; replace it")
    if recording:
        _refuse_samples(path, samples, rate)
    return samples, rate


def _refuse_header(path: Path, channels: int, subtype: str, rate: int) -> None:
    if channels != 1:
        raise AudioFileError(f"{path}: has {channels} channels, mono is needed; mix down or pick one channel")
    if subtype in EIGHT_BIT:
        raise AudioFileError(f"{path}: holds 8-bit samples ({subtype}), which hiss; give 16 bits or more")
    if rate < LOWEST_RATE_HZ:
        raise AudioFileError(f"{path}: sample rate {rate} Hz is under {LOWEST_RATE_HZ} Hz; give a better recording")


def _refuse_samples(path: Path, samples: npt.NDArray[np.float32], rate: int) -> None:
    if len(samples) < SHORTEST_SECONDS * rate:
        raise AudioFileError(f"{path}: lasts {len(samples) / rate:.3f} s, at least {SHORTEST_SECONDS} s are needed")
    if not np.all(np.isfinite(samples)):
        count = int(np.sum(~np.isfinite(samples)))
        raise AudioFileError(f"{path}: {count} samples are NaN or Inf; export it again")
    if float(np.max(np.abs(samples))) < 10.0 ** (SILENT_DB / 20.0):
        raise AudioFileError(f"{path}: is silent (nothing above {SILENT_DB:.0f} dB of full scale); replace it")


def read_folder(folder: str | Path) -> dict[str, tuple[npt.NDArray[np.float32], int]]:
    """Every WAV and FLAC file of a folder (not of folders in it), by file name in sorted order; see `read_audio`.

    Raises:
        AudioFileError: the folder is missing or holds none, or some files are refused: all are named at once.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AudioFileError(f"{folder}: there is no such folder; check the path")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in AUDIO_SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise AudioFileError(f"{folder}: holds no .wav or .flac file; put mono recordings there")
    clips: dict[str, tuple[npt.NDArray[np.float32], int]] = {}
    faults: list[str] = []
    for path in paths:
        try:
            clips[path.name] = read_audio(path)
        except AudioFileError as fault:
            faults.append(str(fault))
    if faults:
        raise AudioFileError("\n".join(faults))
    return clips


def write_wav(
    path: str | Path, samples: Samples, sample_rate_hz: int, *, encoding: Literal["pcm16", "float32"] = "pcm16"
) -> None:
    """Write mono [time]. pcm16 rounds to the nearest step and clips at full scale; float32 keeps every value.

    The bytes depend on the arguments alone.

    Raises:
        AudioFileError: not mono, or NaN or Inf in it.
        OSError: the file cannot be written (a full disk, a missing folder).
    """
    array = np.asarray(samples)
    if array.ndim != 1 or not np.all(np.isfinite(array)):
        raise AudioFileError(f"{path}: only finite mono [time] can be written, got shape {array.shape}")
    # Built in memory: a write that fails is then an OSError that names its cause.
    buffer = io.BytesIO()
    if encoding == "pcm16":
        steps = np.clip(np.rint(array.astype(np.float64) * 32768.0), -32768, 32767)
        wavfile.write(buffer, sample_rate_hz, steps.astype(np.int16))
    else:
        wavfile.write(buffer, sample_rate_hz, array.astype(np.float32))
    Path(path).write_bytes(buffer.getvalue())
