"""Files that an export holds as they are here; they run beside `model.onnx`, without this toolkit.

They need numpy, onnx and one runtime. Each imports the others by their plain names, as they lie in one folder there.
"""

from pathlib import Path

import backends.tenstorrent.exported as tenstorrent

FOLDER = Path(__file__).parent
FILES = {
    **{file.name: file for file in sorted(FOLDER.glob("*.py")) if file.name != "__init__.py"},
    # How files are read and an utterance is cut into chunks is said once for all targets; of the files beside it
    # `chunks.py` needs `runtime.RuntimeFailure`.
    "arrays.py": tenstorrent.FOLDER / "arrays.py",
    "chunks.py": tenstorrent.FOLDER / "chunks.py",
}
"""Name in an export -> the file."""
