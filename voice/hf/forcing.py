"""forced: let modules of a model run as ever, and give what a clip forces in place of what they found.

And SeededVoice, of voices whose clips hold a seed and what is forced behind it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from voice.hf.base import HfVoice
from voice.model import Clip


@contextmanager
def forced(results: Mapping[nn.Module, Tensor]) -> Iterator[None]:
    """Within the context, let each module give the tensor said here.

    The module computes all the same: its sites are called as when nothing is forced. Gone on exit, exceptions
    included.
    """
    with ExitStack() as hooks:
        for module, result in results.items():
            hooks.callback(module.register_forward_hook(_giving(result)).remove)
        yield


@contextmanager
def noted(module: nn.Module) -> Iterator[list[Tensor]]:
    """Within the context, note what a module gives, call by call."""
    found: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    try:
        yield found
    finally:
        handle.remove()


def _giving(result: Tensor) -> Callable[..., Any]:
    return lambda _module, _inputs, _output: result


class SeededVoice(HfVoice):
    """A voice whose clips are (tokens [n], speaker or style, seed [], and then all that is forced)."""

    def unforced(self, clip: Clip) -> Clip:
        """The same clip with all that was forced left to the model."""
        return Clip(clip.name, clip.inputs[:3], clip.seconds)

    def reseeded(self, clip: Clip, seed: int) -> Clip:
        """The same clip with other noise; what is forced stays."""
        tokens, speaker, _, *rest = clip.inputs
        return replace(clip, inputs=(tokens, speaker, torch.tensor(seed), *rest))
