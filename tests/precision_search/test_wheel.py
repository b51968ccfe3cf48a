"""What is installed is whole: recipes, schema, cards, weights and clips are in the wheel."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_recipe_of_the_package_works_from_a_wheel_in_another_folder(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        file.extractall(tmp_path / "site")
    assert {
        "recipes/tts_blackhole.yaml",
        "recipes/recipe.schema.json",
        "recipes/presets.yaml",
        "backends/devices.yaml",
        "backends/data/gemm.npz",
        "backends/data/gemm_formula.json",
        "precision_search/report/report.css",
        "precision_search/report/abx.js",
        *(f"precision_search/notebook_files/{name}.ipynb" for name in ("cost", "fidelity", "formats")),
        "backends/hopper/exported/run.py",
        "voice/data/embedded.safetensors",
        "voice/data/blvoice.safetensors",
        "voice/data/blvoice_rows.json",
        "voice/data/nsf.safetensors",
        "voice/data/vocos.safetensors",
        "voice/hf/loading.py",
        "voice/hf/tiny/codec.py",
        "recipes/blvoice_blackhole.yaml",
        "voice/data/clips.json",
    } <= names
    assert not [name for name in names if name.startswith(("tests/", "studies/", "voice/training"))]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = (
        "import precision_search, sys; print(precision_search.__file__); from precision_search.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "check", "tts_blackhole"],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout, "the test must run what is in the wheel"
    assert "nothing wrong" in done.stdout
    assert not list(elsewhere.iterdir())
