"""A flow-matching sampler: every one of its steps is judged at once, from the same noise on both sides."""

import numpy as np
import pytest
import torch

from audio_eval.spectra import lsd_db
from backends.emulation.preparation import Preparation
from backends.emulation.replay import DamageProbe
from backends.tenstorrent.numerics import TensixArithmetic
from tests.families.sampler import STEPS, SamplerVoice
from tests.families.searching import LOFI, Searched, lowered, write_recipe
from voice.intercept import intercept
from voice.noise import paired_noise

GATES = """
  - {metric: lsd_db, max: 2}
  - {metric: group_delay_rad, max: 0.2}
  - {metric: finite, over: worst, min: 1}
  - {metric: length_samples, over: worst, max: 0}
  - {metric: duration_change, over: worst, max: 0.1}
"""


@pytest.fixture(scope="module")
def voice():
    return SamplerVoice()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Searched.of(write_recipe(tmp_path_factory.mktemp("study"), "sampler", GATES))


def test_noise_is_of_the_seed_and_of_nothing_else(voice):
    clip = voice.clips(1)[0]
    before = torch.get_rng_state()
    first = voice.render(clip).sound
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(voice.render(clip).sound, first)
    with paired_noise(77):
        assert torch.equal(voice.render(clip).sound, first), "the model's own seed is the inner one"
    other = voice.render(voice.reseeded(clip, 5)).sound
    assert torch.equal(other, voice.render(voice.reseeded(clip, 5)).sound)
    assert other.shape == first.shape
    assert not torch.allclose(other, first, atol=1e-2)


def test_the_candidate_gets_the_noise_of_the_reference(voice):
    for clip in voice.clips(2):
        reference = voice.render(clip).sound.numpy()
        paired = lowered(voice).render(clip).sound.numpy()
        unpaired = lowered(voice).render(voice.reseeded(clip, 5)).sound.numpy()
        near, far = (lsd_db(reference=reference, degraded=y, sample_rate_hz=16000) for y in (paired, unpaired))
        assert near < 0.05 * far


def test_every_step_calls_the_velocity_and_its_damage_is_that_of_all_steps(voice):
    clip = voice.clips(1)[0]
    site, preparation = "velocity.first", Preparation(TensixArithmetic())
    calls = []

    def some(steps):
        def handle(call):
            if call.site != site:
                return call.compute()
            calls.append(call.index)
            lower = (len(calls) - 1) % STEPS in steps
            return preparation.compute(call, {site: LOFI}, None) if lower else call.compute()

        with intercept(voice.module, handle):
            return voice.render(clip).sound

    every = some(range(STEPS))
    assert len(calls) == STEPS
    probes = [DamageProbe(voice, [clip], preparation, limit_bytes=limit) for limit in (1 << 30, 0)]
    for probe in probes:
        assert torch.equal(probe.render(site, LOFI, clip).sound, every)
    reference = probes[0].reference(clip).sound
    errors = [float((some(range(count)) - reference).square().sum()) for count in (0, 1, STEPS)]
    assert errors[0] == 0 < errors[1] < errors[2]


def test_durations_move_only_where_they_are_not_forced(voice):
    engine, plain = lowered(voice, "duration"), lowered(voice)
    clips = voice.clips(5)
    for clip in clips:
        assert torch.equal(engine.render(clip).sound, plain.render(clip).sound)
    free = [(len(engine.render(c).sound), len(voice.render(c).sound)) for c in map(voice.unforced, clips)]
    assert any(found != true for found, true in free)
    assert all(found > 0 for found, _ in free)


def test_the_verdict_is_of_sound_beside_another_seed(study):
    summary, gates = study.summary, study.gates
    assert study.code == 0
    assert summary["verdict"] == "kept"
    assert summary["comparison"]["judged"] == ["sound"]
    assert summary["protected"] == {"duration": "forced durations hide what it does"}
    assert study.damage["duration"]["lsd_db"] == 0
    assert summary["lofi_mac_share"] > 0.5
    found = [
        lsd_db(reference=ours.samples, degraded=theirs.samples, sample_rate_hz=16000)
        for ours, theirs in study.held_back
    ]
    assert gates["lsd_db"]["value"] == pytest.approx(np.mean(found), rel=1e-3)
    beside = gates["lsd_db"]["beside"]
    assert beside["fp16"] < beside["bf16"] < gates["lsd_db"]["value"] < beside["seed"]
    assert summary["yardsticks"] == {"baseline": 0, "bf16": 0, "fp16": 0, "seed": 2}


def test_its_sampler_runs_once_with_nothing_forced(study):
    free = study.summary["unforced"]
    assert free["clips"] == 3
    assert [gate["metric"] for gate in free["gates"]] == ["duration_change"]
    assert free["kept"]
