"""What error Hopper's FP8 sums have by the model of them, beside what rounding the operands to FP8 costs anyway.

`python benchmarks/accumulation.py` prints the environment, then two tables, in dB of SNR, the larger the better: sums
of k from 64 to 8192, of random values and of a real voice's; and the layers of the embedded voice on one of its clips.
A card is not asked: `backends.hopper.accumulation_model` says where the model comes from, and benchmarks/hopper_gpu.py
holds it against a card. Two minutes on one core.

`fp8` is what quantizing both operands does to the result, its sum exact: weights with a scale a channel, activations
with one. The other columns are the sums of the same codes: by the model, by the model with its sum moved to fp32 after
128 elements (`use_fast_accum=False`), and one by one in fp32. `worst` is the largest error of the model's sum, as a
share of the largest result of the table's row.
"""

import argparse
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from backends.hopper.accumulation import EXACT_FP32, HOPPER_FP8, HOPPER_FP8_PROMOTED, matmul
from backends.hopper.numerics import fp8_scale, quantize_fp8
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.gemm import to_columns, to_rows
from voice.intercept import intercept
from voice.site_call import SiteCall

DEPTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
ROWS = 64
"""Rows and columns of a product of the first table, and at most of one of the second."""
LEAST_DEPTH = 64
MODELS = {"model": HOPPER_FP8, "promoted": HOPPER_FP8_PROMOTED, "fp32": EXACT_FP32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    environment(arguments.threads)
    layers = dict(layers_of_the_voice())
    print(f"\nsums of k products, {ROWS} x {ROWS} of them, dB")
    header("k, values")
    for depth in DEPTHS:
        for kind, (x, weight) in operands(depth, layers):
            report(f"{depth}, {kind}", x, weight)
    print(f"\nlayers of the embedded voice of k >= {LEAST_DEPTH} on a clip, up to {ROWS} rows of each, dB")
    header("layer")
    margins = []
    for site, (x, weight) in layers.items():
        fp8, model = report(f"{site}, k {x.shape[1]}", x, weight)
        margins.append(model - fp8)
    print(
        f"\nthe model's sums lie {min(margins):.1f} dB at least and {sum(margins) / len(margins):.1f} dB on average"
        f" above the rounding to FP8, over {len(margins)} layers"
    )


def environment(threads: int) -> None:
    cpu = platform.processor() or platform.machine()
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        cpu = next((line.split(": ")[1] for line in listed.read_text().splitlines() if "model name" in line), cpu)
    print(f"{platform.platform()}, {cpu}, {os.cpu_count()} cores; {threads} threads")
    print(f"Python {platform.python_version()}, torch {version('torch')}; no card: a model of one")


def operands(depth: int, layers: dict[str, tuple[Tensor, Tensor]]) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Rows [m, k] and columns [k, n] of each kind of values."""
    generator = torch.Generator().manual_seed(depth)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    yield "normal", (normal(ROWS, depth), normal(depth, ROWS))
    # Nothing cancels: what an average, or attention over values of one sign, looks like.
    yield "positive", (normal(ROWS, depth).abs(), normal(depth, ROWS).abs())
    # Windows of layers of a real voice, one after the other, until k is reached.
    rows = torch.cat([x[:ROWS].flatten() for x, _ in layers.values()])
    columns = torch.cat([weight.mT.flatten() / weight.abs().amax() for _, weight in layers.values()])
    x, weight = (
        torch.stack(
            [values.roll(-int(start))[:depth] for start in torch.randint(len(values), (ROWS,), generator=generator)]
        )
        for values in (rows, columns)
    )
    yield "of a voice", (x, weight.mT)


def layers_of_the_voice() -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Site -> rows of its input [m, k] and columns of its weight [k, n], as one clip has them."""
    voice = EmbeddedVoice.load()
    calls: dict[str, SiteCall] = {}

    def keep(call: SiteCall) -> Tensor:
        calls.setdefault(call.site, call)
        return call.compute()

    with intercept(voice.module, keep), torch.no_grad():
        voice.render(bundled_clips()[0])
    for site, call in calls.items():
        groups = 1 if call.options is None else call.options.groups
        if call.is_product or groups > 1:
            continue
        weight = to_columns(call.weight.detach(), call.op, groups)
        rows = to_rows(call, call.x.detach()).reshape(-1, weight.shape[-2])
        if rows.shape[1] >= LEAST_DEPTH:
            # Rows of the clip's middle, where it speaks.
            first = max(0, (len(rows) - ROWS) // 2)
            yield site, (rows[first : first + ROWS], weight.reshape(weight.shape[-2:])[:, :ROWS])


def header(first: str) -> None:
    print(f"  {first:44} {'fp8':>8} " + " ".join(f"{name:>9}" for name in MODELS) + f" {'worst':>10}")


def report(what: str, x: Tensor, weight: Tensor) -> tuple[float, float]:
    """Print a line; SNR of the rounding to FP8, and of the model's sums, in dB."""
    scale, scales = fp8_scale(x.abs().amax(), "fp8_e4m3"), fp8_scale(weight.abs().amax(0), "fp8_e4m3")
    a, b = quantize_fp8(x, scale, "fp8_e4m3"), quantize_fp8(weight, scales, "fp8_e4m3")
    exact = a.double() @ b.double()
    unscale = (scale * scales).double()
    rounding = snr_db(x.double() @ weight.double(), exact * unscale)
    sums = {name: matmul(a, b, model).double() for name, model in MODELS.items()}
    shown = {name: snr_db(exact * unscale, total * unscale) for name, total in sums.items()}
    worst = float(((sums["model"] - exact) * unscale).abs().max() / (exact * unscale).abs().max())
    told = " ".join(f"{value:9.1f}" for value in shown.values())
    print(f"  {what:44} {rounding:8.1f} {told} {worst:10.1e}", flush=True)
    return rounding, shown["model"]


def snr_db(exact: Tensor, got: Tensor) -> float:
    return float(10 * torch.log10(exact.square().sum() / (got - exact).square().sum()))


if __name__ == "__main__":
    main()
