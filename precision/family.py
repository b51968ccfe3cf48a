"""Family: the kinds of voice models; `voice.family` says how each is compared with itself."""

from typing import Literal

Family = Literal["vocoder", "non_autoregressive", "autoregressive", "codec", "sampler", "understanding"]
"""Vocoder: frames to sound. Non-autoregressive: text to sound with durations of its own. Autoregressive: tokens one
after another, then sound. Codec: sound to codes to sound. Sampler: flow or diffusion, many steps from noise.
Understanding: sound to text alone."""
