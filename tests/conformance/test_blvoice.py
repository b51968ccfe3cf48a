"""BL-Voice mini streamed in rows of 80 ms, under a policy of many schemes, on the emulation of both backends."""

import math

import pytest
import torch

from backends.tolerance import snr_db
from tests.conformance.models import Model, measured, near_db
from tests.conformance.targets import TARGETS, Target
from voice.blvoice import BlVoice
from voice.decoder_step import Step
from voice.graph import export_graph, graph_of
from voice.model import Clip
from voice.sites import discover

ASKED_ROWS, SAID_ROWS = 4, 11


@pytest.fixture(scope="module")
def said() -> tuple[BlVoice, Clip, Model, Model]:
    """The voice, what it says, and the graphs of that whole and of a row: the same for every target."""
    voice = BlVoice.load()
    prompt, rows = voice.clips(1)[0].inputs
    clip = Clip("begin", (prompt[:, :ASKED_ROWS], rows[:, :SAID_ROWS]), (SAID_ROWS - 7) * 0.08)
    step = Step(voice.module)
    given, states = step.examples(), step.states()
    sites = discover(voice.module, lambda: step(*given.values(), *states.values()), 0.08).sites
    streamed = Model(graph_of(step, given, states, parts=step.parts, sites_of=voice.module), sites)
    return voice, clip, Model(export_graph(voice, clip), sites), streamed


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [target for target in TARGETS if target.name in ("blackhole_p150", "hopper_tensorrt")],
    ids=lambda t: t.name,
)
def test_what_is_streamed_is_what_is_said_whole(target: Target, said: tuple[BlVoice, Clip, Model, Model]) -> None:
    voice, clip, whole, streamed = said
    sites = whole.sites
    policy = target.mixed(sites, streaming=True)
    assert len(set(policy.values())) > 3
    scales = measured(whole.graph)
    exact = dict(zip(whole.graph.parts, whole.graph.run(), strict=False))
    (offline,) = target.builder.build(whole.graph, policy, sites, scales).compute([whole.graph.examples])
    tokens = torch.cat([voice.module.none(), *clip.inputs], dim=1)
    runs = [
        {"text": tokens[:1, place], "codes": tokens[1:, place], "position": torch.tensor([place])}
        for place in range(tokens.shape[1])
    ]
    steps = list(target.builder.build(streamed.graph, policy, sites, scales).compute(runs))

    def near(part: str) -> float:
        return math.inf if target.layer_db is None else near_db(snr_db(exact[part], offline[part]))

    sound = torch.cat([run["waveform"].flatten() for run in steps[1 + ASKED_ROWS + 7 :]])
    assert snr_db(offline["waveform"], sound) >= near("waveform")
    for part in voice.render(clip).logits:
        rows = torch.cat([run[part] for run in steps[ASKED_ROWS:-1]])
        assert snr_db(offline[part], rows) >= near(part), part
