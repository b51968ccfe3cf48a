"""Renders: what takes minutes to compute, kept beside the study as soon as each is made."""

import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audio_eval.output import Output
from precision.study import write_atomic

FOLDER = "renders"
HEAD = "head "
"""Before the name of a token head, in a file of arrays."""


def render_paths(study: Path, arithmetic: str, policy_digest: str, clips: Sequence[str]) -> list[Path]:
    """Where the renders of a policy lie, one file a clip."""
    return [study / FOLDER / f"{policy_digest}-{arithmetic}" / f"{clip}.npz" for clip in clips]


def load_render(path: Path) -> Output:
    """A render as it was stored; FileNotFoundError where there is none."""
    with np.load(path, allow_pickle=False) as arrays:
        logits = {name.removeprefix(HEAD): arrays[name] for name in arrays.files if name.startswith(HEAD)}
        return Output(arrays["samples"] if "samples" in arrays.files else None, logits)


def store_render(path: Path, rendered: Output) -> None:
    """Store a render, NaN and Inf as they are; after a kill the file is whole or not there.

    Raises:
        StudyError: the disk is full or the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    arrays = {HEAD + head: values for head, values in rendered.logits.items()}
    if rendered.samples is not None:
        arrays["samples"] = np.asarray(rendered.samples)
    np.savez(content, **arrays)
    write_atomic(path, content.getvalue())


def keep_renders(kept: Sequence[Path]) -> None:
    """Remove the renders of all other policies than the one that these are of."""
    folder = kept[0].parent
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
