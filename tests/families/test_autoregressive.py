"""A model of text and audio tokens: judged by its tokens, each given the reference's, and then by its sound."""

import numpy as np
import pytest
import torch

from audio_eval.judge import stages
from audio_eval.tokens import kl_nats
from tests.families.autoregressive import AutoregressiveVoice
from tests.families.parts import HOP
from tests.families.searching import Searched, lowered, write_recipe

GATES = """
  - {metric: estoi, min: -1}
  - {metric: lsd_db, max: 1}
  - {metric: text_agreement, min: 0.9}
  - {metric: text_kl_nats, max: 0.001}
  - {metric: audio_kl_nats, max: 0.001}
  - {metric: length_samples, over: worst, max: 0}
  - {metric: duration_change, over: worst, max: 0.05}
"""


@pytest.fixture(scope="module")
def voice():
    return AutoregressiveVoice()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Searched.of(write_recipe(tmp_path_factory.mktemp("study"), "autoregressive", GATES))


def test_the_forced_pass_says_what_the_model_says_step_by_step(voice):
    for clip in voice.clips(3):
        forced = voice.render(clip)
        prompt, text, codes = clip.inputs
        assert torch.equal(forced.logits["text"].argmax(1), text)
        assert torch.equal(torch.stack([forced.logits[f"audio.{book}"].argmax(1) for book in (0, 1)]), codes)
        free = voice.render(voice.unforced(clip))
        assert torch.equal(forced.sound, free.sound)
        assert len(forced.sound) == len(text) * HOP
        other = voice.module.logits(prompt, text.roll(1), codes)["text"]
        assert not torch.allclose(other, forced.logits["text"]), "what is forced is read"


def test_the_end_lies_in_other_steps_only_where_it_is_not_forced(voice):
    engine, plain = lowered(voice, "text_head"), lowered(voice)
    clips = voice.clips(5)
    for clip in clips:
        assert torch.equal(engine.render(clip).sound, plain.render(clip).sound)
        assert not torch.equal(engine.render(clip).logits["text"], plain.render(clip).logits["text"])
        assert torch.equal(engine.render(clip).logits["audio.0"], plain.render(clip).logits["audio.0"])
    free = [(len(engine.render(c).sound), len(voice.render(c).sound)) for c in map(voice.unforced, clips)]
    assert any(found != true for found, true in free)


def test_damage_falls_on_what_a_site_decides(study):
    tokens, sound = ("text_kl_nats", "audio_kl_nats"), ("lsd_db",)
    for site, damage in study.damage.items():
        assert set(damage) == {*tokens, *sound}
        hurt = {metric for metric, value in damage.items() if value > 0}
        if site.startswith("decoder"):
            assert hurt == set(sound)
        elif site == "text_head":
            assert hurt == {"text_kl_nats"}
        elif site.startswith("audio_heads"):
            assert hurt == {"audio_kl_nats"}
        else:
            assert hurt == set(tokens), f"{site}: sound is made of the tokens forced"
    assert len(study.damage) == 24


def test_the_verdict_is_of_tokens_and_sound_on_the_clips_held_back(study):
    summary, gates = study.summary, study.gates
    assert study.code == 0
    assert summary["verdict"] == "kept"
    assert summary["comparison"]["family"] == "autoregressive"
    assert summary["comparison"]["judged"] == ["tokens", "sound"]
    assert summary["arithmetic"] == "tensix_exact_blackhole"
    assert summary["lofi_mac_share"] > 0.5
    assert set(gates) == {
        "text_agreement", "text_kl_nats", "audio_kl_nats", "lsd_db", "length_samples", "estoi",
    }  # fmt: skip
    for kind in ("text", "audio"):
        found = [
            kl_nats(
                reference={head: values for head, values in reference.logits.items() if head.startswith(kind)},
                degraded={head: values for head, values in rendered.logits.items() if head.startswith(kind)},
            )
            for reference, rendered in study.held_back
        ]
        assert gates[f"{kind}_kl_nats"]["value"] == pytest.approx(np.mean(found), rel=1e-3)
        assert gates[f"{kind}_kl_nats"]["beside"]["fp16"] < gates[f"{kind}_kl_nats"]["beside"]["bf16"]
    assert all(clip.name in {"clip2", "clip3", "clip4"} for clip in study.setting.held_back_clips)


def test_tokens_are_asked_before_dear_sound(study):
    assert stages(study.setting.recipe.gates)[-1] == ("estoi",)
    searched = [candidate for candidate in study.candidates if candidate.split == "search"]
    broken = [any(not verdict.kept for verdict in found.gates if verdict.gate.metric != "estoi") for found in searched]
    assert any(broken)
    assert not all(broken)
    for candidate, stopped in zip(searched, broken, strict=True):
        for scores in candidate.scores.values():
            assert ("estoi" in scores) is not stopped


def test_nothing_forced_is_judged_apart(study):
    free = study.summary["unforced"]
    (gate,) = free["gates"]
    assert gate["metric"] == "duration_change"
    assert free["clips"] == 3
    assert gate["value"] == pytest.approx(free["length_change"])
    assert free["kept"] is gate["kept"]


def test_samples_are_heard_of_the_reference_and_the_candidate(study):
    names = {path.relative_to(study.folder / "samples").as_posix() for path in study.folder.glob("samples/*/*.wav")}
    assert names == {f"{kind}/clip{number}.wav" for kind in ("reference", "candidate") for number in (2, 3, 4)}
