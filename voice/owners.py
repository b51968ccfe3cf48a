"""Owners: which parameter or buffer of a module a tensor is, or is a view of."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Owned:
    """A tensor found to be (a view of) a parameter or buffer."""

    site: str
    """Name of the site whose weight it is."""
    whole: bool
    """False for a slice."""


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    length: int
    site: str
    keeps: Tensor
    """Held so that its memory cannot become another tensor's while this is known."""


class Owners:
    """The parameters and buffers of a module, by the storage they lie in.

    A weight's site is the path of its module; where the module holds several matrices, `path#parameter`. A weight of
    several modules belongs to the first in `named_modules()` order, an embedding table to the layer that multiplies
    with it. Storage identifies a view also under `inference_mode`, where autograd keeps no record of it, and of tensors
    without memory (meta tensors, and the fake ones that torch.export runs on); a copy of a weight (`.contiguous()` of a
    transpose, a change of type) is nobody's. An empty tensor owns nothing. A buffer counts as a constant of the model.
    """

    def __init__(self, module: nn.Module) -> None:
        """Index `module`; parameters replaced later are not known."""
        self._spans: dict[int, list[_Span]] = {}
        self._module = module
        modules = sorted(module.named_modules(), key=lambda item: isinstance(item[1], nn.Embedding))
        for path, owner in modules:
            tensors = [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]
            matrices = [name for name, tensor in tensors if tensor.ndim >= 2]
            for name, tensor in tensors:
                plain = path and (name == "weight" or matrices == [name])
                self._add(tensor, path if plain else f"{path}#{name}")

    def find(self, tensor: Tensor) -> Owned | None:
        """Give the owner of a tensor, or None for an activation."""
        # The storage itself, not its address: what has no memory has none.
        for span in self._spans.get(tensor.untyped_storage()._cdata, ()):
            if span.start <= tensor.storage_offset() < span.start + span.length:
                return Owned(span.site, tensor.numel() == span.length)
        return None

    def find_computed(self, table: Tensor, running: nn.Module | None) -> str | None:
        """Name the site of a table that a module computes from a matrix of its own, of the same shape.

        So a codebook has it that is kept as sums and counts. The module is the one that runs, or the one that keeps the
        table as an attribute (its method may be called from outside). None where there is no such module.
        """
        keepers = [running] if running is not None else []
        storage = table.untyped_storage()._cdata
        for module in (*keepers, *self._module.modules()):
            held = (value for value in vars(module).values() if isinstance(value, Tensor))
            if module is not running and not any(value.untyped_storage()._cdata == storage for value in held):
                continue
            own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
            alike = [self.find(tensor) for tensor in own if tensor.shape == table.shape]
            if len(alike) == 1 and alike[0] is not None:
                return alike[0].site
        return None

    def _add(self, tensor: Tensor, site: str) -> None:
        # The first owner of a shared weight names it.
        if self.find(tensor) is None:
            storage = tensor.untyped_storage()._cdata
            self._spans.setdefault(storage, []).append(
                _Span(int(tensor.storage_offset()), tensor.numel(), site, tensor)
            )
