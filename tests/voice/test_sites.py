"""Sites against multiply-accumulates counted by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice.sites import OUTSIDE, TOP, count_weights, discover


class Attention(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.packed = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.packed(x).chunk(3, -1))
        out: Tensor = self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return out


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(5, 8))
        self.kernel = nn.Parameter(torch.ones(6, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv1d(x @ self.table.T @ self.table, self.kernel[:, :, :].flip(0), groups=2)
        return y @ y.mT


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(self.layer(x)[:, :2])
        return out


ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]] = {
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv1d(4, 6, 5, stride=2, padding=2), nn.ReLU(), nn.ConvTranspose1d(6, 2, 4, stride=2)
        ),
        (1, 4, 16),
        {"0": 8 * 6 * 4 * 5, "2": 8 * 6 * 2 * 4},
    ),
    "grouped": (
        lambda: nn.Sequential(nn.Conv1d(4, 8, 3, groups=4), nn.ConvTranspose1d(8, 4, 3, groups=2, output_padding=0)),
        (2, 4, 10),
        {"0": 2 * 8 * 8 * 1 * 3, "1": 2 * 8 * 8 * 2 * 3},
    ),
    "two axes": (lambda: nn.Sequential(nn.Conv2d(2, 4, (3, 2), groups=2)), (1, 2, 6, 5), {"0": 4 * 4 * 4 * 1 * 6}),
    "multihead": (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
        (1, 5, 8),
        {
            "0.self_attn": 5 * 8 * 24,
            "0.self_attn#qk": 2 * 5 * 5 * 4,
            "0.self_attn#pv": 2 * 5 * 5 * 4,
            "0.self_attn.out_proj": 5 * 8 * 8,
            "0.linear1": 5 * 8 * 16,
            "0.linear2": 5 * 8 * 16,
        },
    ),
    "attention": (
        lambda: nn.Sequential(Attention(4)),
        (1, 5, 8),
        {"0.packed": 5 * 8 * 24, "0#qk": 4 * 25 * 2, "0#pv": 4 * 25 * 2, "0.out": 5 * 64},
    ),
    "tied": (Tied, (1, 5, 8), {"layer": (5 + 2) * 64}),
    "functional": (
        lambda: nn.Sequential(Functional()),
        (1, 8, 8),
        {"0#table": 8 * 8 * 5, "0#table#use1": 8 * 8 * 5, "0#conv1d0": 6 * 6 * 4 * 3, "0#matmul0": 6 * 6 * 6},
    ),
}


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_macs_by_hand(name: str, mode: Callable[[], torch.no_grad]) -> None:
    make, shape, macs = ZOO[name]
    module = make().eval()
    with mode():
        found = discover(module, lambda: module(torch.ones(shape)), seconds=0.5)
    assert {site.name: site.macs_per_second / 2 for site in found.sites} == macs
    assert found.total_macs_per_second == 2 * sum(macs.values())
    assert found.covered_share == 1.0
    assert found.uncovered == ()
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())


def test_shapes_of_sites() -> None:
    module = nn.Sequential(
        nn.Conv1d(4, 6, 5, padding=2), nn.ConvTranspose1d(6, 4, 4, stride=2, groups=2), Attention(4)
    ).eval()

    def run() -> None:
        module[1](module[0](torch.ones(1, 4, 10)))
        module[2](torch.ones(3, 5, 8))

    conv, transposed, packed, qk, pv, _ = discover(module, run, seconds=2.0).sites
    assert (conv.op, conv.weight_shape, conv.k, conv.n, conv.kernel) == ("conv1d", (6, 4, 5), 20, 6, 5)
    assert conv.rows_per_second == 5.0
    assert (transposed.op, transposed.k, transposed.n, transposed.groups) == ("conv_transpose1d", 3, 8, 2)
    assert (transposed.rows_per_second, transposed.kernel, transposed.weight_elements) == (5.0, 4, 48)
    assert (packed.op, packed.k, packed.n, packed.rows_per_second) == ("linear", 8, 24, 7.5)
    assert (qk.op, qk.weight_shape, qk.k, qk.n, qk.groups) == ("matmul", (), 2, 5, 4)
    assert qk.rows_per_second == pv.rows_per_second == 7.5
    assert (pv.k, pv.n, pv.weight_elements) == (5, 2, 0)


def test_a_product_that_grows_keeps_its_macs() -> None:
    module = nn.Sequential(Attention(2)).eval()

    def run() -> None:
        for time in (1, 2, 3):
            module(torch.ones(1, time, 8))

    found = discover(module, run, seconds=1.0)
    qk = found.sites[1]
    assert qk.macs_per_second == pytest.approx(8 * (1 + 4 + 9), rel=1e-12)
    assert (qk.n, found.covered_share) == (3, 1.0)


class Beyond(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = nn.ConvTranspose2d(1, 2, 3)
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(x).to(torch.complex64) @ torch.ones(8, 2, dtype=torch.complex64)
        return self.image(x[None]).sum() * y.real


def test_what_is_not_covered_is_named_with_its_share() -> None:
    module, weight, foreign = Beyond().eval(), torch.ones(8, 4), nn.LSTM(8, 8)

    def run() -> None:
        x = torch.ones(1, 10, 8)
        module(x)[0] @ torch.ones(2, 3)
        foreign(x)
        x @ weight

    with torch.inference_mode():
        found = discover(module, run, seconds=1.0)
    image, out, top = 10 * 8 * 2 * 9, 10 * 64, 10 * 8 * 2
    outside = 10 * 2 * 3 + 10 * 8 * 4 + 2 * 10 * 8 * 32
    total = image + out + top + outside
    assert found.total_macs_per_second == total
    assert [site.name for site in found.sites] == ["out"]
    assert found.covered_share == out / total
    assert dict(found.uncovered) == pytest.approx({"image": image / total, TOP: top / total, OUTSIDE: outside / total})
    assert found.covered_share + sum(share for _, share in found.uncovered) == pytest.approx(1.0)


def test_a_run_that_means_nothing_is_refused() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive length"):
            discover(module, lambda: module(torch.ones(1, 2)), seconds)
    with pytest.raises(ValueError, match="multiplied no matrices"):
        discover(module, lambda: None, 1.0)


def test_weights_are_parameters_and_the_buffers_that_sites_multiply_with():
    class Model(nn.Module):
        basis: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 6)
            self.register_buffer("basis", torch.ones(4, 6))
            self.register_buffer("table", torch.ones(100))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.layer(x), self.basis)

    model = Model()
    found = discover(model, lambda: model(torch.ones(3, 8)), 1.0)
    assert len(found.sites) == 2
    assert count_weights(model, found.sites) == 8 * 6 + 6 + 4 * 6
