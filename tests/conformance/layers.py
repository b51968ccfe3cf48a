"""Layers: one of each kind of site, many times over in one model, each copy for a scheme of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import torch
from torch import Tensor, nn

from precision.policy import Scheme
from precision.site import Site
from voice.graph import SiteGraph, graph_of
from voice.sites import discover

K, N, CHANNELS = 96, 48, 32
"""Sizes that end inside a tile of 32, and that FP8 takes: multiples of 16."""


class Product(nn.Module):
    """A product of two activations."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left @ right


def _kind(name: str) -> nn.Module:
    return {
        "linear": lambda: nn.Linear(K, N),
        "linear_without_bias": lambda: nn.Linear(K, 40, bias=False),
        "product": Product,
        "conv": lambda: nn.Conv1d(CHANNELS, 48, 3, padding=1),
        "conv_without_bias": lambda: nn.Conv1d(CHANNELS, 24, 3, bias=False),
        "conv_of_one_tap": lambda: nn.Conv1d(CHANNELS, 40, 1),
        "conv_strided": lambda: nn.Conv1d(CHANNELS, 24, 5, stride=2, padding=2),
        "conv_dilated": lambda: nn.Conv1d(CHANNELS, 24, 3, padding=3, dilation=3),
        "conv_grouped": lambda: nn.Conv1d(CHANNELS, 64, 3, padding=1, groups=2),
        "transposed": lambda: nn.ConvTranspose1d(CHANNELS, 24, 4, stride=2, padding=1),
        "transposed_without_bias": lambda: nn.ConvTranspose1d(CHANNELS, 16, 8, stride=4, padding=2, bias=False),
        "transposed_with_more_behind": lambda: nn.ConvTranspose1d(
            CHANNELS, 24, 5, stride=3, padding=1, output_padding=1
        ),
    }[name]()


KINDS = (
    "linear",
    "linear_without_bias",
    "product",
    "conv",
    "conv_without_bias",
    "conv_of_one_tap",
    "conv_strided",
    "conv_dilated",
    "conv_grouped",
    "transposed",
    "transposed_without_bias",
    "transposed_with_more_behind",
)


class Layers(nn.Module):
    """Copies of each kind, side by side."""

    def __init__(self, copies: Mapping[str, int], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.copies = nn.ModuleDict(
            {f"{kind}_{copy}": _kind(kind) for kind, count in copies.items() for copy in range(count)}
        )
        self.eval().requires_grad_(False)

    def forward(self, rows: Tensor, sound: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, ...]:
        results = []
        for layer in self.copies.values():
            given = (
                (rows,) if isinstance(layer, nn.Linear) else (left, right) if isinstance(layer, Product) else (sound,)
            )
            results.append(layer(*given))
        return tuple(results)


def inputs() -> dict[str, Tensor]:
    """Numbers that bf16 holds, so that it makes no difference how a target rounds what comes in."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"rows": (1, 7, K), "sound": (1, CHANNELS, 45), "left": (2, 7, K), "right": (2, K, N)}
    return {name: torch.randn(shape, generator=generator).bfloat16().float() for name, shape in shapes.items()}


def layers_graph(copies: Mapping[str, int], seed: int = 0) -> tuple[SiteGraph, tuple[Site, ...]]:
    """The model as a graph, a part for each copy, and its sites in the same order."""
    module, given = Layers(copies, seed), inputs()
    graph = graph_of(module, given, parts=tuple(module.copies))
    return graph, discover(module, lambda: module(*given.values()), 1.0).sites


def kind_sites() -> dict[str, Site]:
    """A site of each kind."""
    return dict(zip(KINDS, layers_graph(dict.fromkeys(KINDS, 1))[1], strict=True))


def all_pairs(schemes: Sequence[Scheme]) -> list[Scheme]:
    """Few of the schemes, in which every two values of two fields occur together that do so in any of them."""
    names = [field.name for field in fields(Scheme)]
    bits: dict[tuple[object, ...], int] = {}
    masks = []
    for scheme in schemes:
        values = [(name, getattr(scheme, name)) for name in names]
        pairs = [(one, other) for index, one in enumerate(values) for other in values[:index]]
        masks.append(sum(1 << bits.setdefault(pair, len(bits)) for pair in pairs))
    missing, found = (1 << len(bits)) - 1, []
    while missing:
        best = max(range(len(masks)), key=lambda index: (masks[index] & missing).bit_count())
        found.append(schemes[best])
        missing &= ~masks[best]
    return found
