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
    """Say why FP8 is refused as slow, by site and scheme.

    A site is looked up as the product it comes to, with the rows of one chunk of all the recipe's streams. None is
    refused where the recipe allows it, on a card that was not measured, at a product of two activations, at a layer of
    several products (groups), and outside of the shapes that were measured; nor is the baseline, which is no choice.
    """
    table = GemmTable.of(device.name)
    if table is None or recipe.target.slow_fp8 == "allow":
        return {}
    model = CostModel.of(device, sites, streams=recipe.cost.streams)
    refused: dict[tuple[str, str], str] = {}
    for site in sites:
        gemm = model.gemm_of(site)
        if not gemm.has_weights or gemm.count != 1:
            continue
        speedup = table.fp8_speedup(gemm.m, gemm.n, gemm.k)
        if speedup is None or speedup >= 1:
            continue
        reason = (
            f"FP8 was measured at {speedup:.2f} of bf16's speed at m={gemm.m} n={gemm.n} k={gemm.k} on {table.title}"
            f" ({SOURCE}, quantizing the activation included); use bf16, or set target.slow_fp8: allow"
        )
        refused |= {
            (site.name, scheme.name): reason
            for scheme in space[site.name]
            if scheme.activation in FP8 and scheme != recipe.baseline
        }
    return refused
