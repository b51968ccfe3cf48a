import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.hopper.numerics import HopperArithmetic, round_fp8, round_wide, weight_scale
from calibrate.calibration import Calibration, UncalibratedSiteError
from precision.formats import FORMATS, round_to
from precision.policy import Scheme
from voice.site_call import ConvOptions, SiteCall

HOPPER = HopperArithmetic()
ORACLES = {"fp8_e4m3": ml_dtypes.float8_e4m3fn, "fp8_e5m2": ml_dtypes.float8_e5m2}


def call_of(op, x, weight, bias=None, options=None):
    return SiteCall("site", op, x, weight, bias, options, is_product=op == "matmul", index=0)


def scheme_of(**fields):
    return Scheme("s", **{"weight": "fp8_e4m3", "activation": "fp8_e4m3", **fields})


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def snr_db(exact, got):
    return float(10 * torch.log10(exact.double().square().sum() / (exact.double() - got.double()).square().sum()))


@pytest.mark.parametrize("fmt", ORACLES)
def test_every_code_and_every_midpoint_agree_with_ml_dtypes(fmt):
    codes = np.arange(256, dtype=np.uint8).view(ORACLES[fmt]).astype(np.float32)
    grid = np.unique(codes[np.isfinite(codes)])
    middles = ((grid[1:].astype(np.float64) + grid[:-1]) / 2).astype(np.float32)
    values = np.concatenate(
        [grid, middles, np.nextafter(middles, np.float32(-1e9)), np.nextafter(middles, np.float32(1e9))]
    )
    want = values.astype(ORACLES[fmt]).astype(np.float32)
    got = round_fp8(torch.from_numpy(values), fmt).numpy()
    assert np.array_equal(got, want)
    assert np.array_equal(got, round_to(values, FORMATS[fmt]))


@pytest.mark.parametrize(("fmt", "largest"), [("fp8_e4m3", 448.0), ("fp8_e5m2", 57344.0)])
def test_what_lies_beyond_saturates_and_nan_stays(fmt, largest):
    values = torch.tensor([largest * 1.03, largest * 4, torch.inf, -torch.inf, 1e38])
    assert round_fp8(values, fmt).tolist() == [largest, largest, largest, -largest, largest]
    assert round_fp8(torch.tensor([torch.nan]), fmt).isnan().all()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=32))
def test_rounding_agrees_with_the_definition(values):
    given_values = np.array(values, np.float32)
    for fmt in ORACLES:
        assert np.array_equal(round_fp8(torch.from_numpy(given_values), fmt), round_to(given_values, FORMATS[fmt]))
    for fmt in ("bf16", "fp16", "fp32"):
        assert np.array_equal(round_wide(torch.from_numpy(given_values), fmt), round_to(given_values, FORMATS[fmt]))


@pytest.mark.parametrize(
    ("op", "shape", "groups", "channels"),
    [("linear", (6, 9), 1, 6), ("conv1d", (6, 4, 3), 1, 6), ("conv_transpose1d", (8, 3, 5), 2, 6)],
)
def test_scales_of_channels_take_each_to_the_largest_value(op, shape, groups, channels):
    weight = random(*shape)
    scale = weight_scale(weight, op, groups, scheme_of())
    assert scale.shape == (channels,)
    options = None if op == "linear" else ConvOptions((1,), (0,), (1,), groups, (0,))
    codes = HOPPER.prepare(
        call_of(op, random(1, 8 if groups == 2 else 4, 9), weight, None, options), scheme_of()
    ).weight
    if op == "conv_transpose1d":
        codes = codes.view(2, 4, 3, 5).transpose(1, 2).reshape(6, -1)
    assert torch.equal(codes.flatten(1).abs().amax(1), torch.full((channels,), 448.0))
    assert weight_scale(weight, op, groups, scheme_of(weight_scale="tensor")).shape == (1,)


def calls():
    one = ConvOptions((2,), (1,), (2,))
    up = ConvOptions((4,), (2,), (1,), groups=2, output_padding=(1,))
    return [
        call_of("linear", random(2, 5, 48), random(24, 48, seed=1), random(24, seed=2)),
        call_of("conv1d", random(2, 40, 30), random(32, 40, 5, seed=1), random(32, seed=2), one),
        call_of("conv_transpose1d", random(2, 40, 9), random(40, 12, 7, seed=1), random(24, seed=2), up),
        call_of("matmul", random(2, 3, 7, 40), random(2, 3, 40, 9, seed=1)),
    ]


@pytest.mark.parametrize("call", calls(), ids=lambda call: call.op)
@pytest.mark.parametrize(
    ("fields", "least"),
    [
        ({"activation_scale": "dynamic"}, 25),
        ({"weight_scale": "tensor"}, 25),
        ({"activation": "fp8_e5m2", "activation_scale": "dynamic"}, 20),
        ({"activation": "bf16"}, 28),
        ({"weight": "bf16", "activation": "bf16"}, 45),
        ({"weight": "fp16", "activation": "fp16"}, 60),
        ({"weight": "fp32", "activation": "fp32"}, 120),
    ],
)
def test_every_op_comes_near_its_exact_result(call, fields, least):
    scheme = scheme_of(**fields)
    operands = ("left", "right") if call.is_product else ("input",)
    tensors = {"input": call.x, "left": call.x, "right": call.weight}
    calibration = Calibration.of("amax", {"site": {name: float(tensors[name].abs().amax()) for name in operands}})
    got = HOPPER.compute(call, scheme, HOPPER.prepare(call, scheme), calibration)
    exact = call.compute()
    assert got.shape == exact.shape
    assert snr_db(exact, got) > least
    stored = "bf16" if scheme.activation.startswith("fp8") else scheme.activation
    assert torch.equal(got, round_wide(got, stored))


def test_a_linear_layer_is_codes_times_scales():
    x, weight, bias = random(4, 32), random(8, 32, seed=1), random(8, seed=2)
    call, scheme = call_of("linear", x, weight, bias), scheme_of()
    got = HOPPER.compute(call, scheme, HOPPER.prepare(call, scheme), Calibration.of("amax", {"site": {"input": 2.0}}))
    x_scale, scales = np.float32(2.0 / 448), weight.abs().amax(1, keepdim=True).numpy() / np.float32(448)
    x_codes = np.clip(x.numpy() / x_scale, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
    codes = (weight.numpy() / scales).astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
    want = (x_codes @ codes.T) * (x_scale * scales.T) + bias.to(torch.bfloat16).double().numpy()
    assert np.allclose(got.numpy(), want, rtol=2**-8, atol=1e-6)
    assert x.abs().max() > 2  # what was not calibrated for saturates


def test_a_static_scale_that_was_never_measured_is_named():
    call = call_of("linear", random(1, 4), random(2, 4))
    prepared = HOPPER.prepare(call, scheme_of())
    for calibration in (None, Calibration("amax", ())):
        with pytest.raises(UncalibratedSiteError, match="site 'site'"):
            HOPPER.compute(call, scheme_of(), prepared, calibration)


def test_zeros_stay_zeros():
    call = call_of("linear", torch.zeros(2, 4), torch.zeros(3, 4))
    scheme = scheme_of(activation_scale="dynamic")
    assert HOPPER.compute(call, scheme, HOPPER.prepare(call, scheme), None).eq(0).all()
