"""Timing of a launch on a card that NVIDIA measured, or its owner did: the row, or what the formula makes of it."""

from dataclasses import dataclass
from functools import lru_cache

from backends.devices import OwnProducts, Quantizes
from backends.evidence import Evidence
from backends.gemm import OUTPUT_BITS, Gemm
from backends.gemm_formula import Product, Weights
from backends.gemm_model import BITS, GemmModel
from backends.gemm_tables import DataType
from precision.blocks import stored_bits
from precision.policy import Scheme

OWN_ERROR = 0.1
"""Relative error of a product that the card at hand was measured at; an assumption: what runs beside it differs."""
ALIKE = 0.02
"""Relative difference, by the formula, up to which a launch is the one that was measured: of where its weights lie."""
MEASURED_FORMATS: dict[DataType, str] = {"bf16": "bf16", "fp8": "fp8_e4m3"}


ASSUMPTIONS: tuple[str, ...] = (
    "on H100 SXM, H200 SXM and L40S a product takes what NVIDIA measured (TensorRT-LLM in a CUDA graph), interpolated "
    "between sizes: `measured`; all else there takes what a formula has that was fitted to those rows and bent to go "
    "through them: `calibrated`; what is no product, and rates that nobody measured, rest on data sheets: `roofline`. "
    "The range is the error that 90 % of held-out rows stay below (benchmarks/cost.py), not of what a server loses "
    "beside",
    "FP8 with a static scale is the share of NVIDIA's row, which finds a scale and quantizes, that the formula gives "
    "to the product alone; at most what bf16's rate would have for the same bytes. With a dynamic scale it is the row",
    "rows were measured with up to five copies of the weights taking turns, so those of less than a fifth of the L2 "
    "cache came from there: weights of a model that stays on chip take no more than the row, those of a larger one no "
    "less, and by the formula what they take from L2 or from DRAM",
    "a convolution is looked up as the product it comes to, and takes less by the formula, as a tap reads nothing "
    "anew; many small products of one launch (groups, heads, streams) take what the formula has for them together",
)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a launch takes."""

    seconds: float
    evidence: Evidence
    error: float
    """Relative: the range is from 1 - error to 1 + error of the seconds."""


def launch_timing(
    device_name: str, gemm: Gemm, scheme: Scheme, rate: str, *, dynamic: bool, weights_on_chip: bool
) -> Timing | None:
    """How long a launch takes on a card of NVIDIA's tables; None for any other, and for rates they do not have.

    Args:
        device_name: as devices.yaml has it.
        gemm: the launch.
        scheme: formats of its operands.
        rate: at which it runs, of `backends.gemm.rate_key`.
        dynamic: whether the launch finds the activation's scale and applies it; of FP8 alone.
        weights_on_chip: whether the weights are in the L2 cache from the launch before.
    """
    model = GemmModel.of(device_name)
    if model is None or rate not in MEASURED_FORMATS:
        return None
    bits = (stored_bits(scheme.activation), stored_bits(scheme.weight))
    dtype: DataType = "fp8" if rate == "fp8" else "bf16"
    formats = {scheme.activation, scheme.weight}
    exact = formats == {MEASURED_FORMATS[dtype]} and dynamic == (dtype == "fp8")
    return _timing(model, gemm, bits, dtype, dynamic, weights_on_chip, exact)


def own_timing(own: OwnProducts, gemm: Gemm, scheme: Scheme, *, dynamic: bool, weights_on_chip: bool) -> Timing | None:
    """How long the user's own card took for a launch; None where it was not measured at just that product."""
    formats = {scheme.activation, scheme.weight} if gemm.has_weights else {scheme.activation}
    named = next(iter(formats))
    if len(formats) > 1 or named not in MEASURED_FORMATS.values() or gemm.count > 1:
        return None
    if gemm.input_elements < gemm.m * gemm.k:
        return None
    quantizes: Quantizes = "dynamic" if dynamic else "none"
    states = ("warm" if weights_on_chip else "cold", None)
    found = (own.seconds(named, gemm.m, gemm.n, gemm.k, quantizes, cache) for cache in states)
    seconds = next((value for value in found if value is not None), None)
    return None if seconds is None else Timing(seconds, "measured", OWN_ERROR)


@lru_cache(maxsize=1 << 16)
def _timing(
    model: GemmModel,
    gemm: Gemm,
    bits: tuple[float, float],
    dtype: DataType,
    dynamic: bool,
    weights_on_chip: bool,
    exact: bool,
) -> Timing:
    weights: Weights = "warm" if weights_on_chip or not gemm.has_weights else "cold"

    def asked(rate: DataType, bits: tuple[float, float], dynamic: bool = False) -> tuple[float, bool]:
        return _us(model, gemm, bits, rate, dynamic, weights)

    us, as_measured = asked(dtype, bits, dynamic)
    if dtype == "fp8" and not dynamic:
        # The product alone is a difference of rows, and noise of it must not be told for a cost or a gain. It moves
        # half the bytes at twice the rate, so it takes no more than those bytes at bf16's rate, no more than with the
        # quantization, and but for the launch no less than half of bf16.
        launch = model.formulas["bf16"].launch_us
        half = launch + 0.5 * (asked("bf16", (16, 16))[0] - launch)
        us = min(max(us, half), asked("bf16", bits)[0], asked("fp8", bits, True)[0])
    evidence: Evidence = "measured" if as_measured and exact else "calibrated"
    return Timing(us * 1e-6, evidence, model.errors[dtype][evidence])


def _us(
    model: GemmModel, gemm: Gemm, bits: tuple[float, float], dtype: DataType, dynamic: bool, weights: Weights
) -> tuple[float, bool]:
    """Microseconds: the row of that size times what the formula has for the launch by what it has for the row's.

    Returns:
        Them, and whether they are the row's own, on or between measured points.
    """
    formula, own_bits = model.formulas[dtype], BITS[dtype]
    left, right = bits
    product = Product(
        gemm.m,
        gemm.n,
        gemm.k,
        gemm.count,
        left,
        right if gemm.has_weights else left,
        max(OUTPUT_BITS, left),
        weights,
        gemm.input_elements,
    )
    us = float(formula.product_us(product))
    if dynamic:
        us += float(formula.quantize_activation_us(gemm.input_elements + gemm.right_elements))
    if gemm.count > 1:
        return us, False  # a row is of one product, and many small ones fill a card that one does not
    m, n, k = gemm.m, gemm.n, gemm.k
    as_measured = float(model.row_us(dtype, m, n, k))
    row_here = float(formula.product_us(Product(m, n, k, 1, own_bits, own_bits, weights=weights)))
    if dtype == "fp8":
        row_here += float(formula.quantize_activation_us(m * k))
    correction, inside = model.correction(dtype, m, n, k)
    row = as_measured * correction
    if abs(row_here / as_measured - 1) > ALIKE:
        # The row's weights lay elsewhere: what comes from DRAM takes no less than the row, what is in L2 no more.
        row, inside = (max if weights == "cold" else min)(row, row_here), False
    share = us / row_here
    return row * share, inside and abs(share - 1) < 1e-9
