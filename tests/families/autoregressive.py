"""A decoder-only transformer over text and audio tokens, and a codec decoder that makes sound of the latter."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tests.families.parts import HOP, RATE_HZ, Block, Decoder, seeded
from voice.family import Family
from voice.model import Clip, Rendering

TEXT, CODES, BOOKS, WIDTH = 24, 16, 2, 32
END = 0
MOST_STEPS = 36
RAMP = 6.0


class Model(nn.Module):
    """Every step has one text token and one code of each codebook, all chosen from one hidden state."""

    def __init__(self) -> None:
        super().__init__()
        self.text = nn.Embedding(TEXT, WIDTH)
        self.codes = nn.ModuleList(nn.Embedding(CODES, WIDTH) for _ in range(BOOKS))
        self.blocks = nn.ModuleList(Block(WIDTH) for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        self.text_head = nn.Linear(WIDTH, TEXT)
        self.audio_heads = nn.ModuleList(nn.Linear(WIDTH, CODES) for _ in range(BOOKS))
        self.entries = nn.ModuleList(nn.Embedding(CODES, 8) for _ in range(BOOKS))
        self.decoder = Decoder(8)

    def forward(
        self, prompt: Tensor, text: Tensor | None = None, codes: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sound and logits of forced tokens, text [steps] and codes [books, steps]; of its own where there are none."""
        if text is None or codes is None:
            text, codes = self.write(prompt)
        logits = self.logits(prompt, text, codes)
        return self.decoder(sum(book(row) for book, row in zip(self.entries, codes, strict=True)).T), logits

    def logits(self, prompt: Tensor, text: Tensor, codes: Tensor) -> dict[str, Tensor]:
        """Logits [steps, vocabulary] by head, each step given the prompt and the tokens before it."""
        steps = self.text(text) + sum(book(row) for book, row in zip(self.codes, codes, strict=True))
        x = torch.cat([self.text(prompt), steps[:-1]])
        # The longer it speaks, the likelier is the end: the one direction of these weights that is not random.
        x = x + (torch.arange(len(x))[:, None] / MOST_STEPS - 0.3) * RAMP * self.text_head.weight[END]
        for block in self.blocks:
            x = block(x)
        hidden = self.norm(x)[len(prompt) - 1 :]
        audio = {f"audio.{index}": head(hidden) for index, head in enumerate(self.audio_heads)}
        return {"text": self.text_head(hidden), **audio}

    def write(self, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of the model's own, the likeliest of each step, until it says END; no cache is kept."""
        text, codes = torch.zeros(0, dtype=torch.long), torch.zeros(BOOKS, 0, dtype=torch.long)
        while len(text) < MOST_STEPS and END not in text:
            # The last token of a forced pass is never read, so any will do.
            logits = self.logits(prompt, *(torch.cat([t, t.new_zeros(*t.shape[:-1], 1)], -1) for t in (text, codes)))
            chosen = {head: values[-1].argmax() for head, values in logits.items()}
            text = torch.cat([text, chosen.pop("text")[None]])
            codes = torch.cat([codes, torch.stack(list(chosen.values()))[:, None]], 1)
        return text, codes


@dataclass(frozen=True)
class AutoregressiveVoice:
    """The model; a clip's inputs are its prompt, and forced text tokens and codes."""

    module: Model = field(default_factory=lambda: seeded(Model, 7))
    name: str = "tiny_autoregressive"
    family: Family = "autoregressive"
    sample_rate_hz: int = RATE_HZ
    protected: Mapping[str, str] = field(default_factory=dict)

    def unforced(self, clip: Clip) -> Clip:
        return Clip(clip.name, clip.inputs[:1], clip.seconds)

    def reseeded(self, clip: Clip, seed: int) -> None:
        return None

    def render(self, clip: Clip) -> Rendering:
        with torch.inference_mode():
            return Rendering(*self.module(*clip.inputs))

    def clips(self, count: int) -> tuple[Clip, ...]:
        """Prompts, and what the model itself says to them."""
        found = []
        for number in range(count):
            prompt = torch.randint(1, TEXT, (6,), generator=torch.Generator().manual_seed(number))
            with torch.no_grad():
                text, codes = self.module.write(prompt)
            found.append(Clip(f"clip{number}", (prompt, text, codes), len(text) * HOP / RATE_HZ))
        return tuple(found)
