"""Remote: what a worker on another machine does, and how it is known to be fit for it.

Nothing here knows what carries the messages: it is given a way to fetch what lies in a store.
"""

import socket
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from backends.tenstorrent.exact.threads import set_threads
from precision_search.auditions import Auditions
from precision_search.bundle import address, pack, unpack
from precision_search.sources import install

Fetch = Callable[[Any], bytes]
"""From a reference to what it stands for."""


@dataclass(frozen=True, slots=True)
class Held:
    """Stands in a task for what lies in the store."""

    address: str


class Fetched(Mapping[str, Any]):
    """Values in the store, each fetched when it is asked for."""

    def __init__(self, fetch: Fetch, references: dict[str, Any], *, keep: bool) -> None:
        """Keep what was fetched where `keep` says so."""
        self.references = references
        self._fetch = fetch
        self._kept: dict[str, Any] | None = {} if keep else None

    def __getitem__(self, key: str) -> Any:
        """Fetch a value; KeyError where nothing is known of it."""
        if self._kept is not None and key in self._kept:
            return self._kept[key]
        value = unpack(self._fetch(self.references[key]))
        if self._kept is not None:
            self._kept[key] = value
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.references)

    def __len__(self) -> int:
        return len(self.references)


class RemoteWorker:
    """One process of a node: its auditions, made of what lies in the store."""

    def __init__(self, fetch: Fetch, content: list[Any], moments: dict[str, Any], threads: int) -> None:
        """Be there; `content` is two references: to sources of the model, and to (setting, calibration)."""
        self._fetch, self._content, self._threads = fetch, content, threads
        self._moments = Fetched(fetch, moments, keep=False)
        self._adapted = Fetched(fetch, {}, keep=True)
        self._auditions: Auditions | None = None

    def begin(self) -> bytes:
        """Make ready, once; the packed answer is the digest of the first clip as this processor computes it."""
        return _answer(self._begin)

    def do(self, method: str, task: bytes, references: dict[str, Any], adapted: dict[str, Any]) -> bytes:
        """Ask the auditions.

        Args:
            method: of `Auditions`.
            task: its arguments, packed, `Held` where they lie in the store.
            references: to what is held there, by address.
            adapted: to the trained weights that schemes of the task name, by their digest.

        Returns:
            The packed answer: what the method gave and None, or None and the error that it raised.
        """
        return _answer(self._do, method, task, references, adapted)

    def _begin(self) -> str:
        if self._auditions is None:
            set_threads(self._threads)
            install(unpack(self._fetch(self._content[0])))
            setting, calibration = unpack(self._fetch(self._content[1]))
            self._auditions = Auditions(setting, calibration, self._moments, self._adapted)
        return first_digest(self._auditions)

    def _do(self, method: str, task: bytes, references: dict[str, Any], adapted: dict[str, Any]) -> Any:
        self._adapted.references.update(adapted)
        arguments = [
            unpack(self._fetch(references[part.address])) if isinstance(part, Held) else part for part in unpack(task)
        ]
        return getattr(self._auditions, method)(*arguments)


def _answer(ask: Callable[..., Any], *arguments: Any) -> bytes:
    try:
        return pack((ask(*arguments), None))
    except Exception as error:
        error.add_note(f"on {socket.gethostname()}:\n{traceback.format_exc()}")
        try:
            return pack((None, error))
        except Exception:  # some part of it cannot be sent
            return pack((None, RuntimeError(f"{type(error).__name__}: {error}")))


def first_digest(auditions: Auditions) -> str:
    """Hash of the first clip in fp32 on one thread: another one where the processor sums in another order."""
    torch.set_num_threads(1)
    setting = auditions.setting
    parts = setting.voice.render(setting.search_clips[0]).parts
    return address(b"".join(part.contiguous().numpy().tobytes() for part in parts))


def questions() -> Callable[[], dict[str, str]]:
    """What a node is asked before it is used, of versions and code; sent as a whole, as the node may lack this file."""

    def answers() -> dict[str, str]:
        import platform
        from importlib.metadata import PackageNotFoundError, version

        told = {"python": platform.python_version()}
        try:
            told |= {name: version(name) for name in ("torch", "numpy")}
            from precision_search.wire import code_digest

            told["precision-search"] = f"{version('precision-search')}+{code_digest()}"
        except (ImportError, PackageNotFoundError) as error:
            told["precision-search"] = f"not there ({error})"
        return told

    return answers


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """What a node has otherwise than this machine: `torch is 2.7.0, here 2.8.0`."""
    return [
        f"{name} is {there.get(name, 'not there')}, here {ours}"
        for name, ours in here.items()
        if there.get(name) != ours
    ]
