"""A model that writes of what it hears: judged by its text alone, with nothing to listen to."""

import json

import numpy as np
import pytest
import torch

from audio_eval.tokens import kl_nats
from precision_search.setting import SetupError
from precision_search.wire import make_setting, read_recipe
from tests.families.searching import Searched, command, lowered, write_recipe
from tests.families.understanding import UnderstandingVoice

GATES = "{profile: transparent, replace: [{metric: text_agreement, min: 0.8}]}"


@pytest.fixture(scope="module")
def voice():
    return UnderstandingVoice()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Searched.of(write_recipe(tmp_path_factory.mktemp("study"), "understanding", GATES))


def test_text_is_forced_on_every_step(voice):
    clip = voice.clips(1)[0]
    frames, text = clip.inputs
    rendered = voice.render(clip)
    assert rendered.waveform is None
    with pytest.raises(ValueError, match="makes no sound"):
        _ = rendered.sound
    assert torch.equal(rendered.logits["text"].argmax(1), text)
    assert voice.unforced(clip) is None
    assert voice.reseeded(clip, 1) is None
    changed = text.clone()
    changed[4] = (changed[4] + 1) % 24
    logits = voice.module(frames, changed)
    same = (logits == rendered.logits["text"]).all(1)
    assert same[:5].all(), "a step sees the tokens before it"
    assert not same[5:].any()


def test_an_engine_renders_logits(voice):
    clip = voice.clips(1)[0]
    reference = voice.render(clip)
    found = lowered(voice, "head").render(clip)
    assert found.waveform is None
    assert found.logits["text"].dtype == torch.float32
    assert 0 < float((found.logits["text"] - reference.logits["text"]).abs().mean()) < 0.5


def test_the_verdict_is_of_text_alone_on_the_clips_held_back(study):
    summary, gates = study.summary, study.gates
    assert study.code == 0
    assert summary["verdict"] == "kept"
    assert summary["comparison"]["judged"] == ["tokens"]
    assert set(gates) == {"text_agreement", "text_kl_nats", "text_worst_kl_nats"}
    assert summary["unjudged"] == [], "a profile's gates on what no such model makes are none of its promises"
    assert summary["arithmetic"] == "tensix_exact_blackhole"
    assert summary["lofi_mac_share"] > 0.5
    assert summary["unforced"] is None
    found = [kl_nats(reference=ours.logits, degraded=theirs.logits) for ours, theirs in study.held_back]
    assert gates["text_kl_nats"]["value"] == pytest.approx(np.mean(found), rel=1e-3)
    assert gates["text_kl_nats"]["beside"]["fp16"] < gates["text_kl_nats"]["beside"]["bf16"]
    assert all(theirs.samples is None for _, theirs in study.held_back)


def test_damage_is_measured_on_text(study):
    assert len(study.damage) == 31
    for damage in study.damage.values():
        assert set(damage) == {"text_kl_nats"}
        assert damage["text_kl_nats"] > 0


def test_there_are_no_samples_and_the_report_is_written_without_them(study):
    assert not list(study.folder.rglob("*.wav"))
    page = (study.folder / "report.html").read_text(encoding="utf-8")
    assert "text_kl_nats" in page
    assert "<audio" not in page


@pytest.mark.parametrize("exact", [(), ("--exact",)])
def test_evaluate_finds_what_the_run_found(study, capsys, exact):
    assert command("evaluate", study.folder, "--json", *exact) == 0
    answer = json.loads(capsys.readouterr().out)
    found = {gate["metric"]: gate["value"] for gate in answer["gates"]}
    key = "value" if exact else "fast_value"
    assert found == {metric: pytest.approx(gate[key]) for metric, gate in study.gates.items()}


def test_channels_may_be_reordered_where_there_is_no_sound(tmp_path):
    levers = "fidelity_rounding, channel_order"
    recipe = read_recipe(str(write_recipe(tmp_path, "understanding", GATES, levers)), ())
    assert make_setting(recipe).chains == {
        "listen.0": "listen.1",
        **{f"blocks.{i}.up": f"blocks.{i}.down" for i in (0, 1)},
    }


def test_gates_of_the_recipe_on_sound_are_refused_at_once(tmp_path):
    gates = "[{metric: text_kl_nats, max: 0.01}, {metric: lsd_db, max: 2}, {metric: duration_change, max: 0.1}]"
    recipe = read_recipe(str(write_recipe(tmp_path, "understanding", gates)), ())
    with pytest.raises(SetupError, match=r"lsd_db: the model makes no sound\n.*duration_change: nothing is forced"):
        make_setting(recipe)


def test_a_finished_study_goes_on_to_the_same_policy(study):
    before = (study.folder / "policy.yaml").read_bytes(), (study.folder / "study.jsonl").read_bytes()
    recipe = study.folder.parent / "tiny.yaml"
    assert command("run", recipe, "--out", study.folder, "--quiet", "--workers", 1, "--resume") == 0
    assert ((study.folder / "policy.yaml").read_bytes(), (study.folder / "study.jsonl").read_bytes()) == before
