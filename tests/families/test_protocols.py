"""What holds of every family: the voice is what the table of comparisons says that it is."""

import pytest
import torch

from precision_search.wire import make_setting, read_recipe, study_header
from tests.families.searching import lowered, write_recipe
from voice.family import COMPARISONS
from voice.intercept import intercept

GATES = {
    "autoregressive": "text_kl_nats",
    "codec": "audio_kl_nats",
    "sampler": "lsd_db",
    "understanding": "text_kl_nats",
}


@pytest.fixture(params=GATES)
def setting(request, tmp_path):
    gates = f"[{{metric: {GATES[request.param]}, max: 1}}]"
    return make_setting(read_recipe(str(write_recipe(tmp_path, request.param, gates)), ()))


def test_a_voice_has_what_its_family_is_judged_by(setting):
    voice, comparison = setting.voice, COMPARISONS[setting.voice.family]
    for clip in setting.search_clips:
        rendered = voice.render(clip)
        assert ("sound" in comparison.judged) is (rendered.waveform is not None)
        assert ("tokens" in comparison.judged) is bool(rendered.logits)
        assert (voice.unforced(clip) is not None) is comparison.free
        if rendered.waveform is not None:
            assert len(rendered.sound) == round(clip.seconds * voice.sample_rate_hz)
            assert 0.01 < float(rendered.sound.abs().max()) < 1
    assert setting.discovery.covered_share == pytest.approx(1.0)


def test_renders_are_the_same_every_time(setting):
    again = make_setting(setting.recipe)
    assert study_header(setting) == study_header(again)
    for clip, other in zip(setting.search_clips, again.search_clips, strict=True):
        with intercept(setting.voice.module, lambda call: call.compute()):
            seen = setting.voice.render(clip)
        found = [setting.voice.render(clip), setting.voice.render(clip), again.voice.render(other)]
        for rendered in found:
            if rendered.waveform is not None:
                assert torch.equal(rendered.sound, found[0].sound)
                torch.testing.assert_close(seen.sound, found[0].sound, rtol=0, atol=1e-4)
            for head, values in rendered.logits.items():
                assert torch.equal(values, found[0].logits[head])
                torch.testing.assert_close(seen.logits[head], values, rtol=0, atol=1e-4)


def test_bf16_is_near_and_of_the_same_shape(setting):
    engine = lowered(setting.voice)
    for clip in setting.search_clips:
        reference, rendered = setting.voice.render(clip), engine.render(clip)
        pairs = [(rendered.logits[head], values) for head, values in reference.logits.items()]
        if reference.waveform is not None:
            pairs.append((rendered.sound, reference.sound))
        for found, wanted in pairs:
            assert found.shape == wanted.shape
            assert not torch.equal(found, wanted)
            assert (found - wanted).square().mean() < 1e-3 * wanted.square().mean()
