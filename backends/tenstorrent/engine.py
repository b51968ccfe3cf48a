"""Engine: exports packed, planned and run by ttnn, each in a process of its own, by the files that they hold.

ttnn reads its environment once and opens one kind of card a process; nothing of it is imported here.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.tenstorrent.exported import FOLDER
from backends.tenstorrent.planning import Plan, Realized, realized

EXTRA = "pip install 'precision-search[tenstorrent]'"


class EngineError(RuntimeError):
    """ttnn, a card, or an export is not there or did not do; the message says which and what to do."""


def plan(folder: Path, card: str | None = None, mock_folder: Path | None = None) -> Plan:
    """Have ttnn check and plan every operation of an export, on a mock card.

    Args:
        folder: The export; its own run.py does it.
        card: `wormhole_n150` or `blackhole_p150`; None is the one it was made for.
        mock_folder: Where the mock card is kept; None is the user's cache.

    Raises:
        EngineError: ttnn is not installed, a real card is present, or the folder is no export.
    """
    return plan_many([folder], card, mock_folder)[0]


def plan_many(folders: Sequence[Path], card: str | None = None, mock_folder: Path | None = None) -> tuple[Plan, ...]:
    """Plan exports for one card, in one process.

    Raises:
        EngineError: as `plan`.
    """
    options = ["--plan", *(["--card", card] if card else []), *_kept(mock_folder)]
    return _plans(folders, options)


def pack(folder: Path, arrays: Mapping[str, NDArray[Any]], mock_folder: Path | None = None) -> None:
    """Write the constants that an export's manifest lists as .tensorbin files, by ttnn's own packer.

    Args:
        folder: That of the export, with its program.json.
        arrays: By name of the constant, in its shape: float32, or integers for indices.
        mock_folder: As `plan`.

    Raises:
        EngineError: ttnn is not installed, or arrays are missing or of other shapes, which are all named.
    """
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch, "constants.npz")
        np.savez(given, **dict(arrays))
        _finish(_start(FOLDER / "run.py", ["--pack", str(given), *_kept(mock_folder), str(folder.absolute())]))


@dataclass(frozen=True, slots=True)
class TtnnEngine:
    """An export on a real card; every call opens the card, loads, and closes it again.

    Every method raises EngineError where ttnn is not installed, there is no card, or the export does not fit it.
    """

    folder: Path
    device: int = 0

    def run(self, inputs: Mapping[str, NDArray[Any]], stream: bool = False) -> dict[str, NDArray[Any]]:
        """Outputs by part, float32.

        Args:
            inputs: By name, in the shapes that the program takes.
            stream: Whether they are longer, to be fed chunk after chunk from state zero.
        """
        return self._run(inputs, ["--stream"] if stream else [])[0]

    def time(self, inputs: Mapping[str, NDArray[Any]], runs: int, trace: bool = False) -> dict[str, Any]:
        """`median_seconds`, `seconds` of each run, and `operations`: each with its call, site and seconds.

        Args:
            inputs: By name.
            runs: How many to time.
            trace: Whether the card replays a captured program, so that no work of the host is in between.
        """
        timing = self._run(inputs, ["--time", str(runs), *(["--trace"] if trace else [])])[1]
        if timing is None:
            raise EngineError(f"{self.folder / 'run.py'} wrote no times; it is of another version: export again")
        return timing

    def plan(self) -> Plan:
        """What the library makes of every operation on this card."""
        return _plans([self.folder], ["--plan", "--on-card", "--device", str(self.device)])[0]

    def realized(self) -> Mapping[str, Realized]:
        """How each site computes, read back from the library; hold it against a policy by `planning.mismatches`."""
        return realized(self.plan())

    def _run(
        self, inputs: Mapping[str, NDArray[Any]], options: Sequence[str]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any] | None]:
        with tempfile.TemporaryDirectory() as scratch:
            given, made, times = (Path(scratch, name) for name in ("input.npz", "output.npz", "times.json"))
            np.savez(given, **dict(inputs))
            where = ["--device", str(self.device), "--input", str(given), "--output", str(made), "--json", str(times)]
            _finish(_start(self.folder / "run.py", [*where, *options]))
            with np.load(made) as outputs:
                return dict(outputs), json.loads(times.read_text()) if times.is_file() else None


def _kept(mock_folder: Path | None) -> list[str]:
    return [] if mock_folder is None else ["--mock-folder", str(mock_folder.absolute())]


def _plans(folders: Sequence[Path], options: Sequence[str]) -> tuple[Plan, ...]:
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch, "plan.json")
        given = [*options, "--json", str(written), *(str(folder.absolute()) for folder in folders)]
        done = _start(folders[0] / "run.py", given)
        if not written.is_file():  # a plan with refusals fails, too, and is one
            _finish(done)
            raise EngineError(f"{folders[0] / 'run.py'} wrote no plan; it is of another version: export again")
        return tuple(Plan.from_dict(data) for data in json.loads(written.read_text()))


def _start(script: Path, arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    if importlib.util.find_spec("ttnn") is None:
        python = f"this is {sys.version_info.major}.{sys.version_info.minor}"
        raise EngineError(f"ttnn is not installed: {EXTRA}, with CPython 3.12 on x86-64 Linux ({python})")
    if not script.is_file():
        raise EngineError(f"{script.parent} is no export: it has no {script.name}")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # the folder stays as it was exported
    command = [sys.executable, str(script.absolute()), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _finish(done: "subprocess.CompletedProcess[str]") -> None:
    if done.returncode != 0:
        said = done.stderr.strip().removeprefix("run.py: ") or done.stdout.strip()
        signal = f"ended by signal {-done.returncode}: " if done.returncode < 0 else ""
        raise EngineError(f"{signal}{said[-4000:]}")
