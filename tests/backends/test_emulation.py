from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from backends.emulation.engine import EmulatedEngine, PolicyMismatchError
from backends.emulation.preparation import Preparation
from backends.emulation.replay import DamageProbe
from backends.hopper.numerics import HopperArithmetic
from backends.tenstorrent.numerics import TensixArithmetic
from calibrate.calibration import UncalibratedSiteError
from calibrate.observing import observing
from precision.policy import Policy, Scheme
from voice.intercept import intercept
from voice.model import Clip, Rendering
from voice.site_call import SiteCall

LOFI = Scheme("lofi", "bfp8_b", "bf16", fidelity="lofi")
FP8 = Scheme("fp8", "fp8_e4m3", "fp8_e4m3")
SITES = ("first", "up", "mix#qk", "mix#pv", "last")


class Mix(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.up = nn.Conv1d(4, 16, 3, padding=1), nn.ConvTranspose1d(16, 8, 4, stride=2, padding=1)
        self.mix, self.last = Mix(), nn.Linear(8, 1)

    def forward(self, x):
        x = F.leaky_relu(self.first(x), 0.1, inplace=True)  # writes into what the site returned
        x = self.up(x).mT
        return self.last(x + self.mix(x))[0, :, 0]


@dataclass
class TinyVoice:
    name: str = "tiny"
    family: str = "vocoder"
    module: nn.Module = field(default_factory=lambda: Net().eval())
    sample_rate_hz: int = 8000
    protected: dict = field(default_factory=dict)

    @torch.inference_mode()
    def render(self, clip):
        return Rendering(self.module(*clip.inputs))


def clip_of(name, frames=12):
    x = torch.randn(1, 4, frames, generator=torch.Generator().manual_seed(len(name)))
    return Clip(name, (x,), seconds=frames * 2 / 8000)


CLIPS = (clip_of("a"), clip_of("bb", 20))


@pytest.fixture(scope="module")
def voice():
    return TinyVoice()


class CountingTensix:
    """The real arithmetic, counting what it is asked."""

    name = "counting"

    def __init__(self):
        self.prepared, self.computed = 0, 0
        self.real = TensixArithmetic()

    def prepare(self, call, scheme, moments=None):
        self.prepared += 1
        return self.real.prepare(call, scheme, moments)

    def compute(self, call, scheme, prepared, calibration):
        self.computed += 1
        return self.real.compute(call, scheme, prepared, calibration)


def test_every_site_computes_under_its_scheme(voice):
    engine = EmulatedEngine(
        voice, Policy.uniform(SITES, LOFI).replace("up", replace(LOFI, name="other")), TensixArithmetic()
    )
    reference, lowered = voice.render(CLIPS[0]).sound, engine.render(CLIPS[0]).sound
    assert lowered.shape == reference.shape
    assert 0 < (lowered - reference).abs().max() < 0.2 * reference.abs().max()
    assert {site: scheme.name for site, scheme in engine.realized().items()} == {
        site: "other" if site == "up" else "lofi" for site in SITES
    }
    assert torch.equal(engine.render(CLIPS[0]).sound, lowered)
    assert torch.equal(voice.render(CLIPS[0]).sound, reference)  # nothing is left behind


def test_a_calibrated_fp8_voice(voice):
    with observing(lambda handler: intercept(voice.module, handler), "percentile") as observer:
        for clip in CLIPS:
            voice.render(clip)
    calibration = observer.calibration()
    assert tuple(calibration) == SITES
    engine = EmulatedEngine(voice, Policy.uniform(SITES, FP8), HopperArithmetic(), calibration)
    reference = voice.render(CLIPS[0]).sound
    assert (engine.render(CLIPS[0]).sound - reference).abs().max() < 0.3 * reference.abs().max()
    with pytest.raises(UncalibratedSiteError, match="site 'first'"):
        EmulatedEngine(voice, Policy.uniform(SITES, FP8), HopperArithmetic()).render(CLIPS[0])


def test_a_policy_must_have_the_models_sites(voice):
    with pytest.raises(PolicyMismatchError, match="'last' was called"):
        EmulatedEngine(voice, Policy.uniform(SITES[:-1], LOFI), TensixArithmetic()).render(CLIPS[0])
    with pytest.raises(PolicyMismatchError, match="'ghost'"):
        EmulatedEngine(voice, Policy.uniform((*SITES, "ghost"), LOFI), TensixArithmetic()).render(CLIPS[0])


def test_candidates_share_prepared_weights(voice):
    counting = CountingTensix()
    preparation = Preparation(counting)
    for _ in range(3):
        for clip in CLIPS:
            EmulatedEngine(voice, Policy.uniform(SITES, LOFI), preparation).render(clip)
    assert len(preparation) == 3
    assert counting.prepared == 3 + 2 * 6  # a product of activations has nothing to keep


def test_layers_that_share_a_weight_keep_their_own_biases():
    """Their weight is one and so is their site, but what each adds is its own."""
    calls = [
        SiteCall("tied", "linear", torch.ones(1, 8), torch.eye(8), bias, None, is_product=False, index=index)
        for index, bias in enumerate((torch.full((8,), 2.0), None, torch.full((8,), 4.0)))
    ]
    preparation, schemes = Preparation(TensixArithmetic()), {"tied": LOFI}
    for _ in range(2):
        assert [float(preparation.compute(call, schemes, None)[0, 0]) for call in calls] == [3.0, 1.0, 5.0]
    assert len(preparation) == 3


def test_a_model_in_another_type_is_refused(voice):
    half = TinyVoice(module=Net().double().eval())
    clip = Clip("double", (CLIPS[0].inputs[0].double(),), seconds=1.0)
    with pytest.raises(TypeError, match=r"must be float32, got torch\.float64"):
        EmulatedEngine(half, Policy.uniform(SITES, LOFI), TensixArithmetic()).render(clip)


@pytest.mark.parametrize("site", SITES)
def test_replayed_damage_is_that_of_a_full_run(voice, site):
    probe = DamageProbe(voice, CLIPS, TensixArithmetic())
    unrecorded = DamageProbe(voice, CLIPS, TensixArithmetic(), limit_bytes=0)
    for clip in CLIPS:
        # Intercepted attention is two products, which rounds otherwise than torch's fused one.
        assert torch.allclose(probe.reference(clip).sound, voice.render(clip).sound, atol=1e-6)
        lowered = probe.render(site, LOFI, clip).sound
        assert not torch.equal(lowered, probe.reference(clip).sound)
        assert torch.equal(lowered, unrecorded.render(site, LOFI, clip).sound)
        assert torch.equal(lowered, probe.render(site, LOFI, clip).sound)  # recordings are not written to
    assert probe.recorded == ("a", "bb")
    assert unrecorded.recorded == ()


def test_only_what_lies_behind_a_site_is_computed(voice):
    probe = DamageProbe(voice, CLIPS[:1], TensixArithmetic())
    computed = []
    with intercept(voice.module, lambda call: (computed.append(call.site), call.compute())[1]):
        voice.render(CLIPS[0])
    assert tuple(computed) == SITES
    probe.reference(CLIPS[0])
    broken = TinyVoice(module=voice.module)
    weight = broken.module.first.weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.fill_(torch.nan)  # would reach the output if the first site were computed again
        assert probe.render("last", LOFI, CLIPS[0]).sound.isfinite().all()
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def recorded(voice, limit_bytes=1 << 30):
    probe = DamageProbe(voice, CLIPS, TensixArithmetic(), limit_bytes=limit_bytes)
    sizes = [(probe.reference(clip), probe.held_bytes)[1] for clip in CLIPS]
    return probe.recorded, sizes


def test_recordings_keep_to_their_limit(voice):
    names, (first, both) = recorded(voice)
    assert names == ("a", "bb")
    assert 0 < first < both
    assert recorded(voice, int(1.5 * first)) == (("a",), [first, first])
    assert recorded(voice, 0) == ((), [0, 0])


def test_probe_errors_say_what_to_do(voice):
    probe = DamageProbe(voice, CLIPS[:1], TensixArithmetic())
    with pytest.raises(KeyError, match="was not recorded"):
        probe.render("first", LOFI, CLIPS[1])
    with pytest.raises(ValueError, match="'ghost' is not called"):
        probe.render("ghost", LOFI, CLIPS[0])
    with pytest.raises(ValueError, match="unique"):
        DamageProbe(voice, (CLIPS[0], CLIPS[0]), TensixArithmetic())
