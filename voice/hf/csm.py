"""CSM: a backbone that writes the first codebook of a frame, a depth decoder that writes the others, and Mimi.

Schalkwyk et al. 2025, "Crossing the uncanny valley of conversational voice" (Sesame). The codec's weights lie in the
checkpoint. Text comes first, then frames of `num_codebooks` codes, one a position; a frame whose codes are all the end
code ends the speech.
"""

from typing import Any

import torch
from torch import Tensor, nn

from voice.hf.token_voice import PerCodebook, TokenModel, Tokens, TokenVoice, random_ids

PROMPT_IDS = 12
"""Length of a random prompt."""


class Csm(TokenModel):
    """CsmForConditionalGeneration with all frames in one forward; the prompt is ids of a text [ids]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        config = model.config
        self.sample_rate_hz = config.codec_config.sampling_rate
        self.frames_per_second = float(config.codec_config.frame_rate)
        self.books = config.num_codebooks
        self.codes = config.codec_config.codebook_size
        self.end = config.codebook_eos_token_id
        head = model.depth_decoder.codebooks_head
        # Stacked as [codebooks - 1, in, out], the other way round than a layer has it.
        model.depth_decoder.codebooks_head = PerCodebook(head.weight.detach().mT.contiguous())

    def prompt(self, text: Tensor | None, seed: int) -> Tensor:
        """The text's ids as they are, or random ones."""
        return random_ids(PROMPT_IDS, 0, self.model.config.text_vocab_size, seed) if text is None else text

    def logits(self, prompt: Tensor, tokens: Tokens) -> dict[str, Tensor]:
        """By codebook [frames, vocabulary], of codes [codebooks, frames]."""
        frames = tokens[0].T
        embedded = torch.cat([self.model.embed_text_tokens(prompt[None]), self._embedded(frames[:-1])], 1)
        hidden = self.model.backbone_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        hidden = hidden[0, len(prompt) - 1 :]
        first = self.model.lm_head(hidden)
        others = self._depth(hidden, frames[:, :-1])
        return {"audio.0": first} | {f"audio.{book + 1}": others[:, book] for book in range(self.books - 1)}

    def sound(self, tokens: Tokens) -> Tensor:
        """Mimi's decoder, in one go."""
        sound: Tensor = self.model.codec_model.decode(tokens[0][None]).audio_values[0, 0]
        return sound

    def write(self, prompt: Tensor, seconds: float, *, ends: bool) -> Tokens:
        """Codes [codebooks, frames], of those that the codec has."""
        given, cache, frames = self.model.embed_text_tokens(prompt[None]), None, list[Tensor]()
        for _ in range(max(1, round(seconds * self.frames_per_second))):
            out = self.model.backbone_model(inputs_embeds=given, past_key_values=cache, use_cache=True)
            cache, hidden = out.past_key_values, out.last_hidden_state[:, -1]
            frame = self.model.lm_head(hidden)[:, : self.codes]
            if not ends:  # a frame ends the speech only if its first code does
                frame[:, self.end] = -torch.inf
            frame = frame.argmax(1, keepdim=True)
            while frame.shape[1] < self.books:
                following = self._depth(hidden, frame)[:, -1, : self.codes].argmax(1, keepdim=True)
                frame = torch.cat([frame, following], 1)
            if frames and bool((frame[:, :-1] == self.end).all()):
                break
            frames.append(frame)
            given = self._embedded(frame)
        return (torch.cat(frames).T.contiguous(),)

    def _embedded(self, frames: Tensor) -> Tensor:
        """Frames [frames, codebooks] -> [1, frames, width]."""
        embedded: Tensor = self.model.backbone_model.embed_tokens(frames[None])
        return embedded

    def _depth(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """Logits [frames, n, vocabulary] of codebooks 1 to n, of hidden states [frames, width], codes [frames, n]."""
        decoder = self.model.depth_decoder
        ids = nn.functional.pad(codes, (1, 0))  # the hidden state takes the place of the first
        depth = decoder.model(input_ids=ids, backbone_last_hidden_state=hidden, use_cache=False).last_hidden_state
        logits: Tensor = decoder.codebooks_head(depth[:, 1:])
        return logits


class CsmVoice(TokenVoice):
    """CSM as a voice with nobody speaking before it.

    Codes of every frame are forced; logits are `audio.0` of the backbone and `audio.1` ... of the depth decoder.
    Only run on tiny weights here, never on sesame/csm-1b.
    """

    def around(self, model: Any) -> Csm:
        """Take a CsmForConditionalGeneration."""
        return Csm(model)

    def written(self, text: str) -> str:
        """The text as speaker 0 says it."""
        return f"<|begin_of_text|>[0]{text}<|end_of_text|>"
