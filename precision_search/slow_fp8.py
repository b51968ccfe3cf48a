"""Slow FP8: layers at which NVIDIA measured FP8 slower than bf16, so that it is not lowered for nothing."""

from collections.abc import Mapping, Sequence

from backends.cost import CostModel
from backends.devices import Device
from backends.hopper.gemm_tables import SOURCE, GemmTable
from backends.hopper.support import FP8
from precision.policy import Scheme
from precision.recipe import Recipe
from precision.site import Site


def slow_fp8(
    recipe: Recipe, device: Device, sites: Sequence[Site], space: Mapping[str, Sequence[Scheme]]
) -> dict[tuple[str, str], str]:
    """Say why FP8 is refused as slow, by site and scheme; nowhere where the recipe allows it, nor for the baseline."""
    if recipe.target.slow_fp8 == "allow":
        return {}
    return {
        (site, scheme.name): f"{measured}; use bf16, or set target.slow_fp8: allow"
        for site, measured in slower_in_fp8(recipe, device, sites).items()
        for scheme in space[site]
        if scheme.activation in FP8 and scheme != recipe.baseline
    }


def slower_in_fp8(recipe: Recipe, device: Device, sites: Sequence[Site]) -> dict[str, str]:
    """Site -> what was measured there, where FP8 was slower than bf16.

    A site is looked up as the product it comes to, with the rows of one chunk of all the recipe's streams. Left out are
    products of two activations, layers of several products (groups), shapes outside of those that were measured, and
    every site on a card that was not.
    """
    table = GemmTable.of(device.name)
    if table is None:
        return {}
    model = CostModel.of(device, sites, streams=recipe.cost.streams)
    slower: dict[str, str] = {}
    for site in sites:
        gemm = model.gemm_of(site)
        speedup = table.fp8_speedup(gemm.m, gemm.n, gemm.k) if gemm.has_weights and gemm.count == 1 else None
        if speedup is not None and speedup < 1:
            slower[site.name] = (
                f"FP8 was measured at {speedup:.2f} of bf16's speed at m={gemm.m} n={gemm.n} k={gemm.k} on"
                f" {table.title} ({SOURCE}, quantizing the activation included)"
            )
    return slower
