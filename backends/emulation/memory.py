"""Memory: what a module keeps from one forward to the next; one that keeps something is no function of its input."""

from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_LEVELS = 4
"""How deep objects in objects are looked into."""
_OPAQUE = (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType, nn.Module)
_TORCHS = frozenset(vars(nn.Module())) - {"_buffers"} | {"forward"}
"""What every module has; weights and children are no memory, and the forward may stand replaced."""


def remembered(module: nn.Module) -> tuple[Any, ...]:
    """What differs, where one forward of a module or of one in it leaves something behind for the next.

    Attributes and buffers count, by what they hold, tensors by their identity and number of writes; so does the state
    of torch's own generator of random numbers.
    """
    parts = []
    for child in module.modules():
        held = {name: value for name, value in vars(child).items() if name not in _TORCHS}
        parts.append(_print_of(held, _LEVELS))
    return (*parts, torch.get_rng_state().numpy().tobytes())


def _print_of(value: Any, levels: int) -> Any:
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, Tensor):
        # What was made under inference_mode does not count its writes, and was made by a forward: never the same twice.
        return (id(value), object() if value.is_inference() else value._version)
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, _OPAQUE) or levels == 0:
        return id(value)
    if isinstance(value, dict):
        return tuple((str(key), _print_of(held, levels - 1)) for key, held in value.items())
    if isinstance(value, list | tuple):
        return tuple(_print_of(held, levels - 1) for held in value)
    held = getattr(value, "__dict__", None)
    return id(value) if held is None else (id(value), _print_of(held, levels - 1))
