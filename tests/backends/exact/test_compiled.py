"""Kernels compiled by several processes at once: each must find the machine code of its own arguments afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNEL = """
import numpy as np
from backends.tenstorrent.exact.compiled import compiled

@compiled
def total(values):
    summed = 0.0
    for value in values:
        summed += value
    return summed
"""
COMPILE = """
import sys, time
from pathlib import Path
from numba.core import caching

# Both read the index before either writes it, the other's index is the last, and this one's code.
mine, other, dtype = sys.argv[1:]
write_index, write_data = caching.IndexDataCacheFile._save_index, caching.IndexDataCacheFile._save_data

def wait(name):
    until = time.monotonic() + 2
    while not Path(name).exists() and time.monotonic() < until:
        time.sleep(0.01)

def save_index(self, overloads):
    Path(mine + ".read").touch()
    wait(other + ".read" if mine == "first" else "first.index")
    write_index(self, overloads)
    Path(mine + ".index").touch()

def save_data(self, name, data):
    if mine == "first":
        wait("second.data")
    write_data(self, name, data)
    Path(mine + ".data").touch()

caching.IndexDataCacheFile._save_index, caching.IndexDataCacheFile._save_data = save_index, save_data
from kernel import np, total
if mine == "second":
    wait("first.read")
assert total(np.arange(4, dtype=dtype)) == 6
"""
RUN = """
from kernel import np, total
for dtype in ("float32", "int64"):
    assert total(np.arange(4, dtype=dtype)) == 6, dtype
print(sum(total.stats.cache_hits.values()), "loaded")
"""


@pytest.mark.slow
def test_processes_that_compile_at_once_do_not_take_each_others_code(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join([str(root)])}
    (tmp_path / "kernel.py").write_text(KERNEL)
    (tmp_path / "compiling.py").write_text(COMPILE)
    (tmp_path / "running.py").write_text(RUN)

    def begin(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, *arguments]
        return subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)

    both = [begin("compiling.py", "first", "second", "float32"), begin("compiling.py", "second", "first", "int64")]
    assert [(process.communicate()[0], process.returncode) for process in both] == [("", 0)] * 2
    after = begin("running.py")
    assert (after.communicate()[0], after.returncode) == ("2 loaded\n", 0)
