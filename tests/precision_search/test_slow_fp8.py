"""FP8 that was measured to be slower than bf16 is not lowered for nothing."""

import json
import re

import pytest

from backends.cost import CostModel
from backends.devices import load_devices
from backends.gemm_tables import GemmTable
from backends.hopper.measured_results import VERSION
from precision.site import Site
from precision_search.setting import SetupError
from precision_search.slow_fp8 import slow_fp8
from precision_search.wire import read_recipe

SMALL = Site("small", "linear", (1024, 1024), 1024, 1024, 50.0)
LARGE = Site("large", "linear", (14336, 4096), 4096, 14336, 250.0)
ATTENTION = Site("attention#qk", "matmul", (), 64, 64, 50.0, groups=8)
GROUPED = Site("grouped", "conv1d", (256, 64, 3), 192, 64, 50.0, groups=4, kernel=3)
TINY = Site("tiny", "linear", (16, 1024), 1024, 16, 50.0)
SITES = (SMALL, LARGE, ATTENTION, GROUPED, TINY)


def refused(*overrides: str, device: str = "h100_sxm") -> dict[tuple[str, str], str]:
    recipe = read_recipe("tts_hopper", ("target.slow_fp8=refuse", *overrides))
    space = {site.name: recipe.schemes for site in SITES}
    return slow_fp8(recipe, load_devices()[device], SITES, space)


def test_only_a_layer_that_was_measured_slower_is_refused_and_only_in_fp8():
    told = refused()
    assert list(told) == [("small", "fp8_e4m3")]
    table = GemmTable.of("h100_sxm")
    assert table is not None
    gemm = CostModel(load_devices()["h100_sxm"], streams=32).gemm_of(SMALL)
    speedup = table.fp8_speedup(gemm.m, gemm.n, gemm.k)
    large = table.fp8_speedup(4000, 14336, 4096)
    assert speedup is not None
    assert large is not None
    assert speedup < 0.5 < 1 < large
    assert (
        f"FP8 was measured at {speedup:.2f} of bf16's speed at m=800 n=1024 k=1024 on H100 SXM"
        in told["small", "fp8_e4m3"]
    )
    assert told["small", "fp8_e4m3"].endswith("; use bf16, or set target.slow_fp8: allow")


def test_rows_follow_the_streams_of_the_recipe():
    few, many = (refused(f"cost.streams={streams}")["small", "fp8_e4m3"] for streams in (1, 64))
    assert "m=25 " in few
    assert "m=1600 " in many
    slow, less_slow = (float(re.search(r"at (\d\.\d\d) of", said)[1]) for said in (few, many))  # type: ignore[index]
    assert slow < less_slow < 1


def test_rows_follow_the_chunk_of_the_recipe():
    assert "m=200 " in refused("cost.chunk_ms=125")["small", "fp8_e4m3"]


@pytest.mark.parametrize(
    ("overrides", "device"),
    [
        (("target.slow_fp8=allow",), "h100_sxm"),
        (("baseline=fp8_e4m3",), "h100_sxm"),
        ((), "h100_pcie"),
        ((), "p150a"),
    ],
)
def test_nothing_is_refused_where_slow_fp8_is_allowed_or_the_baseline_or_was_not_measured(overrides, device):
    assert refused(*overrides, device=device) == {}


def results(path, fp8_us: float, kind: str = "cuda"):
    """A results file with one product, that of SMALL at 32 streams."""
    row = {"m": 800, "n": 1024, "k": 1024, "spread_us": 0.1, "cache": "warm"}
    rows = [
        {**row, "dtype": "bf16", "us": 10.0, "quantizes": "none"},
        {**row, "dtype": "fp8_e4m3", "us": fp8_us, "quantizes": "static"},
    ]
    parts = {part: {"rows": []} for part in ("sites", "kernels", "numerics")}
    environment = {"type": kind, "device": "NVIDIA H100 80GB HBM3"}
    path.write_text(json.dumps({"version": VERSION, "environment": environment, "gemm": {"rows": rows}, **parts}))
    return f"target.measured={path}"


def test_what_the_card_at_hand_did_goes_before_the_table(tmp_path):
    assert ("small", "fp8_e4m3") not in refused(results(tmp_path / "fast.json", fp8_us=8.0))
    told = refused(results(tmp_path / "slow.json", fp8_us=12.5))["small", "fp8_e4m3"]
    assert "at 0.80 of bf16's speed at m=800 n=1024 k=1024 on NVIDIA H100 80GB HBM3" in told


def test_results_that_say_nothing_of_a_card_are_refused(tmp_path):
    with pytest.raises(SetupError, match="was written on a CPU"):
        refused(results(tmp_path / "cpu.json", fp8_us=8.0, kind="cpu"))
    with pytest.raises(SetupError, match=r"target.measured: .*nothing.json: cannot be read"):
        refused(f"target.measured={tmp_path / 'nothing.json'}")
