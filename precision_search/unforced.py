"""Unforced: the last look at a policy, with timing, pitch and tokens left to the model as in use.

Gates hear clips whose durations and F0 are forced, so that sound is compared with sound. Here nothing is forced, and
what may then move is counted: a phone that is a frame longer is no noise, and no gate on waveforms can say what it is.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from audio_eval.clip import UndefinedScore
from audio_eval.suite import ReferenceClip
from backends.emulation.engine import EmulatedEngine
from backends.emulation.preparation import Preparation
from calibrate.adapted import Operands
from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.policy import Policy
from precision_search.wire import Setting


def unforced(
    setting: Setting,
    policy: Policy,
    calibration: Calibration | None,
    moments: Mapping[str, Moments] | None = None,
    adapted: Mapping[str, Mapping[str, Operands]] | None = None,
) -> dict[str, Any] | None:
    """Render the clips held back, nothing forced, in fp32 and under a policy; None where the model forces nothing.

    Returns:
        clips: how many; same_length: how many have the same number of samples; length_change: largest share by which
        one differs; f0_cents: mean over clips of equal length, None where there is none.
    """
    clips = [free for clip in setting.held_back_clips if (free := setting.voice.unforced(clip)) is not None]
    if not clips:
        return None
    torch.set_num_threads(1)
    engine = EmulatedEngine(
        setting.voice, policy, Preparation(setting.backend.arithmetic, moments, setting.chains, adapted), calibration
    )
    cents, changes = [], []
    for clip in clips:
        reference, degraded = setting.voice.render(clip).numpy(), engine.render(clip).numpy()
        changes.append(abs(len(degraded) - len(reference)) / len(reference))
        if changes[-1] == 0:
            try:
                cents.append(ReferenceClip(reference, setting.voice.sample_rate_hz).score(degraded, ("f0_cents",)))
            except UndefinedScore:
                continue
    mean = float(np.mean([score["f0_cents"] for score in cents])) if cents else math.nan
    return {
        "clips": len(clips),
        "same_length": changes.count(0),
        "length_change": max(changes),
        "f0_cents": mean if math.isfinite(mean) else None,
    }
