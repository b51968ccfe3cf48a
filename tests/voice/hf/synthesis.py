"""What holds for every model that makes sound without tokens, and how its twin is had."""

import json
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import soundfile
import soxr
import torch

from tests.families.searching import lowered
from voice.family import COMPARISONS
from voice.hf.base import HfVoice, Recording
from voice.hf.loading import load
from voice.hf.twins import build
from voice.model import Clip
from voice.sites import discover


@dataclass(frozen=True)
class Synthesis:
    """A twin, loaded as a real checkpoint is."""

    folder: Path
    recorded: bool = False

    @classmethod
    def of(cls, kind: str, folder: Path, *, recorded: bool = False) -> "Synthesis":
        return cls(build(kind, folder), recorded)

    @cached_property
    def voice(self) -> Any:
        return load(str(self.folder))

    @cached_property
    def recordings(self) -> tuple[Recording, ...]:
        return recordings(2, self.voice.sample_rate_hz) if self.recorded else ()

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        return self.voice.clips(2, self.recordings)

    def sites(self, clip: Clip) -> set[str]:
        return {site.name for site in discover(self.voice.module, lambda: self.voice.render(clip), clip.seconds).sites}

    def holds(self, lowest_share: float = 0.99) -> None:
        """Clips are the same every time and as long as said, and every product is a site, forced or not."""
        voice, clip = self.voice, self.clips[0]
        assert isinstance(voice, HfVoice)
        for forced, again in zip(self.clips, voice.clips(2, self.recordings), strict=True):
            assert all(torch.equal(one, other) for one, other in zip(forced.inputs, again.inputs, strict=True))
            sound = voice.render(forced).sound
            assert torch.equal(sound, voice.render(again).sound)
            assert len(sound) == round(forced.seconds * voice.sample_rate_hz)
            assert 1.0 < forced.seconds < 4.0
            assert 0.1 < float(sound.abs().max()) < 0.95
        assert not any("parametrizations" in name for name, _ in voice.module.named_parameters())
        assert sum(parameter.numel() for parameter in voice.module.parameters()) < 2_000_000
        found = discover(voice.module, lambda: voice.render(clip), clip.seconds)
        assert found.covered_share >= lowest_share
        free = voice.unforced(clip)
        assert (free is not None) is COMPARISONS[voice.family].free
        if free is not None:
            assert self.sites(free) == {site.name for site in found.sites}, "no policy could be total for both"

    def loses_little(self) -> None:
        """In bf16 it makes nearly the same sound."""
        for clip in self.clips[:1]:
            reference, rendered = self.voice.render(clip).sound, lowered_on(self.voice, clip).sound
            assert rendered.shape == reference.shape
            assert not torch.equal(rendered, reference)
            assert (rendered - reference).square().mean() < 0.01 * reference.square().mean()


def lowered_on(voice: HfVoice, clip: Clip) -> Any:
    """What a voice makes of a clip with all sites in bf16."""

    class One:
        """The voice, asked for clips without recordings."""

        def __getattr__(self, name: str) -> Any:
            return getattr(voice, name)

        def clips(self, _: int) -> tuple[Clip, ...]:
            return (clip,)

    return lowered(One()).render(clip)  # type: ignore[arg-type]


def recordings(count: int, rate_hz: int) -> tuple[Recording, ...]:
    """Sentences that the package brings, at a rate, the first second and a half of each."""
    data = files("voice") / "data"
    found = []
    for row in json.loads((data / "clips.json").read_text(encoding="utf-8"))[:count]:
        with (data / "clips" / f"{row['name']}.flac").open("rb") as file:
            samples, rate = soundfile.read(file, dtype="float32")
        samples = soxr.resample(samples, rate, rate_hz)[: 3 * rate_hz // 2]
        found.append(Recording(row["name"], samples, row["text"]))
    return tuple(found)
