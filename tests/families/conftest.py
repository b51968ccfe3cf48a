"""The tiny voices under the names by which recipes ask for them."""

from collections.abc import Iterator

import pytest

from tests.families.autoregressive import AutoregressiveVoice
from tests.families.codec import CodecVoice
from tests.families.sampler import SamplerVoice
from tests.families.searching import loading
from tests.families.understanding import UnderstandingVoice


@pytest.fixture(scope="module", autouse=True)
def models() -> Iterator[None]:
    voices = {
        "autoregressive": AutoregressiveVoice,
        "codec": CodecVoice,
        "sampler": SamplerVoice,
        "understanding": UnderstandingVoice,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("precision_search.loading.MODELS", {name: loading(voice) for name, voice in voices.items()})
        yield
