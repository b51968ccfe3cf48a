"""Files that an export holds as they are here; they run beside `model.py`, without this toolkit.

They are read and run by path, never imported from here: only they import ttnn.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
FILES = (
    "run.py",
    "checked.py",
    "runtime.py",
    "planner.py",
    "captured.py",
    "listing.py",
    "replay.py",
    "chunks.py",
    "packing.py",
    "arrays.py",
    "mock_card.py",
)
