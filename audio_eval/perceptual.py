"""Perceptual: PESQ, STOI and ESTOI.

PESQ is ITU-T P.862.2 / P.862.1 by the `pesq` package, whose C code restricts commercial use by a notice of its own;
the ITU withdrew P.862 on 2024-01-05. Clips of other rates than 16 kHz pass through the one resampler of audio.py.
STOI (Taal et al., IEEE TASLP 19(7), 2011) and ESTOI (Jensen and Taal, IEEE/ACM TASLP 24(11), 2016) are `pystoi`'s.
All need finite clips of one length and a reference that is not silent, or raise `UndefinedScore`.
"""

import itertools
import math
import threading
import warnings

import numpy as np
import numpy.typing as npt
import pystoi
from pystoi.utils import resample_oct

from audio_eval.audio import resample
from audio_eval.clip import SILENT_PEAK, Clip, Samples, UndefinedScore, as_clip, pair
from audio_eval.pesq_process import PESQ_PROCESS

PESQ_HZ = 16000
PIECE_SECONDS = 30.0
"""PESQ's C code overruns its tables beyond about 120 s or 50 utterances."""
STOI_HZ = 10000
SHORTEST_STOI_SECONDS = 0.4
PARITY_SILENCE_SECONDS = 0.5
CHANGE_SILENCE_SECONDS = (0.3, 0.41, 0.5)
_ALONE = threading.Lock()
"""Held by pystoi: numpy's global generator and the filters of warnings belong to all threads."""


def _resampled(clip: Clip, rate: int) -> npt.NDArray[np.float32]:
    return clip.once(("resampled", rate), lambda: resample(clip.samples, clip.sample_rate_hz, rate))


def _pesq(reference: Clip, degraded: Clip, mode: str, silence_seconds: float = 0.0) -> float:
    if degraded.peak < SILENT_PEAK:
        raise UndefinedScore(f"the degraded clip is silent (peak {degraded.peak:.3g}): PESQ has no score for it")
    rate = reference.sample_rate_hz if reference.sample_rate_hz == 8000 else PESQ_HZ
    first, second = _resampled(reference, rate), _resampled(degraded, rate)
    count = math.ceil(len(first) / (PIECE_SECONDS * rate))
    edges = [len(first) * piece // count for piece in range(count + 1)]
    silence = np.zeros(round(silence_seconds * rate), dtype=np.float32)
    scores = []
    for start, stop in itertools.pairwise(edges):
        try:
            framed = (np.concatenate([silence, samples[start:stop], silence]) for samples in (first, second))
            scores.append(PESQ_PROCESS.score(mode, rate, *framed))
        except UndefinedScore as fault:
            raise UndefinedScore(f"{fault} (from {start / rate:.2f} s to {stop / rate:.2f} s)") from fault
    if not np.all(np.isfinite(scores)):
        raise UndefinedScore("PESQ gave NaN for these clips")
    return float(np.mean(scores))


def pesq_wb(
    *, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int, silence_seconds: float = 0.0
) -> float:
    """Wide-band PESQ, MOS-LQO: 4.644 for identical clips, 1.043 at worst; higher is better.

    Longer clips are cut into equal pieces of at most 30 s and their scores averaged. `silence_seconds` of silence are
    put before and after both.

    Raises:
        UndefinedScore: also for under 0.25 s, no utterance found, or a sample rate under 16 kHz.
    """
    first, second = pair(reference, degraded, sample_rate_hz)
    if sample_rate_hz < PESQ_HZ:
        raise UndefinedScore(f"wide-band PESQ needs 16 kHz or more, got {sample_rate_hz} Hz; use pesq_nb")
    return _pesq(first, second, "wb", silence_seconds)


def pesq_parity(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Wide-band PESQ with half a second of silence around both clips, as the gates use it.

    PESQ finds utterances by their level and aligns each in time. One that begins with the clip is cut otherwise by
    noise that nobody hears: the same two clips of 2.7 s scored 3.92 as they were and 4.57 to 4.58 with 0.3 to 1 s of
    silence.
    """
    return pesq_wb(
        reference=reference,
        degraded=degraded,
        sample_rate_hz=sample_rate_hz,
        silence_seconds=PARITY_SILENCE_SECONDS,
    )


def pesq_nb(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Narrow-band PESQ, MOS-LQO: 4.549 for identical clips, 1.017 at worst; 8 kHz stays 8 kHz, others go to 16."""
    return _pesq(*pair(reference, degraded, sample_rate_hz), "nb")


def pesq_change(
    *, reference: Samples | Clip, degraded: Samples | Clip, natural: Samples | Clip, sample_rate_hz: int
) -> float:
    """PESQ of the degraded clip against the natural recording, minus that of the reference; wide band.

    0 where the damage costs no quality a listener without the reference could tell; negative where it does. The
    recording must have the length of the clips.

    The median over three framings by silence: far from the recording PESQ's alignment in time jumps by chance, by 0.1
    to 0.3 in either direction for clips that differ at 38 dB; such jumps seldom befall one clip twice.
    """
    first, second = pair(reference, degraded, sample_rate_hz)
    true = as_clip(natural, sample_rate_hz)

    def against(clip: Clip, silence: float) -> float:
        return pesq_wb(reference=true, degraded=clip, sample_rate_hz=sample_rate_hz, silence_seconds=silence)

    baseline = first.once(
        ("pesq against", true), lambda: [against(first, silence) for silence in CHANGE_SILENCE_SECONDS]
    )
    changes = [against(second, s) - b for s, b in zip(CHANGE_SILENCE_SECONDS, baseline, strict=True)]
    return float(np.median(changes))


def _stoi(reference: Clip, degraded: Clip, *, extended: bool) -> float:
    if reference.seconds < SHORTEST_STOI_SECONDS:
        raise UndefinedScore(f"STOI needs at least 0.4 s of speech, got {reference.seconds:.3f} s")
    first = reference.once("stoi samples", lambda: _resampled_for_stoi(reference))
    second = degraded.once("stoi samples", lambda: _resampled_for_stoi(degraded))
    # ESTOI draws noise of the size of rounding from the global generator: fix it, and leave no trace.
    with _ALONE, warnings.catch_warnings():
        state = np.random.get_state()
        np.random.seed(0)
        warnings.simplefilter("error", RuntimeWarning)
        try:
            score = float(pystoi.stoi(first, second, STOI_HZ, extended=extended))
        except RuntimeWarning as fault:
            raise UndefinedScore(f"STOI has no score: {fault}; use a clip with more speech in it") from fault
        finally:
            np.random.set_state(state)
    if not math.isfinite(score):
        raise UndefinedScore("STOI gave NaN for these clips")
    return score


def _resampled_for_stoi(clip: Clip) -> npt.NDArray[np.float64]:
    samples = clip.samples.astype(np.float64)
    if clip.sample_rate_hz == STOI_HZ:
        return samples
    # pystoi's own resampler, as its published values depend on it; called here so that one result serves both.
    resampled: npt.NDArray[np.float64] = resample_oct(samples, STOI_HZ, clip.sample_rate_hz)
    return resampled


def stoi(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Short-time objective intelligibility, 1 for identical clips; higher is better, slightly negative is possible.

    Raises:
        UndefinedScore: also for less than about 0.4 s of speech.
    """
    return _stoi(*pair(reference, degraded, sample_rate_hz), extended=False)


def estoi(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Extended STOI, 1 for identical clips; spreads wider than STOI near the top.

    Raises:
        UndefinedScore: also for less than about 0.4 s of speech.
    """
    return _stoi(*pair(reference, degraded, sample_rate_hz), extended=True)
