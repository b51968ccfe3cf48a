"""intercept: hand every matrix product of a running module to a handler, and leave nothing behind."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from precision.site import Op
from voice.contractions import CONTRACTIONS
from voice.owners import Owners
from voice.recurrent import RECURRENT
from voice.site_call import ConvOptions, SiteCall
from voice.spellings import SPELLINGS, attention_forward

Handler = Callable[[SiteCall], Tensor]
_LAYERS = (nn.RNNBase, nn.RNNCellBase, nn.Bilinear)
_SEEN = SPELLINGS | CONTRACTIONS | RECURRENT


@contextmanager
def intercept(module: nn.Module, handler: Handler) -> Iterator["Interception"]:
    """Within the context, let `handler` compute every matrix product that `module` runs.

    Seen are linear, bilinear, conv1d, conv2d and conv_transpose1d; matmul in all spellings, bmm, addmm, baddbmm, mv,
    addmv, inner, multi_dot, tensordot and einsum, of several operands two by two; cdist of Euclid's distances;
    scaled_dot_product_attention, which becomes two products around a softmax in fp32; nn.MultiheadAttention, which
    takes no fused path here; LSTM, GRU and RNN, layers and cells, step by step. What else multiplies
    (conv_transpose2d, conv3d, complex numbers, integers, nested tensors, dot products of two vectors, what makes a
    parametrized weight, compiled code) runs as it is. Works alike under no_grad and inference_mode.

    A site is named by the path of the module whose weight is used, a weight used twice being one site; a module with
    several matrices has `path#parameter`, as a recurrent layer has `path#weight_hh_l0`. A product of two activations is
    `path#matmul0`, `path#matmul1` in call order within one forward of the module at `path`, attention `path#qk` and
    `path#pv`. Slices of a weight given to linear or to a convolution are `path#linear0` and so on; a slice or a stack
    of matrices given to matmul is an activation. A weight used in a second layout, transposed or by another operation,
    is there `path#use1`.

    The handler gets a `SiteCall`, returns a tensor of the shape and type that `call.compute()` has, and runs with
    interception off. Of nested interceptions the innermost takes the call. Hooks are gone on exit, exceptions included.
    """
    interception = Interception(module, handler)
    with ExitStack() as hooks:
        for path, child in module.named_modules():
            hooks.callback(child.register_forward_pre_hook(interception.entering(path)).remove)
            hooks.callback(child.register_forward_hook(interception.leaving, always_call=True).remove)
        with interception:
            yield interception


@dataclass(slots=True)
class _Frame:
    """One forward of a module under way."""

    path: str
    module: nn.Module
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def makes_weights(self) -> bool:
        """Whether a parametrization runs, whose products are no products of the model."""
        return "parametrizations" in self.path

    def name(self, kind: str) -> str:
        """Name the next call of a kind."""
        position = self.calls[kind]
        self.calls[kind] += 1
        # Attention is nearly always alone in its module, and reads better without a number.
        number = "" if kind in ("qk", "pv") and position == 0 else str(position)
        return f"{self.path}#{kind}{number}"


class Interception(TorchFunctionMode):
    """The mode behind `intercept`: knows where in the module the run is, and numbers the calls."""

    def __init__(self, module: nn.Module, handler: Handler) -> None:
        super().__init__()
        self._handler = handler
        self._owners = Owners(module)
        self._frames: list[_Frame] = []
        self._layouts: dict[str, list[tuple[Any, ...]]] = {}
        self._count = 0
        self.steps: Counter[str] = Counter()
        """How many steps the recurrent layers took so far, by path."""

    @property
    def path(self) -> str | None:
        """Path of the module whose forward is running, "" for the module itself, None outside it."""
        return self._frames[-1].path if self._frames else None

    def entering(self, path: str) -> Callable[[nn.Module, Any], None]:
        """Make the hook that notes the start of a forward."""

        def enter(module: nn.Module, _inputs: Any) -> None:
            self._frames.append(_Frame(path, module))

        return enter

    def leaving(self, module: nn.Module, _inputs: Any, _output: Any) -> None:
        """Note the end of a forward."""
        # Torch calls this also where another hook failed before `enter` ran.
        if self._frames and self._frames[-1].module is module:
            self._frames.pop()

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Hand a matrix product to the handler; run everything else as it is."""
        keywords = kwargs or {}
        if function is F.multi_head_attention_forward:
            with self:
                return attention_forward(*args, **keywords)
        spelling = _SEEN.get(function)
        if spelling is None or (self._frames and self._frames[-1].makes_weights):
            return function(*args, **keywords)
        if keywords.keys() <= spelling.keywords:
            result = spelling.run(self, *args, **keywords)
            if result is not None:
                return result
        return function(*args, **keywords)

    def matrix_site(self, matrix: Tensor) -> str | None:
        """Name the site of an operand of matmul; None where it is not a whole matrix of the model's weights."""
        owned = self._owners.find(matrix) if matrix.ndim == 2 else None
        return owned.site if owned is not None and owned.whole else None

    def layer_site(self, weight: Tensor, op: Op) -> str | None:
        """Name the site of a layer's weight; None where it is an activation, or outside the module."""

        def name(frame: _Frame, owned: bool) -> str | None:
            layer = isinstance(frame.module, nn.Linear if op == "linear" else nn.modules.conv._ConvNd)
            if not owned and layer and frame.path:
                # A weight computed on the way, as weight norm does, is still the weight of its layer.
                return frame.path
            return frame.name(op) if owned or layer or op != "linear" else None

        return self._site(weight, name)

    def product_site(self, kind: str) -> str | None:
        """Name the next product of two activations in this forward; None outside the module."""
        return self._frames[-1].name(kind) if self._frames else None

    def named_site(self, weight: Tensor, name: str) -> str | None:
        """Name the site of a weight that the running module calls `name`; None where it is not the module's."""
        # As in `layer_site`; of another module, made on the spot, a weight is nobody's.
        return self._site(
            weight,
            lambda frame, owned: f"{frame.path}#{name}" if owned or isinstance(frame.module, _LAYERS) else None,
        )

    def _site(self, weight: Tensor, name: Callable[[_Frame, bool], str | None]) -> str | None:
        """Name a whole weight of the module by its path, any other by the running forward and whether it is a part."""
        owned = self._owners.find(weight)
        if owned is not None and owned.whole:
            return owned.site
        return name(self._frames[-1], owned is not None) if self._frames else None

    def table_site(self, table: Tensor) -> str | None:
        """Name the site of a matrix whose rows are searched; None where it is an activation."""
        owned = self._owners.find(table)
        if owned is not None:
            return owned.site if owned.whole else None
        return self._owners.find_computed(table, self._frames[-1].module if self._frames else None)

    def unrolled(self, steps: int) -> None:
        """Note that a recurrent layer is computed in so many steps."""
        self.steps[self.path or ""] += steps

    def call(
        self,
        site: str,
        op: Op,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        options: ConvOptions | None = None,
    ) -> Tensor:
        """Have the handler compute a call."""
        if op != "matmul":
            # One name stands for one layout of one weight, so that a backend may prepare the weight once.
            layouts = self._layouts.setdefault(site, [])
            layout = (op, weight.shape, weight.stride())
            if layout not in layouts:
                layouts.append(layout)
            site = f"{site}#use{layouts.index(layout)}" if layout != layouts[0] else site
        call = SiteCall(site, op, x, weight, bias, options, is_product=op == "matmul", index=self._count)
        self._count += 1
        with torch._C.DisableTorchFunction():
            return self._handler(call)
