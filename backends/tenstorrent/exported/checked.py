"""What is looked at before a program runs: program.json, the ttnn that is installed, inputs, and the card itself."""

import json
import traceback
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from arrays import UseError  # type: ignore[import-not-found]  # the file beside this one, here and in an export

Array = np.ndarray[Any, Any]
STOPPING = ("model.py", "host.py")
VERSION = 1
"""Of program.json, as these files read it."""
FIELDS = {
    "card": str,
    "architecture": str,
    "grid": list,
    "ttnn": str,
    "inputs": list,
    "outputs": dict,
    "constants": dict,
    "states": dict,
    "steps": list,
}
ENTRIES = {
    "inputs": ("name", "shape", "dtype"),
    "constants": ("file", "shape", "dtype", "layout"),
    "states": ("shape", "dtype"),
    "steps": ("index", "call", "op"),
}
"""What each entry of these must have."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """program.json of an export.

    Raises:
        UseError: it is not there, can't be read, or is of another version.
    """
    file = folder / "program.json"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UseError(f"{folder} is no export: it has no program.json") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise UseError(f"{file} is damaged ({error}); export again") from error
    if not isinstance(manifest, dict):
        raise UseError(f"{file} is damaged (it is no object of JSON); export again")
    if manifest.get("version") != VERSION:
        raise UseError(
            f"{file} is of version {manifest.get('version')}, and the files beside it read version {VERSION}; "
            "export again"
        )
    if wrong := list(_damages(manifest)):
        raise UseError(f"{file} is damaged ({'; '.join(wrong)}); export again")
    return manifest


def _damages(manifest: Mapping[str, Any]) -> Iterator[str]:
    for name, kind in FIELDS.items():
        if not isinstance(manifest.get(name), kind):
            yield f"{name} is missing or no {kind.__name__}"
            continue
        entries = manifest[name].values() if kind is dict else manifest[name]
        fields = set(ENTRIES.get(name, ()))
        if fields and not all(isinstance(entry, dict) and fields <= entry.keys() for entry in entries):
            yield f"an entry of {name} has not all of {', '.join(ENTRIES[name])}"
    if isinstance(manifest.get("grid"), list) and len(manifest["grid"]) != 2:
        yield "grid is not two numbers"


def check_library(manifest: Mapping[str, Any]) -> None:
    """Ask for the ttnn that a program was made for; where none is installed, its import will say so.

    Raises:
        UseError: another version is installed.
    """
    try:
        found = version("ttnn").partition("+")[0]
    except PackageNotFoundError:
        return
    if found != manifest["ttnn"]:
        raise UseError(
            f"the program was made for ttnn {manifest['ttnn']}, and {found} is installed: "
            "pip install -r requirements.txt"
        )


def misfit(manifest: Mapping[str, Any], device: Any) -> str | None:
    """In a line, how a card differs from the one that a program was made for; None: it will do.

    More cores than the program was made for are no harm: it names those that it uses.
    """
    found, grid = device.arch().name.lower().partition("_")[0], device.compute_with_storage_grid_size()
    (columns, rows), architecture = manifest["grid"], manifest["architecture"]
    if found == architecture and grid.x >= columns and grid.y >= rows:
        return None
    return (
        f"the program was made for {manifest['card']} ({architecture}, {columns} x {rows} cores), and this card is a "
        f"{found} of {grid.x} x {grid.y}"
    )


def check_card(manifest: Mapping[str, Any], device: Any) -> None:
    """Ask for the kind of card that a program was made for.

    Raises:
        UseError: another architecture, or fewer cores.
    """
    if wrong := misfit(manifest, device):
        raise UseError(f"{wrong}; export again, with the --card that is there")


def faults(manifest: Mapping[str, Any], inputs: Mapping[str, Array]) -> list[str]:
    """What no program takes, of those inputs that are there: a line for each."""
    wrong = []
    for spec in manifest["inputs"]:
        if spec["name"] in inputs:
            fault = _fault(inputs[spec["name"]], np.dtype(spec["dtype"]))
            wrong += [f"{spec['name']} {fault}"] if fault else []
    return wrong


def _fault(values: Array, wanted: "np.dtype[Any]") -> str | None:
    kinds, said = ("iu", "integers") if wanted.kind in "iu" else ("fiub", "real numbers")
    if values.dtype.kind not in kinds:
        return f"must be {said}, got {values.dtype}"
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        count = int(np.count_nonzero((values < limits.min) | (values > limits.max)))
        return f"has {count} of {values.size} values that {wanted} can't hold" if count else None
    with np.errstate(over="ignore"):
        count = int(np.count_nonzero(~np.isfinite(values.astype(wanted))))
    return f"has {count} of {values.size} values that are NaN or infinite (in {wanted})" if count else None


def stopped(error: BaseException) -> str:
    """Which of a program's files an error comes of, and the line there."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name in STOPPING]
    if not frames:
        return "the run stopped"
    where = f"the run stopped in {Path(frames[-1].filename).name}, line {frames[-1].lineno}"
    # Torch knows lengths, and not of what.
    return f"{where}: are durations, say, of another sum than the program's frames?" if "host.py" in where else where
