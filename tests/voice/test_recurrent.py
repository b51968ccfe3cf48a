"""Recurrent layers under interception: torch's results, by products of sites."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from backends.emulation.engine import EmulatedEngine
from backends.emulation.gradient_probe import GradientProbe
from backends.emulation.preparation import Preparation
from backends.emulation.replay import DamageProbe
from backends.tenstorrent.exact.arithmetic import ExactTensix
from backends.tenstorrent.numerics import TensixArithmetic
from precision.policy import Policy, Scheme
from voice.graph import GraphError, graph_of
from voice.intercept import intercept
from voice.model import Clip, Rendering
from voice.site_call import SiteCall
from voice.sites import discover

torch.set_num_threads(1)

LAYERS: dict[str, Callable[..., nn.RNNBase]] = {
    "lstm": nn.LSTM,
    "lstm projected": lambda *sizes, **options: nn.LSTM(*sizes, proj_size=3, **options),
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}
CELLS: dict[str, Callable[..., nn.RNNCellBase]] = {
    "lstm": nn.LSTMCell,
    "gru": nn.GRUCell,
    "tanh": nn.RNNCell,
    "relu": lambda *sizes, **options: nn.RNNCell(*sizes, nonlinearity="relu", **options),
}


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(make: Callable[..., nn.Module], *sizes: int, **options: Any) -> nn.Module:
    """A layer in float64, in which summing in another order shows past the fifteenth digit only."""
    module = make(*sizes, **options).double()
    for index, parameter in enumerate(module.parameters()):
        parameter.data = seeded(*parameter.shape, seed=index) * 0.5
    return module


def record(module: nn.Module, *inputs: Any) -> tuple[list[SiteCall], Any]:
    calls: list[SiteCall] = []

    def handler(call: SiteCall) -> Tensor:
        calls.append(call)
        return call.compute()

    with intercept(module, handler):
        out = module(*inputs)
    return calls, out


def states(layer: nn.RNNBase, batch: int) -> Any:
    """A state to begin with, none of it zero."""
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    first = seeded(count, batch, layer.proj_size or layer.hidden_size, seed=90)
    return (first, seeded(count, batch, layer.hidden_size, seed=91)) if isinstance(layer, nn.LSTM) else first


def leaves(out: Any) -> list[Tensor]:
    if isinstance(out, Tensor):
        return [out]
    parts = [out.data, *out[1:]] if isinstance(out, PackedSequence) else list(out)
    return [leaf for part in parts if part is not None for leaf in leaves(part)]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(list(LAYERS)),
    layers=st.integers(1, 3),
    both=st.booleans(),
    bias=st.booleans(),
    batch_first=st.booleans(),
    begun=st.booleans(),
    shape=st.sampled_from(["batch", "one", "unbatched", "packed"]),
    mode=st.sampled_from([torch.no_grad, torch.inference_mode, torch.enable_grad]),
)
def test_every_layer_gives_what_torch_gives(
    kind: str, layers: int, both: bool, bias: bool, batch_first: bool, begun: bool, shape: str, mode: Callable[[], Any]
) -> None:
    layer = made(LAYERS[kind], 5, 4, num_layers=layers, bidirectional=both, bias=bias, batch_first=batch_first)
    batch = {"batch": 2, "one": 1, "unbatched": 1, "packed": 4}[shape]
    x: Any = seeded(batch, 6, 5) if batch_first else seeded(6, batch, 5)
    hx = states(layer, batch)
    if shape == "unbatched":
        x = x[0] if batch_first else x[:, 0]
        hx = tuple(part[:, 0] for part in hx) if isinstance(hx, tuple) else hx[:, 0]
    elif shape == "packed":
        x = pack_padded_sequence(x, torch.tensor([3, 6, 1, 6]), batch_first=batch_first, enforce_sorted=False)
    inputs = (x, hx) if begun else (x,)
    with mode():
        wanted = layer(*inputs)
        calls, got = record(layer, *inputs)
    torch.testing.assert_close(leaves(got), leaves(wanted), rtol=1e-12, atol=1e-12)
    assert type(got[0]) is type(wanted[0])
    directions = layers * (2 if both else 1)
    assert len(calls) == directions * (1 + 6 * (2 if kind == "lstm projected" else 1))
    assert all(call.op == "linear" and not call.is_product for call in calls)
    names = {f"#{name}": tensor for name, tensor in layer.named_parameters()}
    for call in calls:
        assert call.weight is names[call.site]
        assert call.bias is names.get(call.site.replace("weight", "bias"))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
@pytest.mark.parametrize("kind", LAYERS)
def test_float32_differs_by_the_order_of_sums_alone(kind: str) -> None:
    layer = made(LAYERS[kind], 24, 32, num_layers=2, bidirectional=True).float()
    x = seeded(20, 2, 24).float()
    with torch.inference_mode():
        _, got = record(layer, x)
        torch.testing.assert_close(leaves(got), leaves(layer(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_are_those_of_torch(kind: str, packed: bool) -> None:
    layer = made(LAYERS[kind], 5, 4, num_layers=2, bidirectional=True)
    other = copy.deepcopy(layer)
    x = seeded(6, 2, 5).requires_grad_()
    y = x.detach().clone().requires_grad_()

    def sound(module: nn.Module, values: Tensor) -> Tensor:
        given: Any = pack_padded_sequence(values, torch.tensor([6, 4])) if packed else values
        return sum((leaf**2).sum() for leaf in leaves(module(given)) if leaf.is_floating_point())

    with intercept(layer, SiteCall.compute):
        sound(layer, x).backward()
    sound(other, y).backward()
    torch.testing.assert_close(x.grad, y.grad)
    for mine, torchs in zip(layer.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, torchs.grad)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("kind", CELLS)
def test_every_cell_gives_what_torch_gives(kind: str, batch: int | None, bias: bool) -> None:
    shape = () if batch is None else (batch,)
    cell = made(CELLS[kind], 5, 4, bias=bias)
    hx: Any = seeded(*shape, 4, seed=7)
    hx = (hx, seeded(*shape, 4, seed=8)) if kind == "lstm" else hx
    for inputs in ((seeded(*shape, 5),), (seeded(*shape, 5), hx)):
        calls, got = record(cell, *inputs)
        torch.testing.assert_close(leaves(got), leaves(cell(*inputs)), rtol=1e-12, atol=1e-12)
        assert [call.site for call in calls] == ["#weight_ih", "#weight_hh"]


def test_dropout_between_layers_only_where_one_trains() -> None:
    layer = made(nn.LSTM, 5, 4, num_layers=3, dropout=0.5)
    x = seeded(6, 2, 5)
    _, got = record(layer.eval(), x)
    torch.testing.assert_close(leaves(got), leaves(layer(x)))
    layer.train()
    torch.manual_seed(3)
    wanted = layer(x)
    torch.manual_seed(3)
    torch.testing.assert_close(leaves(record(layer, x)[1]), leaves(wanted))


def test_macs_by_hand_and_the_input_is_one_product_with_time_before_features() -> None:
    layer = nn.Sequential(nn.LSTM(5, 4, 2, bidirectional=True)).eval()
    with torch.inference_mode():
        found = discover(layer, lambda: layer(torch.ones(6, 1, 5)), seconds=1.0)
        calls, _ = record(layer, torch.ones(6, 1, 5))
    macs = {}
    for ending in ("", "_reverse"):
        for number, below in ((0, 5), (1, 8)):
            macs[f"0#weight_ih_l{number}{ending}"] = 6 * below * 16
            macs[f"0#weight_hh_l{number}{ending}"] = 6 * 4 * 16
    assert {site.name: site.macs_per_second for site in found.sites} == macs
    assert (found.covered_share, found.uncovered) == (1.0, ())
    assert [tuple(call.x.shape) for call in calls[:3]] == [(1, 6, 5), (1, 4), (1, 4)]


def test_what_a_handler_returns_is_what_the_next_step_goes_on_with() -> None:
    layer = made(nn.RNN, 5, 4)
    with intercept(layer, lambda call: torch.full_like(call.compute(), 1.0)):
        out, _ = layer(seeded(3, 1, 5))
    torch.testing.assert_close(out, torch.full((3, 1, 4), 2.0).double().tanh())


def test_a_weight_computed_on_the_way_is_still_the_layers() -> None:
    layer = made(nn.LSTM, 5, 4)
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(layer, "weight_hh_l0")
    module = nn.ModuleDict({"lstm": layer})
    calls: list[str] = []
    with torch.no_grad(), intercept(module, lambda call: (calls.append(call.site), call.compute())[1]):
        got = layer(seeded(3, 1, 5))
    assert list(dict.fromkeys(calls)) == ["lstm#weight_ih_l0", "lstm#weight_hh_l0"]
    torch.testing.assert_close(leaves(got), leaves(layer(seeded(3, 1, 5))))


def test_outside_the_module_and_of_another_model_torch_runs_it() -> None:
    module, other = nn.Sequential(nn.LSTM(5, 4)), nn.GRU(5, 4)
    calls: list[str] = []
    x = torch.ones(3, 1, 5)
    with torch.no_grad(), intercept(module, lambda call: (calls.append(call.site), call.compute())[1]):
        other(x)
        nn.LSTMCell(5, 4)(x[0])
    assert calls == []
    with pytest.raises(RuntimeError, match=r"(?i)sequence length"), intercept(module, SiteCall.compute):
        module(x[:0])


class Denoiser(nn.Module):
    """Convolutions around an LSTM and its shortcut, as EnCodec has it."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Conv1d(1, 32, 8, 4, 2)
        self.lstm = nn.LSTM(32, 32, 2)
        self.outward = nn.ConvTranspose1d(32, 1, 8, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inward(x).permute(2, 0, 1)
        y = self.lstm(y)[0] + y
        out: Tensor = self.outward(y.permute(1, 2, 0)).tanh()
        return out


class DenoiserVoice:
    """The parts of a voice that are asked here."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = Denoiser().eval()

    sample_rate_hz = 1600

    def sound(self, clip: Clip) -> Tensor:
        return self.module(clip.inputs[0]).flatten()

    def excerpt(self, clip: Clip, place: float, seconds: float) -> Clip:
        return clip

    def render(self, clip: Clip) -> Rendering:
        with torch.inference_mode():
            return Rendering(self.sound(clip))


LOFI = Scheme("lofi", "bfp8_b", "bf16", fidelity="lofi")


def test_emulation_replay_and_gradients_take_an_lstm_as_any_other_layers() -> None:
    voice, clip = DenoiserVoice(), Clip("noise", (seeded(1, 1, 64).float(),), 0.04)
    names = [site.name for site in discover(voice.module, lambda: voice.render(clip), clip.seconds).sites]
    wanted = voice.render(clip).sound
    preparation = Preparation(TensixArithmetic())
    errors = []
    for arithmetic in (preparation, Preparation(ExactTensix("blackhole"))):
        policy = Policy(tuple((name, LOFI) for name in names))
        engine = EmulatedEngine(voice, policy, arithmetic)
        sound = engine.render(clip).sound
        assert set(engine.realized()) == set(names)
        assert len(arithmetic) == len(names)  # each weight prepared once, however many steps
        errors.append(float((sound - wanted).norm() / wanted.norm()))
        assert torch.equal(DamageProbe(voice, [clip], arithmetic, base=policy).reference(clip).sound, sound)
    assert 0.002 < min(errors) <= max(errors) < 0.1
    probe, foretelling = DamageProbe(voice, [clip], preparation), GradientProbe(voice, [clip], preparation, None)
    options = [(name, LOFI) for name in names]
    for (name, _), foretold in zip(options, foretelling.foretell(options), strict=True):
        changed = probe.render(name, LOFI, clip).sound
        assert 0 < (changed - wanted).norm() < 0.1 * wanted.norm()
        assert foretold[0] > 0


def test_a_graph_holds_few_steps_and_of_many_the_layer_is_named() -> None:
    module = Denoiser().eval()
    x = seeded(1, 1, 12).float()
    graph = graph_of(module, {"x": x}, parts=("waveform",))
    with torch.no_grad():
        torch.testing.assert_close(graph.run({"x": 2 * x})[0], module(2 * x))
    assert all(
        weight is getattr(module.lstm, name)
        for name, weight in zip(module.lstm._flat_weights_names, module.lstm._flat_weights, strict=True)
    )
    with pytest.raises(GraphError, match=r"lstm \(80\); that is 80 steps of 64 at most"):
        graph_of(module, {"x": seeded(1, 1, 160).float()}, parts=("waveform",))


def test_without_memory() -> None:
    with torch.device("meta"):
        layer, x = nn.LSTM(5, 4, 2, bidirectional=True), torch.empty(3, 1, 5)
    calls, out = record(layer, x)
    assert out[0].shape == (3, 1, 8)
    assert calls[0].site == "#weight_ih_l0"
