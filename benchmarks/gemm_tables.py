"""How good the tables of measured products are, and which layers of our models FP8 speeds up by them.

`python benchmarks/gemm_tables.py` reads the tables that the package brings. `--rows FOLDER` makes them anew from
NVIDIA's rows, gemm_h100_sxm.parquet and so on (backends/data/NOTICE says where they are from), which takes
`pip install pyarrow`. An error is that of points which were left out and had from their neighbours, in a bracket twice
as wide as in use; so it is more than what a product between the points suffers.
"""

import argparse
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from backends import gemm_tables
from backends.cost import CostModel
from backends.devices import load_devices
from backends.gemm_tables import CARDS, DTYPES, FILE, GemmTable, encoded
from backends.hopper.support import refuses
from precision.policy import Scheme
from precision.site import Site
from voice.decoder import DecoderVoice, SpeechDecoder
from voice.decoder_config import SEVEN_B, SMALL
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.hifigan import V2, Generator, HifiganVoice
from voice.sites import discover

DATA = Path(gemm_tables.__file__).with_name("data") / FILE
ROW_TYPES = {"bf16": "bfloat16", "fp8": "fp8"}
FP8 = Scheme("fp8", "fp8_e4m3", "fp8_e4m3")
STREAMS = (1, 8, 32, 64)
DRAWN = 4000
NOISE = 0.1
"""What the estimate of the smallest products differs by between cards that are alike."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, metavar="FOLDER", help="of NVIDIA's rows; makes the tables anew")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores")
    print(f"Python {platform.python_version()}, numpy {version('numpy')}, torch {version('torch')}")
    if arguments.rows is not None:
        make(arguments.rows)
    print(f"{DATA.name}: {DATA.stat().st_size:,} bytes, {gemm_tables.SOURCE}")
    for name in CARDS:
        table = GemmTable.of(name)
        assert table is not None
        held_out(table)
    layers()


def make(folder: Path) -> None:
    """Write the package's file from NVIDIA's rows; the same bytes every time."""
    import pyarrow.parquet

    held: dict[str, np.ndarray[Any, Any]] = {}
    for name in CARDS:
        read = pyarrow.parquet.read_table(folder / f"gemm_{name}.parquet", columns=["gemm_dtype", *"mnk", "latency"])
        rows = {column: read[column].to_numpy() for column in read.column_names}
        axes = {axis: np.unique(rows[axis]) for axis in "mnk"}
        for axis, points in axes.items():
            if not np.array_equal(held.setdefault(axis, points.astype(np.int32)), points):
                raise SystemExit(f"{name}: its grid of {axis} is not that of the cards before")
        for dtype, named in ROW_TYPES.items():
            chosen = rows["gemm_dtype"] == named
            grid = np.full([len(points) for points in axes.values()], np.nan)
            grid[tuple(np.searchsorted(points, rows[axis][chosen]) for axis, points in axes.items())] = (
                rows["latency"][chosen] * 1e3
            )
            held[f"{name}_{dtype}"] = encoded(grid)
    DATA.parent.mkdir(exist_ok=True)
    np.savez_compressed(DATA, **held)
    gemm_tables._tables.cache_clear()


def held_out(table: GemmTable) -> None:
    """Leave every second point of an axis out, or of all, and see what the others say of those left out."""
    bf16, fp8 = (table.latency_us[dtype] for dtype in DTYPES)
    measured = int(np.isfinite(bf16).sum())
    print(
        f"\n{table.title}: {measured:,} products; m {table.m[0]} to {table.m[-1]}, n and k {table.n[0]} to"
        f" {table.n[-1]}; FP8 faster at {float(np.mean((fp8 < bf16)[np.isfinite(bf16)])):.1%}"
    )
    print(f"  {'left out':<18}{'products':>9}  {'error bf16, 50 % and 90 % below':>32}{'fp8':>16}{'sign right':>12}")
    # m comes in pairs, 128 and 129: a pair is left out as one, or its other half would give it away.
    drawn = np.random.default_rng(0)
    for said, axes in (("m", "m"), ("n", "n"), ("k", "k"), ("m, n and k", "mnk")):
        thinned = _thinned(table, axes)
        points = [
            [value for value in getattr(table, axis) if axis not in axes or value not in getattr(thinned, axis)]
            for axis in "mnk"
        ]
        asked = list(product(*points))
        chosen = [asked[i] for i in drawn.permutation(len(asked))[:DRAWN]]
        errors: dict[str, list[float]] = {dtype: [] for dtype in DTYPES}
        signs = []
        for m, n, k in chosen:
            for dtype in DTYPES:
                told, true = thinned.seconds(dtype, m, n, k), table.seconds(dtype, m, n, k)
                if told is not None and true is not None:
                    errors[dtype].append(abs(told / true - 1))
            guessed, speedup = thinned.fp8_speedup(m, n, k), table.fp8_speedup(m, n, k)
            if guessed is not None and speedup is not None:
                signs.append((guessed > 1) == (speedup > 1))
        quantiles = [f"{np.quantile(errors[t], 0.5):.1%} {np.quantile(errors[t], 0.9):>6.1%}" for t in DTYPES]
        print(f"  {said:<18}{len(signs):>9}  {quantiles[0]:>32}{quantiles[1]:>16}{np.mean(signs):>12.1%}")


def _thinned(table: GemmTable, axes: str) -> GemmTable:
    """The table without every second point of some axes; first and last stay, pairs go together."""
    kept = []
    for axis in "mnk":
        points: Sequence[int] = getattr(table, axis)
        groups: list[list[int]] = []
        for index, value in enumerate(points):
            if groups and value == points[groups[-1][-1]] + 1 and value > 17:
                groups[-1].append(index)
            else:
                groups.append([index])
        stay = [g for i, g in enumerate(groups) if axis not in axes or i % 2 == 0 or i == len(groups) - 1]
        kept.append([index for group in stay for index in group])
    m, n, k = (tuple(getattr(table, axis)[i] for i in indices) for axis, indices in zip("mnk", kept, strict=True))
    latency = {dtype: values[np.ix_(*kept)] for dtype, values in table.latency_us.items()}
    return replace(table, m=m, n=n, k=k, latency_us=latency)


def layers() -> None:
    """Which layers of our models FP8 speeds up."""
    print("\nlayers that TensorRT takes in FP8, by card and streams in chunks of 0.5 s: faster in FP8 as measured,")
    print(
        f"quantizing included / by more than {NOISE:.0%} if quantizing came at no cost, an estimate / within the table"
    )
    for model, make_sites in MODELS.items():
        sites = make_sites()
        print(f"\n  {model}: {len(sites)} sites, {sum(_is_one(site) for site in sites)} such layers")
        for name in CARDS:
            table = GemmTable.of(name)
            assert table is not None
            found = [_counted(table, sites, streams) for streams in STREAMS]
            told = "".join(f"{f'{streams}: {told}':>20}" for streams, told in zip(STREAMS, found, strict=True))
            print(f"    {table.title:<10}{told}")


def _is_one(site: Site) -> bool:
    return site.weight_elements > 0 and site.groups == 1 and refuses(site, FP8, "tensorrt") is None


def _counted(table: GemmTable, sites: Sequence[Site], streams: int) -> str:
    model = CostModel.of(load_devices()[table.device], sites, streams=streams)
    shapes = [(gemm.m, gemm.n, gemm.k) for site in sites if _is_one(site) for gemm in (model.gemm_of(site),)]
    speedups = [speedup for shape in shapes if (speedup := table.fp8_speedup(*shape)) is not None]
    fused = [speedup for shape in shapes if (speedup := _fused_speedup(table, *shape)) is not None]
    return f"{sum(s > 1 for s in speedups)} / {sum(s > 1 + NOISE for s in fused)} / {len(speedups)}"


def _fused_speedup(table: GemmTable, m: int, n: int, k: int) -> float | None:
    """Estimate of the speedup where the operation before quantizes the activation at no cost.

    Quantizing is taken to be all by which FP8 is slower where n is the least measured: little is multiplied there.
    """
    bf16, fp8 = (table.seconds(dtype, m, n, k) for dtype in DTYPES)
    thin_bf16, thin_fp8 = (table.seconds(dtype, m, table.n[0], k) for dtype in DTYPES)
    if bf16 is None or fp8 is None or thin_bf16 is None or thin_fp8 is None:
        return None
    # Tensor cores have twice the rate in FP8; what looks faster than that is noise of the difference.
    return bf16 / max(fp8 - max(0.0, thin_fp8 - thin_bf16), bf16 / 2)


def _embedded() -> tuple[Site, ...]:
    voice, clip = EmbeddedVoice.load(), bundled_clips()[0]
    return discover(voice.module, lambda: voice.render(clip), clip.seconds).sites


def _hifigan() -> tuple[Site, ...]:
    torch.manual_seed(0)
    voice = HifiganVoice(V2, Generator(V2))
    rate = voice.sample_rate_hz
    clip = voice.clip("noise", np.random.default_rng(0).uniform(-0.5, 0.5, rate).astype(np.float32), rate)
    return discover(voice.module, lambda: voice.render(clip), clip.seconds).sites


def _decoder() -> tuple[Site, ...]:
    voice = DecoderVoice.seeded(SMALL)
    (clip,) = voice.clips(1)
    return discover(voice.module, lambda: voice.render(clip), clip.seconds).sites


def _large() -> tuple[Site, ...]:
    """The linear layers of the 7B decoder: on the meta device, where nothing can be rendered."""
    with torch.device("meta"):
        module = SpeechDecoder(SEVEN_B)
    rows = SEVEN_B.codec.sample_rate_hz / SEVEN_B.codec.frame_samples
    return tuple(
        Site(name, "linear", tuple(layer.weight.shape), layer.in_features, layer.out_features, rows)
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    )


MODELS: dict[str, Callable[[], tuple[Site, ...]]] = {
    "embedded": _embedded,
    "HiFi-GAN V2": _hifigan,
    "decoder": _decoder,
    "decoder 7B, its linear layers": _large,
}

if __name__ == "__main__":
    main()
