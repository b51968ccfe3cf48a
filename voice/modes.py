"""Modes: torch's dispatch modes in a process that compiles nothing.

Torch hides what a mode does from its compiler, and imports all of it to do so, which takes seconds. Here it is hidden
where the compiler is loaded, and elsewhere there is nothing to hide it from.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch._compile import _disable_dynamo
from torch.utils._python_dispatch import TorchDispatchMode

Dispatch = Callable[..., Any]


class Mode(TorchDispatchMode):
    """What modes of this toolkit are made from."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)  # type: ignore[no-untyped-call]
        if "__torch_dispatch__" in vars(cls):
            cls.__torch_dispatch__ = _hidden_where_needed(vars(cls)["__torch_dispatch__"])  # type: ignore[method-assign]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as `_hidden_where_needed` does


@contextmanager
def light(mode: type[TorchDispatchMode]) -> Iterator[None]:
    """Within the context, have a mode of torch's own as those here."""
    dispatch = mode.__torch_dispatch__
    mode.__torch_dispatch__ = _hidden_where_needed(getattr(dispatch, "__wrapped__", dispatch))  # type: ignore[method-assign]
    try:
        yield
    finally:
        mode.__torch_dispatch__ = dispatch  # type: ignore[method-assign]


def _hidden_where_needed(dispatch: Dispatch) -> Dispatch:
    hidden: Dispatch = _disable_dynamo(dispatch)

    @wraps(dispatch)
    def run(*arguments: Any, **keywords: Any) -> Any:
        return (hidden if "torch._dynamo" in sys.modules else dispatch)(*arguments, **keywords)

    return run
