"""WindowedAttention: attention over windows of a recording, all of them in one product."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class WindowedAttention(nn.Module):
    """The attention of an encoder that looks no further than a window, on the projections that it takes over.

    transformers computes the windows one after another, so that a longer recording has more products, each a site of
    its own, and a policy found on one clip would not fit another. Here the windows are a batch, the last one filled up
    with what is masked.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.q_proj: nn.Module = attention.q_proj
        self.k_proj: nn.Module = attention.k_proj
        self.v_proj: nn.Module = attention.v_proj
        self.out_proj: nn.Module = attention.out_proj
        self.heads: int = attention.num_heads
        self.scaling: float = attention.scaling

    def forward(self, hidden_states: Tensor, cu_seqlens: Tensor, **_: Any) -> Tensor:
        """Of positions [positions, width], and the places [windows + 1] where windows begin and the last one ends."""
        lengths = cu_seqlens.diff()
        windows, longest = len(lengths), int(lengths.max())
        heard = torch.arange(longest, device=lengths.device) < lengths[:, None]

        def split(projected: Tensor) -> Tensor:
            filled = projected.new_zeros(windows, longest, projected.shape[-1])
            filled[heard] = projected
            return filled.view(windows, longest, self.heads, -1).transpose(1, 2)

        query, key, value = (split(layer(hidden_states)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        hidden = torch.zeros(heard.shape, device=heard.device, dtype=query.dtype).masked_fill(~heard, -math.inf)
        mixed = F.scaled_dot_product_attention(query, key, value, hidden[:, None, None], scale=self.scaling)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(windows, longest, -1)[heard])
        return out


def window(tower: Any) -> None:
    """Have an encoder's layers attend by windows in one product."""
    for layer in tower.layers:
        if not isinstance(layer.self_attn, WindowedAttention):
            layer.self_attn = WindowedAttention(layer.self_attn)
