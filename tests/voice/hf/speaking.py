"""What holds for every model that writes audio tokens, and how its twin is had."""

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from voice.hf.loading import ARCHITECTURES, load
from voice.hf.token_voice import FREE_SECONDS, TokenVoice
from voice.hf.twins import build
from voice.intercept import intercept
from voice.model import Rendering
from voice.site_call import SiteCall
from voice.sites import Discovery, discover


@dataclass(frozen=True)
class Speaking:
    """A twin as this project has it, and as transformers has it."""

    kind: str
    folder: Path

    @classmethod
    def of(cls, kind: str, folder: Path) -> "Speaking":
        return cls(kind, build(kind, folder))

    @cached_property
    def voice(self) -> TokenVoice:
        voice = load(str(self.folder))
        assert isinstance(voice, TokenVoice)
        return voice

    @cached_property
    def theirs(self) -> Any:
        """The model by itself: ours was changed."""
        return (
            getattr(import_module("transformers"), ARCHITECTURES[self.kind].loads).from_pretrained(self.folder).eval()
        )

    @cached_property
    def clips(self):
        return self.voice.clips(2)

    @cached_property
    def found(self) -> Discovery:
        clip = self.clips[0]
        return discover(self.voice.module, lambda: self.voice.render(clip), clip.seconds)

    def holds(self, head: str, *heads: str) -> None:
        """Forced clips are the same every time and as long as said, and every product with a weight is a site."""
        rendering, again = (self.voice.render(self.clips[0]) for _ in range(2))
        assert all(torch.equal(one, other) for one, other in zip(rendering.parts, again.parts, strict=True))
        assert all(
            torch.equal(one, other)
            for clip, twin in zip(self.clips, load(str(self.folder)).clips(2), strict=True)
            for one, other in zip(clip.inputs, twin.inputs, strict=True)
        )
        assert len(rendering.sound) == round(self.clips[0].seconds * self.voice.sample_rate_hz)
        assert 1.5 < self.clips[0].seconds < 3.0
        assert 0.1 < rendering.sound.abs().max() < 0.9
        assert rendering.sound.std() > 0.01
        self._sites()
        self._free()
        # With tokens forced, what a head's arithmetic does is seen in its own logits, and nowhere else.
        exact, changed = self._rounded("none"), self._rounded(head)
        assert torch.equal(changed.sound, exact.sound)
        moved = {head for head, values in changed.logits.items() if not torch.equal(values, exact.logits[head])}
        assert moved == set(heads)

    def agrees(self, head: str, tokens: torch.Tensor) -> bool:
        """Whether the forced pass finds likeliest what was written step by step, with a cache."""
        return torch.equal(self.voice.render(self.clips[0]).logits[head].argmax(1), tokens)

    def _sites(self) -> None:
        assert self.found.covered_share > 0.999
        assert not self.found.uncovered
        used = {site.name: torch.Size(site.weight_shape) for site in self.found.sites if site.weight_shape}
        assert not [site for site in self.found.sites if not site.weight_shape and site.op != "matmul"]
        layers = {
            path: layer.weight.shape
            for path, layer in self.voice.module.named_modules()
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.ConvTranspose1d)
        }
        named = {name: shape for name, shape in used.items() if "#" not in name}
        assert named == {path: shape for path, shape in layers.items() if path in named}
        coding = ("encoder.", "in_proj", "input_proj")
        idle = [path for path in layers.keys() - named.keys() if not any(part in path for part in coding)]
        # Bark's first fine head is of a codebook that the coarse stage writes.
        idle = [path for path in idle if path != "model.fine_acoustics.lm_heads.0"]
        assert not idle, "every layer but those that code a recording is used"

    def _rounded(self, site: str) -> Rendering:
        def handler(call: SiteCall) -> torch.Tensor:
            result = call.compute()
            return result.bfloat16().float() if call.site == site else result

        with intercept(self.voice.module, handler):
            return self.voice.render(self.clips[0])

    def _free(self) -> None:
        free = self.voice.unforced(self.clips[0])
        sound = self.voice.render(free).sound
        assert 0 < len(sound) <= 1.05 * FREE_SECONDS * self.voice.sample_rate_hz
        first = self.voice.render(self.clips[0]).sound
        assert not torch.equal(first, self.voice.render(self.clips[1]).sound)
