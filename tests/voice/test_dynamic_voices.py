"""Dynamic graphs of small voices against what these render at lengths that none of their graphs had."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from tests.voice.test_hifigan import TINY as TINY_HIFIGAN
from tests.voice.tiny_decoder import TINY as TINY_DECODER
from voice.acoustic import AcousticConfig
from voice.decoder import DecoderVoice
from voice.embedded import EmbeddedModel
from voice.graph import SiteGraph, constant_of, dynamic_graph, export_graph, graph_of
from voice.hifigan import Generator, HifiganVoice
from voice.model import Clip
from voice.prosody import ProsodyConfig
from voice.vocoder import VocoderConfig

torch.set_num_threads(1)


def close(results: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert results
    for result, wanted in zip(results, expected, strict=False):
        assert result.shape == wanted.shape
        assert wanted.any()
        assert (result - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def test_hifigan() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        voice = HifiganVoice(TINY_HIFIGAN, Generator(TINY_HIFIGAN).requires_grad_(False))

    def clip(frames: int) -> Clip:
        return Clip("noise", (torch.randn(1, 8, frames, generator=seeded(frames)),), frames / 1000)

    dynamic = dynamic_graph([export_graph(voice, clip(frames)) for frames in (6, 7, 11)])
    assert list(dynamic.symbols) == ["mel_length"]
    assert dynamic.sizes == dynamic.bounds == dynamic.noise == ()
    for frames in (1, 8, 40):
        close(dynamic.run({"mel": clip(frames).inputs[0]}), voice.render(clip(frames)).parts)
    shapes = tuple(dynamic.dynamic_shapes().values())
    program = torch.export.export(dynamic.module, (dynamic.examples["mel"],), dynamic_shapes=shapes)
    (output,) = program.graph.find_nodes(op="output")
    assert str(output.args[0][0].meta["val"].shape[0]).startswith("16*s")


def test_decoder() -> None:
    voice = DecoderVoice.seeded(replace(TINY_DECODER, layers=1))
    (whole,) = voice.clips(1)

    def clip(asked: int, said: int) -> Clip:
        prompt, rows = (torch.cat([tokens] * 8, dim=1) for tokens in whole.inputs)
        return Clip("prompt", (prompt[:, :asked], rows[:, :said]), said / 12.5)

    dynamic = dynamic_graph([export_graph(voice, clip(*rows)) for rows in ((3, 6), (5, 5), (4, 9), (8, 12))])
    assert {symbol: limit.largest for symbol, limit in dynamic.limits.items()} == {
        "prompt_length": 15,
        "rows_length": 17,
    }
    other = clip(6, 11)
    close(dynamic.run(dict(zip(dynamic.inputs, other.inputs, strict=True))), voice.render(other).parts)
    shapes = tuple(dynamic.dynamic_shapes().values())
    program = torch.export.export(dynamic.module, tuple(dynamic.examples.values()), dynamic_shapes=shapes)
    close(program.module()(*other.inputs), voice.render(other).parts)


class Forced(nn.Module):
    """The embedded model with its inputs all forced."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = EmbeddedModel(
                ProsodyConfig(width=16, heads=2, hidden=16, blocks=1),
                AcousticConfig(mels=8, width=16, heads=2, hidden=16, encoder_blocks=1, decoder_blocks=1),
                VocoderConfig(mels=8, channels=(16, 8, 8), rates=(4, 4), kernels=(3,), head_hop=4),
            )

    def forward(self, phones: Tensor, durations: Tensor, f0_hz: Tensor) -> Tensor:
        waveform: Tensor = self.model(phones, durations, f0_hz)
        return waveform


def sentence(phones: int, frames: int) -> dict[str, Tensor]:
    durations = torch.ones(phones, dtype=torch.long)
    durations[1] += frames - phones
    f0_hz = 100 + 100 * torch.rand(frames, generator=seeded(frames))
    return {"phones": torch.arange(phones) + 3, "durations": durations, "f0_hz": f0_hz * (f0_hz > 120)}


def test_embedded() -> None:
    module = Forced().eval().requires_grad_(False)

    def graph(phones: int, frames: int) -> SiteGraph:
        return graph_of(module, sentence(phones, frames), parts=("waveform",), sites_of=module.model)

    dynamic = dynamic_graph([graph(3, 9), graph(5, 11), graph(4, 17), graph(9, 26)])
    assert {name: [axis.input for axis in axes] for name, axes in dynamic.symbols.items()} == {
        "phones_length": ["phones", "durations"],
        "f0_hz_length": ["f0_hz", "noise_0"],
    }
    assert {name: limit.largest for name, limit in dynamic.limits.items()} == {"phones_length": 9, "f0_hz_length": 26}
    given, own = sentence(6, 20), graph(6, 20)
    (noise,) = [node for node in own.module.graph.find_nodes(op="get_attr") if str(node.target).startswith("noise_")]
    given["noise_0"] = constant_of(own, noise)
    assert given["noise_0"].shape == dynamic.shape_of("noise_0", {"phones_length": 6, "f0_hz_length": 20}) == (1, 1280)
    expected = module(*(given[name] for name in own.inputs))
    close(dynamic.run(given), (expected,))
