"""The threads that the compiled kernels share: they release the GIL, so plain threads use every core."""

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

_threads = os.cpu_count() or 1


def threads() -> int:
    """How many threads the exact arithmetic uses; the number of cores unless `set_threads` said otherwise."""
    return _threads


def set_threads(count: int) -> None:
    """Use `count` threads from now on. Results never depend on it.

    Raises:
        ValueError: if count is below 1.
    """
    global _threads
    if count < 1:
        raise ValueError(f"the exact arithmetic needs 1 thread or more, not {count}; give set_threads a positive count")
    _threads = count


@lru_cache(maxsize=1)
def _pool(count: int) -> ThreadPoolExecutor:
    # One fewer than the threads in all: the caller of run_chunks is one of them.
    return ThreadPoolExecutor(max(count - 1, 1), thread_name_prefix="tensix")


def run_chunks(function: Callable[[int, int], object], n_items: int, chunk: int) -> None:
    """Call function(start, stop) on consecutive ranges of at most `chunk` items that cover 0 .. n_items.

    The ranges run in any order and at the same time; each must write where no other does. The calling thread works
    too, and takes them one by one like the rest. May be called from inside `function`.

    Raises:
        ValueError: if chunk is below 1.
        Exception: what `function` raised, once the ranges begun by then are done; the others are left out.
    """
    if chunk < 1:
        raise ValueError(f"a chunk holds 1 item or more, not {chunk}; give run_chunks a positive chunk")
    starts = itertools.count(0, chunk)  # next() of it is atomic under the GIL
    failed = threading.Event()

    def work() -> None:
        for start in starts:
            if start >= n_items or failed.is_set():
                return
            try:
                function(start, min(start + chunk, n_items))
            except BaseException:
                failed.set()
                raise

    extra = min(_threads, -(-n_items // chunk)) - 1
    helpers = [_pool(_threads).submit(work) for _ in range(extra)]
    try:
        work()
    finally:
        # What has not begun by now has nothing left to do. Cancelling it, not waiting, also keeps nested calls from
        # waiting for each other.
        pending = [helper for helper in helpers if not helper.cancel()]
        for helper in pending:
            helper.exception()
    for helper in pending:
        helper.result()
