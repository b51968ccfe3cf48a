"""Free running: the last look at a model, with nothing forced on it.

Durations, pitch and tokens are the model's own, so that lengths may differ and no sample has a counterpart: what is
compared is the length of the clip, the statistics of its pitch, and its spectra along the best alignment. `reference`
and `degraded` are float32 or float64 [time] in -1..1, or Clips; both must be finite and neither silent, or
`UndefinedScore` is raised. Every score is without sign, 0 for identical clips.
"""

from dataclasses import dataclass

import librosa
import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from audio_eval.cepstra import SCALE_DB, cepstra
from audio_eval.clip import LARGEST_PEAK, SILENT_PEAK, Clip, Samples, UndefinedScore, as_clip
from audio_eval.pitch import HOP_SECONDS, track
from audio_eval.spectra import FLOOR_DB, mel_filters, mel_window

OCTAVE_ERROR_CENTS = 900.0
"""A pitch further than this from the clip's median is a mistake of the tracker, no intonation."""
FEWEST_VOICED = 10
"""Voiced frames of 10 ms under which a mean and a spread say nothing."""
WARP_HOP_SECONDS = 0.005
"""Between the frames that are aligned. Half of it is the most that a pair can be off, which costs 0.5 dB."""
LONGEST_SECONDS = 30.0
"""Alignment takes memory and time by the square of the length: 0.7 GB and a second at this one."""


def _heard(reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> tuple[Clip, Clip]:
    """Both clips, fit to be compared: finite and sounding, of any length."""
    both = as_clip(reference, sample_rate_hz), as_clip(degraded, sample_rate_hz)
    for name, clip in zip(("reference", "degraded"), both, strict=True):
        if not np.isfinite(clip.peak):
            raise UndefinedScore(f"the {name} clip has NaN or Inf in it")
        if clip.peak > LARGEST_PEAK:
            raise UndefinedScore(f"the {name} clip peaks at {clip.peak:.3g}; audio is expected in -1..1")
        if clip.peak < SILENT_PEAK:
            raise UndefinedScore(f"the {name} clip is silent (peak {clip.peak:.3g})")
    return both


def duration_change(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """By what share of the reference's length the lengths differ: 0.05 is 5 %.

    Listeners notice 5 % of tempo: Quené, "On the just noticeable difference for tempo in speech", Journal of Phonetics
    35(3), 2007. It is one number for the whole clip: a phone longer here and a pause shorter there cancel.
    """
    first, second = _heard(reference, degraded, sample_rate_hz)
    return abs(len(second) - len(first)) / len(first)


@dataclass(frozen=True, slots=True)
class Intonation:
    """Statistics of a clip's pitch."""

    voiced_share: float
    """Of all frames, those with a pitch that is no octave error."""
    voiced_frames: int
    mean_cents: float
    """Mean of the pitch, in cents above 1 Hz; NaN where no frame is voiced."""
    spread_cents: float
    """Standard deviation of the pitch; NaN where no frame is voiced."""


def intonation(clip: Clip) -> Intonation:
    """Statistics of the pitch that `pitch.track` finds, octave errors left out.

    Left in, they drown everything: one frame in a hundred an octave and a half off moves the spread by 100 cents.

    Raises:
        UndefinedScore: the clip is too short to find a pitch in.
    """

    def compute() -> Intonation:
        found = track(clip)
        cents = 1200.0 * np.log2(found.f0_hz[found.voiced])
        if not cents.size:
            return Intonation(0.0, 0, float("nan"), float("nan"))
        kept = cents[np.abs(cents - np.median(cents)) <= OCTAVE_ERROR_CENTS]
        return Intonation(kept.size / found.voiced.size, kept.size, float(np.mean(kept)), float(np.std(kept)))

    return clip.once("intonation", compute)


def _intonations(
    reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int
) -> tuple[Intonation, Intonation]:
    first, second = (intonation(clip) for clip in _heard(reference, degraded, sample_rate_hz))
    for name, found in (("reference", first), ("degraded", second)):
        if found.voiced_frames < FEWEST_VOICED:
            raise UndefinedScore(
                f"the {name} clip has {found.voiced_frames * HOP_SECONDS:.2f} s of voice, "
                f"{FEWEST_VOICED * HOP_SECONDS:.2f} s are needed for statistics of its pitch"
            )
    return first, second


def f0_mean_cents(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Difference of the mean pitch of voiced frames, in cents: does the voice speak higher or lower?

    On a gliding pitch listeners notice 2 Hz at 120 Hz, 29 cents: Klatt, "Discrimination of fundamental frequency
    contours in synthetic speech", JASA 53(1), 1973.

    Raises:
        UndefinedScore: as the module says, or under 0.1 s of voice in a clip.
    """
    first, second = _intonations(reference, degraded, sample_rate_hz)
    return abs(second.mean_cents - first.mean_cents)


def f0_spread_cents(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Difference of the standard deviation of the pitch of voiced frames, in cents: is it more or less lively?

    Raises:
        UndefinedScore: as the module says, or under 0.1 s of voice in a clip.
    """
    first, second = _intonations(reference, degraded, sample_rate_hz)
    return abs(second.spread_cents - first.spread_cents)


def voiced_share_change(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Difference of the share of frames that are voiced (0..1); pitch that jumps by an octave counts as unvoiced."""
    first, second = (intonation(clip) for clip in _heard(reference, degraded, sample_rate_hz))
    return abs(second.voiced_share - first.voiced_share)


def _mel_powers(clip: Clip) -> npt.NDArray[np.float32]:
    """Power of the bands that `cepstra` has, every 5 ms [frames, bands]."""
    n_fft = mel_window(clip.sample_rate_hz)
    if not n_fft <= len(clip) <= LONGEST_SECONDS * clip.sample_rate_hz:
        raise UndefinedScore(
            f"clips of {n_fft / clip.sample_rate_hz:.3f} to {LONGEST_SECONDS:.0f} s can be aligned, got "
            f"{clip.seconds:.3f} s; cut long ones at pauses"
        )

    def compute() -> npt.NDArray[np.float32]:
        hop = round(WARP_HOP_SECONDS * clip.sample_rate_hz)
        samples = clip.samples.astype(np.float32)
        spectrum = librosa.stft(samples, n_fft=n_fft, hop_length=hop, window="hann", pad_mode="reflect")
        powers: npt.NDArray[np.float32] = np.square(np.abs(spectrum)).T @ mel_filters(clip.sample_rate_hz, n_fft).T
        return powers

    return clip.once("warp powers", compute)


def _mel_cepstra(clip: Clip, floor: float) -> npt.NDArray[np.float64]:
    """c1 to c24, as `cepstra.mcd_db` has them, every 5 ms [frames, 24]."""

    def compute() -> npt.NDArray[np.float64]:
        nepers = np.log(np.maximum(_mel_powers(clip).astype(np.float64), floor))
        return cepstra(nepers)

    return clip.once(("warp cepstra", floor), compute)


def dtw_mcd_db(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """Mel-cepstral distortion along the best alignment, dB: the scale of `cepstra.mcd_db`, mean over aligned pairs.

    Dynamic time warping (Sakoe and Chiba, IEEE TASSP 26(1), 1978) with steps of one frame in either clip or in both,
    all of one weight, over the same distance; frames lie 5 ms apart, as is the custom. It forgives timing: a vowel
    held twice as long costs nothing, a phone lost or changed does.

    Other tools give other numbers: pymcd 0.2.1, mode `dtw`, takes 13 coefficients of WORLD's envelope at 22.05 kHz,
    aligns without c0 and then counts it, so that a change of gain is damage there. Speech synthesis is reported with
    about 7 dB against a recording (7.19: FastSpeech 2, baseline of the Interspeech 2024 challenge on discrete speech
    units).

    Raises:
        UndefinedScore: as the module says, or a clip that is shorter than one window (43 to 85 ms) or beyond 30 s.
    """
    first, second = _heard(reference, degraded, sample_rate_hz)
    floor = first.once("warp floor", lambda: float(np.max(_mel_powers(first)) * 10.0 ** (-FLOOR_DB / 10.0)))
    if floor == 0.0:
        raise UndefinedScore("the reference clip has no power in any mel band")
    distances = cdist(_mel_cepstra(first, floor), _mel_cepstra(second, floor))
    _, path = librosa.sequence.dtw(C=distances)
    return float(SCALE_DB * np.mean(distances[path[:, 0], path[:, 1]]))
