"""Formats: what memory on the card holds of float32 values, as its packer or the host stored them."""

import torch
from torch import Tensor

from backends.tenstorrent.rounding import MAGNITUDE_BITS, WeightBlocks, host_bf16, host_blocks, pack_blocks, pack_float


def packed(values: Tensor, dtype: str) -> Tensor:
    """What the packer stores of float32 values; blocks lie along the last axis. Whole numbers stay as they are."""
    if dtype == "fp32":
        return values.float()
    if dtype == "bf16":
        return pack_float(values.float(), 7)
    return pack_blocks(values.float(), dtype, -1) if dtype in MAGNITUDE_BITS else values.long()


def uploaded(values: Tensor, dtype: str) -> Tensor:
    """What the host stores of values that it moves to the card; blocks lie along the last axis."""
    if dtype in ("uint32", "int32"):
        return values.long()
    values = values.float()
    if dtype == "fp32":
        return values
    if dtype == "bf16":
        return host_bf16(values)
    channels = values.shape[-1]
    columns = values.reshape(-1, channels).mT.contiguous()
    return host_blocks(columns, dtype, WeightBlocks(channels, 1)).mT.reshape(values.shape)


def zeros(shape: tuple[int, ...], dtype: str) -> Tensor:
    """Zeros of a type of the card."""
    return torch.zeros(shape, dtype=torch.int64 if dtype in ("uint32", "int32") else torch.float32)
