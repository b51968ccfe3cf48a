"""BL-Voice mini: the trained decoder, its stream, and its codec."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from audio_eval.suite import ReferenceClip
from voice.blvoice import ROWS, WEIGHTS, BlVoice, BlVoiceCodec
from voice.codec_encoder import CodecEncoder, columns_of
from voice.decoder_config import MINI
from voice.decoder_step import Step
from voice.embedded import DATA, bundled_clips
from voice.hf.base import Recording
from voice.model import Clip
from voice.reading import END, phones_of
from voice.sites import discover


@pytest.fixture(scope="module")
def voice() -> BlVoice:
    return BlVoice.load()


@pytest.fixture(scope="module")
def codec() -> BlVoiceCodec:
    return BlVoiceCodec.load()


@pytest.fixture(scope="module")
def clip(voice: BlVoice) -> Clip:
    return min(voice.clips(), key=lambda clip: clip.seconds)


def recordings(count: int) -> list[Recording]:
    found = [(clip.name, clip.natural) for clip in bundled_clips()[:count]]
    return [Recording(name, natural) for name, natural in found if natural is not None]


def test_the_weights_are_small_enough_to_ship():
    assert (DATA / WEIGHTS).stat().st_size <= 25e6  # type: ignore[attr-defined]


def test_clips_are_the_bundled_sentences_in_tokens_of_their_own_phones(voice: BlVoice):
    clips, bundled = voice.clips(), bundled_clips()
    assert [clip.name for clip in clips] == [clip.name for clip in bundled]
    for clip, sentence in zip(clips, bundled, strict=True):
        prompt, rows = clip.inputs
        assert phones_of(prompt[0].tolist()) == sentence.inputs[0].tolist()
        assert rows[0, -1] == END
        assert rows[:, 0].tolist()[2:] == [MINI.codec.codes] * 7, "a codebook begins when its turn comes"
        assert clip.natural is not None
        assert clip.seconds == len(clip.natural) / 16000 == pytest.approx((rows.shape[1] - MINI.delay) * 0.08)
    assert len(voice.clips(3)) == 3


def test_sites_are_all_that_multiplies_with_cache_and_heads_among_them(voice: BlVoice, clip: Clip):
    found = discover(voice.module, lambda: voice.render(clip), clip.seconds)
    names = {site.name for site in found.sites}
    assert found.covered_share == 1.0
    assert {f"layers.{layer}.attention#{kind}" for layer in range(MINI.layers) for kind in ("qk", "pv")} <= names
    assert {"text_head", "codec.first", "codec.last", "codec.synthesis"} <= names
    assert {f"audio_heads.{book}" for book in range(8)} <= names
    keys = next(site for site in found.sites if site.name == "layers.0.attention#qk")
    assert keys.groups == 1, "eight heads read one of keys: the cache is 8 times smaller"


def test_the_likeliest_tokens_are_often_those_of_the_training_voice(voice: BlVoice):
    shares = []
    for clip in voice.clips(8):
        rendering, rows = voice.render(clip), clip.inputs[1]
        said = slice(0, rows.shape[1] - MINI.delay)
        right = [
            (rendering.logits[head].argmax(dim=1) == rows[row])[said].float().mean()
            for row, head in enumerate(("text", "audio.0"))
        ]
        shares.append(torch.stack(right))
    text, first = torch.stack(shares).mean(dim=0)
    # Of 1765 and of 128 tokens; the codebooks behind the first code what no text says.
    assert text > 0.5
    assert first > 0.4


def test_codes_of_its_own_are_intelligible(voice: BlVoice):
    scores = []
    for clip in voice.clips(4):
        prompt, rows = clip.inputs
        written = voice.module.write(prompt, rows.shape[1], text=rows[0])
        assert torch.equal(written[0], rows[0])
        made = voice.render(Clip("own", (prompt, written), clip.seconds)).sound.numpy()
        assert clip.natural is not None
        scores.append(ReferenceClip(clip.natural, 16000).score(made, ("stoi",))["stoi"])
    assert np.mean(scores) > 0.6


def test_a_text_is_read_to_its_end(voice: BlVoice):
    sound = voice.speak("The river is quiet.")
    frames = len(sound) / MINI.codec.frame_samples
    assert 10 < frames < MINI.longest_rows - MINI.delay, "it ended by itself"
    assert 0.05 < sound.abs().max() < 1.0


def test_rows_streamed_are_those_of_the_whole(voice: BlVoice, clip: Clip):
    prompt, rows = clip.inputs
    step, whole = Step(voice.module), voice.render(clip)
    states: tuple[Tensor, ...] = tuple(step.states().values())
    parts = []
    with torch.inference_mode():
        for position, row in enumerate(torch.cat([voice.module.none(), prompt, rows], dim=1).T):
            made = step(row[:1], row[1:], torch.tensor([position]), *states)
            parts.append(made[: len(step.parts)])
            states = made[len(step.parts) :]
    found = dict(zip(step.parts, (torch.cat(part) for part in zip(*parts, strict=True)), strict=True))
    begin = (1 + prompt.shape[1] + MINI.delay) * MINI.codec.frame_samples
    torch.testing.assert_close(found.pop("waveform")[begin:], whole.sound, rtol=0, atol=1e-4)
    for head, values in whole.logits.items():
        torch.testing.assert_close(found[head][prompt.shape[1] : -1], values, rtol=0, atol=1e-3)


def test_rows_that_are_stored_are_what_the_codec_says_of_the_recordings(codec: BlVoiceCodec):
    stored = {row["name"]: row["rows"] for row in json.loads((DATA / ROWS).read_text(encoding="utf-8"))}
    for clip in codec.clips(recordings(4)):
        codes = clip.inputs[1]
        first = torch.tensor(stored[clip.name])[1, : codes.shape[1]]
        # Nearest entries may differ by rounding on another machine, here and there.
        assert (first == codes[0]).float().mean() > 0.95


def test_codebooks_are_sites_and_forced_codes_are_those_that_are_chosen(codec: BlVoiceCodec):
    (clip,) = codec.clips(recordings(1))
    found = discover(codec.module, lambda: codec.render(clip), clip.seconds)
    assert found.covered_share == 1.0
    assert sum(site.k == MINI.codec.latent and site.n == MINI.codec.codes for site in found.sites) == 8
    forced, free = codec.render(clip), codec.render(codec.unforced(clip))
    torch.testing.assert_close(forced.sound, free.sound)
    assert clip.natural is not None
    assert forced.sound.shape == clip.natural.shape
    for book, values in enumerate(forced.logits.values()):
        assert torch.equal(values.argmax(dim=1), clip.inputs[1][book])
    assert ReferenceClip(clip.natural, 16000).score(forced.sound.numpy(), ("stoi",))["stoi"] > 0.7


def test_a_frame_hears_nothing_of_the_next():
    encoder = CodecEncoder(MINI.codec.latent)
    draw = np.random.default_rng(0)
    sound = torch.from_numpy(0.1 * draw.standard_normal(5 * 1280).astype(np.float32))
    other = sound.clone()
    other[3 * 1280 :] = 0.0
    with torch.no_grad():
        one, two = encoder(columns_of(sound[None])), encoder(columns_of(other[None]))
    assert torch.equal(one[:, :3], two[:, :3])
    assert not torch.equal(one[:, 3:], two[:, 3:])
