"""folder_of: the folder on disk that a model is read from, of a repository one that is fetched once and kept."""

import json
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from voice.hf.base import HfError

_SMALL = ("*.json", "*.jinja", "*.txt", "*.model")
"""Configurations, tokenizers and processors; none of them can run code."""
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"


def folder_of(source: str, revision: str | None = None, *, python: bool = False, more: Sequence[str] = ()) -> Path:
    """Find a model's folder; of a repository, what is not in the cache is fetched.

    A repository is asked for once and never again and again: where it cannot be reached, what the cache holds of it is
    taken, and a name that is not there ends in an error at once.

    Args:
        source: a folder, or the name of a repository, as kyutai/mimi.
        revision: of a repository: a branch, a tag or a commit.
        python: fetch Python that lies beside the weights, too.
        more: names of further files that the loader reads.

    Raises:
        HfError: there is no such folder, the repository is neither in the cache nor within reach, or it is not a model.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if revision is not None:
            raise HfError(f"{source}: a folder has no revision {revision}; leave revision out, or name the repository")
        folder = path
    elif path.is_file():
        raise HfError(f"{source}: is a file; give the folder that config.json and the weights lie in")
    elif not _NAME.fullmatch(source) or source.startswith("."):
        raise HfError(
            f"{source}: no such folder, and not the name of a repository either; give the folder that save_pretrained"
            " wrote, or a name as kyutai/mimi"
        )
    else:
        patterns = (*_SMALL, *more, *(("*.py",) if python else ()))
        folder = _fetched(source, revision, patterns)
        _fetched(source, folder.name, _weights(folder))
    if not (folder / "config.json").is_file():
        raise HfError(f"{source}: no config.json in {folder}, so it is not a model that save_pretrained wrote")
    return folder


def settings_of(folder: Path) -> dict[str, Any]:
    """Read config.json.

    Raises:
        HfError: it cannot be read, or names no model_type.
    """
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HfError(f"{folder}: config.json cannot be read: {error}") from error
    if not isinstance(settings, dict) or not isinstance(settings.get("model_type"), str):
        kokoro = isinstance(settings, dict) and "istftnet" in settings
        told = "; as Kokoro's it is read once it is written anew by python -m voice.hf.kokoro" if kokoro else ""
        raise HfError(f"{folder}: config.json names no model_type, so no adapter can be chosen for it{told}")
    return settings


def require_weights(folder: Path) -> None:
    """See that the weights are there, as safetensors.

    Raises:
        HfError: they are not; it says whether there are pickles, which are never read.
    """
    absent = [name for name in _weights(folder) if not (folder / name).is_file()]
    if not absent:
        return
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
    if pickles and absent == [WEIGHTS]:
        raise HfError(
            f"{folder}: its weights are pickles ({', '.join(pickles[:3])}), which can run code when they are read, and"
            " only safetensors are taken. Load it once with transformers where you trust it and write it with"
            " save_pretrained; a repository often has them converted under a revision such as refs/pr/1"
        )
    more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    raise HfError(f"{folder}: weights are missing: {', '.join(absent[:3])}{more}; copy them there, or fetch them again")


def _weights(folder: Path) -> list[str]:
    """Names of the files that hold the weights."""
    index = folder / INDEX
    if not index.is_file():
        return [WEIGHTS]
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HfError(f"{folder}: {INDEX} cannot be read: {error}") from error


def _fetched(source: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The snapshot of a repository in the cache.

    hf_hub_download, which transformers would use, tries for half a minute where there is no network; this tries once.
    """
    hub = import_module("huggingface_hub")
    try:
        return Path(hub.snapshot_download(source, revision=revision, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:
        at = "" if revision is None else f" at {revision}"
        reason = str(error).strip().splitlines()[0]
        raise HfError(
            f"{source}{at}: no such folder, and as a repository it is not in the cache and cannot be fetched"
            f" ({reason}). Without a network give a folder; a closed repository wants a token (hf auth login)"
        ) from error
