"""Step: the decoder as a stream runs it, one row of 80 ms at a time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from voice.codec_decoder import Past
from voice.decoder_config import FRAMES_A_SECOND
from voice.graph import graph_of
from voice.streaming import StreamingError, Utterance, in_steps
from voice.transformer import Cache, Rows

if TYPE_CHECKING:
    from voice.decoder import SpeechDecoder  # which has its utterances from here

ROW_MS = 1000 / FRAMES_A_SECOND


class Step(nn.Module):
    """One row of 80 ms: what a stream runs over and over, its memory going in and coming out.

    A step reads the row before: at position 0 the row of no tokens, then the prompt's, then those chosen. It gives the
    logits of the row at its position, and the sound of the frame that the row it read completed: of speech behind a
    prompt of p rows, the first samples come with step p + 1 + delay.
    """

    def __init__(self, decoder: "SpeechDecoder") -> None:
        super().__init__()
        self.decoder = decoder
        self.parts = ("waveform", "text", *(f"audio.{book}" for book in range(decoder.config.codec.codebooks)))
        """What the first outputs are."""

    def forward(self, text: Tensor, codes: Tensor, position: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Read one row.

        Args:
            text: [1] text token of the row before.
            codes: [codebooks] its codes.
            position: [1] whole number below max_rows; 0 at first, then one more each time.
            states: as `states` names them; zeros at first.

        Returns:
            Samples [frame_samples], logits [1, tokens] of the text head and of each codebook's, then the new states.
        """
        layers = len(self.decoder.layers)
        caches = [Cache(states[2 * layer], states[2 * layer + 1]) for layer in range(layers)]
        past = Past(states[2 * layers :])
        parts, fresh = self.read(text, codes, position, caches, past)
        return (*parts, *(tensor for cache_ in fresh for tensor in cache_), *past.new)

    def read(
        self, text: Tensor, codes: Tensor, position: Tensor, caches: Sequence[Rows], past: Past
    ) -> tuple[tuple[Tensor, ...], list[Cache]]:
        """What `parts` names, and the keys and values of each layer; the codec writes to `past`."""
        decoder = self.decoder
        indices = (codes + decoder.codec.offsets)[None]
        hidden, fresh = decoder.read(text, indices, decoder.positions.at(position), caches)
        sound = decoder.codec(indices, past)
        return (sound, *decoder.logits(hidden).values()), fresh

    def examples(self) -> dict[str, Tensor]:
        """Inputs of the first step, by name."""
        nothing = self.decoder.nothing
        return {"text": nothing[:1], "codes": nothing[1:], "position": torch.zeros(1, dtype=torch.long)}

    def states(self) -> dict[str, Tensor]:
        """States before the first step, all zero, by name, in the order in which they are taken and given."""
        config = self.decoder.config
        cache_ = (config.kv_heads, config.max_rows, config.head_size)
        shapes: dict[str, tuple[int, ...]] = {
            f"layers_{i}_{kind}": cache_ for i in range(config.layers) for kind in ("keys", "values")
        }
        shapes.update({f"codec_{name}": shape for name, shape in self.decoder.codec.states().items()})
        return {name: torch.zeros(shape) for name, shape in shapes.items()}


def row_by_row(decoder: "SpeechDecoder", prompt: Tensor, rows: Tensor, chunk_ms: float = ROW_MS) -> Utterance:
    """A forced utterance as the runs of a step: the row of no tokens, the prompt, then what is said.

    The step at position r gives the logits of row r of prompt and speech, and the sound of the speech begins with run
    1 + prompt rows + delay, counted from 0.

    Args:
        decoder: it.
        prompt: [1 + codebooks, rows] what was said before.
        rows: [1 + codebooks, rows] what is said; more than `delay`.
        chunk_ms: of a run, which is a row.

    Raises:
        StreamingError: runs of another length; or more rows than have a place, the first of no tokens among them.
    """
    if abs(chunk_ms - ROW_MS) > 0.5:
        raise StreamingError(f"a step is one row of {ROW_MS:g} ms, and no other chunks: got {chunk_ms:g} ms")
    tokens = torch.cat([decoder.none(), prompt, rows], dim=1)
    config, count = decoder.config, tokens.shape[1]
    if count > config.max_rows:
        raise StreamingError(
            f"{count} rows to read, of none, {prompt.shape[1]} of prompt and {rows.shape[1]} of speech; at most"
            f" {config.max_rows} have a place"
        )
    step = Step(decoder)
    graph = graph_of(step, step.examples(), step.states(), parts=step.parts, sites_of=decoder)
    inputs = {"text": tokens[:1].T, "codes": tokens[1:].T, "position": torch.arange(count)[:, None]}
    samples = config.codec.frame_samples
    latency = (1 + prompt.shape[1] + config.delay) * samples
    return in_steps(graph, inputs, chunk_ms=ROW_MS, chunk_samples=samples, latency_samples=latency)
