"""A codec: its codes are judged by distances in the quantizer, its sound as decoded from the reference's codes."""

import numpy as np
import pytest
import torch

from audio_eval.tokens import kl_nats, token_agreement
from precision_search.wire import make_setting, read_recipe
from tests.families.codec import CodecVoice
from tests.families.searching import Searched, lowered, write_recipe

GATES = """
  - {metric: lsd_db, max: 1.5}
  - {metric: group_delay_rad, max: 0.2}
  - {metric: audio_agreement, min: 0.9}
  - {metric: audio_kl_nats, max: 0.01}
  - {metric: audio_worst_kl_nats, over: worst, max: 0.2}
  - {metric: length_samples, over: worst, max: 0}
  - {metric: duration_change, over: worst, max: 0}
"""
HEADS = ("audio.0", "audio.1")


@pytest.fixture(scope="module")
def voice():
    return CodecVoice()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Searched.of(write_recipe(tmp_path_factory.mktemp("study"), "codec", GATES))


def test_the_codes_are_the_nearest_entries(voice):
    for clip in voice.clips(2):
        rendered = voice.render(clip)
        assert tuple(rendered.logits) == HEADS
        nearest = torch.stack([rendered.logits[head].argmax(1) for head in HEADS])
        assert torch.equal(nearest, clip.inputs[1])
        assert all((values <= 1e-4).all() for values in rendered.logits.values()), "distances are not negative"
        assert torch.equal(rendered.sound, voice.render(voice.unforced(clip)).sound)


def test_the_second_stage_and_the_decoder_are_given_the_codes_of_the_reference(voice):
    engine, plain = lowered(voice, "encoder.2"), lowered(voice)
    moved = 0
    for clip in voice.clips(5):
        forced, reference = engine.render(clip), plain.render(clip)
        assert torch.equal(forced.sound, reference.sound)
        for head in HEADS:
            # A code chosen otherwise in the first stage would leave another rest, of another size, to the second.
            change = forced.logits[head] - reference.logits[head]
            assert 0 < change.square().mean() < 0.05 * reference.logits[head].var()
        moved += not torch.equal(engine.render(voice.unforced(clip)).sound, reference.sound)
    assert moved > 0, "left to itself it chooses other codes, and sounds otherwise"


def test_damage_falls_on_codes_before_the_quantizer_and_on_sound_after_it(study):
    sound = {"lsd_db", "group_delay_rad"}
    for site, damage in study.damage.items():
        assert set(damage) == {"audio_kl_nats"} | sound
        hurt = {metric for metric, value in damage.items() if value > 1e-6}
        assert hurt == (sound if site.startswith("decoder") else {"audio_kl_nats"}), site
    assert len(study.damage) == 10


def test_the_verdict_is_of_codes_and_sound_on_the_clips_held_back(study):
    summary, gates = study.summary, study.gates
    assert summary["verdict"] == "kept"
    assert summary["comparison"]["judged"] == ["tokens", "sound"]
    assert set(gates) == {
        "lsd_db", "group_delay_rad", "audio_agreement", "audio_kl_nats", "audio_worst_kl_nats", "length_samples",
    }  # fmt: skip
    assert summary["lofi_mac_share"] > 0.5
    for metric, function in (("audio_kl_nats", kl_nats), ("audio_agreement", token_agreement)):
        found = [function(reference=ours.logits, degraded=theirs.logits) for ours, theirs in study.held_back]
        assert gates[metric]["value"] == pytest.approx(np.mean(found), rel=1e-3)
    assert gates["lsd_db"]["beside"]["fp16"] < gates["lsd_db"]["beside"]["bf16"] < gates["lsd_db"]["value"]
    for ours, theirs in study.held_back:
        assert ours.samples.shape == theirs.samples.shape
        assert not np.array_equal(ours.samples, theirs.samples)


def test_nothing_forced_it_has_the_length_that_went_in(study):
    free = study.summary["unforced"]
    assert free["kept"]
    assert free["same_length"] == free["clips"] == 3


def test_no_order_of_channels_is_free_where_a_later_stage_reads_them(tmp_path):
    # The second stage of the quantizer reads encoder.2 less an entry of the first: reordered for one, wrong for both.
    levers = "fidelity_rounding, channel_order"
    recipe = read_recipe(str(write_recipe(tmp_path, "codec", GATES, levers)), ())
    chains = make_setting(recipe).chains
    assert chains["encoder.1"] == "encoder.2"
    assert "encoder.2" not in chains
