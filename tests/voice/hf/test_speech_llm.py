"""Language models that hear: the same text as transformers' own generation writes, every step forced."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.voice.hf.listeners import check_forcing, check_hearing, check_sites, recordings, write_tokenizer
from voice.hf.base import HfError
from voice.hf.loading import ARCHITECTURES, load
from voice.hf.tiny.speech_llm import AUDIO
from voice.hf.twins import build

LENGTHS = {
    "qwen2_audio": (1.7, 0.9),
    "voxtral": (1.7, 3.1),
    "qwen3_asr": (1.7, 9.3),
    "ultravox": (1.7, 0.95),
    "qwen2_5_omni_thinker": (1.7, 3.3),
}
"""Where windows are looked at one by one, the second recording has more than one."""
VECTORS = {
    "qwen2_audio": (42, 22),
    "voxtral": (25, 50),
    "qwen3_asr": (22, 121),
    "ultravox": (11, 6),
    "qwen2_5_omni_thinker": (42, 82),
}
GENERATED = {
    "qwen2_audio": ("input_features", "feature_attention_mask"),
    "voxtral": ("input_features",),
    "qwen3_asr": ("input_features", "input_features_mask"),
    "qwen2_5_omni_thinker": ("input_features", "feature_attention_mask"),
}
"""Names that transformers has for what is heard."""


class Twin:
    def __init__(self, name, folder):
        self.name = name
        self.voice = load(str(build(name, folder)))
        self.clips = self.voice.clips(2, recordings(16000, *LENGTHS[name]))


@pytest.fixture(scope="module", params=LENGTHS)
def twin(request, tmp_path_factory):
    return Twin(request.param, tmp_path_factory.mktemp("hf") / request.param)


def test_every_step_is_forced(twin):
    assert twin.voice.family == "understanding"
    assert twin.voice.sample_rate_hz == 16000
    check_forcing(twin.voice, twin.clips[0])
    check_hearing(twin.voice, twin.clips)


def test_the_prompt_has_a_place_for_each_vector(twin):
    prompts = [clip.inputs[twin.voice.inputs_heard - 1] for clip in twin.clips]
    assert tuple(int((prompt == AUDIO).sum()) for prompt in prompts) == VECTORS[twin.name]
    assert [len(prompt) - int((prompt == AUDIO).sum()) for prompt in prompts] == [8, 8]


def test_no_answer_holds_a_place_of_sound(twin):
    logits = torch.zeros(twin.voice.model.config.get_text_config().vocab_size)
    logits[twin.voice.placeholder] = 9.0
    assert twin.voice.chosen(logits, 1) != twin.voice.placeholder


def test_all_of_it_is_sites_whatever_the_length(twin):
    head = "language_model.lm_head" if twin.name == "ultravox" else "lm_head"
    sites = {site.name: site for site in check_sites(twin.voice, twin.clips, head).sites}
    assert sites[head].rows_per_second * twin.clips[0].seconds == pytest.approx(16), "no head is run on the prompt"


def test_it_writes_what_the_generation_of_transformers_writes(twin):
    import transformers

    for clip in twin.clips:
        *heard, prompt, tokens = clip.inputs
        if twin.name == "ultravox":
            theirs, given = twin.voice.module.language_model, {"inputs_embeds": embedded(twin.voice, *heard, prompt)}
        else:
            # Anew, so that the encoder is all theirs.
            kind = getattr(transformers, ARCHITECTURES[twin.name].loads)
            theirs = kind.from_pretrained(twin.voice.folder).eval()
            given = {"input_ids": prompt[None], **dict(zip(GENERATED[twin.name], heard, strict=True))}
        mask = torch.ones(1, len(prompt), dtype=torch.long)
        found = theirs.generate(
            **given,
            attention_mask=mask,
            max_new_tokens=len(tokens),
            do_sample=False,
            suppress_tokens=[twin.voice.placeholder],
        )
        assert found[0, -len(tokens) :].tolist() == tokens.tolist()


def embedded(voice, features, prompt):
    """What Llama is given by an Ultravox, the sound heard by Whisper's own forward, which wants all of 2 s."""
    module, filled = voice.module, torch.nn.functional.pad(features, (0, 200 - features.shape[2]))
    whole = module.multi_modal_projector(module.audio_tower(filled).last_hidden_state)
    torch.testing.assert_close(module.hear(filled), whole)
    vectors = module.hear(features)
    words = module.language_model.get_input_embeddings()(prompt)
    return words.masked_scatter((prompt == AUDIO)[:, None], vectors)[None]


def test_a_tokenizer_beside_the_weights_says_the_template(twin, tmp_path):
    folder = shutil.copytree(twin.voice.folder, tmp_path / twin.name)
    words = ["other", "assistant", "What", "is", "said?", "[INST][BEGIN_AUDIO]", "[/INST][TRANSCRIBE]"]
    write_tokenizer(folder, *words)
    voice = load(str(folder))
    before, behind = voice.said()
    assert before
    assert behind
    prompt = voice.prompt(3).tolist()
    assert prompt == [*before, AUDIO, AUDIO, AUDIO, *behind]


def test_a_recording_too_short_to_hear_is_refused(twin):
    with pytest.raises(HfError, match="too short"):
        twin.voice.prompt(0)


def test_voxtral_says_the_published_prompt_with_the_published_vocabulary(tmp_path_factory, monkeypatch):
    voice = load(str(build("voxtral", tmp_path_factory.mktemp("hf") / "voxtral")))
    monkeypatch.setattr(voice.module.config.get_text_config(), "vocab_size", 131072)
    assert voice.said() == ([1, 3, 25], [4, 34])


@pytest.fixture(scope="module")
def ultravox(tmp_path_factory):
    return build("ultravox", tmp_path_factory.mktemp("hf") / "ultravox")


def test_ultravox_borrows_the_parts_that_were_not_trained(ultravox, tmp_path):
    """As published: the projector alone in the checkpoint, encoder and language model those of others."""
    from transformers import LlamaConfig, LlamaForCausalLM, WhisperConfig, WhisperForConditionalGeneration

    settings = json.loads((ultravox / "config.json").read_text())
    parts = load_file(ultravox / "model.safetensors")

    def of(part):
        return {name.removeprefix(part): value for name, value in parts.items() if name.startswith(part)}

    text = LlamaForCausalLM(LlamaConfig(**settings["text_config"]))
    text.load_state_dict(of("language_model."))
    text.save_pretrained(tmp_path / "llama")
    audio = {**settings["audio_config"], "decoder_layers": 1, "decoder_attention_heads": 4, "vocab_size": 10}
    audio |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}
    hears = WhisperForConditionalGeneration(WhisperConfig(**audio))
    hears.model.encoder.load_state_dict(of("audio_tower."))
    hears.save_pretrained(tmp_path / "whisper", max_shard_size="150KB")
    assert (tmp_path / "whisper" / "model.safetensors.index.json").is_file()
    folder = tmp_path / "ultravox"
    folder.mkdir()
    named = {"text_model_id": str(tmp_path / "llama"), "audio_model_id": str(tmp_path / "whisper")}
    kept = {name: value for name, value in settings.items() if name not in ("text_config", "audio_config")}
    (folder / "config.json").write_text(json.dumps(kept | named))
    save_file({name: value for name, value in parts.items() if "projector" in name}, folder / "model.safetensors")
    whole, borrowed = load(str(ultravox)), load(str(folder))
    (clip,) = whole.clips(1, recordings(16000, 0.8))
    torch.testing.assert_close(borrowed.render(clip).logits["text"], whole.render(clip).logits["text"])


def test_ultravox_before_its_version_05_has_its_norm_at_the_end(ultravox, tmp_path):
    folder = shutil.copytree(ultravox, tmp_path / "ultravox")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"projector_ln_mid": False, "projector_act": "gelu", "hidden_size": 64}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(HfError, match="cannot be read as a model of the architecture ultravox"):
        load(str(folder))
    parts = load_file(folder / "model.safetensors")
    del parts["multi_modal_projector.ln_mid.weight"]
    parts["multi_modal_projector.ln_post.weight"] = torch.ones(64)
    for name in ("linear_1", "linear_2"):
        weight = parts[f"multi_modal_projector.{name}.weight"]
        parts[f"multi_modal_projector.{name}.weight"] = weight[:64, :].contiguous()
    save_file(parts, folder / "model.safetensors")
    voice = load(str(folder))
    check_forcing(voice, voice.clips(1, recordings(16000, 1.0))[0])
    settings["audio_config"]["model_type"] = "hubert"
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(HfError, match="hears by Whisper's encoder, and this one by hubert"):
        load(str(folder))
