from functools import partial

import pytest
import torch
from torch import nn

from backends.emulation.engine import EmulatedEngine
from backends.emulation.preparation import Preparation
from backends.emulation.sampling import sample_rows
from backends.tenstorrent.numerics import TensixArithmetic
from backends.tenstorrent.support import refuses
from calibrate.moments import observing_moments
from precision.policy import Policy, Scheme
from precision.site import Site
from voice.chains import find_chains
from voice.intercept import intercept
from voice.model import Clip, Rendering

ORDERED = Scheme("o", "bfp4_b", "bfp4_b", fidelity="hifi4", levers=("channel_order",))
PLAIN = Scheme("p", "bfp4_b", "bfp4_b", fidelity="hifi4")


class Net(nn.Module):
    """One channel in four of the inner layer is a hundred times louder: a bad neighbour in a block."""

    def __init__(self):
        super().__init__()
        self.up = nn.Conv1d(8, 64, 3, padding=1)
        self.down = nn.ConvTranspose1d(64, 16, 4, stride=2)
        self.last = nn.Conv1d(16, 1, 3)
        with torch.no_grad():
            self.up.weight[::4] *= 100
            self.down.weight[::4] /= 100

    def forward(self, x):
        return self.last(torch.relu(self.down(torch.relu(self.up(x)))))


class TinyVoice:
    name, sample_rate_hz, protected = "net", 16000, {}

    def __init__(self):
        torch.manual_seed(0)
        self.module = Net().eval()

    @torch.inference_mode()
    def render(self, clip):
        return Rendering(self.module(clip.inputs[0]).flatten())


VOICE = TinyVoice()
CLIP = Clip("one", (torch.randn(1, 8, 200, generator=torch.Generator().manual_seed(1)),), 0.1)


def snr_db(policy, chains, moments=None):
    exact = VOICE.render(CLIP).sound.double()
    engine = EmulatedEngine(VOICE, Policy.of(policy), Preparation(TensixArithmetic(), moments, chains))
    return float(10 * torch.log10(exact.square().sum() / (exact - engine.render(CLIP).sound.double()).square().sum()))


def chains_found():
    return find_chains(VOICE.module, lambda: VOICE.render(CLIP).parts)


def test_gathering_like_channels_wins_back_what_a_loud_neighbour_took():
    chains = chains_found()
    assert chains == {"up": "down", "down": "last"}
    wide = Scheme("w", "fp32", "fp32", fidelity="hifi4")
    plain = snr_db({"up": PLAIN, "down": PLAIN, "last": wide}, chains)
    assert snr_db({"up": ORDERED, "down": PLAIN, "last": wide}, chains) > plain + 6


def test_order_changes_nothing_where_no_value_shares_an_exponent():
    chains = chains_found()
    bf16 = Scheme("b", "bf16", "bf16", fidelity="hifi4")
    ordered = Scheme("c", "bf16", "bf16", fidelity="hifi4", levers=("channel_order",))
    plain = snr_db({"up": bf16, "down": bf16, "last": bf16}, chains)
    assert snr_db({"up": ordered, "down": bf16, "last": bf16}, chains) == pytest.approx(plain, abs=0.1)


def test_moments_follow_the_order():
    attach, rows = partial(intercept, VOICE.module), partial(sample_rows, limit=4096)
    with observing_moments(attach, rows, ("up", "down")) as observer:
        VOICE.render(CLIP)
    moments = observer.moments()
    fed = Scheme("f", "bfp4_b", "bf16", fidelity="hifi4", levers=("error_feedback",))
    unfed = Scheme("u", "bfp4_b", "bf16", fidelity="hifi4")
    wide = Scheme("w", "fp32", "fp32", fidelity="hifi4")
    chains = chains_found()
    with_feedback = snr_db({"up": ORDERED, "down": fed, "last": wide}, chains, moments)
    assert with_feedback > snr_db({"up": ORDERED, "down": unfed, "last": wide}, chains, moments)


def test_the_lever_is_refused_where_channels_are_bound():
    weights_only = Scheme("o", "bfp8_b", "bf16", fidelity="hifi4", levers=("channel_order",))
    site = Site("up", "conv1d", (64, 8, 3), 24, 64, 100.0, kernel=3)
    assert "order is bound" in refuses(site, weights_only, "blackhole")
    free = Site("up", "conv1d", (64, 8, 3), 24, 64, 100.0, kernel=3, feeds="down")
    bf16 = Scheme("b", "bf16", "bf16", fidelity="hifi4", levers=("channel_order",))
    assert "order means nothing" in refuses(free, bf16, "blackhole")
    assert (
        refuses(free, Scheme("o", "bfp8_b", "bf16", fidelity="hifi4", levers=("channel_order",)), "blackhole") is None
    )
