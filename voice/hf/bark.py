"""Bark: text to semantic tokens, to the first codebooks of EnCodec, to all of them, and EnCodec's decoder.

Suno 2023. Three transformers in a row, all of them with a codec in one checkpoint: the semantic one and the coarse one
write token by token, the latter two codes a frame by turns; the fine one fills codebook after codebook, each over all
frames at once.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from voice.hf.token_voice import TokenModel, Tokens, TokenVoice, random_ids

PROMPT_IDS = 12
"""Length of a random prompt."""


@dataclass(frozen=True, slots=True)
class Stages:
    """Settings of use, by the names that transformers gives them; what a checkpoint does not say is as in Suno's."""

    semantic: Any
    coarse: Any
    fine: Any
    entries: int
    """Of a codebook."""

    @classmethod
    def of(cls, settings: Any) -> "Stages":
        """Read a generation configuration."""
        place = import_module("transformers.models.bark.generation_configuration_bark")
        return cls(
            place.BarkSemanticGenerationConfig(**(getattr(settings, "semantic_config", None) or {})),
            place.BarkCoarseGenerationConfig(**(getattr(settings, "coarse_acoustics_config", None) or {})),
            place.BarkFineGenerationConfig(**(getattr(settings, "fine_acoustics_config", None) or {})),
            getattr(settings, "codebook_size", None) or 1024,
        )

    def frames(self, tokens: int) -> int:
        """Frames of the codec that so many semantic tokens stand for."""
        return int(tokens * self.coarse.coarse_rate_hz / self.semantic.semantic_rate_hz)


class Bark(TokenModel):
    """BarkModel with all tokens of a stage in one forward, of the fine one in one a codebook.

    The prompt is a text's ids [ids], before their offset. What is said must fit the first window of the coarse stage,
    some four seconds: as long as it does, one forward is what its sliding windows compute.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.stages = Stages.of(model.generation_config)
        self.sample_rate_hz = model.config.codec_config.sampling_rate
        self.given = self.stages.coarse.n_coarse_codebooks
        self.books = self.stages.fine.n_fine_codebooks

    def prompt(self, text: Tensor | None, seed: int) -> Tensor:
        """The text's ids as they are, or random ones."""
        highest = self.stages.semantic.text_pad_token - self.stages.semantic.text_encoding_offset
        return random_ids(PROMPT_IDS, 0, highest, seed) if text is None else text

    def logits(self, prompt: Tensor, tokens: Tokens) -> dict[str, Tensor]:
        """Of the tokens that are allowed, by head.

        Args:
            prompt: [ids].
            tokens: semantic ones [tokens]; codes [codebooks, frames of the fine stage's window], of which those that
                `Stages.frames` gives are sound.

        Returns:
            `text.semantic` [tokens, semantic vocabulary and the end], `audio.N` [frames, entries] of each codebook.

        Raises:
            ValueError: more than the first window of the coarse stage holds.
        """
        semantic, codes = tokens
        settings = self.stages.coarse
        frames = self.stages.frames(len(semantic))
        flat = self._flat(codes[:, :frames])
        if len(semantic) > settings.max_coarse_input_length or len(flat) > settings.max_coarse_history:
            raise ValueError(
                f"{len(semantic)} semantic tokens and {len(flat)} coarse ones do not fit one window of"
                f" {settings.max_coarse_input_length} and {settings.max_coarse_history}; say less"
            )
        text = self.model.semantic.input_embeds_layer(semantic[None, :-1])
        heads = {"text.semantic": self._semantic(torch.cat([self._text(prompt), text], 1))[-len(semantic) :]}
        before = self._coarse_prompt(semantic)
        out = self.model.coarse_acoustics(torch.cat([before, flat[:-1]])[None], use_cache=False).logits[0]
        out = out[len(before) - 1 :]
        for book in range(self.given):
            heads[f"audio.{book}"] = out[book :: self.given, self._coarse_ids(book)]
        for book in range(self.given, self.books):
            heads[f"audio.{book}"] = self._fine(codes[:book])[:frames]
        return heads

    def sound(self, tokens: Tokens) -> Tensor:
        """EnCodec's decoder, in one go."""
        semantic, codes = tokens
        sound: Tensor = self.model.codec_decode(codes[None, :, : self.stages.frames(len(semantic))])[0]
        return sound

    def write(self, prompt: Tensor, seconds: float, *, ends: bool) -> Tokens:
        """Semantic tokens [tokens], codes [codebooks, frames of the fine stage's window].

        The fine stage sees all of its window, and goes on from what it wrote itself where nothing is said any more; so
        that is written and forced, too.
        """
        semantic = self._write_semantic(prompt, seconds, ends)
        codes = self._write_coarse(semantic)
        lacking = max(0, self.stages.fine.max_fine_input_length - codes.shape[1])
        codes = nn.functional.pad(codes, (0, lacking), value=self.stages.entries)
        for _ in range(self.given, self.books):
            codes = torch.cat([codes, self._fine(codes).argmax(1)[None]])
        return semantic, codes

    def _write_semantic(self, prompt: Tensor, seconds: float, ends: bool) -> Tensor:
        settings = self.stages.semantic
        # A frame at least, for which more than one token may be needed.
        fewest = next(count for count in range(1, 1000) if self.stages.frames(count))
        given, cache, tokens = self._text(prompt), None, list[Tensor]()
        for _ in range(max(fewest, round(seconds * settings.semantic_rate_hz))):
            out = self.model.semantic(inputs_embeds=given, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logits = out.logits[0, -1, self._semantic_ids()]
            if ends and len(tokens) >= fewest and int(logits.argmax()) == settings.semantic_vocab_size:
                break
            tokens.append(logits[:-1].argmax()[None])
            given = self.model.semantic.input_embeds_layer(tokens[-1][None])
        return torch.cat(tokens)

    def _write_coarse(self, semantic: Tensor) -> Tensor:
        given, cache, tokens = self._coarse_prompt(semantic)[None], None, list[Tensor]()
        for step in range(self.given * self.stages.frames(len(semantic))):
            out = self.model.coarse_acoustics(given, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            ids = self._coarse_ids(step % self.given)
            tokens.append(out.logits[:, -1, ids].argmax(1))
            given = tokens[-1][None] + ids.start
        return torch.cat(tokens).view(-1, self.given).T.contiguous()

    def _text(self, prompt: Tensor) -> Tensor:
        """What the semantic stage is given before its first token [1, longest text + 1, width]."""
        settings, embed = self.stages.semantic, self.model.semantic.input_embeds_layer
        longest = settings.max_input_semantic_length
        ids = (prompt + settings.text_encoding_offset)[:longest]
        ids = nn.functional.pad(ids, (0, longest - len(ids)), value=settings.text_pad_token)
        # Nobody spoke before: a history of the padding token is added to the text.
        text = embed(ids) + embed(torch.tensor(settings.semantic_pad_token))
        return torch.cat([text, embed(torch.tensor([settings.semantic_infer_token]))])[None]

    def _semantic(self, embedded: Tensor) -> Tensor:
        """Logits [positions, semantic vocabulary and the end]."""
        logits: Tensor = self.model.semantic(inputs_embeds=embedded, use_cache=False).logits[0]
        return logits[:, self._semantic_ids()]

    def _semantic_ids(self) -> list[int]:
        """Tokens that may be chosen, the end the last."""
        return [*range(self.stages.semantic.semantic_vocab_size), self.stages.semantic.semantic_pad_token]

    def _coarse_prompt(self, semantic: Tensor) -> Tensor:
        """What the coarse stage is given before its first token [longest + 1]."""
        settings = self.stages.coarse
        lacking = settings.max_coarse_input_length - len(semantic)
        padded = nn.functional.pad(semantic, (0, lacking), value=settings.coarse_semantic_pad_token)
        return torch.cat([padded, torch.tensor([settings.coarse_infer_token])])

    def _coarse_ids(self, book: int) -> slice:
        """Tokens of the coarse stage that stand for a codebook's entries."""
        first = self.stages.semantic.semantic_vocab_size + book * self.stages.entries
        return slice(first, first + self.stages.entries)

    def _flat(self, codes: Tensor) -> Tensor:
        """Tokens of the coarse stage [given codebooks * frames], of codes [codebooks, frames]."""
        first = torch.tensor([self._coarse_ids(book).start for book in range(self.given)])
        return (codes[: self.given] + first[:, None]).T.reshape(-1)

    def _fine(self, codes: Tensor) -> Tensor:
        """Logits [frames, entries] of the codebook after those given [codebooks, frames]."""
        nothing, book = self.stages.entries, len(codes)
        codes = nn.functional.pad(codes, (0, 0, 0, self.books - book), value=nothing)
        logits: Tensor = self.model.fine_acoustics(book, codes.T[None]).logits[0]
        return logits[:, :nothing]


class BarkVoice(TokenVoice):
    """Bark as a voice with no speaker's prompt.

    Semantic tokens and codes are forced; heads are `text.semantic`, `audio.0` and `audio.1` of the coarse stage, and
    one for every further codebook of the fine one. Only run on tiny weights here, never on suno/bark-small.
    """

    def around(self, model: Any) -> Bark:
        """Take a BarkModel."""
        return Bark(model)
