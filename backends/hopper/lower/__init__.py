"""Lowering: a graph under a policy as a strongly typed ONNX model, Q/DQ and Casts exactly where the policy has them."""

from backends.hopper.lower.lowering import Lowered, Placed, lower
from backends.hopper.lower.tracing import LoweringError, site_model

__all__ = ["Lowered", "LoweringError", "Placed", "lower", "site_model"]
