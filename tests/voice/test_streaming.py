"""Streaming: chunk by chunk, what a voice says whole, at both ends and for every chunk and length."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from backends.base import Arithmetic
from backends.emulation.preparation import Preparation
from backends.hopper.numerics import HopperArithmetic
from backends.tenstorrent.exact.arithmetic import ExactTensix
from backends.tenstorrent.numerics import TensixArithmetic
from precision.policy import Fidelity, Scheme
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.graph import site_node
from voice.hifigan import V2, Generator, HifiganConfig, HifiganVoice
from voice.intercept import intercept
from voice.mel import MelConfig
from voice.model import Clip
from voice.site_call import SiteCall
from voice.streaming import (
    Streamable,
    Streamer,
    StreamGraph,
    StreamingError,
    Utterance,
    chunks_of,
    run_stream,
    stream,
    streamable,
    utterance,
)

torch.set_num_threads(1)

TINY = replace(V2, channels=16, rates=(4, 4), kernels=(8, 8), mel=MelConfig(16000, 8, 64, 16, 64))


def generator(config: HifiganConfig, seed: int = 0) -> Generator:
    """Of seeded weights, biases large enough that silence is not silent inside."""
    torch.manual_seed(seed)
    made = Generator(config).eval().requires_grad_(False)
    for parameter in made.parameters():
        if parameter.ndim == 1:
            parameter.normal_(0, 0.3)
    return made


class Part:
    """A streamable and its steps, each traced once."""

    def __init__(self, streamable: Streamable) -> None:
        self.streamable = streamable
        self.module = streamable.module
        self.graph = streamable.graph()
        self._steps: dict[int, StreamGraph] = {}

    def step(self, chunk: int = 5) -> StreamGraph:
        if chunk not in self._steps:
            self._steps[chunk] = stream(self.graph, time_axes=self.streamable.time_axes, chunk=chunk)
        return self._steps[chunk]

    def noise(self, frames: int) -> dict[str, Tensor]:
        """Inputs of another length."""
        given = self.streamable.inputs
        least = min(x.shape[2] for x in given.values())
        torch.manual_seed(frames)
        return {name: torch.randn(*x.shape[:2], x.shape[2] // least * frames) for name, x in given.items()}


def hifigan(config: HifiganConfig) -> Streamable:
    voice = HifiganVoice(config, generator(config))
    return streamable(voice, Clip("noise", (torch.randn(1, config.mel.mels, 12),), 1.0))


@pytest.fixture(scope="module")
def embedded() -> Part:
    return Part(streamable(EmbeddedVoice.load(), bundled_clips()[0]))


@pytest.fixture(scope="module")
def tiny() -> Part:
    return Part(hifigan(TINY))


def assert_streams(step: StreamGraph, inputs: Mapping[str, Tensor], module: nn.Module, atol: float) -> None:
    with torch.no_grad():
        whole = module(*inputs.values())
    streamed = run_stream(step, inputs)
    for want, got in zip(whole if isinstance(whole, tuple) else (whole,), streamed, strict=True):
        assert got.shape == want.shape
        torch.testing.assert_close(got, want, rtol=0, atol=atol * max(1.0, float(want.abs().max())))


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_hifigan_streams_as_it_runs_whole(tiny: Part, chunk: int) -> None:
    for frames in (1, 2, 7, 20):
        assert_streams(tiny.step(chunk), tiny.noise(frames), tiny.module, 1e-6)


def test_hifigan_v2_takes_7_frames_for_80_ms() -> None:
    part = hifigan(V2)
    step = part.step()
    assert step.chunk_frames == 7
    assert step.chunk_samples == 7 * 256
    assert step.chunk_ms == pytest.approx(81.27, abs=0.01)
    assert step.latency_samples == 3258
    assert_streams(step, {"mel": torch.randn(1, 80, 17)}, part.module, 1e-6)


def test_the_embedded_vocoder_takes_5_frames_for_80_ms(embedded: Part) -> None:
    step = embedded.streamable.step()
    assert step.chunk_frames == 5
    assert step.chunk_ms == 80.0
    assert step.flush_chunks == 2
    sound = EmbeddedVoice.load().render(bundled_clips()[0]).sound
    torch.testing.assert_close(run_stream(step, embedded.streamable.inputs)[0], sound, rtol=0, atol=1e-6)


@pytest.mark.parametrize("chunk", [2, 5])
def test_the_embedded_vocoder_streams_any_length(embedded: Part, chunk: int) -> None:
    for frames in (1, 5, 13):
        assert_streams(embedded.step(chunk), embedded.noise(frames), embedded.module, 1e-6)


def test_sites_keep_names_and_weights(embedded: Part) -> None:
    def sites(module: torch.fx.GraphModule) -> dict[str, Tensor]:
        found = [site for node in module.graph.nodes if (site := site_node(node)) is not None]
        return {site.site: getattr_path(module, str(site.weight.target)) for site in found}

    whole, chunked = sites(embedded.graph.module), sites(embedded.step().graph.module)
    assert list(whole) == list(chunked)
    assert all(name.startswith("vocoder.") for name in whole)
    assert all(whole[name] is chunked[name] for name in whole)


def getattr_path(module: nn.Module, path: str) -> Tensor:
    *parents, name = path.split(".")
    return getattr(module.get_submodule(".".join(parents)), name)  # type: ignore[no-any-return]


def test_masks_are_ones_in_the_middle_of_a_stream(tiny: Part) -> None:
    step = tiny.step(4)
    assert any(not mask.all() for mask in step.masks(0).values())
    assert all(mask.all() for mask in step.masks(20).values())
    assert all(mask.all() for mask in step.masks(20, 1000).values())
    assert any(not mask.all() for mask in step.masks(20, 80).values())
    assert not any(mask.any() for mask in step.masks(40, 80).values())


@pytest.mark.parametrize("missing", [0, 1, 3])
def test_without_the_masks_both_ends_are_wrong(tiny: Part, missing: int) -> None:
    step = tiny.step(4)
    inputs = tiny.noise(60 - missing)
    blind = replace(step, mask_keys={})
    ones = {name: torch.ones_like(step.graph.examples[name]) for name in step.mask_keys}
    want, got = run_stream(step, inputs)[0], run_stream(blind, {**inputs, **ones})[0]
    middle = slice(26 * 16, 32 * 16)
    torch.testing.assert_close(got[middle], want[middle], rtol=0, atol=1e-6)
    assert (got - want)[:64].abs().max() > 1e-3
    assert (got - want)[-64:].abs().max() > 1e-3


def test_chunks_come_out_as_they_are_ready(tiny: Part) -> None:
    step = tiny.step(4)
    inputs = tiny.noise(22)
    streamer = Streamer(step)
    pieces = [streamer.push({"mel": inputs["mel"][:, :, begin : begin + 4]})[0] for begin in range(0, 20, 4)]
    pieces.append(streamer.finish({"mel": inputs["mel"][:, :, 20:]})[0])
    given = [sum(len(piece) for piece in pieces[: count + 1]) for count in range(5)]
    assert given == [max((count + 1) * 64 - step.latency_samples, 0) for count in range(5)]
    assert torch.equal(torch.cat(pieces), run_stream(step, inputs)[0])
    assert step.chunks(22) - 6 <= step.flush_chunks
    with pytest.raises(ValueError, match="over"):
        streamer.push({"mel": inputs["mel"][:, :, :4]})


# Exactness under a policy.


def policy(scheme: Scheme, arithmetic: Arithmetic) -> Callable[[SiteCall], Tensor]:
    preparation = Preparation(arithmetic)
    schemes: Mapping[str, Scheme] = defaultdict(lambda: scheme)
    return lambda call: preparation.compute(call, schemes, None)


def both(part: Part, scheme: Scheme, arithmetic: Arithmetic, frames: int = 9) -> tuple[Tensor, Tensor]:
    """Whole and streamed."""
    inputs = part.noise(frames)
    with torch.no_grad(), intercept(part.streamable.sites_of, policy(scheme, arithmetic)):
        whole: Tensor = part.module(*inputs.values())
    return whole, run_stream(part.step(), inputs, policy(scheme, arithmetic))[0]


FORMATS = [("bf16", "bf16"), ("bfp8_b", "bfp8_b"), ("bfp8_b", "bfp4_b"), ("fp32", "fp32")]


@pytest.mark.parametrize(("activation", "weight"), FORMATS)
@pytest.mark.parametrize("fidelity", ["lofi", "hifi4"])
def test_the_card_gives_the_same_streamed_to_the_bit(
    embedded: Part, activation: str, weight: str, fidelity: Fidelity
) -> None:
    scheme = Scheme("s", weight, activation, "fp32", fidelity)
    whole, streamed = both(embedded, scheme, ExactTensix("blackhole"))
    assert torch.equal(streamed, whole)


@pytest.mark.parametrize("form", ["bf16", "bfp8_b"])
def test_fast_bf16_sums_are_the_same_streamed_to_the_bit(tiny: Part, embedded: Part, form: str) -> None:
    for part in (tiny, embedded):
        whole, streamed = both(part, Scheme("s", form, form, "bf16", "hifi2"), TensixArithmetic())
        assert torch.equal(streamed, whole)


@pytest.mark.parametrize("form", ["bf16", "bfp8_b"])
def test_fast_fp32_sums_are_apart_by_rounding_alone(tiny: Part, embedded: Part, form: str) -> None:
    """Torch adds up a GEMM's products in an order that depends on its size; one in hundreds rounds the other way."""
    for part in (tiny, embedded):
        whole, streamed = both(part, Scheme("s", form, form, "fp32", "lofi"), TensixArithmetic())
        assert (streamed - whole).abs().max() <= 2.0**-6 * whole.abs().max()
        assert (streamed != whole).float().mean() < 0.05


def test_a_scale_of_each_tensor_is_not_the_same_streamed(embedded: Part) -> None:
    """Why such schemes are refused at sites that stream."""
    scheme = Scheme("s", "fp8_e4m3", "fp8_e4m3", activation_scale="dynamic")
    whole, streamed = both(embedded, scheme, HopperArithmetic())
    assert (streamed - whole).abs().max() > 0.01 * whole.abs().max()


def test_arguments_that_do_not_fit_are_refused(tiny: Part) -> None:
    graph = tiny.graph
    with pytest.raises(ValueError, match="either chunk"):
        stream(graph, time_axes={"mel": 2})
    with pytest.raises(ValueError, match="needs sample_rate_hz"):
        stream(graph, time_axes={"mel": 2}, chunk_ms=80)
    with pytest.raises(ValueError, match="must name some of the inputs"):
        stream(graph, time_axes={"melody": 2}, chunk=5)
    with pytest.raises(ValueError, match="has no axis 3"):
        stream(graph, time_axes={"mel": 3}, chunk=5)
    with pytest.raises(ValueError, match="1 frame or more"):
        stream(graph, time_axes={"mel": 2}, chunk=0)
    step = stream(graph, time_axes={"mel": 2}, chunk=4)
    with pytest.raises(ValueError, match="has state of its own"):
        stream(step.graph, time_axes={"mel": 2}, chunk=2)
    with pytest.raises(ValueError, match="sample rate"):
        _ = step.chunk_ms
    with pytest.raises(ValueError, match="a chunk has 4 frames"):
        Streamer(step).push({"mel": torch.zeros(1, 8, 3)})
    with pytest.raises(ValueError, match="1 to 4 frames, got 0"):
        run_stream(step, {"mel": torch.zeros(1, 8, 0)})
    with pytest.raises(ValueError, match="missing: mel"):
        run_stream(step, {})


def test_a_voice_says_itself_what_is_streamed_or_is_refused(tiny: Part) -> None:
    class Own:
        name = "own"
        module = tiny.module

        def utterance(self, clip: Clip, chunk_ms: float) -> Utterance:
            return tiny.streamable.utterance(chunk_ms)

    class Unknown:
        name = "unknown"

    clip = Clip("x", (), 1.0)
    assert utterance(Own(), clip, 4.0).facts["chunk_frames"] == 4  # type: ignore[arg-type]
    with pytest.raises(StreamingError, match=r"voice unknown .* does not say what of it can be streamed"):
        utterance(Unknown(), clip)  # type: ignore[arg-type]


def test_an_utterance_is_the_runs_that_a_streamer_makes(tiny: Part) -> None:
    said = replace(tiny.streamable, inputs=tiny.noise(11)).utterance(4.0)
    step = tiny.step(4)
    assert said.facts["chunk_samples"] == 64
    assert said.seldom == step.mask_keys.keys() == said.facts["masks"].keys()
    states: dict[str, Tensor] | None = None
    outputs = []
    for run in said.runs:
        assert {name: x.shape for name, x in run.items()} == {name: x.shape for name, x in said.graph.examples.items()}
        made = said.graph.run(run, states=states)
        states = dict(zip(said.graph.states, made[len(said.graph.parts) :], strict=True))
        outputs.append(made[: len(said.graph.parts)])
    (sound,) = said.join(outputs)
    assert torch.equal(sound, run_stream(step, said.inputs)[0])
    assert len(outputs) == step.chunks(11)
    with pytest.raises(ValueError, match="1 frame or more, got 0"):
        list(chunks_of(step, tiny.noise(0)))
