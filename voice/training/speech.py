"""Make the training speech: Debian's flite reads the sentences and gives phones, their ends and the sound.

`python -m voice.training.speech OUT` writes OUT/train.npz and OUT/held_back.npz. Needs the Debian packages
flite and wamerican. The voice is flite's `slt` (Carnegie Mellon University, a free licence of its own).
"""

import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import soundfile
from numpy.typing import NDArray

from voice.training.corpus import rare_words, sentences

VOICE = "slt"
SAMPLE_RATE_HZ = 16000
HOP = 256
FFT = 1024
DICTIONARY = Path("/usr/share/dict/words")


@dataclass(frozen=True)
class Utterance:
    """One sentence as the training voice reads it, cut to whole frames."""

    text: str
    phones: tuple[str, ...]
    durations: NDArray[np.int64]  # frames of each phone
    samples: NDArray[np.float32]  # float32, frames * HOP
    f0_hz: NDArray[np.float32]  # of each frame, 0 where unvoiced


def read(text: str, *, pitch: bool = True) -> Utterance:
    """Have flite read a sentence; phones end at whole frames by rounding, F0 is all 0 where it is not asked for."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        command = ["flite", "-voice", VOICE, "-psdur", "-t", text, "-o", str(wav)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        samples, rate = soundfile.read(wav, dtype="float32")
    if rate != SAMPLE_RATE_HZ:
        raise ValueError(f"flite's voice {VOICE} must speak at {SAMPLE_RATE_HZ} Hz, got {rate}")
    pairs = [item.rsplit(":", 1) for item in printed.split()]
    ends = np.array([float(end) for _, end in pairs])
    frames = len(samples) // HOP
    edges = np.minimum(np.round(ends * SAMPLE_RATE_HZ / HOP).astype(int), frames)
    edges[-1] = frames
    samples = samples[: frames * HOP]
    f0_hz = track_f0(samples) if pitch else np.zeros(frames, dtype=np.float32)
    return Utterance(text, tuple(phone for phone, _ in pairs), np.diff(edges, prepend=0), samples, f0_hz)


def track_f0(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """F0 of each frame in Hz by probabilistic YIN, 0 where unvoiced."""
    edge = (FFT - HOP) // 2
    padded = np.pad(samples, edge, mode="reflect")
    f0, voiced, _ = librosa.pyin(
        padded, fmin=80, fmax=400, sr=SAMPLE_RATE_HZ, frame_length=FFT, hop_length=HOP, center=False
    )
    return np.where(voiced, np.nan_to_num(f0), 0.0).astype(np.float32)


def save(path: Path, utterances: list[Utterance]) -> None:
    """Write utterances as one npz: texts and phones as strings, the arrays end to end."""
    np.savez(
        path,
        texts=np.array([u.text for u in utterances]),
        phones=np.array([" ".join(u.phones) for u in utterances]),
        durations=np.concatenate([u.durations for u in utterances]),
        samples=np.concatenate([u.samples for u in utterances]),
        f0_hz=np.concatenate([u.f0_hz for u in utterances]),
    )


def load(path: Path) -> list[Utterance]:
    """Read what `save` wrote."""
    with np.load(path, allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    utterances = []
    phone = frame = 0
    for text, joined in zip(arrays["texts"], arrays["phones"], strict=True):
        phones = tuple(str(joined).split())
        durations = arrays["durations"][phone : phone + len(phones)]
        frames = int(durations.sum())
        samples = arrays["samples"][frame * HOP : (frame + frames) * HOP]
        utterances.append(Utterance(str(text), phones, durations, samples, arrays["f0_hz"][frame : frame + frames]))
        phone, frame = phone + len(phones), frame + frames
    return utterances


def main() -> None:
    """Write the utterances of both sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--held-back", type=int, default=40)
    parser.add_argument("--without-pitch", action="store_true", help="leave F0 out, which takes most of the time")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    texts = sentences(arguments.train + arguments.held_back, rare_words(DICTIONARY), seed=20261120)
    reading = partial(read, pitch=not arguments.without_pitch)
    with ProcessPoolExecutor() as pool:
        made = []
        for done, utterance in enumerate(pool.map(reading, texts, chunksize=8), 1):
            made.append(utterance)
            if done % 100 == 0:
                print(f"{done} of {len(texts)} sentences read", file=sys.stderr)
    for name, part in (("held_back", made[: arguments.held_back]), ("train", made[arguments.held_back :])):
        save(arguments.out / f"{name}.npz", part)
        print(f"{name}: {len(part)} sentences, {sum(len(u.samples) for u in part) / SAMPLE_RATE_HZ / 60:.1f} minutes")


if __name__ == "__main__":
    main()
