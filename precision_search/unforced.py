"""Unforced: the last look at a policy, with timing, pitch and tokens left to the model as in use.

Gates hear clips whose durations, F0 and tokens are forced, so that sound is compared with sound. Here nothing is
forced. What may then move is compared by what can be: durations, statistics of the pitch, and spectra aligned in time.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from audio_eval.judge import Unjudged, judge, judgeable
from audio_eval.output import Output
from audio_eval.scoring import score_each
from audio_eval.suite import Material, ReferenceClip
from backends.emulation.audition import output_of
from backends.emulation.engine import EmulatedEngine
from backends.emulation.preparation import Preparation
from calibrate.adapted import Operands
from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.gates import Gate, Verdict
from precision.policy import Policy
from precision_search.setting import Setting
from precision_search.verdict_lines import gate_line, unjudged_lines
from precision_search.yardsticks import WIDE, render_yardstick
from voice.model import Clip


def unforced(
    setting: Setting,
    policy: Policy,
    gates: Sequence[Gate],
    calibration: Calibration | None,
    moments: Mapping[str, Moments] | None = None,
    adapted: Mapping[str, Mapping[str, Operands]] | None = None,
) -> dict[str, Any] | None:
    """Render the clips held back, nothing forced, in fp32 and under a policy; None where the model forces nothing.

    Args:
        setting: of the recipe.
        policy: to be heard, in the arithmetic of the search.
        gates: on metrics that compare renders with nothing forced.
        calibration: for static scales.
        moments: for levers that ask for them.
        adapted: trained weights that the policy names.

    Returns:
        clips: how many; same_length: how many have the same number of samples; length_change: largest share by which
        one differs; kept: whether every gate was; gates and unjudged as in the summary, the model's own bf16 and fp16
        beside them.
    """
    voice, seed = setting.voice, setting.recipe.search.seed
    clips = [free for clip in setting.held_back_clips if (free := voice.unforced(clip)) is not None]
    if not clips or setting.first.waveform is None:
        return None
    torch.set_num_threads(1)
    preparation = Preparation(setting.backend.arithmetic, moments, setting.chains, adapted)
    engine = EmulatedEngine(voice, policy, preparation, calibration)
    material = Material(voice.sample_rate_hz, has_natural=False, free=True)
    applicable, left = judgeable(gates, material, clips=len(clips))
    references = [output_of(voice.render(clip)) for clip in clips]
    against = [ReferenceClip(reference, voice.sample_rate_hz, free=True) for reference in references]
    undefined: dict[str, str] = {}
    for clip, reference, output in zip(clips, against, references, strict=True):
        for metric, reason in score_each(reference, output, {gate.metric for gate in applicable})[1].items():
            undefined.setdefault(metric, f"{clip.name}: {reason}")
    chosen = [gate for gate in applicable if gate.metric not in undefined]
    left += tuple(Unjudged(gate, undefined[gate.metric]) for gate in applicable if gate.metric in undefined)
    metrics = dict.fromkeys(gate.metric for gate in chosen)

    def heard(render: Callable[[Clip], Output]) -> tuple[list[Output], tuple[Verdict, ...]]:
        rendered = [render(clip) for clip in clips]
        scores = [score_each(clip, output, metrics)[0] for clip, output in zip(against, rendered, strict=True)]
        return rendered, judge(chosen, scores, seed=seed)

    rendered, verdicts = heard(lambda clip: output_of(engine.render(clip)))
    beside = {name: heard(partial(render_yardstick, setting, name))[1] for name in WIDE}
    lengths = [
        (len(output.signal), len(reference.signal)) for output, reference in zip(rendered, references, strict=True)
    ]
    return {
        "clips": len(clips),
        "same_length": sum(found == true for found, true in lengths),
        "length_change": max(abs(found - true) / true for found, true in lengths),
        "kept": all(verdict.kept for verdict in verdicts),
        "gates": [gate_line(verdict, {}, beside) for verdict in verdicts],
        "unjudged": unjudged_lines(left),
    }
