"""Step: the decoder as a stream runs it, one row of 80 ms at a time."""

import torch
from torch import Tensor, nn

from voice.codec_decoder import Past
from voice.decoder import SpeechDecoder
from voice.transformer import Cache


class Step(nn.Module):
    """One row of 80 ms: what a stream runs over and over, its memory going in and coming out.

    A step reads the row before: at position 0 the row of no tokens, then the prompt's, then those chosen. It gives the
    logits of the row at its position, and the sound of the frame that the row it read completed: of speech behind a
    prompt of p rows, the first samples come with step p + 1 + delay.
    """

    def __init__(self, decoder: SpeechDecoder) -> None:
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
        decoder = self.decoder
        layers = len(decoder.layers)
        indices = (codes + decoder.codec.offsets)[None]
        caches = [Cache(states[2 * layer], states[2 * layer + 1]) for layer in range(layers)]
        hidden, caches = decoder.read(text, indices, decoder.positions.at(position), caches)
        past = Past(states[2 * layers :])
        sound = decoder.codec(indices, past)
        kept = [tensor for cache_ in caches for tensor in cache_]
        return (sound, *decoder.logits(hidden).values(), *kept, *past.new)

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
