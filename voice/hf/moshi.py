"""Moshi: a transformer over time that writes text and listens, a depth decoder that writes a row's codes, and Mimi.

Défossez et al. 2024, "Moshi: a speech-text foundation model for real-time dialogue" (arXiv 2410.00037). The codec's
weights lie in the checkpoint. Every row, 80 ms, has one text token, the codes of Moshi, and those of the user; of each
codec frame the first code stands in its own row and the others in the next.
"""

from typing import Any

import torch
from torch import Tensor, nn

from voice.hf.base import Recording
from voice.hf.token_voice import FREE_SECONDS, PerCodebook, TokenModel, Tokens, TokenVoice, random_ids


class Moshi(TokenModel):
    """MoshiForConditionalGeneration with all rows in one forward.

    The prompt is what the user says, codes [codebooks, frames], of a whole conversation; after them the last is held.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        config = model.config
        self.sample_rate_hz = config.audio_encoder_config.sampling_rate
        self.frames_per_second = float(config.audio_encoder_config.frame_rate)
        self.books = config.num_codebooks
        self.none = config.audio_vocab_size
        """Where a codebook has nothing to say yet."""
        self.codes = min(config.audio_vocab_size, config.audio_encoder_config.codebook_size)
        self.before = config.vocab_size
        """The text token before the first."""
        _take_apart(model.depth_decoder)

    def prompt(self, text: Tensor | None, seed: int) -> Tensor:
        """A user who says random codes: text has no place before the first row."""
        frames = self._frames(FREE_SECONDS)
        return random_ids(self.books * frames, 0, self.codes, seed).view(self.books, frames)

    def heard(self, samples: Tensor) -> Tensor:
        """Codes of a user's recording [time], with silence behind it for as long as Moshi may speak."""
        lacking = int(FREE_SECONDS * self.sample_rate_hz) - len(samples)
        samples = nn.functional.pad(samples, (0, max(0, lacking)))[None, None]
        codes: Tensor = self.model.audio_encoder.encode(samples, num_quantizers=self.books).audio_codes[0]
        return codes

    def logits(self, prompt: Tensor, tokens: Tokens) -> dict[str, Tensor]:
        """Of the text [rows, vocabulary] and of each codebook [frames, vocabulary].

        Args:
            prompt: what the user says [codebooks, frames].
            tokens: rows [1 + codebooks, frames + 1]: text, then codes, those of all but the first a row late.
        """
        (rows,) = tokens
        before = torch.cat([self._start(), rows[:, :-1]], 1)
        hidden, _ = self._read(before, self._user(prompt, before.shape[1]))
        text = self.model.decoder.lm_head(hidden)
        audio = self._depth(hidden, rows[:-1].T)
        late = {f"audio.{book}": audio[1:, book] for book in range(1, self.books)}
        return {"text": text, "audio.0": audio[:-1, 0], **late}

    def sound(self, tokens: Tokens) -> Tensor:
        """Mimi's decoder, in one go."""
        (rows,) = tokens
        codes = torch.cat([rows[1:2, :-1], rows[2:, 1:]])
        sound: Tensor = self.model.audio_encoder.decode(codes[None]).audio_values[0, 0]
        return sound

    def write(self, prompt: Tensor, seconds: float, *, ends: bool) -> Tokens:
        """Rows [1 + codebooks, frames + 1]; a conversation has no end of its own."""
        count = self._frames(seconds) + 1
        user = self._user(prompt, count)
        row, rows, cache = self._start(), list[Tensor](), None
        for number in range(count):
            hidden, cache = self._read(row, user[:, number : number + 1], cache)
            row = self.model.decoder.lm_head(hidden).argmax(1, keepdim=True)
            for book in range(self.books):
                if number == 0 and book > 0:
                    code = torch.full((1, 1), self.none)
                else:
                    code = self._depth(hidden, row)[:, -1, : self.codes].argmax(1, keepdim=True)
                row = torch.cat([row, code], 1)
            row = row.T
            rows.append(row)
        return (torch.cat(rows, 1),)

    def _frames(self, seconds: float) -> int:
        return max(1, round(seconds * self.frames_per_second))

    def _start(self) -> Tensor:
        """The row before the first [1 + codebooks, 1]."""
        return torch.tensor([[self.before], *[[self.none]] * self.books])

    def _user(self, prompt: Tensor, rows: int) -> Tensor:
        """The user's codes as they lie in rows [codebooks, rows], after a row of none."""
        lacking = rows - prompt.shape[1]
        spoken = torch.cat([prompt, prompt[:, -1:].expand(-1, max(0, lacking))], 1)
        none = torch.full((self.books, 2), self.none)
        first = torch.cat([none[:1, :1], spoken[:1]], 1)[:, :rows]
        others = torch.cat([none[1:], spoken[1:]], 1)[:, :rows]
        return torch.cat([first, others])

    def _read(self, tokens: Tensor, user: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Hidden states [rows, width] of rows and what the user said in them; with a cache, of one row after others."""
        language = self.model.decoder.model
        audio = torch.cat([tokens[1:], user])
        embedded = language.embed_tokens(tokens[:1])
        for table, codes in zip(self.model.embed_tokens, audio, strict=True):
            embedded = embedded + table(codes[None])
        one = tokens.shape[1] == 1
        out = language(inputs_embeds=embedded, past_key_values=cache, use_cache=one)
        return out.last_hidden_state[0], out.past_key_values

    def _depth(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Logits [rows, n, vocabulary] of the first n codebooks.

        Transformers looks matrices up by codebook; here they are layers, and the loop over layers is all that is left.

        Args:
            hidden: [rows, width] of the transformer over time.
            tokens: [rows, n] text, then the codes before the last.
        """
        decoder, count = self.model.depth_decoder, tokens.shape[1]
        tables = [decoder.text_embed_tokens, *decoder.embed_tokens]
        x = torch.stack([table(column) for table, column in zip(tables, tokens.T, strict=False)], 1)
        x = x + decoder.input_projections(hidden[:, None].expand(-1, count, -1))
        for layer in decoder.layers:
            x = layer(x)
        logits: Tensor = decoder.lm_heads(x)
        return logits


class MoshiVoice(TokenVoice):
    """Moshi as a voice in a conversation.

    Forced are the user's codes (of a recording, or random), and Moshi's text and codes. Logits are `text` and a head a
    codebook, without those of the first row in which a codebook has not begun. No site is protected by construction:
    its authors run the transformers in 8 bits and Mimi never (kyutai's FAQ), but publish no measurement of the latter.
    Only run on tiny weights here, never on kmhf/hf-moshiko, which has 31 GB in fp32.
    """

    module: Moshi

    def around(self, model: Any) -> Moshi:
        """Take a MoshiForConditionalGeneration."""
        return Moshi(model)

    def first(self, number: int, recording: Recording | None) -> Tensor:
        """What the user says."""
        if recording is None:
            return self.module.prompt(None, number)
        return self.module.heard(torch.from_numpy(recording.samples))


def _take_apart(decoder: Any) -> None:
    """Make a layer of each codebook's matrix; they are stacked as [codebooks, out, in]."""
    for owner in [*decoder.modules()]:
        for name, child in owner.named_children():
            if type(child).__name__ == "MoshiFlexibleLinear":
                setattr(owner, name, _Looked(child.weight))


class _Looked(PerCodebook):
    """As transformers calls it: the number of the codebook comes too, and is that of the place."""

    def forward(self, x: Tensor, layer_idx: None = None) -> Tensor:
        """Each codebook's own product."""
        return super().forward(x)
