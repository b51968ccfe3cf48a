"""Flow: which site's result a site's input is made of, followed through all that lies between."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from voice.embedded import EmbeddedVoice, bundled_clips
from voice.flow import find_flow
from voice.hifigan import V2, V3, Generator
from voice.sites import discover


class Between(nn.Module):
    """Two layers, and something between them."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self._between = between

    def forward(self, x):
        return self.second(self._between(self.first(x), x))


def in_place(y, x):
    buffer = torch.zeros(3, 8)
    buffer[:, 4:] += y
    return buffer.view(3, 2, 4)[:, 1]


def written_over(y, x):
    y.copy_(x)
    return y


def written_into(y, x):
    out = torch.empty_like(x)
    torch.add(y, 1, out=out)
    return out


def partly_written_over(y, x):
    y[:1] = x[:1]
    return y


def refilled(y, x):
    torch.mul(x, 2, out=y)
    return y


def freed(y, x):
    # A storage that is given back and taken anew is another one, whatever its address.
    del y
    fresh = [torch.full((3, 4), float(number)) for number in range(50)]
    return torch.stack(fresh).sum(0)


FOLLOWED = {
    "nothing": lambda y, x: y,
    "view": lambda y, x: y.view(4, 3).t(),
    "reshape": lambda y, x: y.t().reshape(3, 4),
    "norm and activation": lambda y, x: F.gelu(F.layer_norm(y, (4,))).softmax(-1),
    "residual": lambda y, x: x + y,
    "in place": in_place,
    "add in place": lambda y, x: x.clone().add_(y),
    "part of it in place": partly_written_over,
    "into a given tensor": written_into,
    "cat": lambda y, x: torch.cat([x[:, :2], y[:, 2:]], dim=1),
    "detach and clone": lambda y, x: y.detach().clone(),
    "another type": lambda y, x: y.to(torch.bfloat16).double().float(),
    "complex numbers": lambda y, x: torch.fft.irfft(torch.fft.rfft(y), n=4),
    "a gate": lambda y, x: torch.where(x > 0, y, torch.zeros_like(y)),
    "a recurrent layer": lambda y, x: nn.GRU(4, 4)(y)[0],
}
LOST = {
    "the input alone": lambda y, x: x,
    "numpy": lambda y, x: torch.from_numpy(y.numpy().copy()),
    "a number of Python": lambda y, x: x * y.sum().item(),
    "integers": lambda y, x: F.embedding(y.argmax(-1), torch.ones(4, 4)),
    "its shape alone": lambda y, x: torch.ones_like(y) + y.new_zeros(3, 4),
    "written over": written_over,
    "refilled": refilled,
    "freed": freed,
}


@pytest.mark.parametrize("name", FOLLOWED)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_followed(name, mode):
    model = Between(FOLLOWED[name])
    with mode():
        assert find_flow(model, lambda: model(torch.randn(3, 4))) == {"second": "first"}


@pytest.mark.parametrize("name", LOST)
def test_lost(name):
    model = Between(LOST[name])
    with torch.no_grad():
        assert find_flow(model, lambda: model(torch.randn(3, 4))) == {}


def test_of_two_the_one_called_last_and_of_a_result_its_own_site_alone():
    layers = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("early", "late", "sum", "after")})

    def run():
        x = torch.randn(3, 4)
        early = layers["early"](x)
        late = layers["late"](x)
        return layers["after"](layers["sum"](late + early) * 2)

    with torch.no_grad():
        assert find_flow(layers, run) == {"sum": "late", "after": "sum"}


def test_a_product_has_the_later_of_both_operands():
    layers = nn.ModuleDict({"left": nn.Linear(4, 4), "right": nn.Linear(4, 4), "alone": nn.Linear(4, 4)})

    class Product(nn.Module):
        def forward(self, x):
            right, left = layers["right"](x), layers["left"](x)
            return torch.matmul(x, torch.matmul(left, right.mT)), torch.matmul(x, layers["alone"](x).mT)

    model = Product()
    model.layers = layers
    with torch.no_grad():
        flow = find_flow(model, lambda: model(torch.randn(1, 4, 4)))
    assert flow == {"#matmul0": "layers.left", "#matmul1": "#matmul0", "#matmul2": "layers.alone"}


def test_of_a_site_called_again_the_first_call_counts():
    layers = nn.ModuleDict({"twice": nn.Linear(4, 4), "between": nn.Linear(4, 4)})

    def run():
        x = layers["twice"](torch.randn(3, 4))
        return layers["twice"](layers["between"](x))

    with torch.no_grad():
        assert find_flow(layers, run) == {"between": "twice"}


def test_the_embedded_voice_by_its_own_structure():
    voice = EmbeddedVoice.load()
    clip = voice.excerpt(bundled_clips()[0], 0.0, 0.5)
    alone = voice.render(clip).sound
    heard = []
    flow = find_flow(voice.module, lambda: heard.append(voice.render(clip)))
    assert torch.equal(heard[0].sound, alone), "following changes nothing"
    block, attention = "acoustic.encoder.1", "acoustic.encoder.1.attention"
    for projection in ("query", "key", "value"):
        assert flow[f"{attention}.{projection}"] == "acoustic.encoder.0.project", "through a residual add and a norm"
    assert flow[f"{attention}#matmul0"] == f"{attention}.key"
    assert flow[f"{attention}#matmul1"] == f"{attention}.value", "called after the scores"
    assert flow[f"{attention}.out"] == f"{attention}#matmul1"
    assert flow[f"{block}.conv"] == f"{attention}.out"
    assert flow[f"{block}.project"] == f"{block}.conv"
    assert flow["vocoder.pre"] == "acoustic.to_mel"
    assert "vocoder.stages.0.source" not in flow, "made of F0 alone"
    for number in range(3):
        assert flow[f"vocoder.stages.0.blocks.{number}.convs.0"] == "vocoder.stages.0.source", "added to what up gives"
    assert flow["vocoder.head"] == "vocoder.head.conv", "through exp, products and a cat"
    sites = [site.name for site in discover(voice.module, lambda: voice.render(clip), clip.seconds).sites]
    assert all(sites.index(producer) < sites.index(site) for site, producer in flow.items()), "a forest"


@pytest.mark.parametrize("config", [V2, V3])
def test_hifigan_by_its_own_structure(config):
    torch.manual_seed(0)
    generator = Generator(config).eval()
    with torch.inference_mode():
        flow = find_flow(generator, lambda: generator(torch.randn(1, 80, 8)))
    last = {}
    for stage in range(len(config.rates)):
        assert flow[f"ups.{stage}"] == (last["block"] if stage else "conv_pre")
        for number in range(stage * 3, stage * 3 + 3):
            block = generator.resblocks[number]
            pairs = zip(block.convs1, block.convs2, strict=True) if config.paired else ((c,) for c in block.convs)
            before = f"ups.{stage}"
            for step, pair in enumerate(pairs):
                for name in ("convs1", "convs2") if len(pair) == 2 else ("convs",):
                    site = f"resblocks.{number}.{name}.{step}"
                    assert flow[site] == before
                    before = site
            last["block"] = before
    assert flow["conv_post"] == last["block"]
    assert "conv_pre" not in flow
