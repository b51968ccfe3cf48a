from dataclasses import replace

import pytest
import torch

from audio_eval import free_running
from precision.gates import Gate
from precision.policy import Policy
from precision_search import refusals, wire
from precision_search.progress import Progress
from precision_search.setting import Setting, SetupError
from precision_search.unforced import unforced
from precision_search.unscorable import refuse_clips
from precision_search.wire import backend_of, devices, make_setting, packaged_recipes, read_recipe, study_header
from voice.embedded import EmbeddedVoice
from voice.model import Rendering
from voice.sites import discover


@pytest.fixture(scope="module")
def setting() -> Setting:
    return make_setting(read_recipe("tts_blackhole", ("data.search=1", "data.held_back=2")))


def test_every_packaged_recipe_loads():
    assert set(packaged_recipes()) >= {"tts_blackhole", "tts_hopper", "hifigan_blackhole", "decoder_blackhole"}
    for name in packaged_recipes():
        assert read_recipe(name, ()).name == name


def test_a_recipe_that_is_not_there_names_those_that_are():
    with pytest.raises(SetupError, match="tts_blackhole"):
        read_recipe("tts_blackhole.yml", ())


def test_every_card_has_a_backend_or_says_that_it_has_none():
    for card in devices().values():
        if card.backend is None:
            with pytest.raises(SetupError, match="compared with"):
                backend_of(card)
        else:
            assert backend_of(card).name == card.backend


def test_protected_sites_keep_the_baseline(setting):
    assert setting.protected
    for site in setting.protected:
        assert site.startswith("prosody.")
        assert setting.space[site] == (setting.recipe.baseline,)
    assert len(setting.space) == len(setting.sites)


def test_sites_know_what_feeds_them(setting):
    fed_by = {site.name: site.fed_by for site in setting.sites}
    assert fed_by["vocoder.pre"] == "acoustic.to_mel"
    assert fed_by["acoustic.encoder.0.attention.query"] is None, "phones are no site's result"
    assert len([producer for producer in fed_by.values() if producer]) > 0.8 * len(fed_by)


def test_hopper_refuses_what_it_cannot_run():
    hopper = make_setting(read_recipe("tts_hopper", ("data.search=1", "data.held_back=2")))
    told = "TensorRT: no FP8 transposed convolution is known; use bf16 or fp16"
    assert hopper.refused["vocoder.stages.0.up", "fp8_e4m3"] == told
    assert ("acoustic.encoder.0.project", "fp8_e4m3") not in hopper.refused
    assert len(hopper.refused) < 0.2 * len(hopper.sites), "the recipe is for one engine, and allows slow FP8"


def test_the_route_of_a_recipe_is_the_backends():
    dynamic = "schemes.fp8_e4m3.activation_scale=dynamic"
    recipe = read_recipe("tts_hopper", ("data.search=1", "data.held_back=2", dynamic, "target.route=gemm"))
    hopper = make_setting(recipe)
    assert hopper.backend.refuses(hopper.sites[0], recipe.scheme("fp8_e4m3")) is None
    assert "only linear layers" in hopper.refused["vocoder.pre", "fp8_e4m3"]
    with pytest.raises(
        SetupError, match=r"target.route: gemm is a way to run on a Hopper card, not on p150a; leave it"
    ):
        make_setting(read_recipe("tts_blackhole", ("target.route=gemm",)))


def test_slow_fp8_is_refused_unless_the_recipe_allows_it():
    hopper = make_setting(read_recipe("tts_hopper", ("data.search=1", "data.held_back=2", "target.slow_fp8=refuse")))
    said = hopper.refused["acoustic.encoder.0.project", "fp8_e4m3"]
    assert "of bf16's speed at m=" in said
    assert "transposed" in hopper.refused["vocoder.stages.0.up", "fp8_e4m3"], "what cannot be is told before"


def test_the_decoder_writes_its_own_clips_and_agrees_where_the_card_has_one_tensor():
    setting = make_setting(read_recipe("decoder_blackhole", ("data.search=1", "data.held_back=2")))
    assert [clip.name for clip in setting.held_back_clips] == ["prompt_001", "prompt_002"]
    groups: dict[str | None, set[str]] = {}
    for site in setting.sites:
        groups.setdefault(site.group, set()).add(site.name)
    alone = groups.pop(None)
    assert {"layers.0.attention.out", "text_head", "codec.first"} <= alone
    layer = {frozenset(name.removeprefix("layers.2.") for name in names) for names in groups.values()}
    assert layer >= {
        frozenset(f"attention.{part}" for part in ("query", "key", "value")),
        frozenset(("attention#qk", "attention#pv")),
        frozenset(("feed_forward.gate", "feed_forward.up")),
    }
    for key in ("model.checkpoint=a.pt", "model.config=a.json", "data.audio=wavs"):
        with pytest.raises(SetupError, match=f"{key.partition('=')[0]}: the decoder has seeded weights"):
            make_setting(read_recipe("decoder_blackhole", (key,)))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("search.minimize=passes",), "search.minimize: passes"),
        (("search.within.passes=0.5",), "search.within: passes"),
    ],
)
def test_passes_are_a_tensix_cards(asked, said):
    with pytest.raises(SetupError, match=said):
        make_setting(read_recipe("tts_hopper", asked))


def test_a_header_tells_weights_clips_and_code(setting):
    header = study_header(setting)
    assert header == study_header(setting)
    other = make_setting(read_recipe("tts_blackhole", ("data.search=1", "data.held_back=3")))
    assert {key for key in header if header[key] != study_header(other)[key]} == {"recipe_digest", "clips"}


def test_nothing_forced_is_told_of_a_model_that_forces(setting):
    gates = (Gate("duration_change", "worst", max=0.1), Gate("f0_mean_cents", max=0.0))
    policy = Policy.uniform([site.name for site in setting.sites], setting.recipe.baseline)
    found = unforced(setting, policy, gates, None)
    assert found is not None
    assert found["clips"] == 2
    assert 0 <= found["same_length"] <= 2
    assert 0 <= found["length_change"] < 0.1
    lasting, pitch = found["gates"]
    assert lasting["kept"]
    assert lasting["value"] == pytest.approx(found["length_change"])
    assert not pitch["kept"]
    assert not found["kept"]
    assert pitch["value"] > pitch["beside"]["fp16"]
    assert set(pitch["beside"]) == {"bf16", "fp16"}


def test_gates_on_what_the_model_does_not_make_are_refused_unless_they_are_the_profiles(setting, made):
    gates = "gates=[{metric: lsd_db, max: 1.0}, {metric: text_kl_nats, max: 1.0}, {metric: duration_change, max: 1.0}]"
    with pytest.raises(SetupError, match=r"text_kl_nats: the model has no text tokens$"):
        make_setting(read_recipe("tts_blackhole", (gates,)))
    with pytest.raises(SetupError, match=r"(?s)no text tokens.*duration_change: nothing is forced on a vocoder"):
        make_setting(read_recipe(str(made / "tiny.yaml"), (gates,)))
    assert {gate.metric for gate in setting.recipe.gates} >= {"text_kl_nats", "dtw_mcd_db"}  # of the profile


def test_a_search_needs_a_gate_that_adds(setting):
    with pytest.raises(SetupError, match=r"none is one; add lsd_db, .*log_mel_l1"):
        make_setting(read_recipe("tts_blackhole", ("gates=[{metric: pesq_wb, min: 4.0}]",)))


def test_sites_that_only_forcing_calls_are_refused(monkeypatch):
    found = []

    def fewer(*arguments):
        found.append(discover(*arguments))
        return replace(found[-1], sites=found[-1].sites[len(found) - 1 :])

    for module in (wire, refusals):
        monkeypatch.setattr(module, "discover", fewer)
    with pytest.raises(SetupError, match=r"(?s)does not call the same sites.*only forced: prosody.*only unforced: -"):
        make_setting(read_recipe("tts_blackhole", ()))


def test_clips_that_no_policy_could_keep_are_named_before_anything_is_measured(setting, monkeypatch):
    refuse_clips(setting, Progress(quiet=True), 1)
    own, short = EmbeddedVoice.render, setting.held_back_clips[1].name

    def cut(self, clip):
        sound = own(self, clip).sound
        return Rendering(sound[:4000] if clip.name == short else sound)

    monkeypatch.setattr(EmbeddedVoice, "render", cut)
    with pytest.raises(SetupError, match="not even against themselves") as refused:
        refuse_clips(setting, Progress(quiet=True), 1)
    lines = str(refused.value).splitlines()[1:]
    assert {line.split(":")[0].strip() for line in lines} == {short}
    assert any("estoi: STOI needs at least 0.4 s" in line for line in lines)


LOADED = EmbeddedVoice.load()


def test_a_voice_makes_what_its_family_is_judged_by(monkeypatch):
    made = Rendering(torch.zeros(100), {"speech.0": torch.zeros(5, 7)})
    own = EmbeddedVoice.render
    monkeypatch.setattr(EmbeddedVoice, "render", lambda self, clip: Rendering(own(self, clip).sound, made.logits))
    with pytest.raises(SetupError, match=r"head 'speech.0' is of no kind; begin its name with one of audio, text"):
        make_setting(read_recipe("tts_blackhole", ()))
    monkeypatch.setattr(EmbeddedVoice, "render", own)
    monkeypatch.setattr(EmbeddedVoice, "load", lambda _: replace(LOADED, family="autoregressive"))
    with pytest.raises(SetupError, match="autoregressive family is judged by its tokens, and `render` gives no logits"):
        make_setting(read_recipe("tts_blackhole", ()))


def test_free_gates_that_the_reference_itself_has_no_score_in_are_set_aside(setting, monkeypatch):
    monkeypatch.setattr(free_running, "LONGEST_SECONDS", 0.1)
    policy = Policy.uniform([site.name for site in setting.sites], setting.recipe.baseline)
    found = unforced(setting, policy, (Gate("dtw_mcd_db", max=1.0), Gate("duration_change", max=1.0)), None)
    assert [gate["metric"] for gate in found["gates"]] == ["duration_change"]
    assert found["kept"]
    (left,) = found["unjudged"]
    assert left["metric"] == "dtw_mcd_db"
    assert setting.held_back_clips[0].name in left["reason"]
