"""Decoders with what was measured of them, for tests of the GEMM path."""

import pytest

from tests.backends.hopper.mixed_decoder import Case, case
from tests.voice.tiny_decoder import TINY
from voice.decoder import DecoderVoice


@pytest.fixture(scope="module")
def tiny() -> Case:
    return case(DecoderVoice.seeded(TINY))


@pytest.fixture(scope="module")
def small() -> Case:
    return case(DecoderVoice.seeded())
