"""Sites of a decoder of any size, found on the meta device: no weight is made and nothing is multiplied."""

import torch

from voice.decoder import SpeechDecoder
from voice.decoder_config import FRAMES_A_SECOND, DecoderConfig
from voice.decoder_step import Step
from voice.sites import Discovery, discover


def on_paper(config: DecoderConfig) -> SpeechDecoder:
    """A decoder on the meta device: shapes without values, in some megabytes whatever its size."""
    with torch.device("meta"):
        module = SpeechDecoder(config)
    # Tables that come from numpy know nothing of the context.
    return module.to("meta").eval().requires_grad_(False)


def step_discovery(module: SpeechDecoder) -> Discovery:
    """Find the sites of one row of 80 ms of a stream: transformer, heads and codec.

    Attention is over all `max_rows` rows that the cache holds, whatever there is in them, as a step of fixed shapes
    computes it; a server that reads the rows of its streams alone reads fewer.

    Args:
        module: on the meta device, as `on_paper` gives it.
    """
    step = Step(module)

    def run() -> None:
        with torch.device("meta"), torch.inference_mode():
            step(*step.examples().values(), *step.states().values())

    return discover(module, run, 1 / FRAMES_A_SECOND)


def prefill_discovery(module: SpeechDecoder, rows: int) -> Discovery:
    """Find the sites of a prompt read at once, its last row alone through the heads; the codec stays silent.

    Args:
        module: on the meta device, as `on_paper` gives it.
        rows: of the prompt, 1 to max_rows.

    Raises:
        ValueError: more rows than the cache holds, or none.
    """
    config = module.config
    if not 1 <= rows <= config.max_rows:
        raise ValueError(f"a prompt of 1 to {config.max_rows} rows has a place, got {rows}")

    def run() -> None:
        with torch.device("meta"), torch.inference_mode():
            text, codes = (
                torch.zeros(rows, dtype=torch.long),
                torch.zeros(rows, config.codec.codebooks, dtype=torch.long),
            )
            hidden, _ = module.read(text, codes, module.positions.first(rows))
            module.logits(hidden[-1:])

    return discover(module, run, rows / FRAMES_A_SECOND)
