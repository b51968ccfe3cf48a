"""Files of arrays and sound: inputs, outputs, and what was expected of a sample. Exports of all targets hold it."""

import contextlib
import wave
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class UseError(Exception):
    """What was asked for can't be; the message says why and what to do."""


def read_inputs(file: Path, names: list[str]) -> dict[str, Array]:
    """Arrays by input, of an .npz; or of an .npy, where one is taken."""
    if not file.is_file():
        raise UseError(f"there is no {file}")
    if file.suffix == ".npz" or (file.suffix == ".npy" and len(names) == 1):
        return _read(file, names[0] if file.suffix == ".npy" else None)
    raise UseError(f"{file}: inputs {', '.join(names)} are read of an .npz{' or .npy' if len(names) == 1 else ''}")


def _read(file: Path, name: str | None = None) -> dict[str, Array]:
    """Arrays of an .npz; or, under `name`, that of an .npy."""
    try:
        with file.open("rb") as opened:  # or numpy leaves a file that is damaged open
            held = np.load(opened)
            if isinstance(held, np.ndarray) != (name is not None):
                raise UseError(f"{file} is no {file.suffix} inside; save it by {'np.save' if name else 'np.savez'}")
            return dict(held) if name is None else {name: held}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UseError(f"{file} can't be read as arrays of numbers ({error})") from error


def output_fault(file: Path, sample_rate_hz: int | None) -> str | None:
    """Why outputs can't be written there; None: they can."""
    if file.suffix not in (".npz", ".npy", ".wav"):
        return f"outputs are written to .npz, .npy or .wav, got {file.name}"
    if file.suffix == ".wav" and sample_rate_hz is None:
        return "program.json says no sample_rate_hz, so its output is no sound; write an .npz"
    return folder_fault(file)


def folder_fault(file: Path) -> str | None:
    """Why no file can be written there; None: one can."""
    if file.is_dir():
        return f"{file} is a folder; name a file"
    return None if file.parent.is_dir() else f"there is no folder {file.parent} to write {file.name} in"


def sample_fault(folder: Path, manifest: Mapping[str, Any]) -> str | None:
    """Why nothing can be compared; None: it can."""
    there = (folder / "sample" / "expected.npz").is_file()
    if there and all(spec["tolerance"] is not None for spec in manifest["outputs"].values()):
        return None
    return f"{folder} was exported without a sample to check against"


def write_outputs(file: Path, outputs: Mapping[str, Array], sample_rate_hz: int | None, late: int = 0) -> None:
    """All outputs to an .npz; or the first to an .npy, or to a .wav of 16 bits, where -1 to 1 is full scale.

    A .wav is without the first `late` samples, which are sound of nothing.

    Raises:
        UseError: another suffix, or no such folder; of a .wav, an unknown sample rate, or NaN and infinite values.
    """
    if fault := output_fault(file, sample_rate_hz):
        raise UseError(fault)
    first = next(iter(outputs.values()))
    if file.suffix == ".npz":
        np.savez(file, **outputs)
    elif file.suffix == ".npy":
        np.save(file, first)
    elif sample_rate_hz is not None:
        if not np.isfinite(first).all():
            raise UseError("the output has NaN or infinite values, which a .wav can't hold; write an .npz")
        samples = np.round(np.clip(first.reshape(-1)[late:], -1, 1) * 32767).astype("<i2")
        with contextlib.closing(wave.open(str(file), "wb")) as sound:
            sound.setparams((1, 2, int(sample_rate_hz), len(samples), "NONE", "not compressed"))
            sound.writeframes(samples.tobytes())


def compare(
    folder: Path, manifest: Mapping[str, Any], outputs: Mapping[str, Array], where: str | None = None
) -> dict[str, tuple[bool, str]]:
    """Hold outputs against sample/expected.npz, each under its tolerance, or that of `where` if it has several.

    Returns:
        Of each output whether it is within, and how far it lies from what is expected; NaN is not within.

    Raises:
        UseError: the folder has no sample, or an output has no tolerance.
    """
    if fault := sample_fault(folder, manifest):
        raise UseError(fault)
    expected = _read(folder / "sample" / "expected.npz")
    found = {}
    for part, spec in manifest["outputs"].items():
        tolerance = spec["tolerance"] if where is None else spec["tolerance"][where]
        found[part] = _compared(expected[part], outputs[part], tolerance)
    return found


def told(compared: Mapping[str, tuple[bool, str]]) -> str:
    """What `compare` found, a line for each output."""
    words = {True: "within the tolerance", False: "BEYOND THE TOLERANCE"}
    return "\n".join(f"{part}: {words[within]}: {text}" for part, (within, text) in compared.items())


def _compared(expected: Array, got: Array, tolerance: Mapping[str, Any]) -> tuple[bool, str]:
    if expected.shape != got.shape:
        return False, f"has shape {got.shape}, expected {expected.shape}"
    exact = np.asarray(expected, np.float64)
    apart = np.abs(np.asarray(got, np.float64) - exact)
    largest, noise = float(apart.max(initial=0.0)), float((apart**2).sum())
    with np.errstate(divide="ignore"):  # of silence the logarithm is -inf, and of a NaN it is one
        snr_db = 10 * float(np.log10((exact**2).sum() / noise)) if noise else np.inf
    within = largest <= tolerance["max_abs"] and snr_db >= tolerance["snr_db"]  # NaN, too, is not within
    text = f"SNR {snr_db:.1f} dB (at least {tolerance['snr_db']:.1f} dB is asked)"
    return within, f"{text}, off by {largest:.3g} (at most {tolerance['max_abs']:.3g} is allowed)"
