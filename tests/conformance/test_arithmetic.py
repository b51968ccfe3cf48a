"""What a target computes of a layer, by its arithmetic here: of the right kind, every time the same, near enough."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from backends.base import Arithmetic
from backends.tolerance import snr_db
from precision.policy import Scheme
from tests.conformance.conftest import Layered
from tests.conformance.layers import KINDS, inputs, layers_graph
from tests.conformance.models import emulated
from tests.conformance.targets import Target, targets

BITS = {"fp8_e5m2": 3, "bfp4_b": 3, "fp8_e4m3": 4, "bfp8_b": 7, "bf16": 8, "fp16": 11, "fp32": 11}
"""Significant bits of a value in a format, the leading one included; multipliers read no more than tf32 of fp32."""
READ_BITS = {"lofi": 4, "hifi2": 6, "hifi3": 9, "hifi4": 9}
"""By fidelity, of the operand of which least is read: 5 bits of a weight, 7 of an activation, 10 of a weight; what is
behind them is cut off and not rounded, which leaves one less."""
MARGIN_DB = 9.0
"""A value of b bits is off by 2**-b of itself at most, which is 6.02 b dB; two operands make that 3 dB less, and blocks
that share an exponent, or sums in bf16, 6 more."""


def floor_db(scheme: Scheme, product: bool) -> float:
    """SNR that a layer, or a product of two activations, has at the least under a scheme."""
    bits = [BITS[scheme.activation], BITS[scheme.activation if product else scheme.weight]]
    if scheme.fidelity is not None:
        bits.append(READ_BITS[scheme.fidelity])
    if scheme.accumulate == "bf16":
        bits.append(BITS["bf16"])
    return 6.02 * min(bits) - MARGIN_DB


def arithmetics(target: Target) -> list[Arithmetic]:
    """The fast one, and the exact one where there is one."""
    backend = target.backend
    return [backend.arithmetic] + ([backend.exact] if backend.exact is not None else [])


@pytest.mark.parametrize("target", targets())
def test_layers_are_near_fp32_as_far_as_their_formats_go(target: Target, layered: Callable[[Target], Layered]) -> None:
    graph, _, policy = layered(target)
    exact = dict(zip(graph.parts, graph.run(), strict=True))
    for arithmetic in arithmetics(target):
        found = emulated(graph, policy, arithmetic)
        below = {}
        for (part, values), scheme in zip(found.items(), policy.values(), strict=True):
            assert (values.shape, values.dtype) == (exact[part].shape, torch.float32)
            assert values.isfinite().all()
            wanted = floor_db(scheme, product=part.startswith("product"))
            if (reached := snr_db(exact[part], values)) < wanted:
                below[part] = (reached, wanted, scheme)
        assert below == {}, arithmetic.name


@pytest.mark.parametrize("target", targets())
def test_the_same_is_computed_every_time_and_nothing_is_written_to(target: Target) -> None:
    graph, sites = layers_graph(dict.fromkeys(KINDS, 1))
    policy = target.uniform(sites, target.everyday[0])
    held = {name: values.clone() for name, values in graph.module.named_parameters()}
    assert held
    for arithmetic in arithmetics(target):
        once, again = (emulated(graph, policy, arithmetic) for _ in range(2))
        assert [name for name in once if not torch.equal(once[name], again[name])] == []
    assert same(held, dict(graph.module.named_parameters()))
    assert same(inputs(), graph.examples)


def same(one: dict[str, Tensor], other: object) -> bool:
    assert isinstance(other, dict)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
