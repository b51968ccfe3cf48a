"""CodecDecoder: frames of RVQ codes to sound by causal convolutions, whole or frame by frame with the same samples.

Of the family of EnCodec and Mimi (Defossez et al. 2022, arXiv 2210.13438; 2024, arXiv 2410.00037): transposed
convolutions, each with a residual unit behind it, ELU between.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice.decoder_config import CodecConfig
from voice.vocoder import synthesis_basis

LOUDEST = 6.0
"""Log magnitude at which a band is held: far above full scale."""


class Past:
    """What layers that look back keep of the rows before: read in the order of the layers, written in the same."""

    def __init__(self, kept: Sequence[Tensor] | None = None) -> None:
        """Begin a pass; with nothing kept all before was zero."""
        self._kept: Iterator[Tensor] | None = None if kept is None else iter(kept)
        self.new: list[Tensor] = []
        """What to keep for the next pass."""

    def take(self) -> Tensor | None:
        """What the next layer kept; None where nothing was kept."""
        return None if self._kept is None else next(self._kept)

    def joined(self, x: Tensor, length: int) -> Tensor:
        """`x` [batch, channels, time] with `length` columns of what came before in front of it; none are not kept."""
        if length == 0:
            return x
        kept = self.take()
        whole = F.pad(x, (length, 0)) if kept is None else torch.cat([kept, x], dim=-1)
        self.new.append(whole[..., whole.shape[-1] - length :])
        return whole


class ResidualUnit(nn.Module):
    """A dilated convolution and one of a single tap, around which the input goes."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.reach = (kernel - 1) * dilation
        self.dilated = nn.Conv1d(channels, channels, kernel, dilation=dilation)
        self.point = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        """Map [batch, channels, time] to the same shape."""
        inner = self.dilated(past.joined(F.elu(x), self.reach))
        result: Tensor = x + self.point(F.elu(inner))
        return result


class Stage(nn.Module):
    """One upsampling and its residual units."""

    def __init__(self, before: int, after: int, rate: int, config: CodecConfig) -> None:
        super().__init__()
        # Every sample hears two frames: the padding cuts what the frame in front would say of the time before it, and
        # what the last would of the time to come. So the input is kept, not a sum half made: streamed bits are those
        # of the whole in every arithmetic.
        self.rate = rate
        self.up: nn.Conv1d | nn.ConvTranspose1d
        if config.subpixel:
            self.up = nn.Conv1d(before, after * rate, 2)
        else:
            self.up = nn.ConvTranspose1d(before, after, 2 * rate, stride=rate, padding=rate)
        self.units = nn.ModuleList(
            ResidualUnit(after, config.block_kernel, config.block_dilation ** (index + 1))
            for index in range(config.units)
        )

    def forward(self, x: Tensor, past: Past) -> Tensor:
        """Map [batch, channels, time] to [batch, fewer channels, rate * time]."""
        x = self.up(past.joined(F.elu(x), 1))
        if isinstance(self.up, nn.Conv1d):
            x = torch.unflatten(x, 1, (-1, self.rate)).mT.flatten(2)
        for unit in self.units:
            x = unit(x, past)
        return x


class Synthesis(nn.Module):
    """Log magnitude and a complex direction of each band to sound: an inverse STFT, windows overlapping by half.

    The second half of a window and the first of the next make `hop` samples, so what is a transposed convolution of one
    channel elsewhere is here a plain one of two taps and `hop` channels, whose columns are then read one by one.
    """

    basis: Tensor

    def __init__(self, hop: int) -> None:
        super().__init__()
        whole = synthesis_basis(2 * hop, hop)[:, 0]  # [2 * bands, 2 * hop]
        basis = torch.stack([whole[:, hop:].T, whole[:, :hop].T], dim=2)
        self.register_buffer("basis", basis.contiguous(), persistent=False)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        """Map [batch, 3 * bands, time] to [batch, 1, hop * time]; a window sounds first where its column begins."""
        log_magnitude, real, imaginary = x.chunk(3, dim=1)
        magnitude = torch.exp(log_magnitude.clamp(max=LOUDEST))
        spectrum = torch.cat([magnitude * real, magnitude * imaginary], dim=1)
        samples = F.conv1d(past.joined(spectrum, 1), self.basis)
        return samples.mT.flatten(1)[:, None]


def bands_of(config: CodecConfig) -> int:
    """Bands of the short STFT that a codec ends in."""
    return config.head_hop + 1


class CodecDecoder(nn.Module):
    """Rows of codes in the delay pattern to sound."""

    offsets: Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        # One table for all codebooks; the last entry of each is no code, and says nothing.
        self.entries = nn.Embedding(config.codebooks * (config.codes + 1), config.latent)
        self.first = nn.Conv1d(config.latent, config.channels[0], config.kernel)
        self.stages = nn.ModuleList(
            Stage(before, after, rate, config)
            for before, after, rate in zip(config.channels, config.channels[1:], config.rates, strict=False)
        )
        self.last = nn.Conv1d(
            config.channels[-1], 1 if config.head_hop == 1 else 3 * bands_of(config), config.last_taps
        )
        self.synthesis = None if config.head_hop == 1 else Synthesis(config.head_hop)
        offsets = torch.arange(config.codebooks) * (config.codes + 1)
        self.register_buffer("offsets", offsets, persistent=False)

    def indices(self, codes: Tensor) -> Tensor:
        """Places [rows, codebooks] of codes [codebooks, rows] in a table of all codebooks."""
        return (codes + self.offsets[:, None]).T

    def forward(self, indices: Tensor, past: Past) -> Tensor:
        """Map rows of the delay pattern, `indices` [rows, codebooks], to sound [rows * frame_samples] in -1..1.

        A row says the frame that it completes, codebooks - 1 rows back; where something was kept there is one row.
        """
        return self.sound(self.latents(indices, past).T[None], past)[0]

    def sound(self, x: Tensor, past: Past) -> Tensor:
        """Map frames of summed entries [batch, latent, frames] to sound [batch, frames * frame_samples]."""
        x = self.first(past.joined(x, self.config.kernel - 1))
        for stage in self.stages:
            x = stage(x, past)
        x = self.last(past.joined(F.elu(x), self.config.last_taps - 1))
        sound: Tensor = torch.tanh(x) if self.synthesis is None else self.synthesis(x, past)
        return sound[:, 0]

    def latents(self, indices: Tensor, past: Past) -> Tensor:
        """Sum the entries of the frame that each row completes: [rows, latent]."""
        rows, delay = indices.shape[0], self.config.codebooks - 1
        entries: Tensor = self.entries(indices)
        waiting = past.take()
        if waiting is not None:
            # Frames under way, the youngest first: each gets the entry of its next codebook and moves up.
            sums = F.pad(waiting, (0, 0, 1, 0)) + entries[0]
            past.new.append(sums[:delay])
            return sums[delay:]
        total = F.pad(entries[:, 0], (0, 0, delay, 0))[:rows]
        for book in range(1, delay + 1):
            total = total + F.pad(entries[:, book], (0, 0, delay - book, 0))[:rows]
        return total

    def states(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of what is kept between rows, by name, in order."""
        config = self.config
        shapes = {"entries": (config.codebooks - 1, config.latent), "first": (1, config.latent, config.kernel - 1)}
        for index, (before, after) in enumerate(itertools.pairwise(config.channels)):
            shapes[f"stages_{index}_up"] = (1, before, 1)
            for unit in range(config.units):
                reach = (config.block_kernel - 1) * config.block_dilation ** (unit + 1)
                shapes[f"stages_{index}_units_{unit}"] = (1, after, reach)
        if config.last_taps > 1:
            shapes["last"] = (1, config.channels[-1], config.last_taps - 1)
        if self.synthesis is not None:
            shapes["synthesis"] = (1, 2 * bands_of(config), 1)
        return shapes
