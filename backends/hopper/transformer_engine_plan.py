"""Which layers of a model become te.Linear, under which recipe, and which cannot; the library is not needed for it."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from backends.base import BuildError
from backends.hopper.numerics import FP8_TYPES
from calibrate.calibration import Calibration, UncalibratedSiteError
from precision.policy import Policy, Scheme

FEATURES = 16
"""Features in and out of an FP8 layer there are multiples of this."""
RecipeName = Literal["DelayedScaling", "Float8CurrentScaling"]


@dataclass(frozen=True, slots=True)
class Replacement:
    """A linear layer that becomes a te.Linear."""

    site: str
    recipe: RecipeName
    """DelayedScaling for static scales, Float8CurrentScaling for those of each tensor."""
    input_amax: float | None
    """Magnitude that the static scale takes to 448; None where the scale is dynamic."""


def plan(module: nn.Module, policy: Policy, calibration: Calibration | None = None) -> tuple[Replacement, ...]:
    """Say which layers become te.Linear, and under which recipe.

    Raises:
        BuildError: naming all FP8 sites that Transformer Engine cannot have as their scheme says.
    """
    planned, faults = [], []
    layers = dict(module.named_modules())
    for site, scheme in policy.schemes:
        if scheme.activation not in FP8_TYPES:
            continue
        why = _refuses(layers.get(site), scheme)
        amax = None
        if why is None and scheme.activation_scale == "static":
            try:
                if calibration is None:
                    raise UncalibratedSiteError("a static activation scale, and there is no calibration; give one")
                amax = calibration.amax(site, "input")
            except UncalibratedSiteError as error:
                why = str(error).removeprefix(f"site {site!r}: ")
        if why is not None:
            faults.append(f"{site}: {why}")
        planned.append(Replacement(site, "Float8CurrentScaling" if amax is None else "DelayedScaling", amax))
    if faults:
        raise BuildError("Transformer Engine cannot have these sites\n  " + "\n  ".join(sorted(faults)))
    return tuple(planned)


def _refuses(layer: nn.Module | None, scheme: Scheme) -> str | None:
    """Why a layer cannot be a te.Linear under a scheme; None where it can."""
    for operand, fmt in (("activation", scheme.activation), ("weight", scheme.weight)):
        if fmt != "fp8_e4m3":
            return (
                f"{operand} {fmt}: its forward pass is E4M3 alone, E5M2 is for gradients there; use GemmEngine, or"
                " fp8_e4m3 for both"
            )
    # Of one type exactly: what derives from it may compute something else.
    if type(layer) is not nn.Linear:
        what = "no layer of its own" if layer is None else f"a {type(layer).__name__}"
        return f"it is {what}, and only an nn.Linear is replaced; use GemmEngine, or bf16"
    if scheme.weight_scale != "tensor":
        return "weight_scale channel: it has one scale for a weight; use GemmEngine, or weight_scale tensor"
    if scheme.adapted is not None:
        return f"trained weights {scheme.adapted}: a layer is replaced with its own; use GemmEngine"
    if layer.in_features % FEATURES or layer.out_features % FEATURES:
        return (
            f"{layer.in_features} features in and {layer.out_features} out: both must be multiples of {FEATURES};"
            " use bf16"
        )
    return None
