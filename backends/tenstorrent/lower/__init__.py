"""Lowering: a site graph and its policy to a Program of TT-NN operations."""

from backends.tenstorrent.lower.lowering import LoweringError, lower
from backends.tenstorrent.lower.operands import Operands, stored_operands

__all__ = ["LoweringError", "Operands", "lower", "stored_operands"]
