"""Whatever a model does between its calls, a replay gives what a full render gives, to the bit."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from backends.emulation.engine import EmulatedEngine
from backends.emulation.memory import remembered
from backends.emulation.preparation import Preparation
from backends.emulation.recording import Recording
from backends.emulation.replay import DamageProbe
from backends.tenstorrent.numerics import TensixArithmetic
from precision.policy import Policy, Scheme
from voice.intercept import intercept
from voice.model import Clip, Rendering

LOFI = Scheme("lofi", "bfp8_b", "bf16", fidelity="lofi")
BF16 = Scheme("bf16", "bf16", "bf16", fidelity="hifi4")
ORDERED = Scheme("ordered", "bfp8_b", "bf16", fidelity="lofi", levers=("channel_order",))


def layer():
    return nn.Conv1d(6, 6, 3, padding=1)


class Block(nn.Module):
    """Two convolutions around a residual."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layer(), layer()

    def forward(self, x):
        return x + self.second(F.leaky_relu(self.first(x)))


class Overwriting(Block):
    """Writes into what it is given."""

    def forward(self, x):
        return super().forward(F.leaky_relu(x, 0.5, inplace=True))


class Remembering(Block):
    """Adds up what it saw since it was cleared."""

    seen = None

    def forward(self, x):
        self.seen = x.mean() if self.seen is None else self.seen + x.mean()
        return super().forward(x) + self.seen


class Listed(Block):
    """As the last one, with a list that it holds."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(float(x.mean()))
        return super().forward(x) + sum(self.seen)


class Noisy(Block):
    """Draws from torch's own generator."""

    def forward(self, x):
        return super().forward(x) + 0.1 * torch.randn(x.shape)


class View(Block):
    """Gives out part of its input."""

    def forward(self, x):
        super().forward(x)
        return x[:, :, 1:-1]


class Net(nn.Module):
    """Two parallel branches, a kind of block twice, and a last layer."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.start, self.left, self.right, self.odd, self.end = layer(), Block(), Block(), kind(), layer()

    def forward(self, x):
        x = self.start(x)
        x = self.left(x) + self.right(x)
        for _ in range(2):
            x = self.odd(x) + x[:, :, : x.shape[-1] - 2 * isinstance(self.odd, View)]
            x.mul_(0.5)
        return self.end(x)[0].mean(0)


@dataclass
class NetVoice:
    module: nn.Module
    name: str = "net"
    family: str = "vocoder"
    sample_rate_hz: int = 8000
    protected: dict = field(default_factory=dict)

    @torch.inference_mode()
    def render(self, clip):
        torch.manual_seed(1)
        if hasattr(self.module.odd, "seen"):
            self.module.odd.seen = [] if isinstance(self.module.odd, Listed) else None
        return Rendering(self.module(*clip.inputs))


CLIP = Clip("clip", (torch.randn(1, 6, 40, generator=torch.Generator().manual_seed(2)),), seconds=0.01)
SITES = ("start", "left.first", "left.second", "right.first", "right.second", "odd.first", "odd.second", "end")
KINDS = (Block, Overwriting, Remembering, Listed, Noisy, View)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", [None, Policy.uniform(SITES, BF16)])
def test_a_replay_is_bit_equal_to_a_full_render(kind, base):
    voice, preparation = NetVoice(Net(kind).eval()), Preparation(TensixArithmetic())
    held = DamageProbe(voice, (CLIP,), preparation, base=base)
    whole = DamageProbe(voice, (CLIP,), preparation, base=base, limit_bytes=0)
    for site in SITES:
        found = held.render(site, LOFI, CLIP).sound
        assert torch.equal(found, whole.render(site, LOFI, CLIP).sound)
        heard = not (kind is View and site.startswith("odd"))
        assert torch.equal(found, held.reference(CLIP).sound) != heard
        if base is not None:
            changed = EmulatedEngine(voice, base.replace(site, LOFI), preparation)
            assert torch.equal(found, changed.render(CLIP).sound)
    assert held.recorded == ("clip",)
    assert not whole.held_bytes
    assert "forward" not in vars(voice.module.left)  # nothing is left behind


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_a_function_of_its_input_is_held_whole(kind):
    recording, _ = Recording.of(NetVoice(Net(kind).eval()), CLIP, lambda call: call.compute(), 1 << 20)
    assert {path for path, _ in recording.forwards} == {"left", "right"} | ({"odd"} if kind is Block else set())


def computed_calls(site):
    voice = NetVoice(Net(Block).eval())
    recording, _ = Recording.of(voice, CLIP, lambda call: call.compute(), 1 << 20)
    computed = []

    def compute(call):
        computed.append(call.site)
        return call.compute() * 1.5 if call.site == site else call.compute()

    recording.replay(voice, CLIP, compute, [i for i, called in enumerate(recording.sites) if called == site])
    return computed


def test_what_is_not_behind_the_site_does_not_run():
    odd = ["odd.first", "odd.second"] * 2
    assert computed_calls("left.second") == ["left.first", "left.second", *odd, "end"]  # the other branch does not
    assert computed_calls("right.first") == ["right.first", "right.second", *odd, "end"]
    assert computed_calls("end") == ["end"]


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.one, self.two, self.three = nn.Conv1d(6, 40, 3), nn.Conv1d(40, 40, 3), nn.Conv1d(40, 1, 3)
        self.odd = None

    def forward(self, x):
        return self.three(F.leaky_relu(self.two(F.leaky_relu(self.one(x)))))[0, 0]


def test_the_reader_of_reordered_channels_is_replayed_with_its_writer():
    voice, sites = NetVoice(Chain().eval()), ("one", "two", "three")
    chains = {"one": "two", "two": "three"}
    for base in (Policy.uniform(sites, LOFI), Policy.uniform(sites[:2], ORDERED)):
        base = base if len(base) == 3 else Policy((*base.schemes, ("three", LOFI)))
        probe = DamageProbe(voice, (CLIP,), Preparation(TensixArithmetic(), chains=chains), base=base)
        for site in sites:
            for scheme in (BF16, LOFI, ORDERED)[: 3 if site in chains else 2]:
                changed = EmulatedEngine(
                    voice, base.replace(site, scheme), Preparation(TensixArithmetic(), None, chains)
                )
                assert torch.equal(probe.render(site, scheme, CLIP).sound, changed.render(CLIP).sound)


def test_a_policy_without_a_scheme_of_a_called_site_is_refused():
    voice = NetVoice(Net(Block).eval())
    with pytest.raises(ValueError, match="'end' was called and the policy has no scheme for it"):
        DamageProbe(voice, (CLIP,), TensixArithmetic(), base=Policy.uniform(SITES[:-1], BF16)).reference(CLIP)


def test_memory_is_what_differs_after_a_forward():
    kept = {kind: kind().eval() for kind in KINDS}
    x = torch.zeros(1, 6, 8)
    for kind, module in kept.items():
        before = remembered(module)
        assert remembered(module) == before
        module(x)
        assert (remembered(module) == before) == (kind not in (Remembering, Listed, Noisy))
    with intercept(kept[Block], lambda call: call.compute()):
        assert remembered(kept[Block]) == remembered(kept[Block])
