"""The source-filter vocoder: its oscillator, what gates say of a phase in 16 bits, and where lowering leaves it."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from audio_eval.judge import judge_in_order
from audio_eval.profiles import PROFILES
from audio_eval.suite import ReferenceClip
from backends.hopper.lower import lower as lower_to_onnx
from backends.tenstorrent.cards import CARDS
from backends.tenstorrent.lower import lower, stored_operands
from backends.tenstorrent.program import CardStep, HostStep
from precision.policy import Policy, Scheme
from voice.graph import export_graph, site_nodes
from voice.nsf import Nsf, NsfConfig, SineSource, phase_kept_in
from voice.nsf_voice import NsfVoice
from voice.phase import find_phases
from voice.sites import discover

SMALL = NsfConfig(harmonics=3, channels=4, hidden=8, harmonic_dilations=((1, 2),), noise_dilations=(1,))
BF16 = Scheme("bf16", "bf16", "bf16", fidelity="hifi4")
FP32 = Scheme("fp32", "fp32", "fp32", fidelity="hifi4")
FRAMES = 8


class WithPitch(nn.Module):
    """A vocoder that predicts its own F0, as HiFTNet's does."""

    def __init__(self):
        super().__init__()
        self.pitch, self.nsf = nn.Conv1d(80, 1, 3, padding=1), Nsf(SMALL)
        self.crossover = self.nsf.crossover

    def forward(self, mel, _f0_hz, noise):
        return self.nsf(mel, 200 + 20 * torch.tanh(self.pitch(mel))[:, 0], noise)


def voice_of(module):
    voice = NsfVoice(Nsf(SMALL))
    voice.module = module.eval()
    samples = 0.1 * np.random.default_rng(0).standard_normal(FRAMES * 256)
    return voice, voice.clip("noise", samples, 16000, torch.full((FRAMES,), 200.0))


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return voice_of(Nsf(SMALL))


@pytest.fixture(scope="module")
def pitched():
    torch.manual_seed(0)
    return voice_of(WithPitch())


@pytest.fixture(scope="module")
def spoken():
    """A second and a half of two sentences, in fp32."""
    voice = NsfVoice.load()
    clips = []
    for clip in voice.bundled_clips()[:2]:
        samples, f0_hz = clip.natural[: 94 * 256], clip.inputs[1][0, :94]
        clips.append(voice.clip(clip.name, samples, 16000, f0_hz))
    references = [ReferenceClip(voice.render(clip).sound.numpy(), 16000, clip.natural) for clip in clips]
    return voice, clips, references


def test_the_phase_is_that_of_float64():
    source = SineSource(NsfConfig())
    f0 = torch.linspace(100, 300, 48000)[None]
    exact = torch.cumsum(f0.double() / 16000, 1)
    off = (source.turns(f0).double() - exact).remainder(1.0)
    assert torch.minimum(off, 1 - off).max() < 1e-3  # turns, after three seconds


def test_all_multiplications_are_sites_and_none_of_them_makes_the_phase(small, pitched):
    voice, clip = small
    found = discover(voice.module, lambda: voice.render(clip), clip.seconds)
    assert found.covered_share == 1.0
    assert find_phases(voice.module, lambda: voice.render(clip)) == {}
    voice, clip = pitched
    phases = find_phases(voice.module, lambda: voice.render(clip))
    assert {site: phase.kind for site, phase in phases.items()} == {"pitch": "oscillator"}


@pytest.mark.parametrize("kept", ["sum", "state"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gates_catch_a_phase_in_16_bits(spoken, dtype, kept):
    voice, clips, references = spoken
    with phase_kept_in(voice.module.source, dtype, kept):
        made = [voice.render(clip).sound.numpy() for clip in clips]
    found = judge_in_order(PROFILES["transparent"], references, made)
    assert not found.kept
    again = [voice.render(clip).sound.numpy() for clip in clips]
    assert all(np.array_equal(one.reference, other) for one, other in zip(references, again, strict=True))


def test_the_turn_of_an_exact_sum_may_be_stored_in_bf16(spoken):
    voice, clips, references = spoken
    with phase_kept_in(voice.module.source, torch.bfloat16, "turn"):
        made = [voice.render(clip).sound.numpy() for clip in clips]
    assert not np.array_equal(made[0], references[0].reference)
    assert judge_in_order(PROFILES["transparent"], references, made).kept


@pytest.mark.parametrize("between", ["fp32", "bf16"])
def test_on_tenstorrent_the_phase_is_summed_on_the_host(small, between):
    voice, clip = small
    graph = export_graph(voice, clip)
    policy = Policy.uniform(list(dict.fromkeys(site.site for site in site_nodes(graph))), BF16)
    program = lower(
        graph, policy, CARDS["blackhole_p150"], stored_operands(graph, policy), host="refuse", between=between
    )
    (code,) = [step.code for step in program.steps if isinstance(step, HostStep)]
    assert "aten.cumsum" in code
    assert "aten.sin" in code
    assert not {step.op for step in program.steps if isinstance(step, CardStep)} & {"sin", "cos", "cumsum"}


@pytest.mark.parametrize("between", ["fp32", "bf16"])
def test_a_predicted_pitch_that_is_held_reaches_the_sum_in_fp32(pitched, between):
    voice, clip = pitched
    graph = export_graph(voice, clip)
    sites = list(dict.fromkeys(site.site for site in site_nodes(graph)))

    def summed(policy):
        program = lower(graph, policy, CARDS["blackhole_p150"], stored_operands(graph, policy), between=between)
        (step,) = [s for s in program.steps if isinstance(s, HostStep) and "aten.cumsum" in s.code]
        steps = [s for s in program.steps if isinstance(s, CardStep)]
        dtypes = {s.result.name: s.result.dtype for s in steps}
        return {dtypes[s.inputs[0]] for s in steps if s.op == "download" and s.result.name in step.inputs}

    assert summed(Policy.uniform(sites, BF16).replace("pitch", FP32)) == {"fp32"}
    assert summed(Policy.uniform(sites, BF16)) == {between}


def test_on_hopper_the_phase_is_summed_in_fp32(small):
    voice, clip = small
    graph = export_graph(voice, clip)
    policy = Policy.uniform(list(dict.fromkeys(site.site for site in site_nodes(graph))), BF16)
    model = lower_to_onnx(graph, policy).model
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.input)}
    angles = [node for node in model.graph.node if node.op_type in ("CumSum", "Sin")]
    assert {node.op_type for node in angles} == {"CumSum", "Sin"}
    assert {types[name] for node in angles for name in (node.input[0], *node.output)} == {onnx.TensorProto.FLOAT}


def test_noise_and_pitch_are_the_clips(small):
    voice, clip = small
    sound = voice.render(clip).sound
    assert sound.shape == (FRAMES * 256,)
    assert torch.equal(sound, voice.render(clip).sound)
    other = voice.reseeded(clip, 7)
    assert not torch.equal(sound, voice.render(other).sound)
    assert torch.equal(clip.inputs[1], other.inputs[1])
    part = voice.excerpt(clip, 1.0, 0.05)
    assert part.name == "noise+5"
    assert part.inputs[2].shape == (1, 3, 256)
    assert voice.unforced(clip) is None


def test_pitch_that_does_not_fit_is_refused(small):
    voice, _ = small
    for f0_hz in (torch.zeros(7), torch.full((FRAMES,), float("nan")), torch.full((FRAMES,), -1.0)):
        with pytest.raises(ValueError, match="F0 must be 8 finite values in Hz"):
            voice.clip("noise", np.zeros(FRAMES * 256), 16000, f0_hz)


def test_pitch_is_found_where_none_is_given():
    voice = NsfVoice(Nsf(SMALL))
    time = np.arange(24 * 256) / 16000
    clip = voice.clip("tone", sum(0.1 * np.sin(2 * np.pi * 150 * k * time) for k in range(1, 6)), 16000)
    voiced = clip.inputs[1][clip.inputs[1] > 0]
    assert len(voiced) > 16
    assert abs(voiced.median() - 150) < 2
