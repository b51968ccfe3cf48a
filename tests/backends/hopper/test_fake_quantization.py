import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backends.hopper import fake_quantization
from backends.hopper.fake_quantization import (
    NoTritonError,
    fake_quantize,
    fake_quantize_dynamic,
    quantize,
    why_no_triton,
)
from backends.hopper.numerics import fp8_scale, quantize_fp8

ROOT = Path(__file__).parents[3]
# Triton is interpreted or compiled by what the environment says when it is first imported: a process of its own.
INTERPRETED = """
import sys, torch
from backends.hopper.fake_quantization import *
torch.manual_seed(0)
bits = torch.arange(65536, dtype=torch.int32)
every_bf16 = (bits << 16).view(torch.float32)
near_ties = ((bits << 16) + 1).view(torch.float32)
wide = torch.randn(5000) * torch.exp2(torch.randint(-30, 30, (5000,)).float())
finite = torch.randn(3, 1700)
def same(got, expected, what):
    assert got.dtype == expected.dtype and got.shape == expected.shape, what
    nan = expected.to(torch.float32).isnan()
    assert torch.equal(nan, got.to(torch.float32).isnan()), what
    bytes_ = (lambda t: t.view(torch.uint8)) if got.element_size() == 1 else (lambda t: t.view(torch.int32))
    assert torch.equal(bytes_(got)[~nan], bytes_(expected)[~nan]), what
    if got.element_size() == 1:
        assert torch.equal(bytes_(got)[nan], bytes_(expected)[nan]), "the code of NaN keeps its sign"
for fmt in ("fp8_e4m3", "fp8_e5m2"):
    for values in (every_bf16, near_ties, wide, finite, finite.bfloat16(), finite.T, torch.zeros(7), torch.zeros(0)):
        for scale in (torch.tensor(1.0), torch.tensor(0.37), torch.tensor([3e-5])):
            what = (fmt, values.shape, scale)
            same(fake_quantize(values, scale, fmt, "triton"), fake_quantize(values, scale, fmt), what)
            same(quantize(values, scale, fmt, "triton"), quantize(values, scale, fmt), what)
        if values.numel():
            same(fake_quantize_dynamic(values, fmt, "triton"), fake_quantize_dynamic(values, fmt), fmt)
            same(quantize(values, None, fmt, "triton"), quantize(values, None, fmt), fmt)
print("same bits")
"""


def test_the_kernel_gives_the_bits_of_the_definition():
    pytest.importorskip("triton")
    made = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    assert made.stdout == "same bits\n"


@pytest.mark.parametrize("fmt", ["fp8_e4m3", "fp8_e5m2"])
def test_fake_quantization_is_quantize_then_dequantize(fmt):
    values = torch.randn(40, 30) * 100
    scale = torch.tensor(0.3)
    rounded = fake_quantize(values, scale, fmt)
    assert torch.equal(rounded, quantize_fp8(values, scale, fmt).float() * scale)
    assert torch.equal(fake_quantize(rounded, scale, fmt), rounded), "values of the grid stay"
    dynamic = fp8_scale(values.abs().amax(), fmt)
    assert torch.equal(fake_quantize_dynamic(values, fmt), fake_quantize(values, dynamic, fmt))
    assert torch.equal(quantize(values, None, fmt).view(torch.uint8), quantize(values, dynamic, fmt).view(torch.uint8))


def test_where_triton_cannot_run_it_is_said(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(
        NoTritonError, match=r"triton needs a CUDA device, the values are on cpu; use kernel torch|not inst"
    ):
        fake_quantize(torch.ones(3), torch.tensor(1.0), "fp8_e4m3", "triton")
    monkeypatch.setattr(fake_quantization, "_has_triton", lambda: False)
    assert "triton is not installed" in str(why_no_triton(torch.device("cpu")))


def test_the_kernel_refuses_several_scales():
    with pytest.raises(ValueError, match=r"one float32 scale on cpu, got torch.float32 of shape \(2,\) on cpu"):
        fake_quantize(torch.ones(2), torch.ones(2), "fp8_e4m3", "triton")


@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernel_compiles_for_cards_that_are_not_here_and_divides_exactly(capability, monkeypatch, tmp_path):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from backends.hopper.fake_quantization_triton import _amax, _quantize

    constants = {"largest": 448.0, "shift": 20, "least_normal": 2.0**-6, "magic": 2.0**14, "block": 1024}
    constants |= {"dynamic": True, "codes": capability == 90}
    pointers = {"values": "*bf16", "scale": "*fp32", "out": "*u8" if constants["codes"] else "*fp32"}
    signature = {**pointers, "count": "i32", **dict.fromkeys(constants, "constexpr")}
    made = compile(ASTSource(_quantize, signature, constants), target=GPUTarget("cuda", capability, 32))
    # An approximate division, or a product and a sum in one rounding, would give other bits than torch.
    assert "div.rn.f32" in made.asm["ptx"]
    assert "div.full" not in made.asm["ptx"]
    assert "fma" not in made.asm["ptx"]
    signature = {"values": "*fp32", "amax_bits": "*i32", "count": "i32", "block": "constexpr"}
    made = compile(ASTSource(_amax, signature, {"block": 1024}), target=GPUTarget("cuda", capability, 32))
    assert "max.s32" in made.asm["ptx"]
