"""Sources: Python of a user's model that is installed nowhere, for machines that have none of its files."""

import importlib
import sys
import sysconfig
import tempfile
from pathlib import Path

from precision.model_section import ModelSection

OURS = frozenset({"precision", "voice", "calibrate", "audio_eval", "backends", "precision_search", "recipes"})
_PATHS = ("stdlib", "platstdlib", "purelib", "platlib")


def sources_of(model: ModelSection) -> dict[str, bytes]:
    """The modules that were imported here and are neither Python's own, nor installed, nor this package's.

    Empty for a model whose code is installed wherever this package is.

    Returns:
        Path below a folder of modules -> source.
    """
    if model.entrypoint is None and not model.trust_remote_code:
        return {}
    installed = [Path(sysconfig.get_path(name)).resolve() for name in _PATHS]
    found = {}
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None or not file.endswith(".py") or name == "__main__" or name.partition(".")[0] in OURS:
            continue
        path = Path(file).resolve()
        if path.is_file() and not any(path.is_relative_to(folder) for folder in installed):
            package = "/__init__.py" if path.name == "__init__.py" else ".py"
            found[name.replace(".", "/") + package] = path.read_bytes()
    return found


def install(sources: dict[str, bytes]) -> None:
    """Make modules importable in this process, behind all that is; nothing is done where there are none."""
    if not sources:
        return
    folder = Path(tempfile.mkdtemp(prefix="precision-search-sources-"))
    for name, source in sources.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source)
    sys.path.append(str(folder))
    importlib.invalidate_caches()
