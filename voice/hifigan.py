"""HiFi-GAN: the generator of Kong et al. 2020 (arXiv 2010.05646), and a Voice that resynthesises speech with it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice.checkpoint import CheckpointError, load_into, load_state_dict
from voice.mel import MelConfig
from voice.model import Clip
from voice.recorded import Resynthesis

LEAKY_SLOPE = 0.1  # between layers; the released generators end on torch's default of 0.01
OUTPUT_SLOPE = 0.01


@dataclass(frozen=True, slots=True)
class HifiganConfig:
    """Dimensions of a generator; those of the paper's table 5 are V1, V2 and V3."""

    channels: int
    """Of the first layer; halved at each upsampling."""
    rates: tuple[int, ...]
    """Factor of each upsampling; their product is the hop of the mel frames."""
    kernels: tuple[int, ...]
    """Taps of each upsampling."""
    block_kernels: tuple[int, ...]
    block_dilations: tuple[tuple[int, ...], ...]
    paired: bool = True
    """Whether each dilated convolution of a block is followed by an undilated one (`resblock` "1")."""
    mel: MelConfig = field(default_factory=MelConfig)

    def __post_init__(self) -> None:
        """Refuse dimensions that make no generator."""
        if math.prod(self.rates) != self.mel.hop:
            raise ValueError(f"upsampling rates {self.rates} must multiply to the hop, {self.mel.hop}")
        if len(self.rates) != len(self.kernels) or len(self.block_kernels) != len(self.block_dilations):
            raise ValueError("there must be one kernel an upsampling, and one list of dilations a block kernel")
        if any(kernel < rate or (kernel - rate) % 2 for kernel, rate in zip(self.kernels, self.rates, strict=True)):
            raise ValueError(f"upsampling kernels {self.kernels} must exceed their rates {self.rates} by even numbers")
        if self.channels <= 0 or self.channels % 2 ** len(self.rates):
            raise ValueError(f"{self.channels} channels cannot be halved {len(self.rates)} times")


_FIRST = ((1, 3, 5),) * 3
V1 = HifiganConfig(512, (8, 8, 2, 2), (16, 16, 4, 4), (3, 7, 11), _FIRST)
V2 = HifiganConfig(128, (8, 8, 2, 2), (16, 16, 4, 4), (3, 7, 11), _FIRST)
V3 = HifiganConfig(256, (8, 8, 4), (16, 16, 8), (3, 5, 7), ((1, 2), (2, 6), (3, 12)), paired=False)


class PairedBlock(nn.Module):
    """Residual block of dilated convolutions, each followed by an undilated one."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_same_length(channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_same_length(channels, kernel, 1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, channels, time] to the same shape."""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, LEAKY_SLOPE)), LEAKY_SLOPE))
        return x


class SingleBlock(nn.Module):
    """Residual block of dilated convolutions."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_same_length(channels, kernel, dilation) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, channels, time] to the same shape."""
        for dilated in self.convs:
            x = x + dilated(F.leaky_relu(x, LEAKY_SLOPE))
        return x


def _same_length(channels: int, kernel: int, dilation: int) -> nn.Conv1d:
    return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)


class Generator(nn.Module):
    """Log-mel frames to a waveform: transposed convolutions, each with a field of residual blocks, averaged."""

    def __init__(self, config: HifiganConfig) -> None:
        super().__init__()
        widths = [config.channels >> stage for stage in range(len(config.rates) + 1)]
        block = PairedBlock if config.paired else SingleBlock
        self.conv_pre = nn.Conv1d(config.mel.mels, widths[0], 7, padding=3)
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(before, after, kernel, rate, padding=(kernel - rate) // 2)
            for before, after, kernel, rate in zip(widths, widths[1:], config.kernels, config.rates, strict=False)
        )
        self.resblocks = nn.ModuleList(
            block(width, kernel, dilations)
            for width in widths[1:]
            for kernel, dilations in zip(config.block_kernels, config.block_dilations, strict=True)
        )
        self.conv_post = nn.Conv1d(widths[-1], 1, 7, padding=3)
        self._blocks_a_stage = len(config.block_kernels)

    def forward(self, mel: Tensor) -> Tensor:
        """Map log-mel [batch, mels, frames] to [batch, 1, frames * hop], in -1..1."""
        x = self.conv_pre(mel)
        for stage, upsample in enumerate(self.ups):
            x = upsample(F.leaky_relu(x, LEAKY_SLOPE))
            first = stage * self._blocks_a_stage
            blocks = self.resblocks[first : first + self._blocks_a_stage]
            x = torch.stack([block(x) for block in blocks]).sum(dim=0) / self._blocks_a_stage
        return torch.tanh(self.conv_post(F.leaky_relu(x, OUTPUT_SLOPE)))


class HifiganVoice(Resynthesis):
    """A vocoder as a Voice: speech to log-mel frames, and back through the generator."""

    name = "hifigan"
    module: Generator

    def __init__(self, config: HifiganConfig, module: Generator) -> None:
        super().__init__(module, config.mel)
        self.config = config

    @classmethod
    def load(cls, checkpoint: Path, config: Path | None = None) -> "HifiganVoice":
        """Load a released checkpoint, its weight norm folded into plain weights.

        Args:
            checkpoint: safetensors, or a torch file with the tensors under `generator`.
            config: JSON as the released checkpoints have it; by default `config.json` beside the checkpoint, else V2.

        Raises:
            CheckpointError: where either file cannot be used.
        """
        beside = checkpoint.with_name("config.json")
        source = config if config is not None else beside if beside.is_file() else None
        dimensions = V2 if source is None else read_config(source)
        state = fold_weight_norm(load_state_dict(checkpoint))
        generator = Generator(dimensions)
        load_into(generator, state, checkpoint)
        return cls(dimensions, generator)

    def sound(self, clip: Clip) -> Tensor:
        """Give the waveform that `render` gives, with gradients where they are wanted."""
        (mel,) = clip.inputs
        device = next(self.module.parameters()).device
        waveform: Tensor = self.module(mel.to(device))[0, 0]
        return waveform.float()


_NORMED = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each `weight_g`, `weight_v` by the weight g * v / |v|, the norm over all axes but the first.

    Source: Salimans and Kingma 2016 (arXiv 1602.07868), eq. 2. The names of torch's parametrization are known too. A v
    of length 0 gives a weight of NaN, which `load_into` refuses.
    """
    folded = dict(state)
    for g, v in _NORMED:
        for name in [name for name in state if name.endswith(g)]:
            layer = name.removesuffix(g)
            length, direction = state[name], state.get(layer + v)
            # What does not fit stays, and is named as unknown when it is loaded.
            if direction is None or direction.ndim < 2 or length.numel() != direction.shape[0]:
                continue
            column = (-1, *[1] * (direction.ndim - 1))
            norm = direction.float().flatten(1).norm(dim=1).reshape(column)
            folded[layer + "weight"] = length.float().reshape(column) * direction.float() / norm
            del folded[name], folded[layer + v]
    return folded


def read_config(path: Path) -> HifiganConfig:
    """Read the JSON that comes with the released checkpoints; keys of training are left alone.

    Raises:
        CheckpointError: where the file cannot be read, lacks a key, or contradicts itself.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: is no readable JSON ({error})") from error
    try:
        return HifiganConfig(
            channels=int(raw["upsample_initial_channel"]),
            rates=_integers(raw["upsample_rates"]),
            kernels=_integers(raw["upsample_kernel_sizes"]),
            block_kernels=_integers(raw["resblock_kernel_sizes"]),
            block_dilations=tuple(_integers(dilations) for dilations in raw["resblock_dilation_sizes"]),
            paired=str(raw["resblock"]) == "1",
            mel=MelConfig(
                sample_rate_hz=int(raw["sampling_rate"]),
                mels=int(raw["num_mels"]),
                fft=int(raw["n_fft"]),
                hop=int(raw["hop_size"]),
                window=int(raw["win_size"]),
                low_hz=float(raw["fmin"]),
                high_hz=float(raw["fmax"] or raw["sampling_rate"] / 2),
            ),
        )
    except KeyError as error:
        raise CheckpointError(f"{path}: lacks {error.args[0]!r}, which a HiFi-GAN config must have") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: is no HiFi-GAN config ({error})") from error


def _integers(values: list[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
