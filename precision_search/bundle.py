"""Bundle: what an audition needs, in bytes, for a process that has none of the files; bit for bit what was put in."""

import hashlib
import io
import pickle
from types import MappingProxyType
from typing import Any


class _Pickler(pickle.Pickler):
    """Also takes read-only views of mappings, which pickle itself does not."""

    def reducer_override(self, value: object) -> Any:
        """Pack such a view as a copy of what it shows; all else as it is packed everywhere."""
        return (_view, (dict(value),)) if isinstance(value, MappingProxyType) else NotImplemented


def _view(items: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(items)


def pack(value: object) -> bytes:
    """A value in bytes: tensors, arrays and NaN bit for bit. Only for processes with the same code and versions."""
    content = io.BytesIO()
    _Pickler(content, pickle.HIGHEST_PROTOCOL).dump(value)
    return content.getvalue()


def unpack(content: bytes) -> Any:
    """What was packed; arrays in it can be written to. Runs code: only for what one's own run has packed."""
    return pickle.loads(content)


def address(content: bytes) -> str:
    """Where content is found: its SHA-256, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
