"""Auditions: what one process measures of a setting; whichever process it is, it finds the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from audio_eval.output import Output
from backends.base import Arithmetic
from backends.emulation.audition import Audition, Scores, output_of
from backends.emulation.engine import EmulatedEngine
from backends.emulation.gradient_probe import Foretold, GradientProbe
from backends.emulation.preparation import Preparation
from calibrate.adapted import Operands
from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.candidate import Split
from precision.policy import Policy, Scheme
from precision_search.setting import Setting
from precision_search.yardsticks import render_yardstick
from voice.model import AdaptableVoice


@dataclass
class Auditions:
    """The auditions of one process, each made when it is first asked for."""

    setting: Setting
    calibration: Calibration | None
    moments: Mapping[str, Moments]
    adapted: Mapping[str, Mapping[str, Operands]] | None = None
    """Digest -> site -> trained weights; need not have them before a policy asks for them."""
    _made: dict[str, Audition] = field(default_factory=dict)
    _preparation: Preparation | None = None
    _exact: Preparation | None = None
    _gradients: GradientProbe | None = None

    def of(self, split: Split) -> Audition:
        """The audition of a split."""
        if self._preparation is None:
            self._preparation = self._prepared(self.setting.backend.arithmetic)
        if split not in self._made:
            self._made[split] = Audition(
                self.setting.voice,
                self.setting.clips_of(split),
                self._preparation,
                self.calibration,
                record=split == "search",
            )
        return self._made[split]

    def _prepared(self, arithmetic: Arithmetic) -> Preparation:
        torch.set_num_threads(1)
        return Preparation(arithmetic, self.moments, self.setting.chains, self.adapted)

    def damage(self, site: str, scheme: Scheme, metrics: Sequence[str]) -> dict[str, float]:
        """Damage of one site under a scheme on the search clips."""
        self._gradients = None  # nothing is foretold once measuring has begun, and they take much memory
        return self.of("search").damage(site, scheme, metrics)

    def foretell(self, options: Sequence[tuple[str, Scheme]]) -> list[Foretold]:
        """What a gradient foretells of each (site, scheme), on the search clips.

        Raises:
            TypeError: the voice gives no gradients.
        """
        if self._gradients is None:
            voice = self.setting.voice
            if not isinstance(voice, AdaptableVoice):
                raise TypeError(f"{voice.name} gives no excerpts with gradients; measure damage instead")
            if self._preparation is None:
                self._preparation = self._prepared(self.setting.backend.arithmetic)
            self._gradients = GradientProbe(voice, self.setting.search_clips, self._preparation, self.calibration)
        return self._gradients.foretell(options)

    def damage_around(self, policy: Policy, site: str, scheme: Scheme, metrics: Sequence[str]) -> dict[str, float]:
        """Damage of a whole policy with one site of it under another scheme, on the search clips."""
        return self.of("search").damage_around(policy, site, scheme, metrics)

    def render(
        self, split: Split, policy: Policy, index: int, metrics: Sequence[str], near: Policy | None = None
    ) -> tuple[Output, Scores]:
        """Render a clip under a policy and score it; by way of one that it is `near`, where that is named."""
        audition = self.of(split)
        rendered = audition.render(policy, index, near)
        return rendered, audition.score(index, rendered, metrics)

    def render_exactly(self, policy: Policy, index: int) -> Output:
        """Render a clip held back in the exact arithmetic."""
        if self._exact is None:
            arithmetic = self.setting.backend.exact
            assert arithmetic is not None
            self._exact = self._prepared(arithmetic)
        engine = EmulatedEngine(self.setting.voice, policy, self._exact, self.calibration)
        return output_of(engine.render(self.setting.held_back_clips[index]))

    def score(self, split: Split, index: int, rendered: Output, metrics: Sequence[str]) -> Scores:
        """Score a clip that was rendered before."""
        return self.of(split).score(index, rendered, metrics)

    def yardstick(self, name: str, index: int, metrics: Sequence[str]) -> Scores:
        """Score a clip held back as a yardstick renders it."""
        audition = self.of("held_back")
        return audition.score(index, render_yardstick(self.setting, name, audition.clips[index]), metrics)
