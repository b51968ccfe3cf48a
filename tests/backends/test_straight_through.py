from dataclasses import replace

import pytest
import torch

from backends.emulation.straight_through import compute_straight_through
from backends.hopper.numerics import HopperArithmetic
from backends.tenstorrent.numerics import TensixArithmetic, read_activation
from precision.policy import Scheme
from voice.intercept import intercept
from voice.site_call import ConvOptions, SiteCall

LOFI = Scheme("lofi", "bfp8_b", "bf16", fidelity="lofi", levers=("fidelity_rounding",))
EXACT = Scheme("fp32", "fp32", "fp32", fidelity="hifi4")
PLAIN = ConvOptions((1,), (2,), (2,))
UP = ConvOptions((4,), (2,), (1,), groups=2, output_padding=(0,))
SHAPES = {
    "linear": ((2, 9, 24), (40, 24), 40, None),
    "conv1d": ((2, 20, 31), (24, 20, 3), 24, PLAIN),
    "conv_transpose1d": ((2, 20, 13), (20, 9, 8), 18, UP),
    "conv2d": ((2, 6, 8, 9), (18, 3, 3, 3), 18, ConvOptions((2, 1), (1, 1), (1, 1), groups=2)),
    "matmul": ((2, 5, 24), (2, 24, 7), 0, None),
}


def call_of(op, seed=0):
    shape, weight, outputs, options = SHAPES[op]
    generator = torch.Generator().manual_seed(seed)
    bias = torch.randn(outputs, generator=generator) if outputs else None
    x, matrix = torch.randn(shape, generator=generator), torch.randn(weight, generator=generator)
    return SiteCall("s", op, x, matrix, bias, options, is_product=op == "matmul", index=0)


def reader(call, scheme):
    return read_activation(call.x, scheme, 1 if call.options is not None else -1)


def gradients(call, compute):
    leaves = [None if t is None else t.clone().requires_grad_() for t in (call.x, call.weight, call.bias)]
    result = compute(*leaves)
    turn = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    (result * turn).sum().backward()
    return result.detach(), [None if leaf is None else leaf.grad for leaf in leaves]


@pytest.mark.parametrize("op", SHAPES)
@pytest.mark.parametrize(
    "scheme",
    [
        LOFI,
        replace(LOFI, activation="bfp8_b"),
        replace(LOFI, fidelity="hifi3"),
        replace(LOFI, accumulate="bf16", fidelity="hifi4"),
    ],
    ids=["lofi", "bfp8_b activations", "hifi3", "bf16 sums"],
)
def test_values_are_the_targets_bit_for_bit(op, scheme):
    arithmetic, call = TensixArithmetic(), call_of(op)
    expected = arithmetic.compute(call, scheme, arithmetic.prepare(call, scheme), None)
    result, found = gradients(
        call,
        lambda x, weight, bias: compute_straight_through(
            arithmetic, replace(call, x=x), scheme, weight=weight, bias=bias, read=reader
        ),
    )
    assert torch.equal(result, expected)
    assert all(torch.isfinite(each).all() for each in found if each is not None)


@pytest.mark.parametrize("op", SHAPES)
def test_gradients_are_those_of_the_plain_operation_at_what_is_read(op):
    arithmetic, call = TensixArithmetic(), call_of(op)
    prepared = arithmetic.prepare(call, LOFI)
    right = call.weight if prepared.weight is None else prepared.weight
    seen = replace(call, x=reader(call, LOFI), weight=right, bias=prepared.bias)
    _, expected = gradients(seen, seen.compute)
    _, found = gradients(
        call,
        lambda x, weight, bias: compute_straight_through(
            arithmetic, replace(call, x=x), LOFI, weight=weight, bias=bias, read=reader
        ),
    )
    for wanted, got in zip(expected[1:], found[1:], strict=True):
        assert (wanted is None and got is None) or torch.allclose(wanted, got, atol=1e-4)
    assert torch.allclose(found[0], expected[0] * seen.x / call.x, atol=1e-4)


@pytest.mark.parametrize("op", SHAPES)
def test_without_a_reader_the_inputs_gradient_is_the_identitys(op):
    arithmetic, call = TensixArithmetic(), call_of(op)
    _, expected = gradients(call, call.compute)
    _, found = gradients(
        call,
        lambda x, weight, bias: compute_straight_through(
            arithmetic, replace(call, x=x), EXACT, weight=weight, bias=bias
        ),
    )
    for wanted, got in zip(expected, found, strict=True):
        assert (wanted is None and got is None) or torch.allclose(wanted, got, rtol=0.01, atol=0.02)


def test_scaled_weights_give_gradients_of_the_scaled_weight():
    arithmetic, call = HopperArithmetic(), call_of("conv_transpose1d")
    scheme = Scheme("fp8", "fp8_e4m3", "bf16")
    _, expected = gradients(call, call.compute)
    _, found = gradients(
        call,
        lambda x, weight, bias: compute_straight_through(
            arithmetic, replace(call, x=x), scheme, weight=weight, bias=bias
        ),
    )
    assert float((found[0] - expected[0]).norm() / expected[0].norm()) < 0.05


def test_a_zero_among_inputs_keeps_its_gradient():
    call = call_of("linear")
    call.x[0, 0, 0] = 0.0
    _, found = gradients(
        call,
        lambda x, weight, bias: compute_straight_through(
            TensixArithmetic(), replace(call, x=x), LOFI, weight=weight, bias=bias, read=reader
        ),
    )
    assert found[0][0, 0, 0] != 0
    assert torch.isfinite(found[0]).all()


def test_gradients_pass_an_open_interception():
    layer = torch.nn.Linear(8, 4)
    seen = []

    def handle(call):
        seen.append(call.site)
        return compute_straight_through(TensixArithmetic(), call, LOFI, read=reader)

    model = torch.nn.Sequential(layer)
    with intercept(model, handle):
        model(torch.randn(3, 8)).sum().backward()
    assert seen == ["0"]
    assert layer.weight.grad.abs().sum() > 0


def test_a_weight_that_is_not_finite_is_refused_by_name():
    call = call_of("linear")
    call.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="site s: the weight"):
        compute_straight_through(TensixArithmetic(), call, LOFI)
