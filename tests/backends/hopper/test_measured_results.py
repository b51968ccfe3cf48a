import json

import pytest

from backends.hopper.accumulation import HOPPER_FP8
from backends.hopper.measured_results import MeasuredResults, MeasuredResultsError, results_of


def gemm(m, us, dtype="bf16", quantizes="none", cache="cold"):
    return {
        "m": m,
        "n": 64,
        "k": 32,
        "dtype": dtype,
        "quantizes": quantizes,
        "us": us,
        "spread_us": 0.1,
        "cache": cache,
    }


def timed(kernel, us, elements=1024, spread_us=0.1):
    told = {"operation": "fake_quantize", "fmt": "fp8_e4m3", "elements": elements, "kernel": kernel}
    return told | {"us": us, "spread_us": spread_us}


def told(**parts):
    model = {"step": 32, "fraction_bits": 13, "rounding": "truncate", "includes_accumulator": True}
    numerics = {"fitted": [{"fast": True, "model": model | {"promote_every": None}, "equal": 0.5, "max_ulp": 3}]}
    return {
        "version": 1,
        "environment": {"device": "NVIDIA H100 80GB HBM3", "type": "cuda", "torch": "2.13"},
        "numerics": numerics,
        "gemm": {"rows": [gemm(16, 10.0), gemm(64, 40.0), gemm(16, 5.0, cache="warm"), gemm(16, 7.0, "fp8_e4m3")]},
        "sites": {"failed": "out of memory"},
        "kernels": {
            "rows": [timed("torch", 9.0), timed("triton", 3.0), timed("torch", 2.0, 64), timed("triton", 1.95, 64)]
        },
    } | parts


@pytest.fixture
def write(tmp_path):
    def written(content):
        path = tmp_path / "results.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return written


def test_times_are_read_and_interpolated_in_logs_within_what_was_measured(write):
    held = MeasuredResults.load(write(told()))
    assert (held.device, held.on_card, held.environment["torch"]) == ("NVIDIA H100 80GB HBM3", True, "2.13")
    assert held.seconds("bf16", 16, 64, 32) == pytest.approx(10e-6)
    assert held.seconds("bf16", 32, 64, 32) == pytest.approx(20e-6)
    assert held.seconds("bf16", 16, 64, 32, cache="warm") == pytest.approx(5e-6)
    assert held.seconds("fp8_e4m3", 16, 64, 32) == pytest.approx(7e-6)
    for outside in ((8, 64, 32), (128, 64, 32), (16, 32, 32)):
        assert held.seconds("bf16", *outside) is None
    assert held.seconds("fp8_e4m3", 16, 64, 32, "dynamic") is None
    assert dict(held.not_measured) == {"sites": "out of memory"}


def test_the_fitted_sum_is_a_model(write):
    held = MeasuredResults.load(write(told()))
    fitted = held.accumulation(fast=True)
    assert fitted is not None
    assert (fitted.model, fitted.equal, fitted.max_ulp) == (HOPPER_FP8, 0.5, 3)
    assert held.accumulation(fast=False) is None


def test_triton_is_taken_only_where_it_was_measured_faster_by_more_than_the_spread(write):
    held = MeasuredResults.load(write(told()))
    assert held.kernel("fake_quantize", 1500) == "triton"
    assert held.kernel("fake_quantize", 64) == "torch", "faster by less than the runs differ"
    assert held.kernel("fake_quantize_dynamic", 1500) == "torch", "not measured"
    alone = MeasuredResults.load(write(told(kernels={"rows": [timed("triton", 1.0)]})))
    assert alone.kernel("fake_quantize", 1024) == "torch", "nothing to compare with"


def test_a_cpu_says_nothing_of_a_card(write):
    on_cpu = told(environment={"device": "a CPU", "type": "cpu"})
    held = MeasuredResults.load(write(on_cpu))
    assert held.seconds("bf16", 16, 64, 32) is None
    assert held.kernel("fake_quantize", 1024) == "torch"
    assert held.accumulation(fast=True) is None
    assert results_of([write(on_cpu)], "CPU") is None
    assert results_of([write(told())], "h100") == MeasuredResults.load(write(told()))
    assert results_of([write(told())], "l40s") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read .*run benchmarks/hopper_gpu.py again"),
        ("[]", "version list, this reads version 1"),
        (told(version=2), "version 2, this reads version 1"),
        (told(environment={"type": "cuda"}), "'device' is missing"),
        (told(gemm={"rows": [{"m": 1}]}), "'n' is missing"),
        (told(gemm={"rows": [gemm(16, 0.0)]}), "times must be above zero and finite"),
        (told(numerics={"fitted": [{"fast": True, "model": {"step": 0, "fraction_bits": 1}}]}), "must be 1 or more"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(write, content, said):
    with pytest.raises(MeasuredResultsError, match=said):
        MeasuredResults.load(write(content))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(MeasuredResultsError, match=r"none\.json: cannot be read"):
        MeasuredResults.load(tmp_path / "none.json")
