"""A model that listens and writes: frames of audio in, text tokens out, no sound."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.families.parts import Block, seeded
from voice.family import Family
from voice.model import Clip, Rendering

TEXT, WIDTH, BANDS = 24, 24, 20
FRAMES_A_SECOND = 50


class Model(nn.Module):
    """Convolutions over the frames, and a decoder that looks at them."""

    def __init__(self) -> None:
        super().__init__()
        self.listen = nn.ModuleList((nn.Conv1d(BANDS, WIDTH, 3, 2, 1), nn.Conv1d(WIDTH, WIDTH, 3, 2, 1)))
        self.text = nn.Embedding(TEXT, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH, cross=True) for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, TEXT)

    def forward(self, frames: Tensor, text: Tensor) -> Tensor:
        """Logits [steps, vocabulary] of frames [bands, frames], each step given the forced text [steps] before it."""
        x = frames[None]
        for conv in self.listen:
            x = F.gelu(conv(x))
        memory = x[0].T
        y = self.text(F.pad(text[:-1], (1, 0)))  # token 0 begins
        for block in self.blocks:
            y = block(y, memory)
        logits: Tensor = self.head(self.norm(y))
        return logits


@dataclass(frozen=True)
class UnderstandingVoice:
    """The model; a clip's inputs are its frames and the forced text."""

    module: Model = field(default_factory=lambda: seeded(Model, 4))
    name: str = "tiny_understanding"
    family: Family = "understanding"
    sample_rate_hz: int = 16000
    protected: Mapping[str, str] = field(default_factory=dict)

    def unforced(self, clip: Clip) -> None:
        return None

    def reseeded(self, clip: Clip, seed: int) -> None:
        return None

    def render(self, clip: Clip) -> Rendering:
        with torch.inference_mode():
            return Rendering(None, {"text": self.module(*clip.inputs)})

    def clips(self, count: int) -> tuple[Clip, ...]:
        """Frames, and the text that the model itself writes of them."""
        found = []
        for number in range(count):
            frames = torch.randn(BANDS, 60, generator=torch.Generator().manual_seed(number))
            text = torch.zeros(16, dtype=torch.long)
            for step in range(len(text)):
                with torch.no_grad():
                    text[step] = self.module(frames, text)[step].argmax()
            found.append(Clip(f"clip{number}", (frames, text), frames.shape[1] / FRAMES_A_SECOND))
        return tuple(found)
