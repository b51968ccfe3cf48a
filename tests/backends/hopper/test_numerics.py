import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from backends.hopper.numerics import (
    FP8_TYPES,
    HopperArithmetic,
    activation_scale,
    fp8_scale,
    quantize_fp8,
    round_fp8,
    round_wide,
    site_weight,
    spread_over_weight,
    stored_format,
    weight_scale,
)
from calibrate.calibration import Calibration, UncalibratedSiteError
from precision.formats import FORMATS, dequantize, quantize, round_to
from precision.policy import Scheme
from tests.backends.hopper.by_hand import random
from voice.site_call import ConvOptions, SiteCall

HOPPER = HopperArithmetic()
ORACLES = {"fp8_e4m3": ml_dtypes.float8_e4m3fn, "fp8_e5m2": ml_dtypes.float8_e5m2}


def call_of(op, x, weight, bias=None, options=None):
    return SiteCall("site", op, x, weight, bias, options, is_product=op == "matmul", index=0)


def scheme_of(**fields):
    return Scheme("s", **{"weight": "fp8_e4m3", "activation": "fp8_e4m3", **fields})


def snr_db(exact, got):
    return float(10 * torch.log10(exact.double().square().sum() / (exact.double() - got.double()).square().sum()))


def inputs(fmt):
    """Float32 of every kind: all bf16, all fp16, all codes, what lies halfway between and its neighbours."""
    patterns = np.arange(1 << 16, dtype=np.uint16)
    codes = np.arange(256, dtype=np.uint8).view(ORACLES[fmt]).astype(np.float32)
    grid = np.unique(codes[np.isfinite(codes)])
    largest = np.float64(grid[-1])
    # The last midpoint is that of the largest value and the one that would follow it.
    grid = np.concatenate([grid, [2 * largest - grid[-2], -(2 * largest - grid[-2])]]).astype(np.float64)
    grid.sort()
    middles = ((grid[1:] + grid[:-1]) / 2).astype(np.float32)
    random_bits = np.random.default_rng(0).integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    return np.concatenate(
        [
            (patterns.astype(np.uint32) << 16).view(np.float32),
            patterns.view(np.float16).astype(np.float32),
            codes,
            middles,
            np.nextafter(middles, np.float32(-np.inf)),
            np.nextafter(middles, np.float32(np.inf)),
            random_bits.view(np.float32),
            np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4028235e38]),
        ]
    )


def bits_of(values, fmt, scale=1.0):
    return quantize_fp8(torch.from_numpy(values), scale, fmt).view(torch.uint8).numpy()


@pytest.mark.parametrize("fmt", ORACLES)
def test_codes_are_those_of_torch_and_ml_dtypes_for_every_kind_of_float(fmt):
    values = inputs(fmt)
    got = bits_of(values, fmt)
    nan = np.isnan(values)
    assert nan.any()
    largest = np.float32(FORMATS[fmt].max_value)
    # What is beyond the largest value is saturated first: the casts themselves do not agree on it.
    within = np.clip(values, -largest, largest)
    assert np.array_equal(got[~nan], within[~nan].astype(ORACLES[fmt]).view(np.uint8))
    assert np.array_equal(got, torch.from_numpy(within).to(FP8_TYPES[fmt]).view(torch.uint8).numpy())
    assert np.array_equal(got[~nan], quantize(values[~nan], FORMATS[fmt]))
    read = quantize_fp8(torch.from_numpy(values), 1.0, fmt).to(torch.float32).numpy()
    assert np.array_equal(read, round_fp8(torch.from_numpy(values), fmt).numpy(), equal_nan=True)
    assert np.array_equal(read[~nan], dequantize(got[~nan], FORMATS[fmt]))
    # NaN keeps its sign, in the code of all ones.
    assert np.array_equal(got[nan], np.where(np.signbit(values[nan]), 0xFF, 0x7F))
    # Every code is reached but those that are not finite, of which there is one NaN.
    unused = set() if fmt == "fp8_e4m3" else {0x7C, 0x7D, 0x7E, 0xFC, 0xFD, 0xFE}
    assert set(range(256)) - set(got.tolist()) == unused


@pytest.mark.parametrize(("fmt", "step"), [("fp8_e4m3", 32.0), ("fp8_e5m2", 8192.0)])
def test_without_saturation_the_casts_differ_from_here_and_from_each_other(fmt, step):
    """States the rule: ours is the nearest value where one is near enough, and the largest one beyond."""
    largest = FORMATS[fmt].max_value
    below, beyond = np.float32(largest + step / 2 * 0.999), np.float32(largest + step)
    values = np.float32([below, beyond, np.inf, -beyond])
    assert round_fp8(torch.from_numpy(values), fmt).tolist() == [largest, largest, largest, -largest]
    with np.errstate(invalid="ignore", over="ignore"):
        casts = values.astype(ORACLES[fmt]).astype(np.float32)
    assert casts[0] == largest
    assert not np.isfinite(casts[1:]).any()


ONNX_TYPES = {"fp8_e4m3": onnx.TensorProto.FLOAT8E4M3FN, "fp8_e5m2": onnx.TensorProto.FLOAT8E5M2}


def onnx_bits(values, scale, fmt, axis=1):
    """What onnx's own evaluator of QuantizeLinear gives, which TensorRT and ONNX Runtime are to agree with."""
    kind, shape = ONNX_TYPES[fmt], list(scale.shape)
    zero = onnx.helper.make_tensor("zero", kind, shape, bytes(scale.numel()), raw=True)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"], axis=axis, saturate=1)],
        "quantize",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, values.shape)],
        [onnx.helper.make_tensor_value_info("y", kind, values.shape)],
        [onnx.numpy_helper.from_array(scale.numpy(), "scale"), zero],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    with np.errstate(invalid="ignore", over="ignore"):
        (codes,) = ReferenceEvaluator(model).run(None, {"x": values})
    return np.asarray(codes).view(np.uint8)


@pytest.mark.parametrize("fmt", ORACLES)
@pytest.mark.parametrize("amax", [1.0, 448.0, 57344.0, 0.37, 3e-5, 71234.5])
def test_onnx_quantizes_to_the_same_codes(fmt, amax):
    scale = fp8_scale(torch.tensor(amax), fmt)
    values = inputs(fmt)
    nan = np.isnan(values)
    wanted, got = onnx_bits(values, scale, fmt), bits_of(values, fmt, scale)
    assert np.array_equal(got[~nan], wanted[~nan])
    assert np.isnan(wanted[nan].view(ORACLES[fmt]).astype(np.float32)).all()


@pytest.mark.parametrize("fmt", ORACLES)
@pytest.mark.parametrize(
    ("op", "shape", "axis"), [("linear", (6, 9), 0), ("conv1d", (6, 4, 3), 0), ("conv_transpose1d", (8, 3, 5), 1)]
)
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_onnx_quantizes_weights_to_the_same_codes(fmt, op, shape, axis, granularity):
    weight = random(*shape)
    codes, scale = site_weight(weight, op, 1, scheme_of(weight=fmt, weight_scale=granularity))
    assert codes.dtype == FP8_TYPES[fmt]
    assert scale.shape == ((shape[axis],) if granularity == "channel" else (1,))
    wanted = onnx_bits(weight.numpy(), scale if granularity == "channel" else scale[0], fmt, axis)
    assert np.array_equal(codes.view(torch.uint8).numpy(), wanted)
    read = codes.to(torch.float32) * spread_over_weight(scale, weight, op, 1)
    assert snr_db(weight, read) > (30 if fmt == "fp8_e4m3" else 24)


def test_a_grouped_transposed_convolution_has_a_scale_for_each_channel_of_each_group():
    weight = random(8, 3, 5) * torch.arange(1.0, 9.0).view(-1, 1, 1)
    codes, scale = site_weight(weight, "conv_transpose1d", 2, scheme_of())
    spread = spread_over_weight(scale, weight, "conv_transpose1d", 2)
    for group in range(2):
        for channel in range(3):
            part = weight[4 * group : 4 * group + 4, channel]
            assert torch.equal(spread[4 * group : 4 * group + 4, channel], (part.abs().amax() / 448).expand(4, 1))
    assert torch.equal(codes.to(torch.float32), round_fp8(weight / spread, "fp8_e4m3"))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_weight_that_is_not_finite_is_refused(value):
    weight = random(4, 4)
    weight[1, 2] = value
    with pytest.raises(ValueError, match="the weight has Inf or NaN"):
        site_weight(weight, "linear", 1, scheme_of())
    for fields in ({}, {"weight": "bf16", "activation": "bf16"}):
        with pytest.raises(ValueError, match="site site: the weight has Inf or NaN"):
            HOPPER.prepare(call_of("linear", random(2, 4), weight), scheme_of(**fields))


def test_scales_of_activations():
    values = torch.tensor([[0.5, -3.5], [2.0, 0.0]])
    calibration = Calibration.of("amax", {"site": {"input": 7.0, "right": 14.0}})
    static, dynamic = scheme_of(), scheme_of(activation_scale="dynamic", activation="fp8_e5m2")
    assert activation_scale("site", "input", static, calibration).item() == 7.0 / 448
    assert activation_scale("site", "right", static, calibration, values).item() == 14.0 / 448
    assert activation_scale("site", "input", dynamic, None, values).item() == 3.5 / 57344
    with pytest.raises(ValueError, match=r"'site'.*give the values"):
        activation_scale("site", "input", dynamic, calibration)
    with pytest.raises(UncalibratedSiteError, match="its left"):
        activation_scale("site", "left", static, calibration)
    # Zeros have the scale 1, and one NaN does not spoil the others.
    assert fp8_scale(torch.tensor([0.0, torch.nan, 448.0]), "fp8_e4m3").tolist() == [1.0, 1.0, 1.0]
    spoilt = quantize_fp8(torch.tensor([torch.nan, 3.0]), fp8_scale(torch.tensor(torch.nan), "fp8_e4m3"), "fp8_e4m3")
    assert spoilt.to(torch.float32)[1] == 3.0


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_narrow_values_are_widened_before_they_are_scaled(kind):
    values, scale = random(64).to(kind), torch.tensor(0.0123)
    wide = quantize_fp8(values.to(torch.float32), scale, "fp8_e4m3")
    assert torch.equal(quantize_fp8(values, scale, "fp8_e4m3").view(torch.uint8), wide.view(torch.uint8))


@pytest.mark.parametrize(("fmt", "start", "step"), [("fp16", 2048.0, 2.0), ("bf16", 256.0, 2.0)])
def test_sums_of_16_bit_products_are_not_rounded_on_the_way(fmt, start, step):
    # Beside the first value a one is half a step of the format: added one by one in it, all would be lost.
    ones = 10
    x = torch.tensor([[start] + [1.0] * ones, [start * start] + [0.0] * ones])
    call = call_of("linear", x, torch.ones(1, ones + 1), torch.tensor([step]))
    scheme = scheme_of(weight=fmt, activation=fmt)
    got = HOPPER.compute(call, scheme, HOPPER.prepare(call, scheme), None)
    assert got[0, 0] == start + ones + step
    assert got[1, 0] == (torch.inf if fmt == "fp16" else start * start)
    assert stored_format(scheme) == fmt
    assert stored_format(scheme_of(weight=fmt)) == "bf16"


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
