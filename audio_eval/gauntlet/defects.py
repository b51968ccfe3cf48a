"""Defects: the table of planted faults, each at graded strengths."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from audio_eval.clip import Samples
from audio_eval.gauntlet import sound, timing
from audio_eval.gauntlet.sound import BAND_HZ, Planted

Plant = Callable[[Samples, int, float, int], Planted]
"""(samples, sample_rate_hz, strength, seed) -> samples of equal length."""


@dataclass(frozen=True, slots=True)
class Defect:
    """One way in which speech breaks."""

    name: str
    unit: str
    """Of the strength."""
    strengths: tuple[float, ...]
    """From slight to gross."""
    imitates: str
    plant: Plant
    named: float | None = None
    """The strength at which the gates promise to refuse it at the latest."""
    above_hz: int = 0
    """At sample rates above this only."""
    whole: bool = False
    """Strengths are whole numbers."""
    monotone: bool = True
    """More of it is heard more: there is one strength at which it begins to be caught."""

    def applicable(self, sample_rate_hz: int) -> bool:
        """Whether clips of this rate can have it."""
        return sample_rate_hz > self.above_hz


_MS = (0.1, 0.5, 2.0, 5.0, 10.0, 20.0, 40.0)
_TABLE = (
    Defect(
        "hiss_in_pauses",
        "dBFS",
        (-95.0, -85.0, -75.0, -65.0, -55.0, -45.0),
        "activations in 8 bits whose step does not shrink with the signal",
        sound.hiss_in_pauses,
    ),
    Defect(
        "phase_slip",
        "rad",
        # Harmonics come round again beyond that: at pi, every second stays where it was.
        (0.0125, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6),
        "the oscillator's phase, summed in too few bits, jumps once",
        timing.phase_slip,
    ),
    Defect(
        "fricative_collapse",
        "dB",
        (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
        "soft fricatives rounded away",
        sound.fricative_collapse,
    ),
    Defect(
        "band_lost",
        "dB",
        (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 60.0),
        "the layers that write the highest band gone",
        sound.band_lost,
        above_hz=int(2 * BAND_HZ),
    ),
    Defect(
        "whistle",
        "dB under speech",
        (-80.0, -60.0, -50.0, -40.0, -30.0, -20.0, -10.0),
        "an image that an upsampler leaves under Nyquist",
        sound.whistle,
    ),
    Defect(
        "gain_loss",
        "%",
        (0.1, 0.5, 1.0, 2.0, 4.0, 8.0),
        "weights whose magnitudes are cut, not rounded",
        sound.gain_loss,
        named=2.0,
    ),
    Defect(
        "clipping",
        "% of peak cut",
        (0.2, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0),
        "a scale chosen too small",
        sound.clipping,
    ),
    Defect("repeated_frame", "ms", _MS, "a streaming buffer played twice", timing.repeated_frame, 10.0, monotone=False),
    Defect("dropped_frame", "ms", _MS, "a streaming buffer lost", timing.dropped_frame, 10.0, monotone=False),
    Defect("dropout", "ms", _MS, "a buffer that came too late", timing.dropout, named=20.0),
    Defect(
        "pitch_drift",
        "cents",
        (0.1, 0.5, 2.0, 5.0, 10.0, 20.0, 40.0),
        "F0 or a phase increment rounded",
        timing.pitch_drift,
        named=10.0,
    ),
    Defect("polarity_flip", "flip", (1.0,), "a sign lost in folding", sound.polarity_flip, named=1.0, whole=True),
    Defect(
        "delay",
        "samples",
        (1.0, 2.0, 5.0, 20.0, 100.0),
        "padding on the wrong side",
        timing.delay,
        named=1.0,
        whole=True,
    ),
    Defect(
        "reverberant_smear",
        "dB",
        (-60.0, -50.0, -40.0, -30.0, -20.0, -10.0, 0.0),
        "phase of the short spectrum lost",
        sound.reverberant_smear,
    ),
    Defect(
        "rail_pinned",
        "% of the clip",
        (0.002, 0.01, 0.1, 1.0, 10.0, 100.0),
        "an overflow that saturates",
        sound.rail_pinned,
    ),
    Defect(
        "nan_in_silence",
        "samples",
        (1.0, 10.0, 100.0),
        "a logarithm or division of zero",
        sound.nan_in_silence,
        named=1.0,
        whole=True,
    ),
)
DEFECTS: MappingProxyType[str, Defect] = MappingProxyType({defect.name: defect for defect in _TABLE})
"""Every defect by name."""
