"""Lowering: what comes of every operation computes what the model does, and the library takes it."""

import dataclasses
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from backends.emulation.engine import EmulatedEngine
from backends.emulation.preparation import Preparation
from backends.emulation.sampling import sample_rows
from backends.tenstorrent import engine, export, planning
from backends.tenstorrent.cards import CARDS
from backends.tenstorrent.lower import LoweringError, lower, stored_operands
from backends.tenstorrent.numerics import TensixArithmetic
from backends.tenstorrent.program import CardStep, HostStep
from backends.tenstorrent.simulate import Simulator, simulate
from calibrate.moments import observing_moments
from precision.policy import Policy, Scheme
from tests.backends.tenstorrent.zoo import CHANNELS, TIME, Between, zoo
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.graph import export_graph, graph_of, site_nodes
from voice.intercept import intercept

ZOO = zoo()
WHOLE = Scheme("fp32", "fp32", "fp32", fidelity="hifi3", bias_apart=True)
BF16 = Scheme("bf16", "bf16", "bf16", fidelity="hifi3")
LOFI = Scheme("lofi", "bfp8_b", "bfp8_b", fidelity="lofi")
SUMMED_OTHERWISE = (
    "branches_mean",
    "branches_sum",
    "normalised",
    "snake",
    "reciprocal",
    "causal_attention",
    "group_norm_of_tiles",
)
"""Whose sums in fp32 are taken in another order than torch's, or by other operations."""
BLACKHOLE = CARDS["blackhole_p150"]


def graph_for(module, **inputs):
    torch.manual_seed(1)
    return graph_of(module, inputs or {"x": torch.randn(1, CHANNELS, TIME)}, parts=("y",))


def names_of(graph):
    return list(dict.fromkeys(site.site for site in site_nodes(graph)))


def lowered(graph, scheme, card=BLACKHOLE, **options):
    policy = scheme if isinstance(scheme, Policy) else Policy.uniform(names_of(graph), scheme)
    return lower(graph, policy, card, stored_operands(graph, policy), **options)


def emulated(graph, policy, preparation=None):
    preparation = Preparation(TensixArithmetic()) if preparation is None else preparation
    schemes = dict(policy.schemes)
    return graph.run(handler=lambda call: preparation.compute(call, schemes, None))


def ops_of(program):
    return [step.op for step in program.steps if isinstance(step, CardStep)]


def agreement_db(wanted, got):
    error = (wanted.double() - got.double()).square().sum()
    return float("inf") if error == 0 else float(10 * torch.log10(wanted.double().square().sum() / error))


@pytest.mark.parametrize("name", ZOO)
def test_every_operation_computes_what_the_model_does(name):
    graph = graph_for(ZOO[name])
    for scheme, least in ((WHOLE, 90), (BF16, 34), (LOFI, 12)):
        (wanted,) = emulated(graph, Policy.uniform(names_of(graph), scheme))
        for between in ("fp32", "bf16"):
            program = lowered(graph, scheme, between=between)
            result = simulate(program, graph.examples, arithmetic=TensixArithmetic())["y"]
            assert result.shape == wanted.shape
            if name == "gelu_tanh":  # ttnn has GELU by the error function only; the tanh is up to 5e-4 away from it
                assert agreement_db(wanted, result) > min(least, 60), (scheme.name, between)
            elif between == "fp32" and name not in SUMMED_OTHERWISE:
                assert torch.equal(wanted, result), f"{scheme.name}: what was heard is what runs"
            else:
                assert agreement_db(wanted, result) > least, (scheme.name, between)


class All(nn.Module):
    """Every module on the same input: one program for all."""

    def __init__(self, modules):
        super().__init__()
        self.zoo = nn.ModuleDict(modules)

    def forward(self, x):
        return tuple(module(x) for module in self.zoo.values())


@pytest.mark.tenstorrent
@pytest.mark.slow
@pytest.mark.parametrize("card", CARDS)
def test_the_library_takes_every_operation(card, tmp_path):
    graph = graph_of(All(ZOO), {"x": torch.randn(1, CHANNELS, TIME)}, parts=tuple(ZOO))
    policy = Policy(tuple((site, (BF16, LOFI, WHOLE)[at % 3]) for at, site in enumerate(names_of(graph))))
    export.write_program(lowered(graph, policy, CARDS[card]), tmp_path, engine.pack)
    plan = engine.plan(tmp_path, card)
    assert [(step.op, step.site, step.refused) for step in plan.refusals] == []
    assert planning.mismatches(plan, policy) == []


def test_a_transposition_costs_nothing_between_convolutions():
    program = lowered(graph_for(Between(lambda x: F.leaky_relu(x.mT).mT)), LOFI, between="bf16")
    assert ops_of(program) == ["upload", "typecast", "conv1d", "leaky_relu", "typecast", "conv1d", "download"]


def test_typecasts_stand_where_neighbours_differ_and_are_shared():
    graph = graph_for(ZOO["branches_sum"])
    first, *branches, last = names_of(graph)
    policy = Policy.of({first: BF16, **dict.fromkeys(branches, LOFI), last: BF16})
    program = lowered(graph, policy, between="bf16")
    casts = [step for step in program.steps if isinstance(step, CardStep) and step.op == "typecast"]
    assert [step.result.dtype for step in casts] == ["bfp8_b"]


def test_what_a_site_rounds_at_once_is_kept_in_bf16():
    def kept(scheme, do):
        return {step.op: step.result.dtype for step in lowered(graph_for(Between(do)), scheme).steps}

    into_bf16 = kept(BF16, lambda x: F.leaky_relu(x).mT.mT)
    assert into_bf16["leaky_relu"] == "bf16"
    assert kept(LOFI, F.leaky_relu)["leaky_relu"] == "fp32", "bf16 and then bfp8_b would round twice"
    residual = kept(BF16, lambda x: x + F.leaky_relu(x))
    assert (residual["leaky_relu"], residual["add"]) == ("fp32", "bf16")


@pytest.mark.parametrize("between", ["fp32", "bf16"])
def test_sums_in_fp32_have_nothing_that_ttnn_would_cut(between):
    graph = graph_for(ZOO["branches_sum"])
    first, wide, *branches = names_of(graph)
    program = lowered(graph, Policy.of({first: BF16, wide: WHOLE, **dict.fromkeys(branches, BF16)}), between=between)
    dtypes = {step.result.name: step.result.dtype for step in program.steps if isinstance(step, CardStep)}
    dtypes |= {name: constant.value.dtype for name, constant in program.constants.items()}
    sums = [step for step in program.steps if isinstance(step, CardStep) and step.op in ("add", "subtract")]
    operands = [{dtypes[name] for name in step.inputs} for step in sums]
    assert {"fp32"} in operands
    assert all(found == {"fp32"} for found in operands if "fp32" in found)


def test_every_choice_is_said():
    program = lowered(graph_for(ZOO["causal_attention"]), LOFI)
    products = [step for step in program.steps if isinstance(step, CardStep) and step.site is not None]
    assert {step.compute.fidelity for step in products} == {"lofi"}
    assert all(step.compute.fp32_accumulation for step in products)
    assert all("in0_block_w" in step.options for step in products)
    assert {step.compute.fidelity for step in program.steps if isinstance(step, CardStep) and step.op == "softmax"} == {
        "hifi4"
    }
    wormhole = lowered(graph_for(ZOO["causal_attention"]), LOFI, CARDS["wormhole_n150"])
    (softmax,) = [step for step in wormhole.steps if isinstance(step, CardStep) and step.op == "softmax"]
    assert softmax.compute.fidelity == "hifi3", "HiFi4 with fp32 sums is wrong on Wormhole"


def test_angles_are_never_below_fp32():
    program = lowered(graph_for(ZOO["snake"]), LOFI)
    (sine,) = [step for step in program.steps if isinstance(step, CardStep) and step.op == "sin"]
    assert sine.result.dtype == "fp32"


def test_a_site_is_stored_as_the_levers_say():
    torch.manual_seed(0)
    module = Between(F.relu)
    graph = graph_for(module)
    levers = ("fidelity_rounding", "gain_folding", "error_feedback")
    scheme = dataclasses.replace(LOFI, activation="bf16", levers=levers)
    policy = Policy.uniform(names_of(graph), scheme)
    with observing_moments(partial(intercept, module), partial(sample_rows, limit=64), set(policy)) as observer:
        module(graph.examples["x"])
    moments = observer.moments()
    program = lower(graph, policy, BLACKHOLE, stored_operands(graph, policy, moments))
    (wanted,) = emulated(graph, policy, Preparation(TensixArithmetic(), moments))
    result = simulate(program, graph.examples, arithmetic=TensixArithmetic())["y"]
    assert agreement_db(wanted, result) > 34
    plain = lowered(graph, Policy.uniform(names_of(graph), dataclasses.replace(scheme, levers=())))
    assert (program.constants["first_weight"].values != plain.constants["first_weight"].values).any()


def test_reordered_channels_need_no_step():
    module = Between(F.leaky_relu)
    graph = graph_for(module)
    ordered = dataclasses.replace(LOFI, levers=("channel_order",))
    policy = Policy.of({"first": ordered, "last": LOFI})
    chains = {"first": "last"}
    program = lower(graph, policy, BLACKHOLE, stored_operands(graph, policy, chains=chains))
    assert ops_of(program) == ops_of(lowered(graph, LOFI))
    (wanted,) = emulated(graph, policy, Preparation(TensixArithmetic(), chains=chains))
    assert agreement_db(wanted, simulate(program, graph.examples, arithmetic=TensixArithmetic())["y"]) > 30


def test_what_has_no_rule_stays_on_the_host_and_is_named():
    graph = graph_for(Between(lambda x: torch.cumsum(torch.erfinv(torch.tanh(x) * 0.5), dim=2) / TIME))
    program = lowered(graph, BF16)
    assert [line.partition(":")[0] for line in program.left_on_host] == [
        f"the model, aten.{name}" for name in ("erfinv.default", "cumsum.default", "div.Tensor")
    ]
    assert sum(isinstance(step, HostStep) for step in program.steps) == 1
    (wanted,) = emulated(graph, Policy.uniform(names_of(graph), BF16))
    assert agreement_db(wanted, simulate(program, graph.examples, arithmetic=TensixArithmetic())["y"]) > 30
    with pytest.raises(LoweringError, match=r"3 operations would stay on the host(.|\n)*erfinv(.|\n)*cumsum"):
        lowered(graph, BF16, host="refuse")


@pytest.mark.parametrize(
    ("do", "said"),
    [
        (lambda x: F.softplus(x, beta=2), "beta=2"),
        (lambda x: F.softplus(x, threshold=0.5), "threshold=0.5"),
        (lambda x: torch.rsub(x, 2.0, alpha=3), "alpha=3"),
        (lambda x: torch.ops.aten.elu.default(x, 1.0, 2.0, 1.0), "scale=2.0"),
        (lambda x: x.masked_fill(torch.arange(TIME) > 9, -1e6), "something else than a softmax"),
        (lambda x: x.masked_fill(torch.arange(TIME) > 9, 3.0).softmax(-1), "sets 3.0"),
        (lambda x: x.masked_fill(torch.arange(CHANNELS)[:, None] > 9, -1e6).softmax(-1), "nothing of a row"),
        (lambda x: x.reshape(1, 2, 2, 10, TIME).permute(0, 2, 1, 3, 4).reshape(1, CHANNELS, TIME), "5 axes"),
    ],
)
def test_arguments_that_ttnn_does_not_take_go_to_the_host(do, said):
    graph = graph_for(Between(do))
    program = lowered(graph, BF16)
    assert any(said in line for line in program.left_on_host), program.left_on_host
    (wanted,) = emulated(graph, Policy.uniform(names_of(graph), BF16))
    assert agreement_db(wanted, simulate(program, graph.examples, arithmetic=TensixArithmetic())["y"]) > 30


@pytest.mark.parametrize("table", [1e-36, 1e-41, 0.0, 1 / 3])
def test_tables_of_any_numbers_are_looked_up_in_parts(table):
    class Said(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(7, CHANNELS)
            self.linear = nn.Linear(CHANNELS, 8)
            nn.init.constant_(self.table.weight, table)

        def forward(self, x):
            return self.linear(self.table(x) * 2 + 1)

    graph = graph_for(Said().requires_grad_(False), x=torch.tensor([[1, 2, 6]]))
    program = lowered(graph, WHOLE)
    (wanted,) = emulated(graph, Policy.uniform(names_of(graph), WHOLE))
    assert torch.equal(wanted, simulate(program, graph.examples, arithmetic=TensixArithmetic())["y"])


def test_a_norm_may_have_a_bias_alone():
    bias = torch.linspace(-1, 1, CHANNELS)
    graph = graph_for(Between(lambda x: F.layer_norm(x.mT, [CHANNELS], None, bias).mT))
    (wanted,) = emulated(graph, Policy.uniform(names_of(graph), WHOLE))
    result = simulate(lowered(graph, WHOLE), graph.examples, arithmetic=TensixArithmetic())["y"]
    assert agreement_db(wanted, result) > 90


def test_a_convolution_over_a_batch_is_refused_by_name():
    graph = graph_for(ZOO["relu"], x=torch.randn(2, CHANNELS, TIME))
    with pytest.raises(LoweringError, match=r"first: a convolution over a batch of 2(.|\n)*last: a convolution over"):
        lowered(graph, BF16)


def test_a_site_without_a_counterpart_is_refused_with_all_others():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 1, 3))
    graph = graph_for(module, x=torch.randn(1, 1, 8, 8))
    with pytest.raises(LoweringError, match=r"2 operations cannot be lowered\n  0: conv2d (.|\n)*\n  1: conv2d"):
        lowered(graph, BF16)
    with pytest.raises(LoweringError, match="no scheme for last; find the model's sites again"):
        lower(graph_for(ZOO["relu"]), Policy.of({"first": BF16}), BLACKHOLE, {})


class Remembering(nn.Module):
    """The sum of all it was ever given, and a product of it."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(CHANNELS, 8)

    def forward(self, x, total):
        total = total * 0.5 + x
        return self.linear(total), total


@pytest.mark.parametrize("scheme", [WHOLE, BF16])
def test_a_state_is_kept_in_the_type_of_what_it_becomes(scheme):
    module = Remembering().requires_grad_(False)
    inputs = {"x": torch.randn(1, 4, CHANNELS)}
    graph = graph_of(module, inputs, {"total": torch.zeros(1, 4, CHANNELS)}, parts=("y",))
    program = lowered(graph, scheme)
    assert program.streaming_sites == {"linear"}
    simulator = Simulator(program, TensixArithmetic())
    total = torch.zeros(1, 4, CHANNELS)
    for _ in range(3):
        got = simulator.run(inputs)["y"]
        wanted, total = module(inputs["x"], total)
        assert agreement_db(wanted, got) > 34


def test_the_embedded_voice_lowers_whole():
    voice = EmbeddedVoice.load()
    clip = voice.excerpt(bundled_clips()[0], 0.0, 0.5)
    graph = export_graph(voice, clip)
    policy = Policy.uniform(names_of(graph), dataclasses.replace(LOFI, activation="bf16"))
    program = lowered(graph, policy)
    assert program.left_on_host == ()
    assert {step.site for step in program.steps if isinstance(step, CardStep)} - {None} == set(policy)
    wanted = EmulatedEngine(voice, policy, TensixArithmetic()).render(clip).sound
    found = simulate(program, graph.examples, arithmetic=TensixArithmetic())
    assert agreement_db(wanted, found["waveform"]) > 34, "what vector operations store in bf16 is all that differs"
    assert {"waveform", "prosody.duration.out", "prosody.pitch.out"} == set(found)


def test_two_lowerings_are_the_same():
    one, other = (lowered(graph_for(ZOO["attention"]), LOFI) for _ in range(2))
    assert one.steps == other.steps
    assert [(name, constant.values.tobytes()) for name, constant in one.constants.items()] == [
        (name, constant.values.tobytes()) for name, constant in other.constants.items()
    ]


def test_layers_that_share_a_weight_and_not_its_bias_are_refused():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(32, 32), nn.Linear(32, 32)
            self.other.weight = self.one.weight

        def forward(self, x):
            return self.other(self.one(x))

    graph = graph_of(Tied().eval().requires_grad_(False), {"x": torch.ones(4, 32)}, parts=("y",))
    with pytest.raises(ValueError, match="site one: layers share its weight and have biases of their own"):
        stored_operands(graph, Policy.of({"one": WHOLE}))
