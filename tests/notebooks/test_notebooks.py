"""The notebooks of the package: clean as they are committed, and whole as papermill runs them on a study."""

import ast
import importlib
import json
import re
import sys
from pathlib import Path

import matplotlib
import nbformat
import pytest
from matplotlib import font_manager

from precision_search.commands import CommandError
from precision_search.main import main
from precision_search.notebooks import NOTEBOOKS, execute_notebook, notebook_text, packaged_notebook

FOLDER = Path(__file__).parents[2] / "notebooks"
LINES = 20
"""Of a cell of code, at most."""
BESIDE = {"contextlib", "dataclasses", "matplotlib", "numpy", "torch", "IPython"}
ROOMS = {"precision", "backends", "calibrate", "audio_eval", "voice", "precision_search"}


def text_of(cell: dict) -> str:
    return "".join(cell["source"])


def code_of(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_of_the_folder_is_one_of_the_package():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_committed_clean(name):
    notebook = packaged_notebook(name)
    nbformat.validate(nbformat.from_dict(notebook))
    assert (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8") == notebook_text(notebook), (
        "keys, indent, last newline"
    )
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", each) for each in ids), "ids that a person chose stay"
    assert [(cell["outputs"], cell["execution_count"]) for cell in code_of(notebook)] == [([], None)] * len(
        code_of(notebook)
    )
    tagged = [text_of(cell) for cell in notebook["cells"] if cell["metadata"].get("tags") == ["parameters"]]
    assert len(tagged) == 1
    assert tagged[0].startswith('study = "studies/tts_blackhole"')
    assert notebook["cells"][0]["cell_type"] == "markdown"
    assert max(len(text_of(cell).splitlines()) for cell in code_of(notebook)) <= LINES


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_uses_what_is_public(name):
    imported = 0
    for cell in code_of(packaged_notebook(name)):
        for node in ast.walk(ast.parse(text_of(cell))):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= BESIDE
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None
                assert node.module.split(".")[0] in BESIDE | ROOMS
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
                    assert not any(part.startswith("_") for part in (*node.module.split("."), alias.name))
                    imported += node.module.split(".")[0] in ROOMS
            elif isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_"), f"{node.attr} in {cell['id']}"
    assert imported > 2


@pytest.fixture
def bare_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No home to read settings from, and a kernel of that name that would start another program."""
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "python"}))
    font_manager.findfont("sans")  # the cache of fonts is made here, where a kernel would tell of making it
    monkeypatch.setenv("MPLCONFIGDIR", matplotlib.get_configdir())
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(matplotlib.get_cachedir()).parent))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))


def run(name: str, ended: Path, tmp_path: Path) -> dict[str, list[dict]]:
    """Outputs of a notebook by cell, as the command runs it on the study."""
    path = tmp_path / f"{name}.ipynb"
    with pytest.raises(SystemExit) as exit_:
        main(["report", str(ended), "--notebook", name, "--execute", "--no-open", "--out", str(path)])
    assert not exit_.value.code
    cells = code_of(json.loads(path.read_text(encoding="utf-8")))
    assert all(cell["execution_count"] for cell in cells)
    outputs = {cell["id"]: cell["outputs"] for cell in cells}
    told = [output for found in outputs.values() for output in found]
    assert [output for output in told if output.get("name") == "stderr"] == [], "no warning is shown"
    assert "error" not in {output["output_type"] for output in told}
    return outputs


def printed(outputs: list[dict]) -> str:
    return "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")


def shown(outputs: dict[str, list[dict]], kind: str) -> list[str]:
    found = [output["data"] for cell in outputs.values() for output in cell if "data" in output]
    return ["".join(data[kind]) for data in found if kind in data]


@pytest.mark.usefixtures("bare_home")
def test_the_notebook_of_fidelity_tells_and_plays(ended, tmp_path):
    outputs = run("fidelity", ended, tmp_path)
    summary = json.loads((ended / "summary.json").read_text())
    (verdict,) = (text for text in shown(outputs, "text/markdown") if "judged in" in text)
    assert f"tiny on p150a: {summary['verdict']}" in verdict
    assert f"{summary['lofi_mac_share']:.1%}" in verdict
    assert len(shown(outputs, "image/png")) == 6
    players = [text for text in shown(outputs, "text/html") if "<audio" in text]
    assert len(players) == 3, "reference, policy, and the change"
    change = printed(outputs["change-gates"])
    assert "BROKEN" in change, "the worst change of a site breaks a gate"
    assert all(gate["metric"] in change for gate in summary["gates"])


@pytest.mark.usefixtures("bare_home")
def test_the_notebook_of_cost_has_the_study_s_price_and_the_published_fleets(ended, tmp_path):
    outputs = run("cost", ended, tmp_path)
    cost = json.loads((ended / "summary.json").read_text())["cost"]
    table = printed(outputs["price-table"])
    assert f"price of a stream against the baseline: {cost['ratio']:.3g} ({cost['low']:.3g} to" in table
    assert "% roofline" in table
    assert len(shown(outputs, "image/png")) == 3
    lightning = printed(outputs["lightning"])
    assert "27 (27 to 27) x Tenstorrent Blackhole p150a" in lightning
    assert "11 (11 to 11) x NVIDIA L40S" in lightning
    found = re.search(r"costs ([\d.]+) times as much \(([\d.]+) to ([\d.]+)\)", lightning)
    assert found is not None
    middle, low, high = map(float, found.groups())
    assert 2 < low < middle < high < 4, "reports have it from 2.7 to 4 times"
    own = printed(outputs["own-figures"])
    assert own.count("HiFi-GAN V2, on paper") == 2
    assert own.count("rests on") == 3
    assert "the last rests on" in printed(outputs["own-7b"])
    before, after = re.findall(r": ([\d.e-]+) \(", printed(outputs["change"]))
    assert float(after) == pytest.approx(2 * float(before), rel=0.01), "twice the price of a card"


@pytest.mark.usefixtures("bare_home")
def test_the_notebook_of_formats_shows_what_a_fidelity_loses(ended, tmp_path):
    outputs = run("formats", ended, tmp_path)
    assert len(shown(outputs, "image/png")) == 4
    told = re.findall(r"^(.+?) +([\d.]+) dB, gain ([\d.]+)", printed(outputs["fidelity-results"]), re.MULTILINE)
    snr_db = {name: float(value) for name, value, _ in told}
    gain = {name: float(value) for name, _, value in told}
    assert snr_db["lofi"] < snr_db["hifi2"] < snr_db["hifi4"]
    assert snr_db["lofi"] < snr_db["lofi, weights rounded for it"]
    assert gain["lofi"] < gain["hifi2"] < 1, "truncated operands make a layer quieter"
    cuts = re.findall(r"\(([+-][\d.]+)%\)", printed(outputs["fidelity-operands"]))
    assert len(cuts) == 10
    assert max(map(float, cuts)) <= 0
    assert "bfp4_b" in printed(outputs["bfp-fidelity"])


@pytest.mark.usefixtures("bare_home")
def test_a_cell_that_fails_is_named_and_what_came_before_it_stays(tmp_path):
    def cell(name: str, source: str) -> dict:
        return {
            "cell_type": "code",
            "id": name,
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": source,
        }

    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [cell("which", "import sys\nprint(sys.executable)"), cell("broken", "1 / 0")]
    path = tmp_path / "own.ipynb"
    with pytest.raises(CommandError, match="cell broken fails: ZeroDivisionError: division by zero"):
        execute_notebook({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, path)
    written = code_of(json.loads(path.read_text()))
    assert printed(written[0]["outputs"]).strip() == sys.executable
