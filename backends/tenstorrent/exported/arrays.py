"""Files of arrays and sound: inputs, outputs, and what was expected of a sample."""

import contextlib
import wave
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mock_card import UseError  # type: ignore[import-not-found]  # the file beside this one, here and in an export

Array = np.ndarray[Any, Any]


def read_inputs(file: Path, names: list[str]) -> dict[str, Array]:
    """Arrays by input, of an .npz; or of an .npy, where the program takes one."""
    if not file.is_file():
        raise UseError(f"there is no {file}")
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            return dict(arrays)
    if file.suffix == ".npy" and len(names) == 1:
        return {names[0]: np.load(file)}
    raise UseError(f"{file}: inputs {', '.join(names)} are read of an .npz{' or .npy' if len(names) == 1 else ''}")


def write_outputs(file: Path, outputs: Mapping[str, Array], sample_rate_hz: int | None, late: int = 0) -> None:
    """All outputs to an .npz; or the first to an .npy, or to a .wav of 16 bits, where -1 to 1 is full scale.

    A .wav is without the first `late` samples, which are sound of nothing.

    Raises:
        UseError: another suffix; of a .wav, an unknown sample rate, or NaN and infinite values.
    """
    first = next(iter(outputs.values()))
    if file.suffix == ".npz":
        np.savez(file, **outputs)
    elif file.suffix == ".npy":
        np.save(file, first)
    elif file.suffix == ".wav":
        if sample_rate_hz is None:
            raise UseError("program.json says no sample_rate_hz, so its output is no sound; write an .npz")
        if not np.isfinite(first).all():
            raise UseError("the output has NaN or infinite values, which a .wav can't hold; write an .npz")
        samples = np.round(np.clip(first.reshape(-1)[late:], -1, 1) * 32767).astype("<i2")
        with contextlib.closing(wave.open(str(file), "wb")) as sound:
            sound.setparams((1, 2, int(sample_rate_hz), len(samples), "NONE", "not compressed"))
            sound.writeframes(samples.tobytes())
    else:
        raise UseError(f"outputs are written to .npz, .npy or .wav, got {file.name}")


def compare(folder: Path, manifest: dict[str, Any], outputs: Mapping[str, Array]) -> dict[str, str]:
    """Hold outputs against sample/expected.npz, each under its tolerance.

    Returns:
        Of each output that missed it, by how much; NaN misses.

    Raises:
        UseError: the folder has no sample, or an output has no tolerance.
    """
    file = folder / "sample" / "expected.npz"
    if not file.is_file() or any(spec["tolerance"] is None for spec in manifest["outputs"].values()):
        raise UseError(f"{folder} was exported without a sample to check against")
    with np.load(file) as held:
        expected = dict(held)
    missed = {
        part: "; ".join(_missed(expected[part], outputs[part], spec["tolerance"]))
        for part, spec in manifest["outputs"].items()
    }
    return {part: text for part, text in missed.items() if text}


def _missed(expected: Array, got: Array, tolerance: dict[str, Any]) -> Iterator[str]:
    if expected.shape != got.shape:
        yield f"has shape {got.shape}, expected {expected.shape}"
        return
    apart = np.abs(np.asarray(got, np.float64) - expected)
    largest, noise = float(apart.max(initial=0.0)), float((apart**2).sum())
    snr_db = 10 * np.log10((np.asarray(expected, np.float64) ** 2).sum() / noise) if noise else np.inf
    if not largest <= tolerance["max_abs"]:  # NaN, too, misses
        yield f"is off by {largest:.3g}, at most {tolerance['max_abs']:.3g} is allowed"
    if not snr_db >= tolerance["snr_db"]:
        yield f"has an SNR of {snr_db:.1f} dB, at least {tolerance['snr_db']:.1f} dB is asked"
