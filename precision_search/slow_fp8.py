"""Slow FP8: layers at which NVIDIA measured FP8 slower than bf16, so that it is not lowered for nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from backends.devices import Device
from backends.gemm import Gemm
from backends.gemm_tables import SOURCE, GemmTable
from backends.hopper.measured_results import MeasuredResults, MeasuredResultsError
from backends.hopper.support import FP8
from precision.policy import Scheme
from precision.recipe import Recipe
from precision.site import Site
from precision_search.costing import cost_model_of
from precision_search.setting import SetupError


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
    products of two activations, layers of several products (groups), and shapes outside of those that were measured.

    Raises:
        SetupError: the recipe names results of a card that cannot be used.
    """
    table, own = GemmTable.of(device.name), own_results(recipe)
    model = cost_model_of(recipe, device, sites)
    slower: dict[str, str] = {}
    for site in sites:
        gemm = model.gemm_of(site)
        if not gemm.has_weights or gemm.count != 1:
            continue
        speedup, source = None, ""
        if own is not None:
            speedup, source = _speedup(own, gemm), f"{own.device} ({recipe.target.measured})"
        if speedup is None and table is not None:
            speedup = table.fp8_speedup(gemm.m, gemm.n, gemm.k)
            source = f"{table.title} ({SOURCE}, quantizing the activation included)"
        if speedup is not None and speedup < 1:
            slower[site.name] = (
                f"FP8 was measured at {speedup:.2f} of bf16's speed at m={gemm.m} n={gemm.n} k={gemm.k} on {source}"
            )
    return slower


def measured_card(recipe: Recipe, device: Device) -> Device:
    """The card of a recipe with what its own results say of it; errors as `own_results` has them."""
    own = own_results(recipe)
    return device if own is None else replace(device, own=own)


def own_results(recipe: Recipe) -> MeasuredResults | None:
    """What was measured on the card at hand.

    Raises:
        SetupError: the file cannot be read, or a CPU wrote it.
    """
    if recipe.target.measured is None:
        return None
    try:
        own = MeasuredResults.load(Path(recipe.target.measured))
    except MeasuredResultsError as error:
        raise SetupError(f"target.measured: {error}") from error
    if not own.on_card:
        raise SetupError(
            f"target.measured: {recipe.target.measured} was written on a CPU, which says nothing of a card; run"
            " benchmarks/hopper_gpu.py on the card"
        )
    return own


def _speedup(own: MeasuredResults, gemm: Gemm) -> float | None:
    """How many times as fast FP8 with a static scale was as bf16; None where either was not measured."""
    bf16 = own.seconds("bf16", gemm.m, gemm.n, gemm.k)
    fp8 = own.seconds("fp8_e4m3", gemm.m, gemm.n, gemm.k, quantizes="static")
    return None if bf16 is None or fp8 is None else bf16 / fp8
