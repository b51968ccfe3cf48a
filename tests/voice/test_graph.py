"""Graphs against the models that they are made of."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backends.emulation.engine import EmulatedEngine
from backends.emulation.preparation import Preparation
from backends.tenstorrent.numerics import TensixArithmetic
from precision.policy import Policy, Scheme
from tests.families.autoregressive import AutoregressiveVoice
from tests.families.codec import CodecVoice
from tests.families.parts import Attention, Block, seeded
from tests.families.sampler import SamplerVoice
from tests.families.understanding import UnderstandingVoice
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.graph import GraphError, SiteGraph, constant_of, export_graph, graph_of, site_node, site_nodes
from voice.hifigan import V2, Generator, HifiganVoice
from voice.intercept import intercept
from voice.model import Clip, Rendering, Voice
from voice.site_call import SiteCall
from voice.sites import discover

torch.set_num_threads(1)
LOFI = Scheme("lofi", "bfp8_b", "bf16", fidelity="lofi")


def hifigan() -> tuple[Voice, Clip]:
    voice = HifiganVoice(V2, seeded(lambda: Generator(V2), 1))
    sound = 0.1 * np.random.default_rng(0).standard_normal(12 * 256).astype(np.float32)
    return voice, voice.clip("noise", sound, 22050)


def embedded() -> tuple[Voice, Clip]:
    voice = EmbeddedVoice.load()
    return voice, voice.excerpt(bundled_clips()[0], 0.0, 0.5)


def reseeded() -> tuple[Voice, Clip]:
    voice, clip = embedded()
    other = voice.reseeded(clip, 5)
    assert other is not None
    return voice, other


def family(make: Callable[[], Voice]) -> Callable[[], tuple[Voice, Clip]]:
    def pair() -> tuple[Voice, Clip]:
        voice = make()
        return voice, voice.clips(1)[0]  # type: ignore[attr-defined]

    return pair


MAKERS = {
    "hifigan": hifigan,
    "embedded": embedded,
    "reseeded": reseeded,
    "autoregressive": family(AutoregressiveVoice),
    "codec": family(CodecVoice),
    "sampler": family(SamplerVoice),
    "understanding": family(UnderstandingVoice),
}
DEAD_ENDS = {
    "embedded": ("prosody.duration.out", "prosody.pitch.out"),
    "reseeded": ("prosody.duration.out", "prosody.pitch.out"),
    "sampler": ("duration",),
}
Case = tuple[str, Voice, Clip, SiteGraph]


@pytest.fixture(scope="module", params=MAKERS)
def case(request: pytest.FixtureRequest) -> Case:
    voice, clip = MAKERS[request.param]()
    return request.param, voice, clip, export_graph(voice, clip)


def intercepted(voice: Voice, clip: Clip) -> tuple[list[SiteCall], tuple[Tensor, ...]]:
    """The calls of a render in torch's arithmetic, attention spelled out, and what came of it."""
    calls: list[SiteCall] = []

    def handler(call: SiteCall) -> Tensor:
        calls.append(call)
        return call.compute()

    with intercept(voice.module, handler):
        return calls, voice.render(clip).parts


def test_a_graph_computes_what_the_voice_renders(case: Case) -> None:
    name, voice, clip, graph = case
    rendering = voice.render(clip)
    heads = ("waveform",) if rendering.waveform is not None else ()
    ends = DEAD_ENDS.get(name, ())
    assert graph.parts == (*heads, *rendering.logits, *ends)
    assert graph.states == ()
    results = graph.run()
    assert len(results) == len(graph.parts)
    for result, part in zip(results, rendering.parts, strict=False):
        torch.testing.assert_close(result, part, rtol=0, atol=2e-6)
    for result, part in zip(results, intercepted(voice, clip)[1], strict=False):
        assert torch.equal(result, part)


def test_its_sites_are_those_of_the_model_and_see_the_same_operands(case: Case) -> None:
    _, voice, clip, graph = case
    found = discover(voice.module, lambda: voice.render(clip), clip.seconds)
    nodes = site_nodes(graph)
    assert list(dict.fromkeys(node.site for node in nodes)) == [site.name for site in found.sites]
    expected, _ = intercepted(voice, clip)
    seen: list[SiteCall] = []

    def handler(call: SiteCall) -> Tensor:
        seen.append(call)
        return call.compute()

    graph.run(handler=handler)
    assert len(seen) == len(expected) == len(nodes)
    for index, (node, call, other) in enumerate(zip(nodes, seen, expected, strict=True)):
        assert (call.site, call.op, call.options, call.is_product) == (
            other.site,
            other.op,
            other.options,
            other.is_product,
        )
        assert (node.site, node.op, node.options, node.is_product) == (
            call.site,
            call.op,
            call.options,
            call.is_product,
        )
        assert call.index == other.index == index
        assert torch.equal(call.x, other.x)
        assert torch.equal(call.weight, other.weight)
        assert (call.bias is None) == (other.bias is None) == (node.bias is None)
        assert call.bias is None or torch.equal(call.bias, other.bias)  # type: ignore[arg-type]
        if not node.is_product and node.weight.op == "get_attr":
            assert torch.equal(constant_of(graph, node.weight), other.weight)


def test_under_a_policy_it_is_the_emulation(case: Case) -> None:
    _, voice, clip, graph = case
    policy = Policy.uniform(list(dict.fromkeys(node.site for node in site_nodes(graph))), LOFI)
    preparation = Preparation(TensixArithmetic())
    emulated = EmulatedEngine(voice, policy, preparation).render(clip)
    results = graph.run(handler=lambda call: preparation.compute(call, dict(policy), None))
    for result, part in zip(results, emulated.parts, strict=False):
        assert torch.equal(result, part)


def test_the_form_of_nodes(case: Case) -> None:
    _, voice, _, graph = case
    paths = {path for path, _ in voice.module.named_modules()}
    placeholders = [node.target for node in graph.module.graph.find_nodes(op="placeholder")]
    assert placeholders == list(graph.inputs) == list(graph.examples)
    banned = ("view", "transpose", "unsqueeze", "chunk", "split", "unbind", "dropout", "clone", "assert", "rand", "_to")
    for node in graph.module.graph.nodes:
        assert node.op in ("placeholder", "get_attr", "call_function", "output")
        assert node.meta["path"] in paths
        assert node.users or node.op in ("output", "placeholder")
        if node.op == "output":
            continue
        values = node.meta["val"] if isinstance(node.meta["val"], tuple) else (node.meta["val"],)
        assert all(type(size) is int for value in values for size in value.shape)
        if node.op == "call_function" and site_node(node) is None:
            assert any(parent.op != "get_attr" for parent in node.all_input_nodes)
            assert not str(node.target).removeprefix("aten.").startswith(banned)


def test_inputs_have_the_names_of_forward_and_seeds_are_part_of_the_graph() -> None:
    voice, clip = reseeded()
    graph, other = export_graph(voice, clip), export_graph(*embedded())
    assert graph.inputs == other.inputs == ("phones", "durations", "f0_hz")
    assert list(graph.fixed) == ["noise_seed"]
    assert other.fixed == {}
    # Seed 5 against seed 0: the same graph around other noise.
    assert not torch.equal(graph.run()[0], other.run()[0])


def test_it_holds_for_other_numbers_of_the_same_shapes() -> None:
    voice, clip = embedded()
    graph = export_graph(voice, clip)
    phones, durations, f0_hz = clip.inputs
    moved = durations.clone()
    moved[0], moved[1] = durations[1], durations[0]
    assert not torch.equal(moved, durations)
    inputs = (phones.flip(0), moved, f0_hz * 1.1)
    with torch.no_grad():
        expected = voice.module(*inputs)
    assert torch.equal(graph.run(dict(zip(graph.inputs, inputs, strict=True)))[0], expected)
    moved[0] += 1
    with pytest.raises(RuntimeError, match="output_size"):
        graph.run(dict(zip(graph.inputs, (phones, moved, f0_hz), strict=True)))


def test_inputs_that_do_not_fit_are_named_all_at_once() -> None:
    _, _, graph = next((v, c, export_graph(v, c)) for v, c in [family(CodecVoice)()])
    sound = graph.examples["sound"]
    with pytest.raises(ValueError, match=r"sound is float64.*codes is missing|codes is missing.*sound is float64"):
        graph.run({"sound": sound.double()})
    with pytest.raises(ValueError, match="pitch is not one of sound, codes"):
        graph.run({**graph.examples, "pitch": sound})


def test_torch_is_left_as_it_was() -> None:
    (voice, clip), refused = family(SamplerVoice)(), Lambda(lambda m, x: x[x > 0])
    before = dict(voice.module.state_dict(keep_vars=True))
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    export_graph(voice, clip)
    with pytest.raises(GraphError):
        graph_of(refused, {"x": torch.ones(3)}, parts=("y",))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_num_threads() == threads
    assert torch._C._len_torch_function_stack() == 0
    assert torch._C._len_torch_dispatch_stack() == 0
    after = voice.module.state_dict(keep_vars=True)
    assert all(after[name] is tensor for name, tensor in before.items())
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in voice.module.modules())


class Lambda(nn.Module):
    """A forward as a function, with a layer, a table and a buffer at hand."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function
        self.linear, self.table = nn.Linear(4, 4), nn.Embedding(5, 4)
        self.register_buffer("count", torch.zeros(4))

    def forward(self, *inputs: Tensor) -> object:
        return self.function(self, *inputs)


def in_place(m: Lambda, x: Tensor) -> Tensor:
    y = torch.zeros(5, 4)
    y[1:4] = m.linear(x).relu_()
    y[0] += 1
    y[:, 2] = 7
    return y.mul_(2)


SPELLINGS: dict[str, Callable[..., object]] = {
    "views": lambda m, x: x.view(2, 6).flatten().unflatten(0, (3, 1, 4)).squeeze(1).unsqueeze(-1)[..., 0].T.mT.t(),
    "parts": lambda m, x: torch.cat([*x.chunk(3, 1), *x.split([1, 3], -1), x.unbind(1)[2][:, None]], 1),
    "slices": lambda m, x: x[-2:, 1:-1].narrow(1, 0, 1) + x[::2, -1:] + x.movedim(0, 1)[-1].select(0, -1),
    "no-ops": lambda m, x: F.dropout((x + 0) * 1, 0.5, False).contiguous().clone().float().to("cpu").detach(),
    "types": lambda m, x: x.bfloat16().type_as(x) + x.double().float() + (x > 0).to(torch.float32),
    "in place": in_place,
    "constants": lambda m, x: x + torch.tensor([1.0, 2, 3, 4]) + x.new_full((4,), 2.0) + torch.eye(4)[:3] * m.count,
    "noise": lambda m, x: x + torch.randn(3, 4, generator=torch.Generator().manual_seed(1)),
    "expanded": lambda m, x: x.sum(1, keepdim=True).expand(-1, 4) + x[:1].expand_as(x) + x[:, :1].broadcast_to(3, 4),
    "a site of constants": lambda m, x: m.linear(m.table.weight)[:3] + x,
    "twice": lambda m, x: F.leaky_relu(x, 0.1) * F.leaky_relu(x, 0.1) + m.linear(x) + m.linear(x),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(spelling: str) -> None:
    module = Lambda(SPELLINGS[spelling]).eval()
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    graph = graph_of(module, {"x": x}, parts=("y",))
    for given in (x, 1 - x):
        with torch.no_grad():
            expected = module(given.clone())
        assert torch.equal(graph.run({"x": given})[0], expected)
        # The module of a graph runs by itself, too.
        assert torch.equal(graph.module(given)[0], expected)


def names_of(graph: SiteGraph) -> list[str]:
    return [node.target.overloadpacket.__name__ for node in graph.module.graph.nodes if node.op == "call_function"]


def test_what_changes_nothing_is_left_out_and_what_is_there_twice_is_merged() -> None:
    x = {"x": torch.ones(3, 4)}
    assert names_of(graph_of(Lambda(SPELLINGS["no-ops"]), x, parts=("y",))) == []
    twice = graph_of(Lambda(SPELLINGS["twice"]), x, parts=("y",))
    assert names_of(twice) == ["leaky_relu", "mul", "site", "add", "site", "add"]
    assert names_of(graph_of(Lambda(SPELLINGS["noise"]), x, parts=("y",))) == ["add"]
    constant_site = graph_of(Lambda(SPELLINGS["a site of constants"]), x, parts=("y",))
    assert names_of(constant_site) == ["site", "slice", "add"]


def test_rows_that_a_constant_mask_hides_keep_their_zeros() -> None:
    hides = torch.tensor([[True, False], [False, False]])

    def attend(m: Lambda, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, attn_mask=hides)

    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    graph = graph_of(Lambda(attend), {"x": x}, parts=("y",))
    assert torch.equal(graph.run()[0][1], torch.zeros(4))
    assert "eq" in names_of(graph)
    causal = graph_of(seeded(lambda: Block(8), 1), {"x": torch.ones(3, 8)}, parts=("y",))
    assert "eq" not in names_of(causal)


REFUSED: dict[str, tuple[Callable[..., object], str]] = {
    "a branch": (
        lambda m, x: x if x.sum() > 0 else m.linear(x),
        r"(?s)cannot be traced.*test_graph\.py:\d+ in <lambda>",
    ),
    "a size": (lambda m, x: m.linear(x[x[:, 0] > -9]), r"(?s)2 operations.*aten\.index.*site\.default at linear"),
    "dropout": (lambda m, x: F.dropout(m.linear(x), 0.5, True), "dropout.*draws noise by what goes in.*eval mode"),
    "a buffer": (lambda m, x: m.count.add_(m.linear(x)[0]), "writes to count in place"),
    "an input": (lambda m, x: m.linear(x.add_(1)), "writes to x in place"),
    "numpy": (lambda m, x: torch.from_numpy(m.linear(x).numpy() * 2), "(?s)numpy.*test_graph"),
    "too many results": (lambda m, x: (x + 1, x + 2), r"gives 2 tensors; 1 parts \(y\) and 0 states"),
}


def test_a_model_that_keeps_something_from_run_to_run_is_refused() -> None:
    counted: list[int] = []

    def count(m: Lambda, x: Tensor) -> object:
        counted.append(len(counted))
        return m.linear(x) + float(len(counted))

    with pytest.raises(GraphError, match="Lambda: result 0 of the graph is 1 away from that of the model"):
        graph_of(Lambda(count), {"x": torch.ones(3, 4)}, parts=("y",))


def test_a_constant_takes_no_name_of_the_model() -> None:
    module = Lambda(lambda m, x: x + torch.ones(4) * 2 + m.constant_0 + torch.randn(4) * m.noise_0)
    module.register_buffer("constant_0", torch.full((4,), 3.0))
    module.register_buffer("noise_0", torch.full((4,), 0.0))
    graph = graph_of(module, {"x": torch.ones(4)}, parts=("y",))
    assert torch.equal(graph.run()[0], torch.full((4,), 6.0))


def test_a_model_elsewhere_is_refused() -> None:
    with pytest.raises(GraphError, match="Linear is on meta; graphs are made on the CPU"):
        graph_of(nn.Linear(2, 2, device="meta"), {"x": torch.ones(1, 2)}, parts=("y",))


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals_say_where_and_why(reason: str) -> None:
    function, message = REFUSED[reason]
    with pytest.raises(GraphError, match=message):
        graph_of(Lambda(function), {"x": torch.ones(3, 4)}, parts=("y",))


class Step(nn.Module):
    """A step of a decoder: attention to what its cache holds of the last three steps."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor, cache: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        past = torch.cat([cache, x])
        return self.attention(x, past), past[1:], count + 1


def test_state_goes_from_step_to_step() -> None:
    step = Step(seeded(lambda: Attention(8), 2))
    x = torch.randn(5, 1, 8, generator=torch.Generator().manual_seed(0))
    cache, count = torch.zeros(3, 8), torch.zeros(1)
    graph = graph_of(step, {"x": x[0]}, {"cache": cache, "count": count}, parts=("y",), sites_of=step.attention)
    assert (graph.inputs, graph.parts, graph.states) == (("x",), ("y",), ("cache", "count"))
    assert [node.site for node in site_nodes(graph)] == ["query", "key", "value", "#qk", "#pv", "out"]
    assert {node.meta["path"] for node in graph.module.graph.nodes if site_node(node)} == {
        "query",
        "key",
        "value",
        "out",
        "",
    }
    states = None
    for row in x:
        y, *new = graph.run({"x": row}, states=states)
        with intercept(step.attention, SiteCall.compute), torch.no_grad():
            expected, cache, count = step(row, cache, count)
        assert torch.equal(y, expected)
        assert torch.equal(new[0], cache)
        states = dict(zip(graph.states, new, strict=True))
    assert float(states["count"]) == 5  # type: ignore[index]


@dataclass
class Told:
    """A voice whose second input is a whole number that it looks up."""

    module: nn.Module = field(default_factory=lambda: Lambda(lambda m, x, n: (m.linear(x) + m.table(n))[0]).eval())
    name: str = "told"
    family: str = "vocoder"
    sample_rate_hz: int = 1
    protected: dict[str, str] = field(default_factory=dict)

    def render(self, clip: Clip) -> Rendering:
        with torch.inference_mode():
            return Rendering(self.module(*clip.inputs))


def test_a_number_may_be_looked_up() -> None:
    voice, x = Told(), torch.ones(1, 4)
    clip = Clip("c", (x, torch.tensor(2)), 1.0)
    graph = export_graph(voice, clip)  # type: ignore[arg-type]
    assert graph.inputs == ("input_0",)
    assert torch.equal(graph.fixed["input_1"], torch.tensor(2))
    assert torch.equal(graph.run()[0], voice.render(clip).sound)
