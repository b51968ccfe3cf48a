"""Every draw of a model is the same on both sides of a comparison, place by place, and nothing else is touched."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from voice.noise import UnpairedNoiseError, paired_noise

Draw = Callable[[], Tensor]
OWN = torch.Generator()
HALF = torch.full((4, 50), 0.5)


def blank(*shape: int) -> Tensor:
    return torch.empty(*(shape or (4, 50)))


def out_of(draw: Callable[..., object]) -> Tensor:
    out = blank()
    draw(out=out)
    return out


def lstm(x: Tensor) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.LSTM(4, 4, num_layers=2, dropout=0.5)
    result: Tensor = layers(x)[0]
    return result


DRAWS: dict[str, Draw] = {
    "rand": lambda: torch.rand(4, 50),
    "rand of a generator": lambda: torch.rand(4, 50, generator=OWN),
    "rand out": lambda: out_of(lambda out: torch.rand(4, 50, out=out)),
    "randn": lambda: torch.randn(4, 50),
    "randn float64": lambda: torch.randn(200, dtype=torch.float64),
    "randn bfloat16": lambda: torch.randn(200, dtype=torch.bfloat16),
    "randn complex": lambda: torch.view_as_real(torch.randn(100, dtype=torch.complex64)),
    "randn of a generator": lambda: torch.randn(4, 50, generator=OWN),
    "randn out": lambda: out_of(lambda out: torch.randn(4, 50, out=out)),
    "randint": lambda: torch.randint(1000, (200,)),
    "randint low": lambda: torch.randint(-500, 500, (200,)),
    "randint of a generator": lambda: torch.randint(-500, 500, (200,), generator=OWN),
    "randint out": lambda: out_of(lambda out: torch.randint(1000, (4, 50), out=out)),
    "randint low out": lambda: out_of(lambda out: torch.randint(-500, 500, (4, 50), out=out)),
    "randperm": lambda: torch.randperm(200),
    "randperm out": lambda: torch.randperm(200, out=torch.empty(0, dtype=torch.long)),
    "rand_like": lambda: torch.rand_like(HALF),
    "rand_like float64": lambda: torch.rand_like(HALF, dtype=torch.float64),
    "randn_like": lambda: torch.randn_like(HALF),
    "randint_like": lambda: torch.randint_like(HALF, 1000),
    "randint_like low": lambda: torch.randint_like(HALF, -500, 500),
    "normal": lambda: torch.normal(0.0, 1.0, (4, 50)),
    "normal of means": lambda: torch.normal(HALF),
    "normal of deviations": lambda: torch.normal(0.0, HALF),
    "normal of both": lambda: torch.normal(HALF, HALF),
    "normal out": lambda: out_of(lambda out: torch.normal(HALF, HALF, out=out)),
    "bernoulli": lambda: torch.bernoulli(HALF),
    "bernoulli p": lambda: torch.bernoulli(HALF, 0.5),
    "multinomial": lambda: torch.multinomial(torch.ones(200), 200, replacement=True),
    "poisson": lambda: torch.poisson(20 * HALF),
    "binomial": lambda: torch.binomial(100 * HALF, HALF),
    "standard_gamma": lambda: torch._standard_gamma(HALF),
    "dirichlet": lambda: torch._sample_dirichlet(HALF),
    "normal_": lambda: blank().normal_(),
    "uniform_": lambda: blank().uniform_(-1, 1),
    "uniform_ of every second": lambda: blank(4, 100)[:, ::2].uniform_(),
    "random_": lambda: blank().random_(),
    "random_ to": lambda: blank().random_(1000),
    "random_ from": lambda: blank().random_(-500, 500),
    "bernoulli_": lambda: blank().bernoulli_(),
    "bernoulli_ of a tensor": lambda: blank().bernoulli_(HALF),
    "exponential_": lambda: blank().exponential_(generator=OWN),
    "cauchy_": lambda: blank().cauchy_(),
    "geometric_": lambda: blank().geometric_(0.01),
    "log_normal_": lambda: blank().log_normal_(),
    "dropout": lambda: F.dropout(HALF),
    "dropout in place": lambda: F.dropout(HALF.clone(), inplace=True),
    "dropout1d": lambda: F.dropout1d(blank(1, 100, 2).fill_(1.0)),
    "alpha_dropout": lambda: F.alpha_dropout(HALF, training=True),
    "feature_alpha_dropout": lambda: F.feature_alpha_dropout(blank(1, 100, 2).fill_(1.0), training=True),
    "native_dropout": lambda: torch.native_dropout(HALF, 0.5, True)[0],
    "rrelu": lambda: F.rrelu(-HALF, training=True),
    "rrelu in place": lambda: F.rrelu(-HALF, training=True, inplace=True),
    "gumbel_softmax": lambda: F.gumbel_softmax(HALF),
    "attention": lambda: F.scaled_dot_product_attention(HALF[None], HALF[None], torch.ones(1, 4, 50), dropout_p=0.5),
    "lstm": lambda: lstm(torch.ones(20, 1, 4)),
    "init": lambda: nn.init.trunc_normal_(blank()),
    "Laplace": lambda: torch.distributions.Laplace(0.0, 1.0).sample((4, 50)),
    "Categorical": lambda: torch.distributions.Categorical(torch.ones(200)).sample((200,)),
    "VonMises": lambda: torch.distributions.VonMises(0.0, 1.0).sample((4, 50)),
}
MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


def drawn(draw: Draw, seed: int) -> tuple[Tensor, int]:
    with paired_noise(seed) as noise:
        value = draw()
    return value.clone(), noise.places


def states() -> tuple[bytes, bytes]:
    """State of torch's own generator, and of one that a model hands over."""
    return torch.get_rng_state().numpy().tobytes(), OWN.get_state().numpy().tobytes()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", DRAWS)
def test_every_draw_is_paired(name, mode):
    with MODES[mode]():
        first, places = drawn(DRAWS[name], 5)
        assert places >= 1
        torch.rand(3)
        torch.rand(3, generator=OWN)
        moved = states()
        again, _ = drawn(DRAWS[name], 5)
        other, _ = drawn(DRAWS[name], 6)
    assert states() == moved
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class Seen(TorchDispatchMode):
    """Names of the operations that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_no_operation_that_takes_a_generator_is_missing_above():
    seen = Seen()
    for mode in MODES.values():
        for draw in DRAWS.values():
            with mode(), paired_noise(0), seen:
                draw()
    takes = {
        schema.name.removeprefix("aten::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("aten::") and any("Generator" in str(a.type) for a in schema.arguments)
    }
    of_compilers = {"uniform", "exponential", "cauchy", "geometric", "log_normal", "random", "normal_functional"}
    of_compilers |= {"rrelu_with_noise_functional", "_no_grad_normal_", "_no_grad_uniform_"}
    of_generators = {"seed", "initial_seed", "manual_seed"}
    of_a_gpu = {"_fused_dropout"}
    assert takes - of_compilers - of_generators - of_a_gpu <= seen.names


@given(sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5), change=st.integers(0, 4), by=st.integers(1, 30))
def test_a_draw_does_not_depend_on_the_sizes_before_it(sizes, change, by):
    def draws(sizes: list[int]) -> list[Tensor]:
        with paired_noise(3):
            return [torch.randn(size) if i % 2 else torch.rand(size) for i, size in enumerate(sizes)]

    change %= len(sizes)
    other = [size + by * (i == change) for i, size in enumerate(sizes)]
    for i, (first, second) in enumerate(zip(draws(sizes), draws(other), strict=True)):
        assert torch.equal(first, second) == (i != change)


def test_places_are_independent_and_noise_is_noise():
    with paired_noise(0) as noise:
        normal = torch.stack([torch.randn(20_000) for _ in range(6)])
        uniform = torch.stack([torch.rand(20_000) for _ in range(6)])
        ones = torch.ones(20_000).bernoulli_(0.25)
        kept = F.dropout(torch.ones(20_000), 0.25)
    assert noise.places == 14
    limit = 5 / math.sqrt(20_000)
    assert normal.mean(dim=1).abs().max() < limit
    assert (normal.std(dim=1) - 1).abs().max() < limit
    assert (uniform.mean(dim=1) - 0.5).abs().max() < limit * math.sqrt(1 / 12)
    assert (uniform.var(dim=1) - 1 / 12).abs().max() < limit / 12
    assert abs(ones.mean() - 0.25) < limit / 2
    assert abs(kept.mean() - 1) < limit
    between = torch.corrcoef(torch.cat([normal, uniform])) - torch.eye(12)
    assert between.abs().max() < limit


def test_native_dropout_gives_its_mask_and_keeps_the_mean():
    x = torch.full((10_000,), 2.0, requires_grad=True)
    with paired_noise(1):
        y, kept = torch.native_dropout(x, 0.25, True)
        nothing, _ = torch.native_dropout(x, 1.0, True)
    assert kept.dtype == torch.bool
    assert torch.equal(y.detach(), torch.where(kept, 2.0 / 0.75, 0.0))
    assert abs(kept.float().mean() - 0.75) < 0.03
    assert not nothing.any()
    y.sum().backward()
    assert torch.equal(x.grad, torch.where(kept, 1 / 0.75, 0.0))
    with paired_noise(1):
        assert torch.equal(F.dropout(x.detach(), 0.25), y.detach()), "both forms of dropout draw the same"


def test_what_does_not_draw_is_no_place_and_computes_as_ever():
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.LSTM(8, 8, 2, dropout=0.5)).eval()
    query = torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    for mode in MODES.values():
        with mode():
            plain = model(query[0])[0], F.scaled_dot_product_attention(query, query, query, is_causal=True)
            with paired_noise(0) as noise:
                inside = model(query[0])[0], F.scaled_dot_product_attention(query, query, query, is_causal=True)
                torch.native_dropout(query, 0.5, False)
                F.dropout(query, 0.0)
            assert noise.places == 0
        for first, second in zip(plain, inside, strict=True):
            assert torch.equal(first, second)


def test_a_fused_kernel_with_dropout_is_refused_and_without_it_is_not():
    query = torch.ones(1, 2, 5, 8)
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with paired_noise(0):
        fused(query, query, query, 0.0)
        with pytest.raises(UnpairedNoiseError, match=r"_flash_attention_for_cpu.* draws noise by itself"):
            fused(query, query, query, 0.5)


def test_a_seed_is_whole_and_not_negative():
    with pytest.raises(ValueError, match="at least 0"), paired_noise(-1):
        pass
    values = [drawn(lambda: torch.randn(8), seed)[0] for seed in (0, 1, 2**32, 2**64)]
    assert len({tuple(value.tolist()) for value in values}) == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", MODES)
def test_another_device_gets_the_same_noise(mode):
    def draws(device: str) -> list[Tensor]:
        half = torch.full((4, 50), 0.5, device=device)
        own = torch.Generator(device).manual_seed(0)
        with MODES[mode](), paired_noise(4):
            return [
                torch.randn(4, 50, device=device),
                torch.rand(4, 50, device=device, generator=own),
                torch.randn_like(half),
                torch.randperm(50, device=device),
                torch.bernoulli(half),
                torch.normal(half, half),
                torch.multinomial(half, 20),
                torch.empty(4, 100, device=device)[:, ::2].exponential_(),
                torch.rand(4, 50, out=torch.empty(4, 50, device=device)),
                F.dropout(half),
                F.rrelu(-half, training=True),
                torch.native_dropout(half, 0.5, True)[0],
            ]

    state = torch.cuda.get_rng_state()
    for here, there in zip(draws("cpu"), draws("cuda"), strict=True):
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-6)
    assert torch.equal(torch.cuda.get_rng_state(), state)
