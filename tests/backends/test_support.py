from dataclasses import replace

import pytest

from backends.hopper.backend import HopperBackend
from backends.hopper.support import OPERATIONS, ROUTES, Route, route_of
from backends.tenstorrent.backend import TenstorrentBackend
from precision.blocks import known_formats
from precision.policy import FIDELITIES, Scheme
from precision.site import Site

LINEAR = Site("ff", "linear", (64, 32), 32, 64, 100.0, feeds="out")
CONV = Site("conv", "conv1d", (64, 32, 3), 96, 64, 100.0, kernel=3, feeds="up")
UP = Site("up", "conv_transpose1d", (64, 32, 8), 128, 32, 100.0, kernel=8)
WIDE_LINEAR = Site("wide", "linear", (64, 250), 250, 64, 100.0)
LONG_CONV = Site("long", "conv1d", (64, 64, 7), 448, 64, 100.0, kernel=7)
PRODUCT = Site("attention#qk", "matmul", (), 16, 64, 100.0)
TENSIX = Scheme("t", "bfp8_b", "bf16", fidelity="lofi")
FP8 = Scheme("f", "fp8_e4m3", "fp8_e4m3")
E5M2 = replace(FP8, activation="fp8_e5m2")
WORMHOLE, BLACKHOLE, HOPPER = TenstorrentBackend("wormhole"), TenstorrentBackend("blackhole"), HopperBackend()
ENGINE, GEMMS = HopperBackend("tensorrt"), HopperBackend("gemm")


@pytest.mark.parametrize("site", [LINEAR, CONV, UP, PRODUCT])
@pytest.mark.parametrize("fmt", ["bf16", "bfp8_b", "bfp4_b", "fp32"])
def test_blackhole_takes_what_ttnn_stores(site, fmt):
    for fidelity in FIDELITIES:
        assert BLACKHOLE.refuses(site, replace(TENSIX, weight=fmt, fidelity=fidelity)) is None


@pytest.mark.parametrize(
    ("changes", "site", "reason"),
    [
        ({"weight": "bfp2_b"}, LINEAR, "no bfp2_b; use bfp4_b"),
        ({"weight": "fp8_e4m3"}, LINEAR, "use bfp8_b"),
        ({"activation": "int8"}, PRODUCT, "use bfp8_b"),
        ({"activation": "bfp4_b"}, CONV, "convolutions take"),
        ({"fidelity": None}, LINEAR, "fidelity missing"),
        ({"levers": ("fidelity_rounding",), "fidelity": "hifi2"}, LINEAR, "drop the lever, or use lofi"),
        ({"bias_apart": True}, CONV, "use activation and accumulate fp32"),
        ({"levers": ("fidelity_rounding",), "weight": "bfp4_b"}, LINEAR, "reads all bits of bfp4_b"),
        ({"levers": ("gain_folding",), "fidelity": "hifi3"}, LINEAR, "drop the lever"),
        ({"levers": ("gain_folding",), "fidelity": "hifi2", "activation": "bfp8_b"}, LINEAR, "drop the lever"),
        ({"levers": ("error_feedback",), "weight": "fp32", "fidelity": "hifi3"}, LINEAR, "nothing to feed back"),
        ({"levers": ("bias_correction",), "weight": "fp32", "fidelity": "hifi3"}, CONV, "shifts no mean"),
        ({"levers": ("col_tilize",)}, CONV, "prepares the weights of a conv1d itself"),
        ({"levers": ("col_tilize",)}, UP, "prepares the weights of a conv_transpose1d itself"),
        ({"levers": ("col_tilize",), "weight": "bf16"}, LINEAR, "store bfp8_b or bfp4_b"),
        ({"levers": ("channel_order",), "weight": "bf16"}, LINEAR, "order means nothing"),
        ({"in0_block_w": 0}, LINEAR, "use 1 or more"),
        ({"in0_block_w": 3}, WIDE_LINEAR, "divide the tiles of K, 8 here (k=250); use 2"),
        ({"in0_block_w": 16}, WIDE_LINEAR, "use 8"),
        ({"in0_block_w": 2}, PRODUCT, "use 1"),
        ({"in0_block_w": 1}, LONG_CONV, "8 channels with all 7 taps; use 2 or more"),
    ],
)
def test_tenstorrent_says_why_not_and_what_instead(changes, site, reason):
    for backend in (WORMHOLE, BLACKHOLE):
        assert reason in (backend.refuses(site, replace(TENSIX, **changes)) or "")


@pytest.mark.parametrize(
    ("changes", "site"),
    [
        ({"levers": ("fidelity_rounding", "error_feedback", "bias_correction", "col_tilize", "channel_order")}, LINEAR),
        ({"levers": ("error_feedback",), "weight": "fp32"}, CONV),
        ({"levers": ("bias_correction",), "weight": "fp32", "fidelity": "hifi2"}, UP),
        ({"levers": ("channel_order",), "weight": "bf16", "activation": "bfp8_b"}, CONV),
        ({"in0_block_w": 4, "packer_l1_acc": True}, WIDE_LINEAR),
        ({"in0_block_w": 2, "packer_l1_acc": True}, LONG_CONV),
        ({"in0_block_w": 2}, replace(LONG_CONV, weight_shape=(64, 4, 7), k=28)),
        ({"in0_block_w": 2}, UP),
        ({"in0_block_w": 1}, PRODUCT),
        ({"bias_apart": True, "activation": "fp32"}, CONV),
    ],
)
def test_tenstorrent_takes_levers_and_blocks_that_fit(changes, site):
    assert BLACKHOLE.refuses(site, replace(TENSIX, **changes)) is None


def test_only_wormhole_refuses_hifi4_with_fp32_sums():
    scheme = replace(TENSIX, fidelity="hifi4")
    assert "use hifi3" in (WORMHOLE.refuses(LINEAR, scheme) or "")
    assert WORMHOLE.refuses(LINEAR, replace(scheme, accumulate="bf16")) is None
    assert BLACKHOLE.refuses(LINEAR, scheme) is None


def test_weights_do_not_matter_where_there_are_none():
    scheme = replace(TENSIX, weight="bfp2_b", levers=("fidelity_rounding",), fidelity="hifi2")
    assert BLACKHOLE.refuses(PRODUCT, scheme) is None
    assert HOPPER.refuses(PRODUCT, replace(FP8, weight="int8", levers=("gain_folding",))) is None


@pytest.mark.parametrize("site", [LINEAR, CONV, PRODUCT])
def test_an_engine_takes_static_e4m3(site):
    assert HOPPER.refuses(site, FP8) is None
    assert ENGINE.refuses(site, FP8) is None
    assert route_of(site, FP8) == "tensorrt"


@pytest.mark.parametrize("fmt", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("site", [LINEAR, CONV, UP, PRODUCT])
def test_hopper_takes_every_wide_format_everywhere(site, fmt):
    for backend in (HOPPER, ENGINE, GEMMS):
        assert backend.refuses(site, replace(FP8, weight=fmt, activation=fmt)) is None
        assert backend.refuses_in_stream(site, replace(FP8, weight=fmt, activation=fmt)) is None


@pytest.mark.parametrize(
    ("changes", "site", "reason"),
    [
        ({"fidelity": "lofi"}, LINEAR, "leave fidelity out"),
        ({"accumulate": "bf16"}, LINEAR, "use accumulate fp32"),
        ({"levers": ("gain_folding",)}, LINEAR, "drop them"),
        ({"packer_l1_acc": True}, PRODUCT, "Hopper has no packer"),
        ({"bias_apart": True}, PRODUCT, "leave it out"),
        ({"in0_block_w": 2}, LINEAR, "choose their own blocks"),
        ({"weight": "bfp8_b"}, LINEAR, "use fp8_e4m3"),
        ({"weight": "bf16"}, LINEAR, "both in FP8"),
        ({"weight": "bf16", "activation": "fp16"}, LINEAR, "operands must agree"),
        ({"weight": "fp8_e5m2", "activation": "fp8_e5m2"}, LINEAR, "one E5M2 operand at most"),
        ({"activation": "fp8_e5m2"}, PRODUCT, "one E5M2 operand at most"),
        ({}, replace(LINEAR, n=1), "matrix-vector"),
    ],
)
def test_what_no_route_can_is_said_once(changes, site, reason):
    told = {backend.refuses(site, replace(FP8, **changes)) for backend in (HOPPER, ENGINE, GEMMS)}
    assert len(told) == 1
    assert reason in (told.pop() or "")


@pytest.mark.parametrize(
    ("changes", "site", "engine", "gemms"),
    [
        ({}, UP, "no FP8 transposed convolution is known", "only linear layers have FP8"),
        ({}, replace(CONV, groups=2), "no groups, got 2", "only linear layers have FP8"),
        ({}, replace(CONV, weight_shape=(64, 16, 3)), "input channels", "only linear layers have FP8"),
        ({}, replace(CONV, weight_shape=(40, 32, 3)), "output channels", "only linear layers have FP8"),
        ({}, replace(CONV, kernel=33), "at most 32 taps", "only linear layers have FP8"),
        ({"activation": "fp8_e5m2"}, CONV, "there is no E5M2; use fp8_e4m3", "only linear layers have FP8"),
        ({"weight": "fp8_e5m2"}, replace(LINEAR, n=30), "there is no E5M2", "multiples of 16, got k=32 n=30"),
        ({"activation_scale": "dynamic"}, replace(LINEAR, k=30), "use static", "multiples of 16, got k=30 n=64"),
        ({"activation_scale": "dynamic"}, PRODUCT, "use static", "a product of two activations is one a head"),
    ],
)
def test_where_both_routes_refuse_each_says_why(changes, site, engine, gemms):
    scheme = replace(FP8, **changes)
    alone = ENGINE.refuses(site, scheme) or "", GEMMS.refuses(site, scheme) or ""
    assert alone[0].startswith("TensorRT: ")
    assert alone[1].startswith("GEMM path: ")
    assert engine in alone[0]
    assert gemms in alone[1]
    assert HOPPER.refuses(site, scheme) == ". ".join(alone)


@pytest.mark.parametrize(
    "site", [replace(CONV, kernel=32), replace(CONV, weight_shape=(32, 32, 3)), replace(CONV, op="conv2d")]
)
def test_what_a_limit_still_allows_is_taken(site):
    assert ENGINE.refuses(site, FP8) is None


@pytest.mark.parametrize(
    "scheme",
    [E5M2, replace(FP8, weight="fp8_e5m2"), replace(FP8, activation_scale="dynamic"), Scheme("w", "fp8_e5m2", "bf16")],
)
def test_what_an_engine_has_not_runs_as_plain_gemms(scheme):
    assert HOPPER.refuses(LINEAR, scheme) is None
    assert GEMMS.refuses(LINEAR, scheme) is None
    assert (ENGINE.refuses(LINEAR, scheme) or "").startswith("TensorRT: ")
    assert route_of(LINEAR, scheme) == "gemm"


@pytest.mark.parametrize("backend", [HOPPER, ENGINE, GEMMS])
@pytest.mark.parametrize("site", [LINEAR, CONV, UP])
def test_weights_may_be_stored_in_fp8_and_multiplied_in_16_bits(site, backend):
    assert backend.refuses(site, Scheme("stored", "fp8_e4m3", "bf16")) is None


def test_a_stream_has_one_scale_for_all_of_it():
    dynamic = replace(FP8, activation_scale="dynamic")
    assert HOPPER.refuses(LINEAR, dynamic) is None
    for backend in (HOPPER, GEMMS, ENGINE):
        assert "use static" in (backend.refuses_in_stream(LINEAR, dynamic) or "")
    assert HOPPER.refuses_in_stream(LINEAR, FP8) is None
    assert HOPPER.refuses_in_stream(LINEAR, replace(dynamic, weight="bf16", activation="bf16")) is None


@pytest.mark.parametrize("route", ROUTES)
def test_every_row_has_a_source_and_formats_or_what_to_use_instead(route: Route):
    for row in OPERATIONS[route].values():
        assert row.source
        assert bool(row.formats) != bool(row.refused)
        assert row.formats or "; use " in row.refused


def test_every_known_format_gets_an_answer():
    for fmt in known_formats():
        for backend, scheme in ((BLACKHOLE, TENSIX), (HOPPER, FP8), (ENGINE, FP8), (GEMMS, FP8)):
            for operand in ("weight", "activation"):
                reason = backend.refuses(LINEAR, replace(scheme, **{operand: fmt}))
                assert reason is None or ": " in reason
