"""Hosting: operations that stay in torch on the host, as lines of Python."""

import math
import operator
from collections.abc import Callable, Sequence

import torch
from torch import fx


class HostLinesError(ValueError):
    """An operation that has no line of its own."""


def line(node: fx.Node, result: str, named: Callable[[fx.Node], str]) -> str:
    """One line that computes a node.

    Raises:
        HostLinesError: it is no operation of torch, or an argument cannot be written down.
    """
    if node.target is operator.getitem:
        source, index = node.args
        assert isinstance(source, fx.Node)
        return f"{result} = {named(source)}[{index}]"
    if not isinstance(node.target, torch._ops.OpOverload):
        raise HostLinesError(f"{node.target} is no operation of torch")
    arguments = [_text(argument, named) for argument in node.args]
    arguments += [f"{name}={_text(argument, named)}" for name, argument in node.kwargs.items()]
    return f"{result} = torch.ops.{node.target}({', '.join(arguments)})"


def _text(argument: object, named: Callable[[fx.Node], str]) -> str:
    if isinstance(argument, fx.Node):
        return named(argument)
    if isinstance(argument, list | tuple):
        return f"[{', '.join(_text(one, named) for one in _sequence(argument))}]"
    if isinstance(argument, float) and not math.isfinite(argument):
        return f'float("{argument}")'
    if argument is None or isinstance(argument, bool | int | float | str):
        return repr(argument)
    if isinstance(argument, torch.dtype | torch.layout | torch.memory_format):
        return str(argument)
    if isinstance(argument, torch.device):
        return f'torch.device("{argument}")'
    raise HostLinesError(f"an argument of {type(argument).__name__} cannot be written down")


def _sequence(argument: Sequence[object]) -> Sequence[object]:
    return argument
