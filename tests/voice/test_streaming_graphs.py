"""Streaming of any graph of convolutions, and what is refused."""

import math
from collections.abc import Mapping
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from voice.embedded import EmbeddedVoice, bundled_clips
from voice.graph import export_graph, graph_of
from voice.streaming import StreamGraph, StreamingError, run_stream, stream
from voice.streaming.timing import Length

torch.set_num_threads(1)


def assert_streams(step: StreamGraph, inputs: Mapping[str, Tensor], module: nn.Module, atol: float) -> None:
    with torch.no_grad():
        whole = module(*inputs.values())
    streamed = run_stream(step, inputs)
    for want, got in zip(whole if isinstance(whole, tuple) else (whole,), streamed, strict=True):
        assert got.shape == want.shape
        torch.testing.assert_close(got, want, rtol=0, atol=atol * max(1.0, float(want.abs().max())))


class Chain(nn.Module):
    """Layers one after another."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Residual(Chain):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Mean(Chain):
    """Branches of different look-ahead."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([layer(x) for layer in self.layers]).mean(dim=0)


class Gate(Chain):
    """Channels cut apart, treated apart and joined."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = super().forward(x).chunk(2, dim=1)
        return torch.cat([torch.tanh(left) * right, torch.sigmoid(left.transpose(1, 2)).transpose(1, 2)], dim=1)


class Crop(nn.Module):
    def __init__(self, before: int, behind: int) -> None:
        super().__init__()
        self.before, self.behind = before, behind

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, self.before : x.shape[2] - self.behind]


class Pad(Crop):
    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (self.before, self.behind))


CHANNELS = 4
small = st.integers(0, 4)


@st.composite
def same_length(draw: st.DrawFn, depth: int = 2) -> nn.Module:
    """A layer that keeps length and channels."""
    kind = draw(st.sampled_from(["conv", "act", "linear", "norm", *(["residual", "mean", "gate"] if depth else [])]))
    if kind == "conv":
        kernel, dilation = draw(st.sampled_from([1, 3, 5])), draw(st.integers(1, 3))
        groups = draw(st.sampled_from([1, 2]))
        padding = dilation * (kernel - 1) // 2
        return nn.Conv1d(CHANNELS, CHANNELS, kernel, padding=padding, dilation=dilation, groups=groups)
    if kind == "act":
        return draw(st.sampled_from([nn.LeakyReLU(0.1), nn.Sigmoid(), nn.GELU(), nn.Tanh(), nn.Softplus()]))
    if kind in ("linear", "norm"):
        return Across(nn.Linear(CHANNELS, CHANNELS) if kind == "linear" else nn.LayerNorm(CHANNELS))
    layers = draw(st.lists(same_length(depth - 1), min_size=1, max_size=3))
    return {"residual": Residual, "mean": Mean, "gate": Gate}[kind](layers)


class Across(nn.Module):
    """A layer over channels, of frames in rows."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]


@st.composite
def any_layer(draw: st.DrawFn) -> nn.Module:
    """A layer that may change the length."""
    kind = draw(st.sampled_from(["same", "conv", "transposed", "crop", "pad"]))
    if kind == "same":
        return draw(same_length())
    if kind in ("crop", "pad"):
        return (Crop if kind == "crop" else Pad)(draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    kernel, stride, dilation = draw(st.integers(1, 7)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    if kind == "conv":
        return nn.Conv1d(CHANNELS, CHANNELS, kernel, stride, padding=draw(small), dilation=dilation)
    padding = draw(st.integers(0, dilation * (kernel - 1)))
    extra = draw(st.integers(0, max(stride, dilation) - 1))
    return nn.ConvTranspose1d(CHANNELS, CHANNELS, kernel, stride, padding, extra, dilation=dilation)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking traces hundreds of models
)
@given(
    layers=st.lists(any_layer(), min_size=1, max_size=4),
    times=st.integers(1, 3),
    more=st.lists(st.integers(1, 40), min_size=2, max_size=2),
    seed=st.integers(0, 1000),
)
def test_any_graph_of_convolutions_streams(layers: list[nn.Module], times: int, more: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    module = Chain(layers).double().requires_grad_(False)
    for parameter in module.parameters():
        parameter.normal_(0, 0.4)
    inputs = {"x": torch.randn(1, CHANNELS, 192, dtype=torch.float64)}
    with torch.no_grad():
        try:
            module(inputs["x"])
        except RuntimeError:
            return  # nothing is left of so short an input
    graph = graph_of(module, inputs, parts=("y",))
    step = stream(graph, time_axes={"x": 2}, chunk=whole_chunk(layers) * times)
    for frames in (192, *(192 + count for count in more)):
        assert_streams(step, {"x": torch.randn(1, CHANNELS, frames, dtype=torch.float64)}, module, 1e-12)


def whole_chunk(layers: list[nn.Module]) -> int:
    """The fewest frames of which each layer makes whole samples."""
    rate, denominators = Fraction(1), [1]
    for layer in layers:
        if isinstance(layer, nn.Conv1d):
            rate /= layer.stride[0]
        elif isinstance(layer, nn.ConvTranspose1d):
            rate *= layer.stride[0]
        denominators.append(rate.denominator)
    return math.lcm(*denominators)


def test_a_residual_sum_and_its_convolution_share_the_past() -> None:
    branches = [nn.Sequential(nn.LeakyReLU(0.1), nn.Conv1d(4, 4, k, padding=k // 2)) for k in (3, 5)]
    module = Chain([nn.Conv1d(4, 4, 1), Mean([Residual([branch]) for branch in branches])]).requires_grad_(False)
    step = stream(graph_of(module, {"x": torch.randn(1, 4, 10)}, parts=("y",)), time_axes={"x": 2}, chunk=4)
    # The first layer's result, for two sums and two convolutions; and the narrower branch, which waits for the wider.
    assert len(step.graph.states) == 2
    assert len(step.mask_keys) == 1
    assert step.latency_samples == 2
    assert_streams(step, {"x": torch.randn(1, 4, 11)}, module, 1e-6)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.query = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).cumsum(-1)
        rows = self.query(x.transpose(1, 2))
        scores = torch.softmax(rows @ x, dim=-1)
        return (scores @ rows).transpose(1, 2).reshape(1, 8, -1)


def test_all_that_cannot_be_streamed_is_named_at_once() -> None:
    graph = graph_of(Attention().requires_grad_(False), {"x": torch.randn(1, 4, 10)}, parts=("y",))
    with pytest.raises(StreamingError) as caught:
        stream(graph, time_axes={"x": 2}, chunk=2)
    message = str(caught.value)
    for named in ("norm (aten.group_norm", "(aten.cumsum", "site #matmul0", "site #matmul1", "(aten.reshape"):
        assert named in message
    assert "a step of its own" in message
    assert "conv (" not in message


def test_attention_of_the_acoustic_model_is_refused_by_name() -> None:
    voice = EmbeddedVoice.load()
    graph = export_graph(voice, voice.excerpt(bundled_clips()[0], 0.0, 0.3))
    with pytest.raises(StreamingError, match=r"site acoustic\.decoder\.2\.attention#matmul1 \(matmul\): multiplies"):
        stream(graph, time_axes={"f0_hz": 0}, chunk=5)


class Uneven(nn.Module):
    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, kernel, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv(x) + y


def test_lengths_that_do_not_go_together_are_refused() -> None:
    graph = graph_of(
        Uneven(3).requires_grad_(False), {"x": torch.randn(1, 4, 21), "y": torch.randn(1, 4, 10)}, parts=("z",)
    )
    with pytest.raises(ValueError, match="whole multiples"):
        stream(graph, time_axes={"x": 2, "y": 2}, chunk=2)
    with pytest.raises(StreamingError, match="reads y, which is fixed over all frames"):
        stream(graph, time_axes={"x": 2}, chunk=2)


def test_a_chunk_of_no_whole_samples_is_refused() -> None:
    graph = graph_of(nn.Conv1d(4, 4, 3, 2).requires_grad_(False), {"x": torch.randn(1, 4, 20)}, parts=("y",))
    with pytest.raises(StreamingError, match="take a multiple of 2 frames"):
        stream(graph, time_axes={"x": 2}, chunk=3)


def test_lengths_by_frames() -> None:
    whole = Length(Fraction(1), (Fraction(0),))
    halved = whole.then(Fraction(1, 2), lambda samples: (samples - 1) // 2 + 1)
    assert [halved(frames) for frames in range(6)] == [0, 1, 1, 2, 2, 3]
    doubled = halved.then(Fraction(2), lambda samples: 2 * samples)
    assert [doubled(frames) for frames in range(6)] == [0, 2, 2, 4, 4, 6]
    assert doubled != whole
    assert doubled.then(Fraction(1), lambda samples: samples - 3)(1) == 0
