"""Sample: the beginning of one clip of one side, as the report plays it."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from precision_search.report.spectrogram import Samples

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
