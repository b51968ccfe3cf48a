"""Renders: waveforms that take minutes to compute, kept beside the study as soon as each is made."""

import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audio_eval.clip import Samples
from precision.study import write_atomic

FOLDER = "renders"


def render_paths(study: Path, arithmetic: str, policy_digest: str, clips: Sequence[str]) -> list[Path]:
    """Where the renders of a policy lie, one file a clip."""
    return [study / FOLDER / f"{policy_digest}-{arithmetic}" / f"{clip}.npy" for clip in clips]


def load_render(path: Path) -> Samples:
    """Samples [time] float32, as they were stored; FileNotFoundError where there are none."""
    with path.open("rb") as file:
        samples: Samples = np.load(file, allow_pickle=False)
    return samples


def store_render(path: Path, samples: Samples) -> None:
    """Store samples, NaN and Inf as they are; after a kill the file is whole or not there.

    Raises:
        StudyError: the disk is full or the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.save(content, samples, allow_pickle=False)
    write_atomic(path, content.getvalue())


def keep_renders(kept: Sequence[Path]) -> None:
    """Remove the renders of all other policies than the one that these are of."""
    folder = kept[0].parent
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
