"""forced: let modules of a model run as ever, and give what a clip forces in place of what they found."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn


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
