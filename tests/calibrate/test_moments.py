from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calibrate.moments import Moments, StoredMoments, observing_moments, save_moments


@dataclass
class Call:
    """A grouped product: x [groups, m, k]."""

    site: str
    x: torch.Tensor
    weight: torch.Tensor
    is_product: bool = False

    def compute(self):
        return self.x @ self.weight


class Source:
    """Stands for an interception: hands calls to the handler while it is open."""

    def __init__(self):
        self.handler = None

    @contextmanager
    def attach(self, handler):
        self.handler = handler
        try:
            yield
        finally:
            self.handler = None


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def observed(calls, sites):
    source = Source()
    with observing_moments(source.attach, lambda call: call.x, sites) as observer:
        for call in calls:
            assert torch.equal(source.handler(call), call.compute())
    assert source.handler is None
    return observer.moments()


@given(st.lists(st.integers(1, 1500), min_size=1, max_size=3), st.integers(1, 3), st.integers(1, 9))
def test_moments_are_those_of_all_rows(counts, groups, k):
    parts = [1.0 + random(groups, count, k, seed=number) for number, count in enumerate(counts)]
    found = observed([Call("a", part, torch.ones(k, 2)) for part in parts], ["a"])["a"]
    rows = torch.cat(parts, 1).double().numpy()
    assert found.rows == sum(counts)
    assert found.mean.dtype == found.second.dtype == torch.float64
    np.testing.assert_allclose(found.mean.numpy(), rows.mean(1), atol=1e-6)
    np.testing.assert_allclose(found.second.numpy(), np.einsum("gmi,gmj->gij", rows, rows) / sum(counts), atol=2e-6)


def test_only_named_sites_with_weights_have_moments():
    calls = [
        Call("a", random(1, 5, 3), torch.ones(3, 2)),
        Call("b", random(1, 5, 3), torch.ones(3, 2)),
        Call("c#qk", random(1, 5, 3), torch.ones(3, 2), is_product=True),
    ]
    assert set(observed(calls, ["a", "c#qk", "never called"])) == {"a"}
    assert observed(calls, []) == {}


def test_activations_that_are_not_finite_are_named():
    source = Source()
    broken = Call("decoder.out", torch.tensor([[[1.0, torch.nan]]]), torch.ones(2, 2))
    with (
        pytest.raises(ValueError, match=r"site 'decoder\.out'.*Inf or NaN"),
        observing_moments(source.attach, lambda call: call.x, ["decoder.out"]),
    ):
        source.handler(broken)
    assert source.handler is None


def test_stored_moments_are_the_same_to_the_bit(tmp_path):
    held = observed([Call(name, random(2, 40, 6, seed=len(name)), torch.ones(6, 1)) for name in ("a", "up.1 x")], {"a"})
    held["up.1 x"] = Moments(random(1, 4).double(), random(1, 4, 4).double().mT, 7)
    save_moments(held, tmp_path / "moments.safetensors")
    stored = StoredMoments(tmp_path / "moments.safetensors")
    assert set(stored) == {"a", "up.1 x"}
    assert len(stored) == 2
    for site, moments in held.items():
        assert torch.equal(stored[site].mean, moments.mean)
        assert torch.equal(stored[site].second, moments.second)
        assert stored[site].rows == moments.rows
    assert stored.get("b") is None
    with pytest.raises(KeyError):
        stored["b"]
