"""Yardsticks: what does to the clips held back what nobody objects to.

Uniform bf16 and fp16 as any GPU runs them, whatever the card; and for a model that draws noise, its own fp32 with
another seed. A gate that they break is tighter than common practice, one that they keep by far is no more than a guard.
"""

from audio_eval.output import Output
from backends.emulation.audition import output_of
from backends.emulation.engine import EmulatedEngine
from backends.emulation.preparation import Preparation
from backends.hopper.numerics import HopperArithmetic
from precision.policy import Policy, Scheme
from precision_search.setting import Setting
from voice.model import Clip

WIDE = ("bf16", "fp16")
"""Every site's operands and results in this format, sums in fp32."""
SEED = "seed"
OTHER_SEED = 1


def yardsticks_of(setting: Setting) -> tuple[str, ...]:
    """The names of those that the model has."""
    draws = all(setting.voice.reseeded(clip, OTHER_SEED) is not None for clip in setting.held_back_clips)
    return (*WIDE, SEED) if draws else WIDE


def render_yardstick(setting: Setting, name: str, clip: Clip) -> Output:
    """A clip as a yardstick renders it."""
    voice = setting.voice
    if name == SEED:
        reseeded = voice.reseeded(clip, OTHER_SEED)
        assert reseeded is not None
        return output_of(voice.render(reseeded))
    policy = Policy.uniform([site.name for site in setting.sites], Scheme(name, name, name))
    return output_of(EmulatedEngine(voice, policy, Preparation(HopperArithmetic())).render(clip))
