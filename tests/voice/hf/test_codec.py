"""Codecs of transformers: the same codes and sound as their own code has, with every product a site."""

import importlib
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.families.searching import lowered
from voice.hf.base import HfError, Recording
from voice.hf.codec import Codebook, CodecVoice
from voice.hf.codec_mimi import MimiCodec
from voice.hf.loading import ARCHITECTURES, load
from voice.hf.tiny.codec import speech
from voice.hf.twins import build
from voice.sites import discover

TWINS = ("mimi", "encodec", "encodec_48khz", "dac", "xcodec")
BOOKS = {"mimi": 8, "encodec": 8, "encodec_48khz": 4, "dac": 4, "xcodec": 8}
OPTIONS = {"mimi": {"num_quantizers": 8}, "encodec": {"bandwidth": 3.6}, "encodec_48khz": {"bandwidth": 3.6}}
SECONDS = 1.6


class Twin:
    """A twin as this project has it, and as transformers has it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = build(kind, folder)
        self.voice = load(str(self.folder))
        assert isinstance(self.voice, CodecVoice)
        architecture = ARCHITECTURES[kind.removesuffix("_48khz")]
        transformers = importlib.import_module("transformers")
        self.theirs = getattr(transformers, architecture.loads).from_pretrained(self.folder).eval()
        rate = self.voice.sample_rate_hz
        long = speech(rate, 2 * SECONDS).numpy()
        parts = np.split(long, [int(SECONDS * rate) + 77])
        self.recordings = [Recording(f"part{index}", part) for index, part in enumerate(parts)]
        self.clips = self.voice.clips(2, self.recordings)

    def own(self, sound: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes [codebooks, frames] and sound [time] of the model's own code."""
        channels = getattr(self.theirs.config, "audio_channels", 1)
        values = sound.expand(1, channels, -1)
        with torch.inference_mode():
            if self.kind == "dac":
                values = torch.nn.functional.pad(values, (0, -len(sound) % self.theirs.config.hop_length))
            found = self.theirs(values, **OPTIONS.get(self.kind, {}))
        waveform = found.audio_values.reshape(channels, -1).mean(0)[: len(sound)]
        if not self.kind.startswith("encodec"):
            return found.audio_codes[0], waveform
        with torch.inference_mode():
            chunks = self.theirs.encode(values, **OPTIONS[self.kind])
        codes = torch.cat(list(chunks.audio_codes[:, 0]), 1)
        return codes[:, : codes.shape[1] - chunks.last_frame_pad_length], waveform


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    return cache(lambda kind: Twin(kind, tmp_path_factory.mktemp(kind)))


@pytest.fixture(params=TWINS)
def twin(request, twins):
    return twins(request.param)


def test_codes_and_sound_are_those_of_the_model_itself(twin):
    for clip in twin.clips:
        sound, codes = clip.inputs
        theirs, waveform = twin.own(sound)
        assert codes.shape[0] == BOOKS[twin.kind]
        assert torch.equal(codes, theirs)
        rendered = twin.voice.render(clip)
        torch.testing.assert_close(rendered.sound, waveform, atol=2e-5, rtol=0)
        assert 0.05 < rendered.sound.abs().max() < 0.95
        assert clip.natural.shape == rendered.sound.shape
        assert clip.seconds == len(clip.natural) / twin.voice.sample_rate_hz


def test_every_product_is_a_site_under_the_name_that_transformers_gives_its_module(twin):
    clip = twin.clips[0]
    found = discover(twin.voice.module, lambda: twin.voice.render(clip), clip.seconds)
    assert found.covered_share >= 0.99, found.uncovered
    paths = dict(twin.theirs.named_modules())
    assert {site.name.partition("#")[0] for site in found.sites} <= set(paths)
    books = [site for site in found.sites if site.name.endswith(".codebook")]
    assert [site.op for site in books] == ["linear"] * BOOKS[twin.kind]
    frames = len(twin.voice.render(clip).logits["audio.0"])
    for site in books:
        assert site.n == 64
        assert site.rows_per_second == pytest.approx(frames / clip.seconds)


def test_nothing_is_left_from_one_render_to_the_next(twin):
    first, second = twin.clips
    before = twin.voice.render(first)
    twin.voice.render(second)
    after = twin.voice.render(first)
    assert all(torch.equal(a, b) for a, b in zip(before.parts, after.parts, strict=True))
    assert tuple(before.logits) == tuple(f"audio.{index}" for index in range(BOOKS[twin.kind]))


def test_stages_and_decoder_are_given_the_codes_of_the_clip(twin):
    clip = twin.clips[0]
    sound, codes = clip.inputs
    plain = twin.voice.render(clip)
    free = twin.voice.render(twin.voice.unforced(clip))
    assert all(torch.equal(a, b) for a, b in zip(plain.parts, free.parts, strict=True))
    other = codes.clone()
    other[1] = (codes[1] + 1) % 64
    moved = twin.voice.render(type(clip)(clip.name, (sound, other), clip.seconds))
    same = [torch.equal(plain.logits[head], moved.logits[head]) for head in plain.logits]
    assert same == [True, True] + [False] * (len(same) - 2)
    assert not torch.equal(plain.sound, moved.sound)


def test_codes_vary_and_logits_neither_are_alike_nor_leave_one_choice(twin):
    logits = twin.voice.render(twin.clips[1]).logits.values()
    for values, codes in zip(logits, twin.clips[1].inputs[1], strict=True):
        assert (values <= 1e-3).all(), "distances are not negative"
        assert codes.unique().numel() >= 8
        assert 2 / 64 < values.softmax(1).max(1).values.mean() < 0.9


@pytest.mark.parametrize("kind", ["encodec", "dac"])
def test_a_search_in_low_precision_moves_its_own_logits_alone(twins, kind):
    voice = Short(twins(kind))
    name = next(path for path, module in voice.module.named_modules() if isinstance(module, Codebook))
    plain, engine, clip = lowered(voice), lowered(voice, name), voice.clips(1)[0]
    reference, moved = plain.render(clip), engine.render(clip)
    assert torch.equal(reference.sound, moved.sound)
    same = [torch.equal(reference.logits[head], moved.logits[head]) for head in reference.logits]
    assert same == [False] + [True] * (len(same) - 1)
    change = moved.logits["audio.0"] - reference.logits["audio.0"]
    assert change.square().mean() < 0.05 * reference.logits["audio.0"].var()


class Short:
    """A twin's voice with a short clip of its own."""

    def __init__(self, twin: Twin) -> None:
        self._voice, self._recording = twin.voice, twin.recordings[0]

    def __getattr__(self, name: str) -> object:
        return getattr(self._voice, name)

    def clips(self, count: int) -> object:
        short = Recording("short", self._recording.samples[: self._voice.sample_rate_hz // 2])
        return self._voice.clips(count, [short] * count)


@pytest.mark.parametrize("tail", [1, 100, 479, 481, 47_519])
def test_chunks_of_any_length_are_joined_as_the_model_itself_joins_them(twins, tail):
    twin = twins("encodec_48khz")
    sound = speech(48_000, 3.0)[: 47_520 + tail]
    clip = twin.voice.clips(1, [Recording("tail", sound.numpy())])[0]
    rendered = twin.voice.render(clip)
    assert rendered.sound.shape == sound.shape
    codes, waveform = twin.own(sound)
    assert torch.equal(clip.inputs[1], codes)
    torch.testing.assert_close(rendered.sound, waveform, atol=2e-5, rtol=0)


def test_the_unit_of_the_distances_is_that_of_the_entries():
    torch.manual_seed(0)
    entries, frames = torch.randn(32, 6), torch.randn(10, 6)
    plain, scaled = Codebook(entries), Codebook(100 * entries)
    torch.testing.assert_close(plain(frames), scaled(100 * frames), rtol=1e-4, atol=1e-4)
    distances = torch.cdist(frames, entries).square()
    torch.testing.assert_close(plain(frames) * plain.spacing, -distances, rtol=1e-4, atol=1e-4)
    assert Codebook(torch.zeros(4, 6)).spacing == 1.0


def test_as_many_codebooks_as_asked_for(twins):
    transformers = importlib.import_module("transformers")
    mimi = twins("mimi").folder
    sound = speech(24_000, 0.5)
    heads = {}
    for asked in (None, 2, 10):
        codec = MimiCodec(transformers.MimiModel.from_pretrained(mimi).eval(), asked)
        with torch.inference_mode():
            heads[asked] = codec(sound)[1]
    assert [len(found) for found in heads.values()] == [8, 2, 10]
    assert all(torch.equal(heads[None][head], heads[10][head]) for head in heads[None])
    for asked in (1, 11):
        with pytest.raises(HfError, match=f"can do with 2 to 10 codebooks, and was asked for {asked}"):
            MimiCodec(transformers.MimiModel.from_pretrained(mimi), asked)


def test_every_recording_that_cannot_be_coded_is_named(twins):
    voice = twins("mimi").voice
    wrong = [
        Recording("stereo", np.zeros((2, 9000), np.float32)),
        Recording("short", np.zeros(1919, np.float32)),
        Recording("double", np.zeros(9000)),
        Recording("good", np.zeros(9000, np.float32)),
    ]
    with pytest.raises(HfError) as error:
        voice.clips(5, wrong)
    message = str(error.value)
    assert "24000 Hz, of 1920 samples or more" in message
    for said in ("stereo: float32 [2, 9000]", "short: float32 [1919]", "double: float64 [9000]", "5 clips", "are 4"):
        assert said in message
    assert "good" not in message


@pytest.mark.parametrize("kind", ["pocket_tts_codec", "vibevoice_codec"])
def test_a_codec_without_codes_says_a_recording_again(kind, tmp_path):
    voice = load(str(build(kind, tmp_path)))
    recordings = [Recording("a", speech(24_000, 1.5).numpy()), Recording("b", speech(24_000, 2.0).numpy()[7000:])]
    first, second = voice.clips(2, recordings)
    rendered = voice.render(first)
    assert (voice.family, rendered.logits, voice.unforced(first)) == ("vocoder", {}, None)
    assert rendered.sound.shape == first.inputs[0].shape
    assert 0.05 < rendered.sound.abs().max() < 0.95
    voice.render(second)
    assert torch.equal(voice.render(first).sound, rendered.sound)
    found = discover(voice.module, lambda: voice.render(first), first.seconds)
    assert found.covered_share >= 0.99, found.uncovered
    name = json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    theirs = getattr(importlib.import_module("transformers"), name).from_pretrained(tmp_path).eval()
    hop = voice.module.hop
    values = torch.nn.functional.pad(first.inputs[0], (0, -len(first.inputs[0]) % hop))[None, None]
    with torch.inference_mode():
        latents = theirs.encode(values, **({"sample": False} if kind == "vibevoice_codec" else {})).latents
        sound = next(iter(theirs.decode(latents).values()))
    assert latents.shape[1] == values.shape[2] / hop
    torch.testing.assert_close(rendered.sound, sound[0, 0, : len(rendered.sound)], atol=2e-5, rtol=0)
    assert {site.name.partition("#")[0] for site in found.sites} <= set(dict(theirs.named_modules()))


def test_half_a_codec_is_refused(twins, tmp_path):
    transformers = importlib.import_module("transformers")
    mimi = transformers.MimiModel.from_pretrained(twins("mimi").folder, encoder_config=None)
    mimi.save_pretrained(tmp_path)
    with pytest.raises(HfError, match=r"saved without its encoder; .* give it both"):
        load(str(tmp_path))
