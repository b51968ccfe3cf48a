"""Export: a program as a folder that ttnn runs, and nothing of this toolkit."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.tenstorrent.emission import emit
from backends.tenstorrent.exported import FILES, FOLDER
from backends.tenstorrent.hosted import CONSTANTS, host_constants, host_module, host_steps
from backends.tenstorrent.manifest import manifest
from backends.tenstorrent.packed import check_packed
from backends.tenstorrent.program import Program
from backends.tenstorrent.readme import Facts, readme, requirements
from backends.tenstorrent.tolerance import Tolerance

MANIFEST, SAMPLE = "program.json", "sample"
Arrays = Mapping[str, NDArray[Any]]
Pack = Callable[[Path, Arrays], None]
"""Writes the constants that a folder's manifest lists as .tensorbin files, by ttnn's own packer."""


def write_program(program: Program, folder: Path, pack: Pack, facts: Mapping[str, Any] | None = None) -> int:
    """Write what is needed to plan and to run a program into an empty folder.

    Args:
        program: it.
        folder: there, and empty.
        pack: see `Pack`.
        facts: what the manifest says beside.

    Returns:
        Bytes of weights that ttnn packed and that were found to be those of our own packer, bit for bit.

    Raises:
        ValueError: a step that ttnn has no call for.
        PackingError: a file that ttnn packed holds other bits than ours.
        OSError: as writing files has it.
    """
    (folder / "weights").mkdir()
    (folder / "model.py").write_text(emit(program), encoding="utf-8")
    if host_steps(program):
        (folder / "host.py").write_text(host_module(program), encoding="utf-8")
        held = host_constants(program)
        if held:
            np.savez(folder / CONSTANTS, **held)
    write_manifest(program, folder, facts=facts)
    for name in FILES:
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    pack(folder, {name: constant.values for name, constant in program.constants.items()})
    return check_packed(program.constants.items(), folder / "weights")


def write_manifest(
    program: Program,
    folder: Path,
    tolerances: Mapping[str, Tolerance] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write program.json, over one that is there."""
    text = json.dumps(manifest(program, tolerances, facts), indent=1, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def write_sample(folder: Path, inputs: Arrays, expected: Arrays) -> None:
    """Write one utterance and what must come of it."""
    (folder / SAMPLE).mkdir()
    np.savez(folder / SAMPLE / "input.npz", **inputs)
    np.savez(folder / SAMPLE / "expected.npz", **expected)


def write_words(program: Program, folder: Path, facts: Facts, policy: str) -> None:
    """Write README.md, requirements.txt and policy.yaml."""
    (folder / "README.md").write_text(readme(program, facts), encoding="utf-8")
    (folder / "requirements.txt").write_text(requirements(program), encoding="utf-8")
    (folder / "policy.yaml").write_text(policy, encoding="utf-8")
