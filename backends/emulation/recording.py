"""Recording: what the calls and the modules of a model gave in one run, so that a later run need not compute it again.

Held of a module are what went in and what came out. Where all its calls lie before the first that differs, or the very
same values come in, it gives what it gave; nothing in it runs, activations and normalizations included.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from backends.emulation.memory import remembered
from voice.intercept import intercept
from voice.model import Clip, Rendering, Voice
from voice.site_call import SiteCall

Compute = Callable[[SiteCall], Tensor]
Original = Callable[..., Any]
BLOCK_CALLS = 8
"""A module with no more results of its own than these is computed whole rather than having them held."""
_PLAIN = (Tensor, bool, int, float, str, type(None))


class ReplayError(ValueError):
    """A model made other calls than when it was recorded."""


@dataclass(frozen=True, slots=True, eq=False)
class Forward:
    """One forward of one module: a function of what goes in."""

    calls: int
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    shape: Any
    """How the outputs were packed, for pytree."""

    def same(self, inputs: tuple[Any, ...]) -> bool:
        """Whether inputs are the recorded ones to the bit, laid out in memory alike."""
        return len(inputs) == len(self.inputs) and all(map(_same, inputs, self.inputs))

    def again(self) -> Any:
        """The outputs; copies, for the model may write into what it gets."""
        return _pytree.tree_unflatten(_copies(self.outputs), self.shape)


@dataclass(slots=True)
class Recording:
    """One run of one clip."""

    sites: list[str] = field(default_factory=list)
    """Site of each call."""
    results: dict[int, Tensor] = field(default_factory=dict)
    """Of calls, by their position."""
    forwards: dict[tuple[str, int], Forward] = field(default_factory=dict)
    """Of modules, by path and position of the first call in them."""
    held_bytes: int = 0

    @classmethod
    def of(cls, voice: Voice, clip: Clip, compute: Compute, limit_bytes: int) -> tuple["Recording", Rendering]:
        """Record a run; where it does not fit the limit, only which calls there were."""
        recording = cls()
        recorder = _Recorder(recording, compute, limit_bytes)
        with _forwards(voice.module, recorder.forward), intercept(voice.module, recorder.call):
            rendering = voice.render(clip)
        # The name of a weight's second layout counts on having seen the first.
        if any("#use" in site for site in recording.sites):
            recording.forwards.clear()
        return recording, rendering

    def replay(self, voice: Voice, clip: Clip, compute: Compute, differing: Collection[int]) -> Rendering:
        """Run a clip again, `compute` differing from the recorded run at some calls only; bit-equal to a full run.

        Raises:
            ReplayError: the model made other calls than when it was recorded.
        """
        player = _Player(self, compute, sorted(differing))
        with _forwards(voice.module, player.forward), intercept(voice.module, player.call):
            rendering = voice.render(clip)
        if player.position != len(self.sites):
            raise ReplayError(f"{player.position} calls, and {len(self.sites)} when recorded")
        return rendering


class _Recorder:
    def __init__(self, recording: Recording, compute: Compute, limit_bytes: int) -> None:
        self._recording, self._compute, self._limit = recording, compute, limit_bytes
        self._full = limit_bytes <= 0

    def call(self, call: SiteCall) -> Tensor:
        recording = self._recording
        result = self._compute(call)
        if not self._is_full():
            recording.results[len(recording.sites)] = result.clone()  # the model may write into what it gets
            self._hold(result.nbytes)
        recording.sites.append(call.site)
        return result

    def forward(self, path: str, module: nn.Module, original: Original, args: Any, kwargs: Any) -> Any:
        recording = self._recording
        inputs = _plain((args, kwargs))
        if self._is_full() or inputs is None:
            return original(*args, **kwargs)
        before, memory, start = _copies(inputs), remembered(module), len(recording.sites)
        output = original(*args, **kwargs)
        outputs, shape = _pytree.tree_flatten(output)
        calls = len(recording.sites) - start
        # A module that writes into its input, gives out part of it, or remembers does more than its result says.
        pure = all(map(_same, inputs, before)) and not _storages(inputs) & _storages(outputs)
        pure = pure and remembered(module) == memory
        if self._is_full() or calls < 2 or not pure or not all(isinstance(leaf, _PLAIN) for leaf in outputs):
            return output
        own = [index for index in range(start, len(recording.sites)) if index in recording.results]
        if len(own) <= BLOCK_CALLS:
            self._hold(-sum(recording.results.pop(index).nbytes for index in own))
        recording.forwards[path, start] = Forward(calls, before, _copies(outputs), shape)
        self._hold(sum(leaf.nbytes for leaf in (*before, *outputs) if isinstance(leaf, Tensor)))
        return output

    def _is_full(self) -> bool:
        return self._full

    def _hold(self, count: int) -> None:
        recording = self._recording
        recording.held_bytes += count
        if recording.held_bytes > self._limit:
            self._full = True
            recording.results.clear()
            recording.forwards.clear()
            recording.held_bytes = 0


class _Player:
    def __init__(self, recording: Recording, compute: Compute, differing: list[int]) -> None:
        self._recording, self._compute, self._differing = recording, compute, differing
        self._first = differing[0] if differing else len(recording.sites)
        self.position = 0

    def call(self, call: SiteCall) -> Tensor:
        position, sites = self.position, self._recording.sites
        if position >= len(sites) or sites[position] != call.site:
            raise ReplayError(f"call {position} is of {call.site!r} and was not when recorded")
        self.position += 1
        held = self._recording.results.get(position) if position < self._first else None
        return self._compute(call) if held is None else held.clone()

    def forward(self, path: str, _module: nn.Module, original: Original, args: Any, kwargs: Any) -> Any:
        held = self._recording.forwards.get((path, self.position))
        if held is not None:
            end = self.position + held.calls
            touched = any(self.position <= index < end for index in self._differing)
            if not touched and (end <= self._first or held.same(_plain((args, kwargs)) or ())):
                self.position = end
                return held.again()
        return original(*args, **kwargs)


@contextmanager
def _forwards(module: nn.Module, handler: Callable[..., Any]) -> Iterator[None]:
    """Within the context, have `handler` run the forward of every module but the outermost."""
    with ExitStack() as stack:
        for path, child in module.named_modules():
            if not path:
                continue
            own = vars(child).get("forward")
            stack.callback(_restore, child, own)
            vars(child)["forward"] = partial(_handled, handler, path, child, child.forward)
        yield


def _handled(
    handler: Callable[..., Any], path: str, module: nn.Module, original: Original, *args: Any, **kwargs: Any
) -> Any:
    return handler(path, module, original, args, kwargs)


def _restore(module: nn.Module, own: Any) -> None:
    if own is None:
        del vars(module)["forward"]
    else:
        vars(module)["forward"] = own


def _plain(values: Any) -> tuple[Any, ...] | None:
    """The leaves of nested values; None where one is more than a tensor or a number, as a cache is."""
    leaves = _pytree.tree_leaves(values)
    return tuple(leaves) if all(isinstance(leaf, _PLAIN) for leaf in leaves) else None


def _copies(leaves: Any) -> tuple[Any, ...]:
    return tuple(leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves)


def _storages(leaves: Any) -> set[int]:
    return {leaf.untyped_storage().data_ptr() for leaf in leaves if isinstance(leaf, Tensor)}


def _same(left: Any, right: Any) -> bool:
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return type(left) is type(right) and bool(left == right)
    if left.dtype != right.dtype or left.stride() != right.stride():
        return False
    if left.dtype == torch.float32:  # signs of zeros count, and NaN is NaN
        left, right = left.view(torch.int32), right.view(torch.int32)
    return torch.equal(left, right)
