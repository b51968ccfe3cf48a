"""Flow: of which site's result the input of each site is made."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from voice.intercept import intercept
from voice.site_call import SiteCall

_OVERWRITING = ("copy_", "zero_", "fill_", "normal_", "uniform_")
"""Operations after which nothing is left of what a tensor held."""
_NONE = -1
"""Origin of what no site made; all others are positions among the calls."""


def find_flow(module: nn.Module, run: Callable[[], object]) -> dict[str, str]:
    """Find the site whose result each site's input is made of, by running the model once.

    Followed is every tensor of real or complex numbers through all that runs between sites: adds, norms, activations,
    softmax, views, copies, other types, operations in place. Where a tensor is made of several results the site that
    was called last counts; where a product has two activations, the later of both. A site's own result is made of that
    site alone. Of a site called several times the first call counts. Nothing is followed through integers (an embedding
    looked up by tokens is made of the table), shapes, numpy, Python's own numbers, or tensors without a storage
    (sparse, nested). A storage is followed as a whole: of a buffer filled by two sites every part is of the later one.

    Args:
        module: the model; its results are those it has without this.
        run: renders one clip with it, a short one will do; what it returns is dropped.

    Returns:
        Producer of each site that has one, in the order of first calls; producers were first called before.
    """
    fed_by: dict[str, str | None] = {}
    callers: list[str] = []
    tracing = _Tracing()

    def handle(call: SiteCall) -> Tensor:
        operands = [call.x, call.weight] if call.is_product else [call.x]
        latest = max(map(tracing.origin, operands))
        fed_by.setdefault(call.site, callers[latest] if latest != _NONE else None)
        result = call.compute()
        tracing.mark(result, len(callers))
        callers.append(call.site)
        return result

    with intercept(module, handle), tracing:
        run()
    return {site: producer for site, producer in fed_by.items() if producer is not None}


class _Tracing(TorchDispatchMode):
    """Knows for every storage the last call whose result it was made of."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # The weak reference keeps a storage's address from being given to another, and none of its memory.
        self._origins: dict[int, tuple[StorageWeakRef, int]] = {}

    def origin(self, tensor: Tensor) -> int:
        """Give the last call whose result a tensor was made of."""
        storage = storage_of(tensor)
        return _NONE if storage is None else self._origins.get(storage._cdata, (None, _NONE))[1]

    def mark(self, tensor: Tensor, origin: int) -> None:
        """Note of which call a tensor was made."""
        storage = storage_of(tensor)
        if storage is not None and origin == _NONE:
            self._origins.pop(storage._cdata, None)
        elif storage is not None:
            self._origins[storage._cdata] = (StorageWeakRef(storage), origin)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, and note that all it gives or writes is made of all it reads."""
        keywords = kwargs or {}
        written, lost = written_by(function, args, keywords)
        read = [tensor for tensor in tensors_in((args, keywords)) if not any(tensor is other for other in lost)]
        origin = _NONE if reads_no_values(function) else max(map(self.origin, read), default=_NONE)
        result = function(*args, **keywords)
        for tensor in (*written, *tensors_in(result)):
            self.mark(tensor, origin)
        return result


def storage_of(tensor: Tensor) -> Any:
    """The storage that a tensor of numbers lies in; None for integers, and where there is no storage."""
    numbers = tensor.is_floating_point() or tensor.is_complex()
    return tensor.untyped_storage() if numbers and tensor.layout == torch.strided else None


def tensors_in(tree: object) -> Iterator[Tensor]:
    """All tensors of nested values."""
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))


def written_by(function: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors that an operation writes to, and those of them of whose old values nothing is left."""
    written: list[Tensor] = []
    lost: list[Tensor] = []
    for position, argument in enumerate(function._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        given = keywords.get(argument.name, args[position] if position < len(args) else None)
        tensors = list(tensors_in(given))
        written += tensors
        if argument.is_out or function.overloadpacket.__name__ in _OVERWRITING:
            lost += [tensor for tensor in tensors if _is_whole(tensor)]
    return written, lost


def _is_whole(tensor: Tensor) -> bool:
    storage = storage_of(tensor)
    return storage is None or bool(tensor.numel() * tensor.element_size() >= storage.nbytes())


def reads_no_values(function: Any) -> bool:
    """Whether an operation takes no more of a tensor than its shape and type."""
    name = function.overloadpacket.__name__
    return bool(name.endswith("_like") or name.startswith("new_"))
