"""Packing: the constants of an export as ttnn's files."""

from pathlib import Path

import numpy as np
import runtime  # type: ignore[import-not-found]  # the file beside this one, here and in an export


def pack(arrays: Path, folder: Path) -> None:
    """Write the constants of an export as .tensorbin files, by ttnn's own packer.

    Args:
        arrays: An .npz with a float32 array (uint32 or int32 for indices) by the name of each constant, in its shape.
        folder: That of the export; its manifest says file, type and layout of each.

    Raises:
        RuntimeFailure: an array is missing or has another shape; all are named at once.
    """
    constants = runtime.read_manifest(folder)["constants"]
    with np.load(arrays) as held:
        values = dict(held)
    shapes = {name: list(array.shape) for name, array in values.items()}
    wrong = [
        f"{name} must be of {constant['shape']}, got {shapes.get(name, 'none')}"
        for name, constant in constants.items()
        if shapes.get(name) != list(constant["shape"])
    ]
    if wrong:
        raise runtime.RuntimeFailure(f"{arrays}: " + "; ".join(wrong))
    for name, constant in constants.items():
        file = folder / constant["file"]
        file.parent.mkdir(parents=True, exist_ok=True)
        runtime.ttnn.dump_tensor(str(file), runtime._upload(values[name], constant["dtype"], constant["layout"], None))
