"""Paired noise among other contexts: nested, failing, around and inside an interception, in threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode

from voice.intercept import intercept
from voice.noise import paired_noise
from voice.site_call import SiteCall


@pytest.fixture
def untouched():
    """Torch's own generator is after the test as it was before."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


def test_the_innermost_context_draws(untouched):
    with paired_noise(1) as outer:
        first = torch.randn(5)
        with paired_noise(2) as inner:
            nested = torch.randn(5)
        second = torch.randn(5)
    assert (outer.places, inner.places) == (2, 1)
    with paired_noise(1):
        assert torch.equal(torch.randn(5), first)
        assert torch.equal(torch.randn(5), second)
    with paired_noise(2):
        assert torch.equal(torch.randn(5), nested)


@pytest.mark.parametrize("where", ["the model", "a draw"])
def test_an_exception_leaves_nothing_behind(where, untouched):
    def fail() -> None:
        with paired_noise(0):
            torch.randn(3)
            if where == "a draw":
                torch.empty(3).uniform_(1.0, -1.0)
            raise RuntimeError("the model failed")

    with pytest.raises(RuntimeError):
        fail()
    assert _get_current_dispatch_mode() is None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = torch.randn(3)
        torch.manual_seed(0)
        assert torch.equal(torch.randn(3), plain), "draws are torch's own again"
    with paired_noise(0) as noise:
        torch.randn(3)
    assert noise.places == 1


class Noisy(nn.Module):
    """Draws before, between and inside attention that drops weights."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.outer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x + 0.1 * torch.randn_like(x))
        x = F.scaled_dot_product_attention(x, x, x, dropout_p=0.2)
        out: Tensor = self.outer(x) + 0.1 * torch.randn(x.shape)
        return out


@pytest.mark.parametrize("order", ["noise outside", "noise inside"])
def test_it_nests_with_intercept(order, untouched):
    with paired_noise(8):
        model = Noisy()
    x = torch.linspace(-1, 1, 40).reshape(1, 5, 8)
    sites = []

    def handle(call: SiteCall) -> Tensor:
        sites.append(call.site)
        # An arithmetic that rounds stochastically: its draws are no places of the model's.
        return call.compute() + 0.0 * torch.rand(3).sum()

    with torch.inference_mode():
        with paired_noise(1) as plain:
            wanted = model(x)
        with torch.random.fork_rng():
            if order == "noise outside":
                with paired_noise(1) as noise, intercept(model, handle):
                    got = model(x)
            else:
                with intercept(model, handle), paired_noise(1) as noise:
                    got = model(x)
    assert sites == ["inner", "#qk", "#pv", "outer"]
    assert plain.places == noise.places == 3
    torch.testing.assert_close(got, wanted)


def test_threads_have_each_their_own(untouched):
    def render(seed: int) -> list[Tensor]:
        with torch.inference_mode(), paired_noise(seed):
            return [torch.randn(50 + seed), torch.rand(20), F.dropout(torch.ones(100))]

    alone = [render(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for first, second in zip(alone, pool.map(render, range(8)), strict=True):
                assert all(map(torch.equal, first, second))
    with paired_noise(0) as noise, ThreadPoolExecutor(1) as pool, torch.random.fork_rng():
        pool.submit(lambda: torch.randn(3)).result()
        assert noise.places == 0, "a thread opens the context for itself"
