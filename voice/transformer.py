"""Transformer layers of the decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU; with a KV cache.

Rows are [rows, width], without a batch: a stream is one speaker.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice.decoder_config import DecoderConfig

HIDDEN_SCORE = -(2.0**30)
"""Added to the score of what lies ahead: a power of two, so that every format has it."""


class Places(NamedTuple):
    """Where rows stand, and what of the past each may look at."""

    cosine: Tensor
    """[rows, head_size]"""
    sine: Tensor
    mask: Tensor
    """[rows, time], 0 where a row may look and HIDDEN_SCORE elsewhere."""
    here: Tensor | None = None
    """[max_rows, 1], 1 at the place in the cache where a single row is written; None without a cache."""


class Cache(NamedTuple):
    """Keys and values of all places, zero where none was yet."""

    keys: Tensor
    """[kv_heads, max_rows, head_size], turned by their positions."""
    values: Tensor

    def with_row(self, keys: Tensor, values: Tensor, places: Places) -> "Cache":
        """The same with the keys and values [kv_heads, 1, head_size] of one row at its place."""
        assert places.here is not None
        kept = 1.0 - places.here
        return Cache(self.keys * kept + keys * places.here, self.values * kept + values * places.here)


class Rows(Protocol):
    """A cache that a row is written to: a `Cache`, or whatever stores one in a format of its own."""

    def with_row(self, keys: Tensor, values: Tensor, places: Places) -> Cache:
        """See `Cache.with_row`; what is given is what attention reads."""


class Positions(nn.Module):
    """Tables of all that depends on a row's position alone; exact in bf16 but for the angles."""

    cosine: Tensor
    sine: Tensor
    mask: Tensor
    here: Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        half = torch.arange(0, config.head_size, 2, dtype=torch.float64) / config.head_size
        angles = torch.arange(config.max_rows, dtype=torch.float64)[:, None] * config.rope_theta**-half
        angles = torch.cat([angles, angles], dim=1)
        ahead = torch.ones(config.max_rows, config.max_rows).triu(1)
        self.register_buffer("cosine", torch.cos(angles).float(), persistent=False)
        self.register_buffer("sine", torch.sin(angles).float(), persistent=False)
        self.register_buffer("mask", ahead * HIDDEN_SCORE, persistent=False)
        self.register_buffer("here", torch.eye(config.max_rows), persistent=False)

    def first(self, rows: int) -> Places:
        """Of as many rows from the beginning."""
        return Places(self.cosine[:rows], self.sine[:rows], self.mask[:rows, :rows])

    def at(self, position: Tensor) -> Places:
        """Of one row, its position [1] a whole number below max_rows."""
        cosine, sine, mask, here = (
            F.embedding(position, table) for table in (self.cosine, self.sine, self.mask, self.here)
        )
        return Places(cosine, sine, mask, here.reshape(-1, 1))


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn pairs of a head, half a head apart, by their angles (Su et al. 2021, arXiv 2104.09864)."""
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return x * cosine + torch.cat([-second, first], dim=-1) * sine


class Attention(nn.Module):
    """Causal attention in which several heads share keys and values (Ainslie et al. 2023, arXiv 2305.13245)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.kv_heads, self.head_size = config.kv_heads, config.head_size
        self.sharing = config.heads // config.kv_heads
        inner, shared = config.heads * config.head_size, config.kv_heads * config.head_size
        self.query = nn.Linear(config.width, inner, bias=False)
        self.key = nn.Linear(config.width, shared, bias=False)
        self.value = nn.Linear(config.width, shared, bias=False)
        self.out = nn.Linear(inner, config.width, bias=False)

    def forward(self, x: Tensor, places: Places, cache: Rows | None = None) -> tuple[Tensor, Cache]:
        """Map [rows, width] to the same shape, and give keys and values; with a cache there is one row."""
        rows, (kv, sharing, size) = x.shape[0], (self.kv_heads, self.sharing, self.head_size)
        query = self.query(x).view(rows, kv, sharing, size).transpose(0, 1)
        query = rotate(query, places.cosine[:, None], places.sine[:, None])
        keys = rotate(self.key(x).view(rows, kv, size).transpose(0, 1), places.cosine, places.sine)
        values = self.value(x).view(rows, kv, size).transpose(0, 1)
        if cache is not None:
            keys, values = cache.with_row(keys, values, places)
        # Heads that share keys are rows of one product: the cache is read once, and never repeated.
        mask = places.mask[:, None].expand(-1, sharing, -1).reshape(rows * sharing, -1)
        query = query.reshape(kv, rows * sharing, size)
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        mixed = mixed.view(kv, rows, sharing, size).transpose(0, 1).reshape(rows, kv * sharing * size)
        return self.out(mixed), Cache(keys, values)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [rows, width] to the same shape."""
        result: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return result


class Layer(nn.Module):
    """Attention and feed-forward part, each behind a norm and around it a residual connection."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=config.epsilon)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.width, eps=config.epsilon)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, places: Places, cache: Rows | None = None) -> tuple[Tensor, Cache]:
        """Map [rows, width] to the same shape, and give keys and values."""
        heard, fresh = self.attention(self.attention_norm(x), places, cache)
        x = x + heard
        return x + self.feed_forward(self.feed_forward_norm(x)), fresh
