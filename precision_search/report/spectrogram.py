"""Spectrogram: levels over time and frequency of reference, candidate and what differs between them, as one PNG."""

import io

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Levels = NDArray[np.float64]

RANGE_DB = 80.0
_STEP_DB = 2.5
_DPI = 80


def magnitudes(samples: Samples, fft: int = 1024, hop: int = 256) -> Levels:
    """Magnitude spectrogram [frequencies, frames], Hann window; at least one frame, padded with silence."""
    frames = 1 + max(len(samples) - fft, 0) // hop
    padded = np.zeros((frames - 1) * hop + fft, np.float64)
    kept = samples[: len(padded)]
    padded[: len(kept)] = kept
    windows = np.lib.stride_tricks.sliding_window_view(padded, fft)[::hop]
    bins: NDArray[np.complex128] = np.fft.rfft(windows * np.hanning(fft + 1)[:-1], axis=1)
    spectrum: Levels = np.abs(bins).T
    return spectrum


def levels_db(spectrum: Levels, peak: float) -> Levels:
    """Levels in dB under a peak, cut off 80 dB below it; all at the bottom for a peak of 0."""
    floor = 10 ** (-RANGE_DB / 20)
    relative = spectrum / peak if peak > 0 else np.zeros_like(spectrum)
    clipped: Levels = np.clip(relative, floor, 1.0)
    return 20.0 * np.log10(clipped)


def draw(reference: Samples, candidate: Samples, sample_rate_hz: int) -> bytes:
    """Draw the three spectrograms, one under the other, on one scale; a PNG, the same bytes for the same samples.

    The third shows the difference of the magnitudes, which does not see a shift of phase. The scale spans 80 dB under
    the highest level of the two clips. Both are cut to the shorter one.
    """
    length = min(len(reference), len(candidate))
    ours, theirs = magnitudes(reference[:length]), magnitudes(candidate[:length])
    peak = float(max(ours.max(), theirs.max()))
    panels = {"reference": ours, "candidate": theirs, "difference": np.abs(ours - theirs)}
    # A user's own settings of matplotlib must not change the picture.
    with matplotlib.style.context(["default", {"font.size": 13}]):
        figure = Figure(figsize=(7.6, 6.2), dpi=_DPI)
        FigureCanvasAgg(figure)
        axes = figure.subplots(3, 1, sharex=True)
        figure.subplots_adjust(left=0.09, right=0.84, bottom=0.09, top=0.95, hspace=0.28)
        # Few shades make a small file.
        norm = BoundaryNorm(np.arange(-RANGE_DB, _STEP_DB / 2, _STEP_DB), 256)
        extent = (0.0, length / sample_rate_hz, 0.0, sample_rate_hz / 2000)
        for panel, (name, spectrum) in zip(axes, panels.items(), strict=True):
            image = panel.imshow(
                levels_db(spectrum, peak),
                origin="lower",
                aspect="auto",
                extent=extent,
                cmap="magma",
                norm=norm,
                interpolation="nearest",
            )
            panel.set_title(name, fontsize=14, loc="left")
            panel.set_ylabel("kHz")
        axes[-1].set_xlabel("seconds")
        ticks = np.arange(-RANGE_DB, 1, 20)
        scale = figure.add_axes((0.865, 0.09, 0.02, 0.86))
        figure.colorbar(image, cax=scale, label="dB under the peak", ticks=ticks, spacing="proportional")
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 9})
    return file.getvalue()
