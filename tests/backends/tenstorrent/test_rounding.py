"""What may be kept in bf16: caches and kept samples that only sites read, to the bit; and nothing else."""

from collections.abc import Mapping
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from backends.emulation.preparation import Preparation
from backends.tenstorrent.cards import CARDS
from backends.tenstorrent.exact.arithmetic import ExactTensix
from backends.tenstorrent.lower import lower, stored_operands
from backends.tenstorrent.program import Program
from backends.tenstorrent.simulate import Simulator
from precision.policy import Policy, Scheme
from tests.voice.tiny_decoder import TINY
from voice.decoder import DecoderVoice
from voice.decoder_step import Step
from voice.graph import SiteGraph, graph_of, site_nodes

LOFI = Scheme("lofi", "bfp8_b", "bf16", accumulate="fp32", fidelity="lofi")
FP32 = Scheme("fp32", "fp32", "fp32", accumulate="fp32", fidelity="hifi4")


def lowered(graph: SiteGraph, scheme: Scheme) -> tuple[Program, Policy]:
    policy = Policy.uniform(list(dict.fromkeys(site.site for site in site_nodes(graph))), scheme)
    operands = stored_operands(graph, policy, {}, {}, None)
    return lower(graph, policy, CARDS["blackhole_p150"], operands, host="refuse"), policy


@pytest.fixture(scope="module")
def decoder() -> SiteGraph:
    module = DecoderVoice.seeded(TINY).module
    step = Step(module)
    return graph_of(step, step.examples(), step.states(), parts=step.parts, sites_of=module)


@pytest.mark.parametrize("scheme", [LOFI, FP32], ids=lambda scheme: scheme.name)
def test_a_cache_in_bf16_changes_no_bit_of_what_is_said(decoder: SiteGraph, scheme: Scheme) -> None:
    program, policy = lowered(decoder, scheme)
    for layer in range(TINY.layers):
        for kind in ("keys", "values"):
            kept = program.states[f"layers_{layer}_{kind}"].value.dtype
            assert kept == ("fp32" if scheme is FP32 else "bf16")
    simulator = Simulator(program)
    handler = partial(Preparation(ExactTensix("blackhole")).compute, schemes=dict(policy.schemes), calibration=None)
    states: Mapping[str, Tensor] | None = None
    tokens = torch.randint(0, 10, (4, 6), generator=torch.Generator().manual_seed(0))
    for place, row in enumerate(tokens.T):
        given = {"text": row[:1], "codes": row[1:], "position": torch.tensor([place])}
        heard = decoder.run(given, handler, states)
        states = dict(zip(decoder.states, heard[len(decoder.parts) :], strict=True))
        found = simulator.run({value.name: given[value.name] for value in program.inputs})
        for part, values in zip(decoder.parts, heard, strict=False):
            assert torch.equal(found[part], values), (place, part)


class Kept(nn.Module):
    """A row kept, read by a site, and in some other way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.proj = nn.Linear(32, 32, bias=False)
        ones = torch.eye(4)
        self.register_buffer("table", ones * 0.5 if how == "halves" else ones)
        self.register_buffer("other", torch.eye(4).flip(0))

    def forward(self, x: Tensor, place: Tensor, kept: Tensor) -> tuple[Tensor, ...]:
        """Write `x` [1, 32] at a place of [4, 32], and map all four rows."""
        here = nn.functional.embedding(place, self.table).reshape(4, 1)
        rest = 1.0 - (nn.functional.embedding(place, self.other).reshape(4, 1) if self.how == "another" else here)
        new = kept * rest + torch.tanh(x) * here
        read = self.proj(new)
        if self.how == "said":
            return read, new, new
        if self.how == "added":
            return read + new, new
        return read, new


@pytest.mark.parametrize(
    ("how", "dtype"),
    [("plain", "bf16"), ("halves", "fp32"), ("another", "fp32"), ("said", "fp32"), ("added", "fp32")],
)
def test_only_what_no_one_else_reads_is_kept_short(how: str, dtype: str) -> None:
    """Written by other numbers than 0 and 1; by masks of two places; given out; read by more than a site."""
    torch.manual_seed(0)
    module = Kept(how).requires_grad_(False)
    inputs = {"x": torch.randn(1, 32), "place": torch.tensor([1])}
    parts = ("read", "new") if how == "said" else ("read",)
    graph = graph_of(module, inputs, {"kept": torch.zeros(4, 32)}, parts=parts)
    program, _ = lowered(graph, LOFI)
    assert program.states["kept"].value.dtype == dtype
