"""Sizes of a decoder-only speech transformer and of the codec decoder behind it."""

import math
from dataclasses import dataclass

FRAMES_A_SECOND = 12.5


@dataclass(frozen=True, slots=True)
class CodecConfig:
    """From codes to sound: the entries of the codebooks summed, then causal convolutions."""

    sample_rate_hz: int
    codebooks: int
    codes: int
    """Entries of each codebook."""
    latent: int
    """Width of an entry."""
    channels: tuple[int, ...]
    """Before the first upsampling, and after each."""
    rates: tuple[int, ...]
    """Factor of each upsampling; together they make `frame_samples`."""
    kernel: int = 7
    """Taps of the first and the last convolution."""
    block_kernel: int = 3
    block_dilation: int = 2
    units: int = 1
    """Residual units behind each upsampling; the dilation of each is `block_dilation` times that of the one before."""
    subpixel: bool = False
    """Whether an upsampling is a plain convolution of two taps, its channels read as columns (Shi et al. 2016, arXiv
    1609.05158): the same function as a transposed one, which no engine here has in FP8."""
    last_kernel: int | None = None
    """Taps of the last convolution, where they are not as many as of the first."""
    head_hop: int = 1
    """Samples that the last convolution gives for each of its columns: 1 writes them as they are, more by a short
    inverse STFT of twice as many points."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no codec."""
        if self.frame_samples * FRAMES_A_SECOND != self.sample_rate_hz:
            raise ValueError(
                f"upsampling rates {self.rates}{f' and a hop of {self.head_hop}' * (self.head_hop > 1)} make"
                f" {self.frame_samples} samples of a frame;"
                f" {self.sample_rate_hz} Hz at 12.5 frames a second needs {self.sample_rate_hz / FRAMES_A_SECOND:g}"
            )
        if len(self.channels) != len(self.rates) + 1:
            raise ValueError(
                f"{len(self.rates)} upsamplings have {len(self.rates) + 1} widths around them,"
                f" got channels {self.channels}"
            )

    @property
    def last_taps(self) -> int:
        """Taps of the last convolution."""
        return self.kernel if self.last_kernel is None else self.last_kernel

    @property
    def frame_samples(self) -> int:
        """Samples that a frame of 80 ms stands for."""
        return math.prod(self.rates) * self.head_hop


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The transformer; every row of tokens is a frame of 80 ms, one text token and one code of each codebook."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    hidden: int
    """Width between the matrices of a feed-forward part."""
    text: int
    """Text tokens, of which 0 ends the speech."""
    max_rows: int
    """Rows that the KV cache holds."""
    codec: CodecConfig
    reads: bool = False
    """Whether text tokens are pairs of phones, and a prompt is read aloud: `voice.reading`."""
    longest_rows: int = 40
    """Rows of speech that are written at most, where none are forced."""
    rope_theta: float = 10000.0
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse heads that cannot share keys, and sizes that rotary positions cannot halve."""
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} heads of keys and values evenly")
        if self.head_size % 2:
            raise ValueError(f"rotary positions turn pairs, and a head of {self.head_size} is odd")

    @property
    def delay(self) -> int:
        """Rows by which the last codebook comes behind the first."""
        return self.codec.codebooks - 1


SMALL = DecoderConfig(
    layers=4,
    width=256,
    heads=8,
    kv_heads=2,
    head_size=64,
    hidden=704,
    text=64,
    max_rows=128,
    codec=CodecConfig(16000, 8, 64, 32, (64, 64, 32, 32, 16), (8, 8, 5, 4)),
)
"""For tests and planning: every part of the large one, and seconds to run."""
MINI = DecoderConfig(
    layers=8,
    width=320,
    heads=8,
    kv_heads=1,
    head_size=64,
    hidden=768,
    text=1 + 42 * 42,
    max_rows=128,
    codec=CodecConfig(
        16000,
        8,
        128,
        64,
        (160, 128, 64),
        (4, 4),
        kernel=3,
        block_dilation=2,
        units=3,
        subpixel=True,
        last_kernel=1,
        head_hop=80,
    ),
    reads=True,
    longest_rows=90,
)
"""BL-Voice `mini`, trained on the made speech: voice/data/BLVOICE_CARD.md. Text tokens are pairs of phones."""
SEVEN_B = DecoderConfig(
    layers=32,
    width=4096,
    heads=32,
    kv_heads=4,
    head_size=128,
    hidden=14336,
    text=32000,
    max_rows=4096,
    codec=CodecConfig(24000, 8, 2048, 512, (1024, 512, 256, 128, 64), (8, 8, 6, 5)),
)
"""The class of BL-Voice-1: 7.27 billion weights with tables and codec, a KV cache 8 times smaller than its heads,
5.5 minutes of speech. Build it on the meta device, to count and to cost."""
