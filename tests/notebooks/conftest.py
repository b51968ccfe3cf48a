"""A small study that ran to its end, once for all notebooks: the random vocoder of the command's own tests."""

import importlib.util
import sys
from pathlib import Path

import pytest

from precision_search.main import main


def _tiny() -> object:
    path = Path(__file__).parents[1] / "precision_search" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_study", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_study"] = module
    spec.loader.exec_module(module)
    return module.made


made = _tiny()


@pytest.fixture(scope="session")
def ended(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that ended; nothing is to be written into it."""
    folder = tmp_path_factory.mktemp("ended") / "tiny"
    with pytest.raises(SystemExit) as exit_:
        main(["run", str(made / "tiny.yaml"), "--out", str(folder), "--quiet", "--workers", "1"])
    assert not exit_.value.code
    return folder
