"""A search of a tiny voice from its recipe to its verdict, and what it left behind."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from audio_eval.output import Output
from backends.emulation.audition import output_of
from backends.emulation.engine import EmulatedEngine
from backends.tenstorrent.numerics import TensixArithmetic
from precision.candidate import Candidate
from precision.policy import Policy, Scheme
from precision.study import Study
from precision_search.loading import Loaded
from precision_search.main import main
from precision_search.renders import load_render, render_paths
from precision_search.setting import Setting
from precision_search.wire import make_setting, read_recipe
from voice.model import Voice
from voice.sites import discover

RECIPE = """
version: 1
name: tiny
model: {{name: {model}}}
target: {{device: p150a}}
data: {{search: 2, held_back: 3}}
calibrate: {{method: amax}}
schemes:
  bf16: {{weight: bf16, activation: bf16, fidelity: hifi4}}
  lofi: {{weight: bfp8_b, activation: bf16, fidelity: lofi, levers: [{levers}]}}
  bold: {{weight: bfp4_b, activation: bfp8_b, fidelity: lofi}}
baseline: bf16
space: [{{match: "*", allow: [bf16, lofi, bold]}}]
gates: {gates}
search: {{minimize: seconds, candidates: 2, evaluations: 6, seed: 0}}
"""
CLIPS = 5
"""Those of the search, clip0 and clip1, and those held back."""
BF16 = Scheme("bf16", "bf16", "bf16", fidelity="hifi4")
LOFI = Scheme("lofi", "bfp8_b", "bf16", fidelity="lofi")


@dataclass(frozen=True)
class Searched:
    """A finished study."""

    setting: Setting
    folder: Path
    code: int
    """Exit code of the command."""

    @classmethod
    def of(cls, recipe: Path) -> "Searched":
        """Run a recipe to its end, in this process."""
        folder = recipe.parent / "study"
        code = command("run", recipe, "--out", folder, "--quiet", "--workers", 1)
        return cls(make_setting(read_recipe(str(recipe), ())), folder, code)

    @cached_property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return found

    @cached_property
    def gates(self) -> dict[str, dict[str, Any]]:
        """Metric -> its line in the summary."""
        return {gate["metric"]: gate for gate in self.summary["gates"]}

    @cached_property
    def damage(self) -> dict[str, dict[str, float]]:
        """Site -> metric -> damage of the boldest scheme, as an amplitude."""
        sites = json.loads((self.folder / "damage.json").read_text())["sites"]
        return {site["name"]: site["options"][-1]["damage"] for site in sites}

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every policy heard."""
        return tuple(Study.read(self.folder).candidates())

    @property
    def held_back(self) -> Iterator[tuple[Output, Output]]:
        """Of each clip held back what fp32 makes, and what the policy makes in exact arithmetic, as it was stored."""
        clips, summary = self.setting.held_back_clips, self.summary
        names = [clip.name for clip in clips]
        paths = render_paths(self.folder, summary["arithmetic"], summary["policy_digest"], names)
        for clip, path in zip(clips, paths, strict=True):
            yield output_of(self.setting.voice.render(clip)), load_render(path)


def write_recipe(folder: Path, model: str, gates: str, levers: str = "fidelity_rounding") -> Path:
    """Write the recipe of a voice; `gates` as YAML has them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(RECIPE.format(model=model, gates=gates, levers=levers))
    return path


def command(*arguments: object) -> int:
    """Exit code of the command line."""
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return int(exit_.value.code or 0)


def loading(make: Callable[[], Any]) -> Callable[[object], Loaded]:
    """What `loading.MODELS` has of a voice."""

    def load(_: object) -> Loaded:
        voice = make()
        return voice, voice.clips(CLIPS)

    return load


def lowered(voice: Voice, *names: str, scheme: Scheme = LOFI) -> EmulatedEngine:
    """The voice in bf16, some sites lower."""
    clip = voice.clips(1)[0]
    sites = discover(voice.module, lambda: voice.render(clip), clip.seconds).sites
    policy = Policy(tuple((site.name, scheme if site.name in names else BF16) for site in sites))
    assert set(names) <= {site.name for site in sites}
    return EmulatedEngine(voice, policy, TensixArithmetic())
