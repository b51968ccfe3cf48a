"""Shares: how much of a model a policy lowers."""

from collections.abc import Sequence
from dataclasses import dataclass

from precision.policy import Policy
from precision.site import Site

FP8 = ("fp8_e4m3", "fp8_e5m2")


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of a whole model, 0 to 1; what is outside the sites counts as not lowered."""

    lofi_macs: float
    """Share of all multiply-accumulates that run in LoFi."""
    bfp8_weights: float
    """Share of all parameters that are stored in bfp8_b."""
    fp8_macs: float
    """Share of all multiply-accumulates whose operands are both FP8."""


def shares(sites: Sequence[Site], policy: Policy, *, macs_per_second: float, parameters: int) -> Shares:
    """Take the shares of a policy.

    Args:
        sites: each must be in the policy (KeyError otherwise).
        policy: scheme of each site.
        macs_per_second: of the whole model per second of audio, at least that of the sites.
        parameters: of the whole model, weights, biases and embeddings.
    """
    schemes = dict(policy.schemes)
    lofi = fp8 = bfp8 = 0.0
    for site in sites:
        scheme = schemes[site.name]
        weight = scheme.weight if site.weight_shape else scheme.activation
        if scheme.fidelity == "lofi":
            lofi += site.macs_per_second
        if weight in FP8 and scheme.activation in FP8:
            fp8 += site.macs_per_second
        if site.weight_shape and scheme.weight == "bfp8_b":
            bfp8 += site.weight_elements
    return Shares(lofi / macs_per_second, bfp8 / parameters, fp8 / macs_per_second)
