"""Decoders with what was measured of them, for tests of the GEMM path; a TensorRT that records, for its own."""

import sys

import onnx
import pytest

from backends.hopper.exported import engine, gpu
from tests.backends.hopper.mixed_decoder import Case, case
from tests.backends.hopper.recording_tensorrt import H100, HostTorch, Library
from tests.backends.hopper.three_sites import three_sites
from tests.voice.tiny_decoder import TINY
from voice.decoder import DecoderVoice


@pytest.fixture(scope="module")
def tiny() -> Case:
    return case(DecoderVoice.seeded(TINY))


@pytest.fixture(scope="module")
def small() -> Case:
    return case(DecoderVoice.seeded())


@pytest.fixture
def library(monkeypatch):
    """A stand-in for TensorRT, torch and the driver."""
    held = Library()
    held.shapes = {"x": (1, 32, 24), "past": (1, 1, 16), "out:y": (1, 24, 16), "out:past_next": (1, 1, 16)}
    monkeypatch.setitem(sys.modules, "tensorrt", held.module())
    monkeypatch.setattr(engine, "_torch", HostTorch)
    monkeypatch.setattr(gpu, "gpu", lambda _index=0: H100)
    monkeypatch.setattr(gpu, "use", lambda _index: None)
    engine.journal.cache_clear()
    yield held
    engine.journal.cache_clear()


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(three_sites().model, path)
    return path
