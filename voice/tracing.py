"""Tracing: what every tensor of a run was made of, told from operation to operation."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_iter

from voice.modes import Mode

_OVERWRITING = ("copy_", "zero_", "fill_", "normal_", "uniform_")
"""Operations after which nothing is left of what a tensor held."""
Made = TypeVar("Made")


class Tracing(Mode, Generic[Made]):
    """Knows for every storage what it was made of.

    All that an operation gives or writes is made of all it reads; of integers, and of tensors without a storage,
    nothing is known.
    """

    def __init__(self, nothing: Made) -> None:
        """Begin with `nothing` known of any tensor."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._nothing = nothing
        # The weak reference keeps a storage's address from being given to another, and none of its memory.
        self._made: dict[int, tuple[StorageWeakRef, Made]] = {}

    @abstractmethod
    def joined(self, name: str, read: Sequence[Tensor], parts: Sequence[Made]) -> Made:
        """What the results of an operation are made of.

        Args:
            name: of the operation.
            read: tensors that it reads, those left out that it overwrites.
            parts: what those were made of; none, where it takes no more of them than shape and type.
        """

    def known(self, tensor: Tensor) -> Made:
        """Give what a tensor was made of."""
        storage = storage_of(tensor)
        found = None if storage is None else self._made.get(storage._cdata)
        return self._nothing if found is None else found[1]

    def mark(self, tensor: Tensor, made: Made) -> None:
        """Note of what a tensor was made."""
        storage = storage_of(tensor)
        if storage is not None and made == self._nothing:
            self._made.pop(storage._cdata, None)
        elif storage is not None:
            self._made[storage._cdata] = (StorageWeakRef(storage), made)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, and note what its results are made of."""
        keywords = kwargs or {}
        written, lost = _written_by(function, args, keywords)
        read = [tensor for tensor in _tensors_in((args, keywords)) if not any(tensor is other for other in lost)]
        parts = [] if _reads_no_values(function) else [self.known(tensor) for tensor in read]
        made = self.joined(function.overloadpacket.__name__, read, parts)
        result = function(*args, **keywords)
        for tensor in (*written, *_tensors_in(result)):
            self.mark(tensor, made)
        return result


def storage_of(tensor: Tensor) -> Any:
    """The storage that a tensor of numbers lies in; None for integers, and where there is no storage."""
    numbers = tensor.is_floating_point() or tensor.is_complex()
    return tensor.untyped_storage() if numbers and tensor.layout == torch.strided else None


def _tensors_in(tree: object) -> Iterator[Tensor]:
    """All tensors of nested values."""
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))


def _written_by(function: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors that an operation writes to, and those of them of whose old values nothing is left."""
    written: list[Tensor] = []
    lost: list[Tensor] = []
    for position, argument in enumerate(function._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        given = keywords.get(argument.name, args[position] if position < len(args) else None)
        tensors = list(_tensors_in(given))
        written += tensors
        if argument.is_out or function.overloadpacket.__name__ in _OVERWRITING:
            lost += [tensor for tensor in tensors if _is_whole(tensor)]
    return written, lost


def _is_whole(tensor: Tensor) -> bool:
    storage = storage_of(tensor)
    return storage is None or bool(tensor.numel() * tensor.element_size() >= storage.nbytes())


def _reads_no_values(function: Any) -> bool:
    """Whether an operation takes no more of a tensor than its shape and type."""
    name = function.overloadpacket.__name__
    return bool(name.endswith("_like") or name.startswith("new_"))
