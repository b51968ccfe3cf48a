"""The decoder: a decoder-only speech transformer with its codec, of the class of BL-Voice-1, and a Voice made of it.

Text and audio are interleaved: every row, 80 ms, has one text token and one code of each RVQ codebook, their embeddings
summed and each chosen by a head of its own. Codebooks follow each other in the delay pattern (Copet et al. 2023,
arXiv 2306.05284): row r holds codebook b of frame r - b, so that sound comes codebooks - 1 rows after its first code.

`DecoderVoice` has seeded random weights: IT IS NOT TRAINED and says nothing that anyone could understand. It is there
so that every operation of such a model can be searched over, lowered, planned and streamed in seconds; what a format
does to its tokens and sound says nothing of a trained one. At full size, `SEVEN_B`, it can be built on the meta device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from voice.codec_decoder import CodecDecoder, Past
from voice.decoder_config import SMALL, DecoderConfig
from voice.decoder_step import row_by_row
from voice.family import Family
from voice.model import Clip, Rendering
from voice.noise import paired_noise
from voice.reading import END, Reading
from voice.streaming import Utterance
from voice.transformer import Cache, Layer, Places, Positions, Rows

PROMPT_ROWS = 4


class SpeechDecoder(nn.Module):
    """Rows of tokens to logits of the next row, and to sound.

    A table has one entry more than there are tokens, the last, which stands for none.
    """

    nothing: Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        books, codes = config.codec.codebooks, config.codec.codes
        self.text = nn.Embedding(config.text + 1, config.width)
        self.codes = nn.Embedding(books * (codes + 1), config.width)
        self.positions = Positions(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.epsilon)
        self.text_head = nn.Linear(config.width, config.text, bias=False)
        self.audio_heads = nn.ModuleList(nn.Linear(config.width, codes, bias=False) for _ in range(books))
        self.codec = CodecDecoder(config.codec)
        self.register_buffer("nothing", torch.tensor([config.text, *[codes] * books]), persistent=False)

    def forward(self, prompt: Tensor, rows: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Sound and logits of forced rows, or of the model's own where none are forced.

        Args:
            prompt: [1 + codebooks, rows] what was said before: text tokens, then codes in the delay pattern.
            rows: [1 + codebooks, rows] what is said, forced; at least `delay` + 1 rows.

        Returns:
            Sound [(rows - delay) * frame_samples] in -1..1, and by head logits [rows, tokens], each row given the
            prompt and the rows before it.

        Raises:
            ValueError: more rows than the cache holds, which would have no positions.
        """
        rows = self.write(prompt) if rows is None else rows
        tokens = torch.cat([self.none(), prompt, rows], dim=1)
        length = tokens.shape[1] - 1
        if length > self.config.max_rows:
            raise ValueError(f"{length} rows of prompt and speech, at most {self.config.max_rows} have a place")
        indices = self.codec.indices(tokens[1:])
        hidden, _ = self.read(tokens[0, :length], indices[:length], self.positions.first(length))
        # The codec goes over the prompt too, as it does in a stream.
        sound = self.codec(indices, Past())
        begin = 1 + prompt.shape[1]
        logits = self.logits(hidden[begin - 1 :])
        return sound[(begin + self.config.delay) * self.config.codec.frame_samples :], logits

    def read(
        self, text: Tensor, indices: Tensor, places: Places, caches: Sequence[Rows] | None = None
    ) -> tuple[Tensor, list[Cache]]:
        """Hidden state [rows, width] after text tokens [rows] and codes, with each layer's keys and values.

        `indices` [rows, codebooks] are places in the table of all codebooks. With caches there is one row.
        """
        x = self.text(text) + self.codes(indices).sum(dim=1)
        fresh = []
        for index, layer in enumerate(self.layers):
            x, cache_ = layer(x, places, None if caches is None else caches[index])
            fresh.append(cache_)
        return self.norm(x), fresh

    def logits(self, hidden: Tensor) -> dict[str, Tensor]:
        """Logits [rows, tokens] by head."""
        audio = {f"audio.{index}": head(hidden) for index, head in enumerate(self.audio_heads)}
        return {"text": self.text_head(hidden), **audio}

    def none(self, rows: int = 1) -> Tensor:
        """Rows [1 + codebooks, rows] of no token: what stands before the first."""
        return self.nothing[:, None].expand(-1, rows)

    def write(self, prompt: Tensor, longest: int | None = None, text: Tensor | None = None) -> Tensor:
        """Rows of the model's own, the likeliest tokens of each, until END is said and the codebooks have caught up.

        Args:
            prompt: [1 + codebooks, rows].
            longest: rows at most, `delay` + 1 at least; as the configuration has it where left out.
            text: [longest] text tokens, forced; the codes are the model's own.

        Returns:
            [1 + codebooks, rows], at least `delay` + 1 rows; no code where a codebook has not begun.

        Raises:
            ValueError: more rows than the cache holds may come.
        """
        config = self.config
        longest = config.longest_rows if longest is None else longest
        reading = Reading(prompt[0].tolist()) if config.reads else None
        if prompt.shape[1] + longest > config.max_rows:
            raise ValueError(
                f"a prompt of {prompt.shape[1]} rows and {longest} of speech are more than the {config.max_rows} that"
                " have a place; ask for fewer"
            )
        caches = [Cache(*torch.zeros(2, config.kv_heads, config.max_rows, config.head_size)) for _ in self.layers]
        tokens, asked = torch.cat([self.none(), prompt], dim=1), prompt.shape[1]
        last = asked + longest
        position = 0
        while position < last:
            place = self.positions.at(torch.tensor([position]))
            row = tokens[:, position : position + 1]
            hidden, caches = self.read(row[0], self.codec.indices(row[1:]), place, caches)
            position += 1
            if position > asked:
                logits = self.logits(hidden)
                row = torch.stack([values[0].argmax() for values in logits.values()])
                if text is not None:
                    row[0] = text[position - asked - 1]
                elif reading is not None and last == asked + longest:
                    row[0] = reading(logits["text"][0])
                behind = torch.arange(len(row)) > position - asked
                # A codebook has nothing to say before its first frame.
                row = torch.where(behind, self.nothing, row)
                tokens = torch.cat([tokens, row[:, None]], dim=1)
                if row[0] == END:
                    last = min(last, position + config.delay)
        return tokens[:, 1 + asked :]


@dataclass(frozen=True)
class DecoderVoice:
    """The small decoder with random weights as a Voice; a clip's inputs are its prompt, and forced rows."""

    module: SpeechDecoder
    name: str = "decoder"
    family: Family = "autoregressive"
    protected: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def seeded(cls, config: DecoderConfig = SMALL, seed: int = 0) -> "DecoderVoice":
        """Make a voice whose random weights are the same everywhere."""
        with paired_noise(seed):
            module = SpeechDecoder(config)
            _initialise(module)
        return cls(module.eval().requires_grad_(False))

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the codec."""
        return self.module.config.codec.sample_rate_hz

    def unforced(self, clip: Clip) -> Clip:
        """The same prompt with rows of the model's own."""
        return Clip(clip.name, clip.inputs[:1], clip.seconds)

    def reseeded(self, clip: Clip, seed: int) -> None:
        """Give None: it draws no noise."""

    def render(self, clip: Clip) -> Rendering:
        """Sound and logits of a clip."""
        with torch.inference_mode():
            return Rendering(*self.module(*clip.inputs))

    def clips(self, count: int) -> tuple[Clip, ...]:
        """Random prompts of text alone, and what the model itself writes behind them; the same every time."""
        return tuple(self._clip(number) for number in range(count))

    def utterance(self, clip: Clip, chunk_ms: float) -> Utterance:
        """A clip row by row, its own rows where none are forced; errors as those of `row_by_row`."""
        prompt, *forced = clip.inputs
        rows = forced[0] if forced else self.module.write(prompt)
        return row_by_row(self.module, prompt, rows, chunk_ms)

    def _clip(self, number: int) -> Clip:
        config = self.module.config
        prompt = self.module.none(PROMPT_ROWS).clone()
        prompt[0] = torch.randint(END + 1, config.text, (PROMPT_ROWS,), generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            rows = self.module.write(prompt)
        seconds = (rows.shape[1] - config.delay) * config.codec.frame_samples / config.codec.sample_rate_hz
        return Clip(f"prompt_{number:03}", (prompt, rows), seconds)


def _initialise(module: SpeechDecoder) -> None:
    """Weights strong enough that tokens depend on what was said and sound on its codes; no token is none's alone."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
            reading = layer.weight[0].numel()
            if isinstance(layer, nn.ConvTranspose1d):  # [in, out, taps], of which two taps make a sample
                reading = 2 * layer.in_channels
            nn.init.normal_(layer.weight, std=1.2 * reading**-0.5)
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=0.02)
    with torch.no_grad():
        module.codec.last.weight *= 0.1  # speech lies well below full scale
        books, codes = module.config.codec.codebooks, module.config.codec.codes
        module.codes.weight *= books**-0.5
        module.codec.entries.weight.view(books, codes + 1, -1)[:, codes] = 0.0
