"""The small decoder: delay pattern, positions, shared keys, and streamed rows that are those of the whole."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from tests.voice.tiny_decoder import TINY
from voice.codec_decoder import CodecDecoder, Past
from voice.decoder import PROMPT_ROWS, DecoderVoice, SpeechDecoder
from voice.decoder_config import SEVEN_B, SMALL, CodecConfig
from voice.decoder_step import Step
from voice.family import COMPARISONS
from voice.graph import graph_of, site_nodes
from voice.model import Clip
from voice.noise import paired_noise
from voice.sites import discover
from voice.streaming import StreamingError, utterance
from voice.transformer import Attention, Positions, rotate


@pytest.fixture(scope="module")
def voice():
    return DecoderVoice.seeded()


@pytest.fixture(scope="module")
def tiny():
    return DecoderVoice.seeded(TINY)


def streamed(module: SpeechDecoder, tokens: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Sound and logits of rows [1 + codebooks, rows] fed one after another, the row of no tokens first."""
    step = Step(module)
    states, parts = tuple(step.states().values()), []
    with torch.inference_mode():
        for position, row in enumerate(torch.cat([module.none(), tokens], dim=1).T):
            made = step(row[:1], row[1:], torch.tensor([position]), *states)
            parts.append(made[: len(step.parts)])
            states = made[len(step.parts) :]
    found = dict(zip(step.parts, (torch.cat(part) for part in zip(*parts, strict=True)), strict=True))
    return found.pop("waveform"), found


def assert_streams_as_whole(voice: DecoderVoice, clip: Clip) -> None:
    whole, (prompt, rows) = voice.render(clip), clip.inputs
    sound, logits = streamed(voice.module, torch.cat([prompt, rows], dim=1))
    config = voice.module.config
    begin = (1 + prompt.shape[1] + config.delay) * config.codec.frame_samples
    torch.testing.assert_close(sound[begin:], whole.sound, rtol=0, atol=1e-5)
    for head, values in whole.logits.items():
        found = logits[head][prompt.shape[1] : -1]
        torch.testing.assert_close(found, values, rtol=0, atol=1e-5)


def test_streamed_rows_are_those_of_the_whole(voice):
    for clip in voice.clips(2):
        assert_streams_as_whole(voice, clip)


def test_a_stream_may_fill_its_cache_and_no_more(tiny):
    generator = torch.Generator().manual_seed(5)
    limits = torch.tensor([TINY.text, *[TINY.codec.codes] * TINY.codec.codebooks])[:, None]
    # The step that reads the last row needs a position, too.
    tokens = torch.randint(0, 1000, (1 + TINY.codec.codebooks, TINY.max_rows - 1), generator=generator) % limits
    assert_streams_as_whole(tiny, Clip("full", (tokens[:, :3], tokens[:, 3:]), 1.0))
    step = Step(tiny.module)
    with pytest.raises(IndexError):
        step(tokens[0, :1], tokens[1:, 0], torch.tensor([TINY.max_rows]), *step.states().values())
    longer = torch.cat([tokens, tokens[:, :2]], dim=1)
    with pytest.raises(ValueError, match="at most 48 have a place"):
        tiny.module(longer[:, :3], longer[:, 3:])
    with pytest.raises(ValueError, match="ask for fewer"):
        tiny.module.write(tokens[:, :3], TINY.max_rows)


def test_an_utterance_is_read_row_by_row_and_says_the_whole(tiny):
    (clip,) = tiny.clips(1)
    prompt, rows = clip.inputs
    said = utterance(tiny, clip)
    first, count = prompt.shape[1], rows.shape[1]
    assert len(said.runs) == 1 + first + count
    assert said.facts["chunk_samples"] == 1280
    assert said.facts["latency_samples"] == (1 + first + TINY.delay) * 1280
    assert said.inputs["codes"].shape == (1 + first + count, TINY.codec.codebooks)
    assert not said.seldom
    states, outputs = None, []
    for run in said.runs:
        made = said.graph.run(run, states=states)
        states = dict(zip(said.graph.states, made[len(said.graph.parts) :], strict=True))
        outputs.append(made[: len(said.graph.parts)])
    parts = dict(zip(said.graph.parts, said.join(outputs), strict=True))
    whole = tiny.render(clip)
    sound = parts.pop("waveform").flatten()[said.facts["latency_samples"] :]
    torch.testing.assert_close(sound, whole.sound, rtol=0, atol=1e-5)
    for head, values in whole.logits.items():
        torch.testing.assert_close(parts[head][first:-1, 0], values, rtol=0, atol=1e-5)
    free = utterance(tiny, tiny.unforced(clip))
    assert all(torch.equal(free.inputs[name], values) for name, values in said.inputs.items())


def test_utterances_that_a_step_cannot_say_are_refused(tiny):
    (clip,) = tiny.clips(1)
    prompt, rows = clip.inputs
    with pytest.raises(StreamingError, match="a step is one row of 80 ms, and no other chunks: got 40 ms"):
        utterance(tiny, clip, 40.0)
    longer = Clip("longer", (prompt, rows.repeat(1, 2)), 1.0)
    with pytest.raises(StreamingError, match="at most 48 have a place"):
        utterance(tiny, longer)


def test_a_step_keeps_shapes_and_names(voice):
    step = Step(voice.module)
    examples, states = step.examples(), step.states()
    assert list(examples) == ["text", "codes", "position"]
    assert all(not state.any() for state in states.values())
    with torch.inference_mode():
        made = step(*examples.values(), *states.values())
    config = voice.module.config
    assert len(made) == len(step.parts) + len(states)
    sizes = {name: tuple(part.shape) for name, part in zip(step.parts, made, strict=False)}
    assert sizes.pop("waveform") == (1280,)
    assert sizes.pop("text") == (1, config.text)
    assert sizes == {f"audio.{book}": (1, config.codec.codes) for book in range(8)}
    for old, new in zip(states.values(), made[len(step.parts) :], strict=True):
        assert old.shape == new.shape
    assert states["layers_3_values"].shape == (2, config.max_rows, 64)


def test_a_step_is_a_graph_whose_sites_have_the_names_of_the_whole(tiny):
    step, (clip,) = Step(tiny.module), tiny.clips(1)
    graph = graph_of(step, step.examples(), step.states(), parts=step.parts, sites_of=tiny.module)
    assert graph.inputs == ("text", "codes", "position")
    assert graph.parts == step.parts
    assert graph.states == tuple(step.states())
    found = {site.name for site in discover(tiny.module, lambda: tiny.render(clip), clip.seconds).sites}
    assert {node.site for node in site_nodes(graph)} == found
    tokens = torch.cat([tiny.module.none(), *clip.inputs], dim=1)
    states = own = tuple(step.states().values())
    for position, row in enumerate(tokens.T[:5]):
        inputs = {"text": row[:1], "codes": row[1:], "position": torch.tensor([position])}
        made = graph.run(inputs, states=dict(zip(graph.states, states, strict=True)))
        expected = step(*inputs.values(), *own)
        for part, wanted in zip(made, expected, strict=True):
            torch.testing.assert_close(part, wanted, rtol=0, atol=1e-5)
        states, own = made[len(step.parts) :], expected[len(step.parts) :]


def test_the_cache_holds_a_key_where_it_was_written(tiny):
    step = Step(tiny.module)
    row, states = tiny.module.nothing, step.states()
    made = step(row[:1], row[1:], torch.tensor([7]), *states.values())
    new = dict(zip(states, made[len(step.parts) :], strict=True))
    for name in ("layers_0_keys", "layers_1_values"):
        written = new[name].abs().sum(dim=(0, 2)) > 0
        assert written.nonzero().flatten().tolist() == [7]


def test_nothing_ahead_is_heard(tiny):
    (clip,) = tiny.clips(1)
    prompt, rows = clip.inputs
    other = rows.clone()
    other[:, -3:] = torch.where(other[:, -3:] > 0, other[:, -3:] - 1, 1)
    before, after = tiny.render(clip), tiny.render(Clip("other", (prompt, other), clip.seconds))
    for head, values in before.logits.items():
        assert torch.equal(values[:-2], after.logits[head][:-2])
        assert not torch.equal(values[-1], after.logits[head][-1])
    # The last three rows complete the last three frames.
    kept = len(before.sound) - 3 * TINY.codec.frame_samples
    assert torch.equal(before.sound[:kept], after.sound[:kept])
    assert not torch.equal(before.sound[kept:], after.sound[kept:])


def test_a_row_completes_the_frame_whose_codes_came_one_row_after_another(tiny):
    codec, books = tiny.module.codec, TINY.codec.codebooks
    frames = torch.randint(0, TINY.codec.codes, (books, 5), generator=torch.Generator().manual_seed(1))
    rows = torch.full((books, 5 + books - 1), TINY.codec.codes)
    for book in range(books):
        rows[book, book : book + 5] = frames[book]
    table = codec.entries.weight.unflatten(0, (books, TINY.codec.codes + 1))
    expected = torch.stack([sum(table[book, frames[book, f]] for book in range(books)) for f in range(5)])
    torch.testing.assert_close(codec.latents(codec.indices(rows), Past())[books - 1 :], expected)
    assert not codec.entries.weight.unflatten(0, (books, -1))[:, -1].any(), "no code says nothing"


def test_the_codec_has_no_hearing_of_what_comes_after():
    config = CodecConfig(16000, 3, 10, 8, (8, 8, 8, 8, 8), (8, 8, 5, 4))
    with paired_noise(0):
        codec = CodecDecoder(config).requires_grad_(False)
    codes = torch.randint(0, 10, (3, 6), generator=torch.Generator().manual_seed(2))
    whole = codec(codec.indices(codes), Past())
    assert whole.shape == (6 * 1280,)
    for rows in (1, 4):
        torch.testing.assert_close(codec(codec.indices(codes)[:rows], Past()), whole[: rows * 1280], rtol=0, atol=1e-6)


def test_grouped_heads_are_heads_whose_keys_are_repeated():
    with paired_noise(3):
        attention = Attention(TINY).requires_grad_(False)
        x = torch.randn(7, TINY.width)
    places = Positions(TINY).first(7)
    found, kept = attention(x, places)

    def heads(y: torch.Tensor, count: int) -> torch.Tensor:
        return y.view(7, count, TINY.head_size).transpose(0, 1)

    query = rotate(heads(attention.query(x), TINY.heads), places.cosine, places.sine)
    keys = rotate(heads(attention.key(x), TINY.kv_heads), places.cosine, places.sine)
    values = heads(attention.value(x), TINY.kv_heads)
    mixed = F.scaled_dot_product_attention(query, keys, values, is_causal=True, enable_gqa=True)
    expected = attention.out(mixed.transpose(0, 1).reshape(7, -1))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(kept.keys, keys)


def test_a_product_of_turned_vectors_depends_on_their_distance():
    positions = Positions(TINY)
    with paired_noise(4):
        query, key = torch.randn(2, 1, TINY.head_size)

    def product(first: int, second: int) -> float:
        turned = [
            rotate(x, positions.cosine[place], positions.sine[place]) for x, place in ((query, first), (key, second))
        ]
        return float((turned[0] * turned[1]).sum())

    assert product(3, 1) == pytest.approx(product(20, 18), abs=1e-5)
    assert abs(product(3, 1) - product(3, 2)) > 1e-3
    single = positions.at(torch.tensor([9]))
    assert torch.equal(single.cosine, positions.cosine[9:10])
    assert single.here is not None
    assert single.here.flatten().nonzero().item() == 9
    assert (single.mask == 0).sum() == 10
    for table in (positions.mask, positions.here):
        assert torch.equal(table.bfloat16().float(), table), "the tables of places are exact on a card"


def test_the_voice_is_what_its_family_is_judged_by(voice):
    clips = voice.clips(3)
    assert COMPARISONS[voice.family].judged == ("tokens", "sound")
    assert voice.sample_rate_hz == 16000
    for clip in clips:
        prompt, rows = clip.inputs
        assert prompt.shape == (9, PROMPT_ROWS)
        forced, free = voice.render(clip), voice.render(voice.unforced(clip))
        assert torch.equal(forced.sound, free.sound)
        assert len(forced.sound) == round(clip.seconds * 16000) == (rows.shape[1] - 7) * 1280
        assert forced.sound.abs().max() < 1
        assert 0.05 < forced.sound.std() < 0.5
        chosen = torch.stack([values.argmax(1) for values in forced.logits.values()])
        assert torch.equal(chosen[0], rows[0])
        for book in range(8):
            assert (rows[1 + book, :book] == SMALL.codec.codes).all(), "a codebook begins when its turn comes"
            assert torch.equal(chosen[1 + book, book:], rows[1 + book, book:])
    assert len({tuple(clip.inputs[1][0].tolist()) for clip in clips}) == 3
    assert all(
        torch.equal(a.inputs[1], b.inputs[1]) for a, b in zip(clips, DecoderVoice.seeded().clips(3), strict=True)
    )
    assert voice.reseeded(clips[0], 1) is None


def test_speech_ends_when_the_codebooks_have_caught_up(tiny):
    module = DecoderVoice.seeded(TINY).module
    module.text_head.weight.zero_()  # every text token alike, of which the first is taken
    rows = module.write(module.none(2))
    assert rows.shape[1] == 1 + TINY.delay
    assert rows[0, 0] == 0
    assert tiny.module.write(tiny.module.none(2), 12).shape[1] <= 12


def test_every_product_is_a_site(voice):
    (clip,) = voice.clips(1)
    found = discover(voice.module, lambda: voice.render(clip), clip.seconds)
    assert found.covered_share == pytest.approx(1.0)
    names = [site.name for site in found.sites]
    assert len(names) == 4 * 9 + 9 + 14
    assert {"layers.0.attention.query", "layers.3.attention#pv", "audio_heads.7", "codec.stages.3.up"} <= set(names)
    keys = next(site for site in found.sites if site.name == "layers.0.attention#qk")
    assert keys.groups == SMALL.kv_heads, "shared keys are read once"


def test_the_large_one_has_seven_billion_weights_and_keys_eight_times_smaller():
    with torch.device("meta"):
        module = SpeechDecoder(SEVEN_B)
    assert 7.0e9 < sum(weight.numel() for weight in module.parameters()) < 7.5e9
    assert (SEVEN_B.layers, SEVEN_B.heads, SEVEN_B.width) == (32, 32, 4096)
    assert module.layers[0].attention.key.weight.shape[0] * 8 == module.layers[0].attention.query.weight.shape[0]
    assert SEVEN_B.codec.frame_samples == 1920
    with torch.device("meta"):
        step = Step(module)
        made = step(*(torch.zeros(n, dtype=torch.long) for n in (1, 8, 1)), *step.states().values())
    assert made[0].shape == (1920,)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: replace(SMALL, kv_heads=3), "8 heads cannot share 3"),
        (lambda: replace(SMALL, head_size=7), "a head of 7 is odd"),
        (lambda: replace(SMALL.codec, rates=(8, 8, 5, 5)), "1600 samples of a frame; 16000 Hz .* needs 1280"),
        (lambda: replace(SMALL.codec, channels=(8, 8)), "4 upsamplings have 5 widths"),
    ],
)
def test_sizes_that_fit_nothing_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()
    assert math.prod(SMALL.codec.rates) == 1280
    assert SMALL.max_rows > SMALL.longest_rows + PROMPT_ROWS
