"""paired_noise: the same noise tensors on both sides of a comparison, place by place."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload

from voice.modes import Mode

aten = torch.ops.aten


class UnpairedNoiseError(RuntimeError):
    """An operation draws noise and takes no generator, so that it cannot be made to draw the same twice."""


@contextmanager
def paired_noise(seed: int) -> Iterator["PairedNoise"]:
    """Within the context, let every draw of noise come from a generator of its own, given by `seed` and its place.

    The place of a draw is its number, from 0, in the order in which they are made. So two renders with one seed draw
    the same tensors; also where a draw before had another size, after which torch's own generator would give another
    rest. A draw that itself has another size or type is another tensor. What decides how many draws there are (steps,
    tokens) must be the same on both sides: force it.

    Seen is all that torch draws eagerly, also inside its own operations: rand, randn, randint, randperm, their `_like`;
    normal, bernoulli, multinomial, poisson, binomial; uniform_, normal_, exponential_ and all other fills in place;
    torch.distributions; dropout of every kind, in attention and recurrent layers, too; rrelu. The state of torch's
    generators neither matters nor changes, and one that the model hands over is left unused. All is drawn on the CPU
    and then moved: another device gets the same noise. Of nested contexts the innermost draws. What a handler of
    `intercept` draws belongs to its arithmetic, and is left alone.

    Not seen: numpy's and Python's generators, extensions that draw in C++ or CUDA by themselves, compiled code and
    captured graphs, and threads that the model starts (the context holds for the thread that opened it).

    Args:
        seed: whole number of at least 0.

    Yields:
        The mode; its `places` counts the draws so far.

    Raises:
        ValueError: `seed` is negative.
        UnpairedNoiseError: at the draw of a fused kernel, attention with dropout for one, which takes no generator.
    """
    if seed < 0:
        raise ValueError(f"the seed of paired noise must be at least 0, got {seed}")
    with PairedNoise(seed) as noise:
        yield noise


class _Thread(threading.local):
    drawing = False
    """Whether a draw is under way, which contexts further out leave as it is."""


_thread = _Thread()


class PairedNoise(Mode):
    """The mode behind `paired_noise`: numbers the draws and gives each its generator."""

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seed = seed
        self.places = 0
        """Draws made so far."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Give an operation that draws a generator; run everything else as it is."""
        keywords = kwargs or {}
        # Torch functions are off, modes and all, in the handler of an interception and hardly anywhere else.
        if not _may_draw(function) or _thread.drawing or torch._C._is_torch_function_all_disabled():
            return function(*args, **keywords)
        if _is_composite(function):  # inference_mode hands these over whole; what draws lies inside
            with self:
                return function.decompose(*args, **keywords)
        if _draws_nothing(function, args, keywords):
            return function(*args, **keywords)
        draw = _draw_of(function)
        if draw is None:
            raise UnpairedNoiseError(
                f"{function} draws noise by itself, which cannot be paired; render in eval mode, or keep attention"
                " from fused kernels: torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
            )
        _thread.drawing = True
        try:
            return draw(self._next(), *args, **keywords)
        finally:
            _thread.drawing = False

    def _next(self) -> torch.Generator:
        sequence = np.random.SeedSequence(self._seed, spawn_key=(self.places,))
        self.places += 1
        return torch.Generator().manual_seed(int(sequence.generate_state(1)[0]))  # torch's engine reads 32 bits


Draw = Callable[..., Any]
"""Takes a generator of the CPU, then what the operation takes."""


@cache
def _may_draw(function: Any) -> bool:
    return isinstance(function, OpOverload) and (
        torch.Tag.nondeterministic_seeded in function.tags or _generator_at(function) is not None
    )


@cache
def _is_composite(function: OpOverload) -> bool:
    name = function.name()  # type: ignore[no-untyped-call]
    return torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd")


@cache
def _draw_of(function: OpOverload) -> Draw | None:
    """How an operation is drawn with a generator; None where there is no way."""
    return _DRAWS.get(function) or (None if _generator_at(function) is None else _drawn_by(function))


def _generator_at(function: OpOverload) -> int | None:
    arguments = function._schema.arguments
    return next((i for i, argument in enumerate(arguments) if "Generator" in str(argument.type)), None)


def _draws_nothing(function: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation that may draw has its dropout off."""
    if function.overloadpacket in _IDLE:
        return True
    arguments = function._schema.arguments
    given = {argument.name: argument.default_value for argument in arguments}
    given |= {argument.name: value for argument, value in zip(arguments, args, strict=False)}
    given |= kwargs
    if given.get("train") is False or given.get("training") is False:
        return True
    return _generator_at(function) is None and any(given.get(name) == 0.0 for name in ("p", "dropout", "dropout_p"))


def _drawn_by(function: OpOverload) -> Draw:
    index = _generator_at(function)
    assert index is not None
    name = function._schema.arguments[index].name

    def draw(generator: torch.Generator, /, *args: Any, **kwargs: Any) -> Any:
        if index < len(args):
            return _on_cpu(function, (*args[:index], generator, *args[index + 1 :]), kwargs)
        return _on_cpu(function, args, {**kwargs, name: generator})

    return draw


def _on_cpu(function: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU; what it gives or writes goes to the device where it was asked for."""
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    device = torch.device(kwargs.get("device") or (tensors[0].device if tensors else "cpu"))
    if device.type == "cpu":
        return function(*args, **kwargs)
    copies = {id(tensor): tensor.cpu() for tensor in tensors}
    here = {name: "cpu" if name == "device" else copies.get(id(value), value) for name, value in kwargs.items()}
    drawn = function(*(copies.get(id(value), value) for value in args), **here)
    for index, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            target: Tensor = args[index] if index < len(args) else kwargs[argument.name]
            copy = copies[id(target)]
            if target.shape != copy.shape:  # out= makes room for itself
                target.resize_(copy.shape)
            target.copy_(copy)
            if drawn is copy:
                return target
    return drawn.to(device)


def _like(fill: OpOverload) -> Draw:
    """Draw by filling an empty tensor like the one given."""
    draw = _drawn_by(fill)

    def draw_like(generator: torch.Generator, /, tensor: Tensor, *bounds: Any, **options: Any) -> Any:
        return draw(generator, torch.empty_like(tensor, **options), *bounds)

    return draw_like


def _native_dropout(generator: torch.Generator, x: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """What the fused kernel gives: the result and the mask of what was kept, scaled to keep the mean."""
    kept = _drawn_by(aten.bernoulli_.float)(generator, torch.empty_like(x), 1.0 - p)
    return (x * kept / (1.0 - p) if p < 1.0 else torch.zeros_like(x)), kept.bool()


_DRAWS: Mapping[OpOverload, Draw] = MappingProxyType(
    {
        aten.rand.default: _drawn_by(aten.rand.generator),
        aten.rand.out: _drawn_by(aten.rand.generator_out),
        aten.randn.default: _drawn_by(aten.randn.generator),
        aten.randint.default: _drawn_by(aten.randint.generator),
        aten.randint.out: _drawn_by(aten.randint.generator_out),
        aten.randint.low: _drawn_by(aten.randint.low_generator),
        aten.randint.low_out: _drawn_by(aten.randint.low_generator_out),
        aten.randperm.default: _drawn_by(aten.randperm.generator),
        aten.randperm.out: _drawn_by(aten.randperm.generator_out),
        aten.rand_like.default: _like(aten.uniform_.default),
        aten.randn_like.default: _like(aten.normal_.default),
        aten.randint_like.default: _like(aten.random_.to),
        aten.randint_like.low_dtype: _like(getattr(aten.random_, "from")),
        aten.native_dropout.default: _native_dropout,
    }
)
"""Operations that draw and take no generator, by what draws the same with one."""
_IDLE = frozenset({aten._fused_sdp_choice, aten._nested_tensor_softmax_with_shape})
"""Torch's tag says that these draw, and they do not."""
