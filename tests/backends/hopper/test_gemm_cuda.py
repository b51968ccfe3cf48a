"""The GEMM path on CUDA: settings, kernels on tensors without values, and the card itself where there is one."""

import copy
from dataclasses import replace

import pytest
import torch

from backends.hopper.gemm import GemmEngine
from backends.hopper.gemm_products import EXPLICIT, SCALED, fp32_sums, sums_in_fp32
from backends.hopper.kv_cache import CachedStep
from backends.hopper.kv_storage import CacheFormat
from tests.backends.hopper.mixed_decoder import imagined_card, snr_db, why_no_card

CARD = why_no_card()


def test_cuda_sums_in_fp32_within_and_as_before_behind():
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = (matmul.allow_bf16_reduced_precision_reduction, conv.fp32_precision, matmul.fp32_precision)
    with fp32_sums():
        assert all(sums_in_fp32(dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32))
    assert before == (matmul.allow_bf16_reduced_precision_reduction, conv.fp32_precision, matmul.fp32_precision)
    assert torch.backends.cudnn.allow_tf32 in (True, False)  # the older setting can be read again
    assert sums_in_fp32(torch.bfloat16) is (not before[0])


def test_on_cuda_every_product_fits_the_kernels_rules(tiny, monkeypatch):
    voice = copy.deepcopy(tiny.voice)
    with imagined_card(monkeypatch) as put:
        engine = GemmEngine(put(voice), tiny.mixed, tiny.measured, sites=tiny.sites)
        clip = replace(tiny.clip, inputs=tuple(torch.zeros(v.shape, dtype=v.dtype) for v in tiny.clip.inputs))
        made = engine.render(clip)
        assert made.sound.shape == tiny.voice.render(tiny.clip).sound.shape
        assert engine.realized() == dict(tiny.mixed.schemes)
        kernels = {ran.kernel for ran in engine.ran().values()}
        assert kernels > {f"{SCALED}, rowwise scales", f"{SCALED}, tensorwise scales", "torch conv1d, bfloat16"}
        assert not any(EXPLICIT in kernel for kernel in kernels)
        step = CachedStep(engine.module, CacheFormat("fp8_e5m2"))
        integers = {"dtype": torch.long, "device": "cuda"}
        with engine.running():
            parts = step(
                text=torch.zeros(1, **integers), codes=torch.zeros(3, **integers), position=torch.zeros(1, **integers)
            )
        assert [part.shape for part in parts] == [(1280,), (1, 12), *[(1, 10)] * 3]
        assert {part.device.type for part in parts} == {"cuda"}


@pytest.mark.hopper
class TestOnTheCard:
    pytestmark = pytest.mark.skipif(CARD is not None, reason=str(CARD))

    def test_the_mixed_decoder_is_near_the_cpu(self, small):
        engine = GemmEngine(small.voice, small.mixed, small.measured, sites=small.sites)
        made = engine.render(small.clip)
        assert engine.realized() == dict(small.mixed.schemes)
        want = GemmEngine(small.voice, small.mixed, small.measured, device="cpu").render(small.clip)
        assert snr_db(want.sound, made.sound) > 40
        for head, logits in want.logits.items():
            assert snr_db(logits, made.logits[head]) > 20
        assert next(small.voice.module.parameters()).device.type == "cpu"
