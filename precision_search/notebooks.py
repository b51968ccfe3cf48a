"""Notebooks: `precision-search report STUDY --notebook`, a copy of one of the package's that reads that study."""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from precision.study import write_atomic
from precision_search import commands
from precision_search.commands import Answer, CommandError
from precision_search.report.results import read_results

NOTEBOOKS = ("fidelity", "cost", "formats")
"""Names of the notebooks that the package brings."""
PACKAGED = "notebook_files"
"""Where a wheel has them, in this package; a checkout has them in `notebooks/`."""
RUNS = ("papermill", "ipykernel")
OPENS = "jupyterlab"
EXTRA = "pip install 'precision-search[notebooks]'"
_ERROR_MARK = "papermill-error-cell-tag"
"""Of the cells by which papermill points at one that failed."""

Notebook = dict[str, Any]


def add_arguments(report: argparse.ArgumentParser) -> None:
    """Add what `report` says of notebooks to its parser."""
    group = report.add_argument_group(
        "notebook",
        "in place of the report, a notebook that reads the study: fidelity (what a policy does to the sound, and a"
        " change of your own), cost (what a stream costs, on which evidence), formats (what each format does to a real"
        " layer)",
    )
    group.add_argument("--notebook", nargs="?", choices=NOTEBOOKS, const="fidelity", help="default: fidelity")
    group.add_argument("--out", type=Path, metavar="FILE", help="default: NAME.ipynb in the study's folder")
    group.add_argument("--execute", action="store_true", help="run it, so that the file has its plots and sounds")
    group.add_argument("--force", action="store_true", help="replace one that was edited")
    group.add_argument("--no-open", action="store_true", help="write it only; do not start Jupyter Lab")


def answer(parsed: argparse.Namespace) -> Answer:
    """Write a study's report again, or a notebook that reads the study.

    Raises:
        CommandError: the study has not ended, the file is there and was edited, a package is missing, or a cell fails.
        StudyError: the file cannot be written.
    """
    if parsed.notebook is None:
        asked = [flag for flag in ("out", "execute", "force", "no_open") if getattr(parsed, flag)]
        if asked:
            flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in asked)
            raise CommandError(f"report: {flags} goes with --notebook; add it, or leave that out")
        return commands.report(parsed.study)
    path = parsed.out if parsed.out is not None else parsed.study / f"{parsed.notebook}.ipynb"
    write_notebook(parsed.study, parsed.notebook, path, execute=parsed.execute, force=parsed.force)
    data = {"notebook": str(path), "executed": parsed.execute}
    lab = [sys.executable, "-m", OPENS, str(path)]
    if find_spec(OPENS) is None:
        return Answer(data, f"{path}\nJupyter Lab is not installed to open it: {EXTRA}")
    if parsed.no_open or parsed.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return Answer(data, f"{path}\nopen it with: {shlex.join(lab)}")
    subprocess.run(lab, check=False)  # until its user ends it
    return Answer(data, str(path))


def packaged_notebook(name: str) -> Notebook:
    """One of `NOTEBOOKS` as the package brings it, nbformat 4; KeyError for another name."""
    if name not in NOTEBOOKS:
        raise KeyError(name)
    notebook: Notebook = json.loads((_folder() / f"{name}.ipynb").read_text(encoding="utf-8"))
    return notebook


def _folder() -> Traversable:
    packaged = files("precision_search") / PACKAGED
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "notebooks"


def write_notebook(study: Path, name: str, path: Path, *, execute: bool = False, force: bool = False) -> None:
    """Write a notebook with its parameters set; one that is there and says the same stays, outputs included.

    Args:
        study: folder of a study that has ended.
        name: one of `NOTEBOOKS`.
        path: the file.
        execute: run it in this Python, in the folder that this process is in.
        force: replace a file whose cells are others.

    Raises:
        CommandError, StudyError: as `answer` has it.
    """
    try:
        read_results(study)
    except ValueError as error:
        raise CommandError(str(error)) from error
    if execute:
        _need(RUNS)
    if path.is_dir() or not path.parent.is_dir():
        raise CommandError(f"--out {path}: must be a file in a folder that is there")
    # Paths of a recipe begin where the search was begun: most likely here, and not where Jupyter runs a notebook.
    values = {"study": str(study.resolve()), "run_from": str(Path.cwd())}
    wanted = parametrized(packaged_notebook(name), values)
    if path.exists() and not force and _sources(_held(path)) != _sources(wanted):
        raise CommandError(
            f"{path}: is there, and its cells are not those that would be written (it was edited, or is of another"
            " version); keep it and name another file by --out, or replace it by --force"
        )
    if execute:
        execute_notebook(wanted, path)
    elif force or not path.exists():
        write_atomic(path, notebook_text(wanted))


def parametrized(notebook: Notebook, values: dict[str, str]) -> Notebook:
    """A notebook whose cell tagged `parameters` has other values; of names that it does not set, none are added."""
    cells = []
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            names = [line.split(" = ", 1)[0] for line in cell["source"]]
            lines = [f"{name} = {json.dumps(values[name])}" for name in names if name in values]
            cell = cell | {"source": "\n".join(lines).splitlines(keepends=True)}
        cells.append(cell)
    return notebook | {"cells": cells}


def notebook_text(notebook: Notebook) -> str:
    """The file: the same bytes for the same notebook."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def execute_notebook(notebook: Notebook, path: Path) -> None:
    """Run a notebook by papermill and write it with its outputs, up to a cell that fails.

    Its kernel is this very Python with the same modules to import, whatever kernels are installed for the user; what
    Jupyter writes of its own lies in a folder that is gone afterwards.

    Raises:
        CommandError: a cell fails, or the kernel does not start; the message names the cell and has its error.
    """
    with tempfile.TemporaryDirectory() as own:
        spec = Path(own, "kernels", "python3")
        spec.mkdir(parents=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        told = {"argv": argv, "display_name": "Python 3", "language": "python"}
        (spec / "kernel.json").write_text(json.dumps(told), encoding="utf-8")
        source, target = Path(own, "source.ipynb"), Path(own, "executed.ipynb")
        source.write_text(notebook_text(notebook), encoding="utf-8")
        own_places = dict.fromkeys(("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"), own)
        modules = os.pathsep.join(place for place in sys.path if place)
        run = [sys.executable, "-m", "papermill", str(source), str(target), "-k", "python3", "--no-progress-bar"]
        done = subprocess.run(
            run,
            env=os.environ | own_places | {"JUPYTER_PATH": own, "PYTHONPATH": modules},
            capture_output=True,
            text=True,
            check=False,
        )
        if target.is_file():
            executed = json.loads(target.read_text(encoding="utf-8"))
            write_atomic(path, notebook_text(executed))
        if done.returncode == 0:
            return
        failed = _failure(executed) if target.is_file() else None
        if failed is None:
            lines = done.stderr.strip().splitlines()
            raise CommandError(f"--execute: papermill ends with {done.returncode}: {lines[-1] if lines else 'no word'}")
        raise CommandError(f"--execute: cell {failed} (the rest of the error is in {path})")


def _failure(executed: Notebook) -> str | None:
    """Which cell failed, and how; None where none did."""
    for cell in executed["cells"]:
        for output in cell.get("outputs", ()):
            if output["output_type"] == "error":
                return f"{cell['id']} fails: {output['ename']}: {output['evalue']}"
    return None


def _held(path: Path) -> Notebook | None:
    """The notebook that is there; None where the file is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and isinstance(data.get("cells"), list) else None


def _sources(notebook: Notebook | None) -> list[tuple[str, str]] | None:
    """What a person writes of a notebook: kinds and texts of its cells; not outputs, nor what tools note."""
    if notebook is None:
        return None
    cells = [cell for cell in notebook["cells"] if _ERROR_MARK not in cell["metadata"].get("tags", ())]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in cells]


def _need(packages: Sequence[str]) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise CommandError(f"--execute: {', '.join(missing)} not installed: {EXTRA}")
