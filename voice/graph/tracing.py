"""Tracing: a run of a model as torch.export sees it, every site one node, with sizes and noise of a real run."""

import contextlib
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from precision.site import Op
from voice.intercept import intercept
from voice.site_call import ConvOptions, SiteCall

ROOT = "root"
"""Name under which the traced module is registered; the path of every parameter and node begins with it."""
MOST_STEPS = 64
"""Of recurrent layers in one graph, every one of which is nodes of its own: with 200 tracing takes most of a minute."""
PURE_DRAWS = frozenset(
    "rand randn randint randperm rand_like randn_like randint_like normal normal_functional uniform exponential cauchy"
    " log_normal geometric random".split()
)
"""Operations of aten whose result is noise alone, whatever the tensor that they fill held."""


_BETWEEN = ("intercept", "spellings", "contractions", "recurrent", "site_call")
"""Code between the model's and torch's, at which no message points."""


class GraphError(ValueError):
    """A model cannot be brought to a graph; the message says where and why, and what can be done."""


@torch.library.custom_op("precision_search::site", mutates_args=())
def site_operation(
    site: str,
    op: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    output_padding: Sequence[int],
    is_product: bool,
) -> Tensor:
    """One call of a site, as `SiteCall` has it; without a convolution the sequences are empty. Computed by torch."""
    return call_of((site, op, x, weight, bias, stride, padding, dilation, groups, output_padding, is_product)).compute()


@site_operation.register_fake
def _fake(*arguments: Any) -> Tensor:
    return call_of(arguments).compute()


def call_of(arguments: Sequence[Any], index: int = 0) -> SiteCall:
    """The call that the arguments of `site_operation` stand for."""
    site, op, x, weight, bias, *_, is_product = arguments
    return SiteCall(site, op, x, weight, bias, options_of(op, arguments), is_product, index)


def options_of(op: Op, arguments: Sequence[Any]) -> ConvOptions | None:
    """The geometry among the arguments of `site_operation`."""
    stride, padding, dilation, groups, output_padding = arguments[5:10]
    if op in ("linear", "matmul"):
        return None
    return ConvOptions(tuple(stride), tuple(padding), tuple(dilation), groups, tuple(output_padding))


def _as_operation(call: SiteCall) -> Tensor:
    options = call.options or ConvOptions((), (), ())
    operands = (call.site, call.op, call.x, call.weight, call.bias)
    geometry = (options.stride, options.padding, options.dilation, options.groups, options.output_padding)
    result: Tensor = torch.ops.precision_search.site(*operands, *geometry, call.is_product)
    return result


class _Sizes(TorchFunctionMode):
    """Tells `repeat_interleave` how much comes out where its counts are tensors: what came out in a real run."""

    def __init__(self, known: list[int] | None = None) -> None:
        super().__init__()
        self.seen: list[int] = []
        self._known = known

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, or ask a constant for its number."""
        keywords = dict(kwargs or {})
        if function in (torch.repeat_interleave, Tensor.repeat_interleave):
            counts = keywords.get("repeats", args[1] if len(args) > 1 else args[0] if args else None)
            if isinstance(counts, Tensor):
                return self._repeat(function, args, keywords)
        if function in _NUMBERS and not isinstance(args[0], torch._subclasses.FakeTensor) and self._known is not None:
            with _disable_current_modes():
                return function(*args, **keywords)
        return function(*args, **keywords)

    def _repeat(self, function: Any, args: Any, keywords: dict[str, Any]) -> Tensor:
        if self._known is not None:
            if len(self.seen) == len(self._known):
                raise GraphError("the traced run repeated more often than the real one: the model must run the same")
            keywords["output_size"] = self._known[len(self.seen)]
        result: Tensor = function(*args, **keywords)
        dim = keywords.get("dim", args[2] if len(args) > 2 else None)
        self.seen.append(result.shape[0 if dim is None else dim])
        return result


_NUMBERS = (Tensor.__int__, Tensor.__float__, Tensor.__bool__, Tensor.__index__, Tensor.item, Tensor.tolist)


class _Draws(TorchDispatchMode):
    """Keeps the noise that a run draws, in order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drawn: list[Tensor] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        result = function(*args, **(kwargs or {}))
        if is_pure_draw(function):
            self.drawn.append(result.clone())
        return result


def is_pure_draw(function: Any) -> bool:
    """Whether an operation gives noise that depends on nothing that goes in."""
    return _seeded(function) and function.overloadpacket.__name__.removesuffix("_") in PURE_DRAWS


def draws_by_input(function: Any) -> bool:
    """Whether an operation draws noise that depends on what goes in (dropout in training, multinomial)."""
    return _seeded(function) and not is_pure_draw(function)


def _seeded(function: Any) -> bool:
    return isinstance(function, torch._ops.OpOverload) and (
        torch.Tag.nondeterministic_seeded in function.tags
        or any("Generator" in str(argument.type) for argument in function._schema.arguments)
    )


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What tracing gives."""

    program: ExportedProgram
    results: tuple[Tensor, ...]
    """Of the real run."""
    noise: tuple[Tensor, ...]
    """What the operations that draw gave in the real run, in order."""


def trace(
    module: nn.Module, sites_of: nn.Module, run: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], what: str
) -> Trace:
    """Run a model once for its noise and sizes, then trace it.

    Args:
        module: what is registered under `ROOT`; all parameters that `run` reads must be in it.
        sites_of: the module in which `intercept` names sites, `module` or one in it.
        run: takes the inputs and gives the outputs.
        inputs: what becomes placeholders; copied.
        what: the model, as messages name it.

    Raises:
        GraphError: torch cannot trace it, it is not on the CPU, or recurrent layers take too many steps.
    """
    elsewhere = {str(tensor.device) for tensor in (*module.parameters(), *module.buffers())} - {"cpu"}
    if elsewhere:
        raise GraphError(
            f"{what} is on {', '.join(sorted(elsewhere))}; graphs are made on the CPU: move it there first"
        )
    copies = tuple(_plain_copy(tensor) for tensor in inputs)
    sizes, draws = _Sizes(), _Draws()
    with torch.random.fork_rng(devices=[]):
        with torch.no_grad(), draws, sizes, intercept(sites_of, SiteCall.compute) as interception:
            results = tuple(run(*copies))
        _check_steps(interception.steps, what)
        wrapper = _Wrapper(module, sites_of, run, sizes.seen)
        with torch.no_grad(), _explained(what), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
            # A recurrent layer lists its weights anew whenever one is set, as torch.export does and undoes.
            warnings.filterwarnings("ignore", message=r"The tensor attributes? .*_flat_weights\[")
            program = torch.export.export(wrapper, copies, strict=False)
            if any(_writes(node.target) for node in program.graph.nodes if node.op == "call_function"):
                program = program.run_decompositions({})
    return Trace(program, results, tuple(draws.drawn))


class _Wrapper(nn.Module):
    """A run of a module as a module."""

    def __init__(
        self, module: nn.Module, sites_of: nn.Module, run: Callable[..., Sequence[Tensor]], sizes: list[int]
    ) -> None:
        super().__init__()
        self.add_module(ROOT, module)
        # In a tuple, for what is registered twice has two names.
        self._rest = (sites_of, run, sizes)
        self.training = module.training

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run it, every site one operation."""
        sites_of, run, sizes = self._rest
        with _Sizes(sizes), intercept(sites_of, _as_operation):
            return tuple(run(*inputs))


def _check_steps(steps: Mapping[str, int], what: str) -> None:
    """Refuse what would be unrolled at length."""
    total = sum(steps.values())
    if total > MOST_STEPS:
        listed = ", ".join(f"{path or 'the module itself'} ({count})" for path, count in steps.items())
        raise GraphError(
            f"{what} has recurrent layers, whose steps would each be nodes of the graph: {listed}; that is {total}"
            f" steps of {MOST_STEPS} at most. Make a graph of a part without them, of one step, or of a shorter clip."
        )


def _plain_copy(tensor: Tensor) -> Tensor:
    """A copy that is no tensor of inference_mode, which fake tensors cannot stand for."""
    with torch.inference_mode(False):
        return torch.empty_like(tensor, requires_grad=False).copy_(tensor)


def _writes(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what torch.export raises into a GraphError of a few lines."""
    try:
        yield
    except GraphError:
        raise
    except Exception as error:  # torch raises about a dozen kinds, most of them private
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise GraphError(
            f"{what} cannot be traced by torch.export: {reason}\n  at {_place(error)}\n"
            "A graph has one order of operations and one set of shapes: branches and sizes must not depend on numbers"
            " inside tensors. Force them (durations, tokens) by the clip's inputs, or keep them out of the module."
        ) from error


def _place(error: Exception) -> str:
    """Line of the model's code at which an error came up."""
    voice = Path(__file__).parent.parent
    ours = {Path(__file__), *(voice / f"{name}.py" for name in _BETWEEN)}
    theirs = (str(Path(torch.__file__).parent), contextlib.__file__)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(theirs) and Path(frame.filename) not in ours:
            return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}: {frame.line}"
    return "a place unknown"
