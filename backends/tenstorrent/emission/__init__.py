"""Emission: a Program as the text of `model.py`, Python that calls ttnn and nothing of this toolkit."""

from backends.tenstorrent.emission.model import calls_of, emit
from backends.tenstorrent.emission.operations import OPS, call_of

__all__ = ["OPS", "call_of", "calls_of", "emit"]
