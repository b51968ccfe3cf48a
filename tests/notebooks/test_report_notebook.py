"""`report --notebook`: a copy beside the study, never over what someone wrote into it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from precision_search import notebooks
from precision_search.main import main


@pytest.fixture
def study(ended: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ended, tmp_path / "study"))


def asked(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["report", *map(str, arguments)])
    captured = capsys.readouterr()
    assert (exit_.value.code or 0) == code, captured.err
    return captured.err if code else captured.out


def test_a_copy_reads_the_study_and_knows_where_the_search_was_begun(study, capsys, monkeypatch):
    monkeypatch.chdir(study.parent)
    assert asked(capsys, "study", "--notebook").splitlines()[0] == "study/fidelity.ipynb"
    written = json.loads((study / "fidelity.ipynb").read_text())
    (cell,) = (cell for cell in written["cells"] if cell["metadata"].get("tags") == ["parameters"])
    assert "".join(cell["source"]) == f'study = "{study}"\nrun_from = "{study.parent}"'
    asked(capsys, "study", "--notebook", "cost", "--out", "own.ipynb")
    (cell,) = (
        cell
        for cell in json.loads(Path("own.ipynb").read_text())["cells"]
        if cell["metadata"].get("tags") == ["parameters"]
    )
    assert "".join(cell["source"]) == f'study = "{study}"', "only what the notebook has"


def test_a_notebook_that_was_run_is_kept_and_one_that_was_edited_is_not_replaced(study, capsys):
    path = study / "formats.ipynb"
    asked(capsys, study, "--notebook", "formats")
    fresh = path.read_text()
    ran = json.loads(fresh)
    code = next(cell for cell in ran["cells"] if cell["cell_type"] == "code")
    code |= {"execution_count": 1, "outputs": [{"output_type": "stream", "name": "stdout", "text": ["ran"]}]}
    path.write_text(json.dumps(ran))
    asked(capsys, study, "--notebook", "formats")
    assert json.loads(path.read_text()) == ran, "outputs are no edit, and are not thrown away"
    code["source"] = ["study = 'another'"]
    path.write_text(json.dumps(ran))
    for flags in ((), ("--execute",)):
        told = asked(capsys, study, "--notebook", "formats", *flags, code=2)
        assert "it was edited, or is of another version" in told
        assert "--out" in told
        assert "--force" in told
    assert json.loads(path.read_text()) == ran
    asked(capsys, study, "--notebook", "formats", "--force")
    assert path.read_text() == fresh
    path.write_text("no notebook")
    assert "its cells are not those" in asked(capsys, study, "--notebook", "formats", code=2)


def test_what_cannot_be_done_is_said_before_anything_is_written(study, capsys, monkeypatch):
    before = sorted(study.iterdir())
    told = asked(capsys, study, "--execute", "--no-open", code=2)
    assert "report: --execute, --no-open goes with --notebook" in told
    assert "must be a file in a folder that is there" in asked(
        capsys, study, "--notebook", "--out", study / "none" / "x.ipynb", code=2
    )
    missing = {"papermill", "ipykernel", "jupyterlab"}
    monkeypatch.setattr(notebooks, "find_spec", lambda name: None if name in missing else object())
    told = asked(capsys, study, "--notebook", "--execute", code=2)
    assert "papermill, ipykernel not installed: pip install 'precision-search[notebooks]'" in told
    assert sorted(study.iterdir()) == before
    assert "Jupyter Lab is not installed to open it: pip install" in asked(capsys, study, "--notebook")
    (study / "summary.json").unlink()
    assert "is no finished study: summary.json missing" in asked(capsys, study, "--notebook", "cost", code=2)
    assert not (study / "cost.ipynb").exists()


def test_jupyter_lab_is_opened_where_a_person_sits(study, capsys, monkeypatch):
    begun = []
    monkeypatch.setattr(notebooks, "find_spec", lambda name: object())
    monkeypatch.setattr(subprocess, "run", lambda command, **_: begun.append(command))
    lab = [sys.executable, "-m", "jupyterlab", str(study / "fidelity.ipynb")]
    assert f"open it with: {' '.join(lab)}" in asked(capsys, study, "--notebook"), "no terminal"
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    asked(capsys, study, "--notebook", "--no-open")
    assert json.loads(asked(capsys, study, "--notebook", "--json")) == {"notebook": lab[-1], "executed": False}
    assert begun == []
    assert asked(capsys, study, "--notebook").strip() == lab[-1]
    assert begun == [lab]
