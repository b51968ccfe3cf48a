"""Setting: everything that a recipe comes to, before anything is measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from audio_eval.suite import Material
from backends.base import Backend
from backends.devices import Device
from precision.candidate import Split
from precision.policy import Scheme
from precision.recipe import Recipe
from precision.site import Site
from voice.model import Clip, Rendering, Voice
from voice.sites import Discovery, count_weights


class SetupError(ValueError):
    """Something that a recipe names cannot be had; the message says what to do."""


@dataclass(frozen=True)
class Setting:
    """Everything that a recipe comes to, before anything is measured."""

    recipe: Recipe
    voice: Voice
    device: Device
    backend: Backend
    search_clips: tuple[Clip, ...]
    held_back_clips: tuple[Clip, ...]
    discovery: Discovery
    space: Mapping[str, tuple[Scheme, ...]]
    """Site -> schemes that it may take, after rules and protection."""
    protected: Mapping[str, str]
    """Site -> why it is not lowered: it has one scheme, the baseline or, where it makes a phase, the widest."""
    refused: Mapping[tuple[str, str], str]
    """(site, scheme) -> why the card cannot."""
    first: Rendering = field(repr=False)
    """The first clip as fp32 renders it."""

    def clips_of(self, split: Split) -> tuple[Clip, ...]:
        """The clips that search, or those that judge."""
        return self.search_clips if split == "search" else self.held_back_clips

    def material(self, split: Split) -> Material:
        """What there is to judge the clips of a split by."""
        return Material(
            self.voice.sample_rate_hz,
            has_natural=all(clip.natural is not None for clip in self.clips_of(split)),
            has_sound=self.first.waveform is not None,
            heads=tuple(self.first.logits),
        )

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites in the order in which the model calls them."""
        return self.discovery.sites

    @property
    def chains(self) -> dict[str, str]:
        """Consumer of each site whose channels may be reordered; none where no scheme asks for it."""
        return {site.name: site.feeds for site in self.sites if site.feeds is not None}

    @property
    def parameters(self) -> int:
        """Weights of the whole model, biases and embeddings included."""
        return count_weights(self.voice.module, self.sites)
