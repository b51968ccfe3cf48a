"""Spaces small enough to enumerate: the embedded voice's vocoder and its transformer, units of neighbouring sites."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from backends.base import Backend
from backends.cost import CostModel
from backends.emulation.preparation import Preparation
from precision.policy import Policy, Scheme
from precision.site import Site
from precision_search.wire import backend_of, devices
from voice.acoustic import Block, frame_places
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.intercept import intercept
from voice.model import Clip
from voice.prosody import F0_CENTRE_HZ
from voice.site_call import SiteCall
from voice.sites import discover
from voice.vocoder import LEAKY_SLOPE, make_source

DEVICE = "p150a"
STREAMS = 32
SCHEMES = (
    Scheme("bf16", "bf16", "bf16", "fp32", "hifi4"),
    Scheme("bfp8", "bfp8_b", "bf16", "fp32", "hifi2"),
    Scheme("bfp4", "bfp4_b", "bfp8_b", "fp32", "lofi"),
)
"""What a unit may take: four passes of the multiplier and 16 bits a weight, two and 8, one and 4."""
HEAD = (Scheme("fp32", "fp32", "fp32", "fp32", "hifi4", bias_apart=True), *SCHEMES[:2])
"""The inverse STFT writes the samples themselves: its bf16 is heard above all else, so it may stay wider."""

State = Any
"""What the sites before a unit left for it and those behind."""
Step = Callable[[State, int], State]
"""Runs the sites of a unit, whatever computes them; told the option that they compute under."""


@dataclass(frozen=True, eq=False)
class Space:
    """A part of the embedded voice, all else in fp32, and one clip."""

    name: str
    voice: EmbeddedVoice
    clip: Clip
    sites: tuple[Site, ...]
    """Of the part, in call order."""
    units: tuple[tuple[str, tuple[str, ...]], ...]
    """Name of each unit and of its sites, in an order in which each reads only what those before it wrote."""
    start: Callable[[], State]
    steps: tuple[Step, ...]
    """One a unit; the last gives the waveform [time]."""
    schemes: tuple[tuple[Scheme, ...], ...]
    """Of each unit; as many everywhere."""

    @property
    def policies(self) -> int:
        """How many there are."""
        return len(self.schemes[0]) ** len(self.units)

    @cached_property
    def backend(self) -> Backend:
        """Of the card."""
        return backend_of(devices()[DEVICE])

    @cached_property
    def cost(self) -> npt.NDArray[np.float64]:
        """[unit, scheme] seconds a second of audio of one stream, less the overhead of launches.

        That is the same under each scheme, and would only make every gap look small.
        """
        model = CostModel.of(devices()[DEVICE], self.sites, streams=STREAMS)
        named = {site.name: site for site in self.sites}

        def seconds(site: str, scheme: Scheme) -> float:
            found = model.site_cost(named[site], scheme)
            return found.seconds - found.overhead_seconds

        return np.array(
            [
                [sum(seconds(site, scheme) for site in sites) for scheme in schemes]
                for (_, sites), schemes in zip(self.units, self.schemes, strict=True)
            ]
        )

    def policy(self, choice: Sequence[int]) -> Policy:
        """The policy of a choice of one scheme a unit."""
        chosen = {
            site: schemes[option]
            for (_, sites), schemes, option in zip(self.units, self.schemes, choice, strict=True)
            for site in sites
        }
        return Policy(tuple((site.name, chosen[site.name]) for site in self.sites))

    def render(self, policy: Mapping[str, Scheme], preparation: Preparation) -> npt.NDArray[np.float32]:
        """The waveform of the whole voice with some sites lowered and all else in fp32, by no shortcut."""

        def handle(call: SiteCall) -> Tensor:
            return preparation.compute(call, policy, None) if call.site in policy else call.compute()

        with intercept(self.voice.module, handle):
            samples: npt.NDArray[np.float32] = self.voice.render(self.clip).sound.numpy()
        return samples


def make_space(name: str) -> Space:
    """`vocoder` or `transformer`, each on its own clip of about 0.5 s."""
    torch.set_num_threads(1)
    voice = EmbeddedVoice.load()
    return (_vocoder if name == "vocoder" else _transformer)(voice)


def _excerpt(voice: EmbeddedVoice, index: int, place: float, seconds: float) -> Clip:
    return replace(voice.excerpt(bundled_clips()[index], place, seconds), name=f"excerpt {index}")


def _inputs(voice: EmbeddedVoice, clip: Clip) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Phones, places, features, octaves, voicing and source, as the voice's own forward makes them."""
    phones, durations, f0_hz = clip.inputs
    places, features = frame_places(durations)
    voiced = (f0_hz[None] > 0).float()
    octaves = torch.log2(f0_hz[None].clamp(min=1.0) / F0_CENTRE_HZ)
    f0_hz = F0_CENTRE_HZ * torch.exp2(octaves.clamp(-2.0, 2.0)) * voiced
    source = make_source(f0_hz, voice.module.vocoder.config, 0)
    return phones[None], places[None], features[None], octaves, voiced, source


def _sites(voice: EmbeddedVoice, clip: Clip, prefix: str) -> tuple[Site, ...]:
    found = discover(voice.module, lambda: voice.render(clip), clip.seconds).sites
    return tuple(site for site in found if site.name.startswith(prefix))


def _units(sites: Sequence[Site], parts: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Parts by what the names of their sites begin with; each site goes to the first that fits."""
    left = [site.name for site in sites]
    units = []
    for name, prefixes in parts.items():
        mine = tuple(site for site in left if site.startswith(prefixes))
        left = [site for site in left if site not in mine]
        units.append((name, mine))
    assert not left, left
    return tuple(units)


def _vocoder(voice: EmbeddedVoice) -> Space:
    clip = _excerpt(voice, 0, 0.3, 0.45)
    model = voice.module.vocoder
    sites = _sites(voice, clip, "vocoder.")
    phones, places, features, octaves, voiced, source = _inputs(voice, clip)

    def start() -> State:
        acoustic = voice.module.acoustic
        frames = acoustic.stretch(acoustic.encode(phones), places, features)
        return acoustic.decode(frames, octaves, voiced)

    def up(stage: int) -> Step:
        return lambda x, _: model.stages[stage].up(F.leaky_relu(x, LEAKY_SLOPE))

    def add_source(stage: int) -> Step:
        return lambda x, _: (x + model.stages[stage].source(source), (), {})

    def block(stage: int, index: int) -> Step:
        def run(state: State, option: int) -> State:
            # The blocks of a stage read the same x: what one makes of it holds whatever the others do.
            x, made, known = state
            if (index, option) not in known:
                known[index, option] = model.stages[stage].blocks[index](x)
            made = (*made, known[index, option])
            return (x, made, known) if len(made) < len(model.stages[stage].blocks) else torch.stack(made).mean(dim=0)

        return run

    parts = {
        "pre": ("vocoder.pre",),
        "stages.0.up": ("vocoder.stages.0.up",),
        "stages.0.source": ("vocoder.stages.0.source",),
        **{f"stages.0.blocks.{i}": (f"vocoder.stages.0.blocks.{i}.",) for i in range(3)},
        "stages.1.up, source": ("vocoder.stages.1.up", "vocoder.stages.1.source"),
        **{f"stages.1.blocks.{i}": (f"vocoder.stages.1.blocks.{i}.",) for i in range(3)},
        "head": ("vocoder.head",),
    }
    steps: tuple[Step, ...] = (
        lambda mel, _: model.pre(mel),
        up(0),
        add_source(0),
        *(block(0, i) for i in range(3)),
        lambda x, option: add_source(1)(up(1)(x, option), option),
        *(block(1, i) for i in range(3)),
        lambda x, _: model.head(x)[0],
    )
    return Space("vocoder", voice, clip, sites, _units(sites, parts), start, steps, (*[SCHEMES] * 10, HEAD))


def _transformer(voice: EmbeddedVoice) -> Space:
    clip = _excerpt(voice, 1, 0.5, 0.45)
    model = voice.module.acoustic
    sites = _sites(voice, clip, "acoustic.")
    phones, places, features, octaves, voiced, source = _inputs(voice, clip)

    def encoder(index: int) -> Step:
        return lambda x, _: model.encoder[index](x, None)

    def stretched(x: State, _: int) -> State:
        frames = model.stretch(model.norm_encoder(model.encoder[2](x, None)), places, features)
        return frames + model.pitch_in(torch.stack([octaves * voiced, voiced], dim=-1))

    def attention(block: Block) -> Step:
        return lambda x, _: x + block.attention(block.norm_attention(x), None)

    def feed(block: Block) -> Step:
        def run(x: State, _: int) -> State:
            y = F.gelu(block.conv(block.norm_feed(x).transpose(1, 2)).transpose(1, 2))
            return x + block.project(y)

        return run

    def sound(x: State, _: int) -> State:
        mel = model.to_mel(model.norm_decoder(x)).transpose(1, 2)
        return voice.module.vocoder(mel, source)[0]

    parts = {
        "encoder.0": ("acoustic.encoder.0.",),
        "encoder.1": ("acoustic.encoder.1.",),
        "encoder.2, place, pitch": ("acoustic.encoder.2.", "acoustic.place", "acoustic.pitch_in"),
        **{
            f"decoder.{i}.{what}": tuple(f"acoustic.decoder.{i}.{site}" for site in begun)
            for i in range(3)
            for what, begun in {"attention": ("attention",), "feed": ("conv", "project")}.items()
        },
        "to_mel": ("acoustic.to_mel",),
    }
    decoder = [step(block) for block in model.decoder for step in (attention, feed)]
    steps: tuple[Step, ...] = (encoder(0), encoder(1), stretched, *decoder, sound)
    units = _units(sites, parts)
    return Space(
        "transformer", voice, clip, sites, units, lambda: model.embedding(phones), steps, (SCHEMES,) * len(units)
    )
