"""Perceptual: PESQ of a clip against its reference, and against the natural recording.

PESQ is ITU-T P.862.2 / P.862.1 by the `pesq` package, whose C code restricts commercial use by a notice of its own;
the ITU withdrew P.862 on 2024-01-05. Clips of other rates than 16 kHz pass through the one resampler of audio.py.
All take `reference` and `degraded` as float32 or float64 [time] in -1..1 (or Clips), of one length, and raise
`UndefinedScore` for NaN, Inf, silence, lengths that differ and what PESQ gives no score for in LONGEST_CALL_SECONDS.
"""

import itertools
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audio_eval.audio import resample
from audio_eval.clip import SILENT_PEAK, Clip, Samples, UndefinedScore, as_clip, pair
from audio_eval.pesq_process import PESQ_POOL, PesqProcess

PESQ_HZ = 16000
PIECE_SECONDS = 15.0
"""PESQ's tables hold 50 utterances, unchecked: 64 of them in 28 s crash it. One and its pause take 0.39 s at least, so
no 19 s hold more."""
LONGEST_CALL_SECONDS = 9.0
"""For all pieces and framings of one metric, of clips up to 20 s; longer ones get in proportion. Speech takes 0.01 to
0.02 s a second, sounds in which the alignment finds no end up to 20 s a piece."""
LONGEST_CALL_SHARE = 0.45

FRAME_SILENCE = 1600
"""Samples of silence before and after framed clips, 0.1 s: no utterance begins or ends with the clip."""
FRAME_PERIOD = 256
"""Samples between PESQ's frames; a later start moves scores as the rest of its division by this does."""
PARITY_SHIFTS = (0, FRAME_PERIOD // 4)
PARITY_SUSPECT = 4.3
PARITY_JUMP = 0.1
CHANGE_SHIFTS = (0, FRAME_PERIOD // 3, 2 * FRAME_PERIOD // 3)
CHANGE_AGREE = 0.05


def _resampled(clip: Clip, rate: int) -> npt.NDArray[np.float32]:
    return clip.once(("resampled", rate), lambda: resample(clip.samples, clip.sample_rate_hz, rate))


@dataclass(frozen=True, slots=True)
class _Call:
    """One metric's use of PESQ."""

    process: PesqProcess
    deadline: float
    """On the monotonic clock."""


@contextmanager
def _call(clip: Clip) -> Iterator[_Call]:
    """A child for all that one metric asks; its time begins once there is one, as waiting is not PESQ's fault."""
    with PESQ_POOL.lent() as process:
        yield _Call(process, time.monotonic() + max(LONGEST_CALL_SECONDS, LONGEST_CALL_SHARE * clip.seconds))


def _framed(samples: npt.NDArray[np.float32], shift: int | None) -> npt.NDArray[np.float32]:
    return samples if shift is None else np.pad(samples, (FRAME_SILENCE + shift, FRAME_SILENCE))


def _pesq(reference: Clip, degraded: Clip, mode: str, call: _Call, shift: int | None = None) -> float:
    if degraded.peak < SILENT_PEAK:
        raise UndefinedScore(f"the degraded clip is silent (peak {degraded.peak:.3g}): PESQ has no score for it")
    rate = reference.sample_rate_hz if reference.sample_rate_hz == 8000 else PESQ_HZ
    first, second = _resampled(reference, rate), _resampled(degraded, rate)
    count = math.ceil(len(first) / (PIECE_SECONDS * rate))
    edges = [len(first) * piece // count for piece in range(count + 1)]
    scores = []
    for start, stop in itertools.pairwise(edges):
        left = call.deadline - time.monotonic()
        try:
            if left <= 0.0:
                raise UndefinedScore("PESQ has used up its time on what came before")
            framed = (_framed(samples[start:stop], shift) for samples in (first, second))
            scores.append(call.process.score(mode, rate, *framed, timeout_seconds=left))
        except UndefinedScore as fault:
            raise UndefinedScore(f"{fault} (from {start / rate:.2f} s to {stop / rate:.2f} s)") from fault
    if not np.all(np.isfinite(scores)):
        raise UndefinedScore("PESQ gave NaN for these clips")
    return float(np.mean(scores))


def _wide_band_pair(reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> tuple[Clip, Clip]:
    clips = pair(reference, degraded, sample_rate_hz)
    if sample_rate_hz < PESQ_HZ:
        raise UndefinedScore(f"wide-band PESQ needs 16 kHz or more, got {sample_rate_hz} Hz; use pesq_nb")
    return clips


def pesq_wb(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Wide-band PESQ of the clips as they are, MOS-LQO: 4.644 for identical clips, 1.043 at worst; higher is better.

    Clips longer than PIECE_SECONDS are cut into equal pieces and their scores averaged, here as in all others.

    Raises:
        UndefinedScore: also for under 0.25 s, no utterance found, or a sample rate under 16 kHz.
    """
    first, second = _wide_band_pair(reference, degraded, sample_rate_hz)
    with _call(first) as call:
        return _pesq(first, second, "wb", call)


def pesq_nb(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Narrow-band PESQ, MOS-LQO: 4.549 for identical clips, 1.017 at worst; 8 kHz stays 8 kHz, others go to 16."""
    first, second = pair(reference, degraded, sample_rate_hz)
    with _call(first) as call:
        return _pesq(first, second, "nb", call)


def pesq_parity(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Wide-band PESQ with 0.1 s of silence around both clips, heard again where PESQ seems to have lost its place.

    PESQ aligns utterances in time, and by chance splits one where there is nothing to align: clips that are in time
    then lose 0.25 to 1.1. That befell 3 to 6 of 100 starts of its frames in clips of 3 s at 16 kHz; beside it starts
    differ by 0.02, seldom by 0.09. So a score under PARITY_SUSPECT is asked for once more with the clips a quarter of
    a frame later, and the second counts if it is higher by more than PARITY_JUMP: 1 or 2 of 1000 are left.
    """
    first, second = _wide_band_pair(reference, degraded, sample_rate_hz)
    with _call(first) as call:
        score = _pesq(first, second, "wb", call, PARITY_SHIFTS[0])
        if score >= PARITY_SUSPECT:
            return score
        again = _pesq(first, second, "wb", call, PARITY_SHIFTS[1])
    return again if again > score + PARITY_JUMP else score


def pesq_change(
    *, reference: Samples | Clip, degraded: Samples | Clip, natural: Samples | Clip, sample_rate_hz: int
) -> float:
    """PESQ of the degraded clip against the natural recording, minus that of the reference; wide band.

    0 where the damage costs no quality a listener without the reference could tell; negative where it does. The
    recording must have the length of the clips.

    Far from the recording PESQ's alignment in time jumps by chance, by 0.1 to 0.9 in either direction, with the
    start of its frames. So the change is taken from two starts a third of a frame apart, each clip against the
    recording in the same, and is their mean if they agree to within CHANGE_AGREE. If not, a third start is heard and
    the median taken; it lies between the first two whatever the third, so that the mean is never further from it than
    half of CHANGE_AGREE.
    """
    first, second = _wide_band_pair(reference, degraded, sample_rate_hz)
    true = as_clip(natural, sample_rate_hz)
    pair(true, first, sample_rate_hz)

    def change(call: _Call, shift: int) -> float:
        before = first.once(("pesq against", true, shift), lambda: _pesq(true, first, "wb", call, shift))
        return _pesq(true, second, "wb", call, shift) - before

    with _call(first) as call:
        changes = [change(call, shift) for shift in CHANGE_SHIFTS[:2]]
        if abs(changes[0] - changes[1]) > CHANGE_AGREE:
            changes.append(change(call, CHANGE_SHIFTS[2]))
    return float(np.median(changes))
