"""A flow-matching voice: tokens and durations to frames in eight steps from noise, frames to sound."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.families.parts import HOP, RATE_HZ, Decoder, seeded
from voice.family import Family
from voice.model import Clip, Rendering
from voice.noise import paired_noise

TOKENS, WIDTH, LATENT, STEPS = 20, 16, 8, 8
CHURN = 0.1
"""Noise that every step adds, as stochastic samplers do."""


class Velocity(nn.Module):
    """The net that every step asks: where to, from here, at this time, under these conditions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(LATENT + WIDTH + 1, 24, 3, padding=1)
        self.second = nn.Conv1d(24, LATENT, 3, padding=1)

    def forward(self, x: Tensor, time: float, condition: Tensor) -> Tensor:
        at = torch.full((1, x.shape[1]), time)
        out: Tensor = self.second(F.silu(self.first(torch.cat([x, condition, at])[None])))[0]
        return out


class Model(nn.Module):
    """Tokens become frames by their durations; the flow makes latents of them, and the decoder sound of those."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, WIDTH)
        self.encoder = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.duration = nn.Linear(WIDTH, 1)
        self.velocity = Velocity()
        self.decoder = Decoder(LATENT)

    def forward(self, tokens: Tensor, seed: Tensor, durations: Tensor | None = None) -> Tensor:
        """Sound of tokens [n], with frames of each forced, or left to the model."""
        encoded = torch.tanh(self.encoder(self.tokens(tokens).T[None])[0])
        predicted = self.durations(encoded)
        condition = encoded.repeat_interleave(predicted if durations is None else durations, dim=1)
        with paired_noise(int(seed)):
            x = torch.randn(LATENT, condition.shape[1])
            for step in range(STEPS):
                x = x + self.velocity(x, step / STEPS, condition) / STEPS
                x = x + CHURN * STEPS**-0.5 * torch.randn_like(x)
        sound: Tensor = self.decoder(x)
        return sound

    def durations(self, encoded: Tensor) -> Tensor:
        """Frames of each token, 1 to 6, of the model's own."""
        return torch.exp(1.0 + self.duration(encoded.T)[:, 0]).round().long().clamp(1, 6)


@dataclass(frozen=True)
class SamplerVoice:
    """The model; a clip's inputs are its tokens, the seed of its noise, and forced durations."""

    module: Model = field(default_factory=lambda: seeded(Model, 3))
    name: str = "tiny_sampler"
    family: Family = "sampler"
    sample_rate_hz: int = RATE_HZ
    protected: Mapping[str, str] = field(default_factory=lambda: {"duration": "forced durations hide what it does"})

    def unforced(self, clip: Clip) -> Clip:
        return Clip(clip.name, clip.inputs[:2], clip.seconds)

    def reseeded(self, clip: Clip, seed: int) -> Clip:
        tokens, _, *forced = clip.inputs
        return replace(clip, inputs=(tokens, torch.tensor(seed), *forced))

    def render(self, clip: Clip) -> Rendering:
        with torch.inference_mode():
            return Rendering(self.module(*clip.inputs))

    def clips(self, count: int) -> tuple[Clip, ...]:
        """Tokens, each clip with noise of its own, and the model's own durations."""
        found = []
        for number in range(count):
            tokens = torch.randint(TOKENS, (7,), generator=torch.Generator().manual_seed(number))
            with torch.no_grad():
                encoded = torch.tanh(self.module.encoder(self.module.tokens(tokens).T[None])[0])
                durations = self.module.durations(encoded)
            seconds = int(durations.sum()) * HOP / RATE_HZ
            found.append(Clip(f"clip{number}", (tokens, torch.tensor(100 + number), durations), seconds))
        return tuple(found)
