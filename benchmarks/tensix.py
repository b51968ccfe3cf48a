"""How fast the Tensix arithmetic is: exact products, the fast path against torch's GEMM, and the host's rounding.

`python benchmarks/tensix.py` prints the environment, then one line a figure, with its target and whether it was met.
Figures are medians of runs that alternate with what they are compared to, so that a busy machine slows both. Where
others use the cores too, set OMP_WAIT_POLICY=passive: torch's threads otherwise spin for each other between operations,
which costs the fast path's ten small ones more than one GEMM.
"""

import argparse
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from backends.tenstorrent.exact.host import host_round
from backends.tenstorrent.exact.matmul import matmul
from backends.tenstorrent.exact.threads import run_chunks, set_threads
from backends.tenstorrent.numerics import TensixArithmetic
from precision.policy import FIDELITIES, Scheme
from voice.site_call import SiteCall

MEGABYTES = 64
CARD = Path(__file__).parents[1] / "tests" / "ttnn_card" / "n150.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="of the exact kernels and of torch; targets are for 2")
    parser.add_argument("--runs", type=int, default=7, help="of which the median counts")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    set_threads(arguments.threads)
    environment(arguments.threads)
    exact_products(arguments.runs)
    fast_products(arguments.runs)
    host_rounding(arguments.runs)


def environment(threads: int) -> None:
    cpu = platform.processor() or platform.machine()
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        cpu = next((line.split(": ")[1] for line in listed.read_text().splitlines() if "model name" in line), cpu)
    print(f"{platform.platform()}, {cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {threads} threads")
    print(f"OMP_WAIT_POLICY {os.environ.get('OMP_WAIT_POLICY', 'not set')}")
    packages = ("torch", "numpy", "numba", "ml_dtypes", "ttnn", "nvidia-modelopt")
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {_version(name)}" for name in packages))


def exact_products(runs: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (_bf16(rng.standard_normal(shape, np.float32)) for shape in ((256, 512), (512, 256)))
    print("\nexact product of 256 x 512 x 256, bf16 operands, million MAC/s")
    for fidelity in FIDELITIES:
        for dst16 in (False, True):
            (seconds,) = medians(runs, lambda f=fidelity, d=dst16: matmul(a, b, f, dst16=d))
            rate = 256 * 512 * 256 / seconds / 1e6
            target = (rate >= 100, "at least 100") if (fidelity, dst16) == ("hifi4", False) else None
            line(f"{fidelity}, {'bf16' if dst16 else 'fp32'} Dst", f"{rate:.0f}", target)


def fast_products(runs: int) -> None:
    x, weight = torch.randn(1024, 1024), torch.randn(1024, 1024)
    arithmetic = TensixArithmetic()
    call = SiteCall("site", "linear", x, weight, None, None, is_product=False, index=0)
    print("\nfast product of 1024 cubed, bf16 operands and result, times torch's fp32 GEMM")
    for fidelity, most in (("lofi", 1.5), ("hifi2", None), ("hifi3", None), ("hifi4", 3.0)):
        scheme = Scheme("s", "bf16", "bf16", "fp32", fidelity)
        prepared = arithmetic.prepare(call, scheme)
        fast, gemm = medians(runs, lambda s=scheme, p=prepared: arithmetic.compute(call, s, p, None), call.compute)
        target = None if most is None else (fast / gemm <= most, f"at most {most:g}")
        line(fidelity, f"{fast / gemm:.2f} ({1e3 * fast:.1f} of {1e3 * gemm:.1f} ms)", target)


def host_rounding(runs: int) -> None:
    values = np.random.default_rng(1).standard_normal((4096, MEGABYTES * 64), np.float32)
    out = np.empty_like(values)
    rows = len(values)
    print(f"\nhost rounding of {values.nbytes >> 20} MB float32 to bfp8_b and back, ms")
    ours, copied = medians(
        runs,
        lambda: host_round(values, "bfp8_b", out),
        lambda: run_chunks(lambda i, j: np.copyto(out[i:j], values[i:j]), rows, rows // 64),
    )
    line("ours", f"{1e3 * ours:.1f}, {2e-9 * values.nbytes / ours:.1f} GB/s read and written")
    share = copied / ours
    line("a plain copy", f"{1e3 * copied:.1f}, {2e-9 * values.nbytes / copied:.1f} GB/s read and written")
    line("ours, share of the copy's bandwidth", f"{share:.2f}", (share >= 1 / 3, "at least 0.33"))
    for name, least, other in others(values):
        if isinstance(other, str):
            line(name, f"skipped: {other}")
            continue
        ours, theirs = medians(min(runs, 3), lambda: host_round(values, "bfp8_b", out), other)
        target = (theirs / ours >= least, f"at least {least:g} times ours")
        line(name, f"{1e3 * theirs:.1f}, {theirs / ours:.1f} times ours", target)


def others(values: np.ndarray) -> Iterator[tuple[str, float, Callable[[], object] | str]]:
    """What rounds the same values: a name, how many times our time it should take, and the call, or why none."""
    yield "ttnn, from_torch to bfloat8_b and to_torch", 5, _ttnn(values)
    name = "ml_dtypes, cast to float8_e4m3fn and back"
    if importlib.util.find_spec("ml_dtypes") is None:
        yield name, 1, "ml_dtypes is not installed; pip install ml-dtypes"
    else:
        import ml_dtypes

        yield name, 1, lambda: values.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    yield "ModelOpt, fake quantization to fp8_e4m3", 1, _modelopt(values)


def _ttnn(values: np.ndarray) -> Callable[[], object] | str:
    if importlib.util.find_spec("ttnn") is None:
        return "ttnn is not installed; its wheel needs CPython 3.12 on Linux"
    if not CARD.is_file():
        return f"no mock card at {CARD}; run from a checkout"
    os.environ.setdefault("TT_METAL_MOCK_CLUSTER_DESC_PATH", str(CARD))
    os.environ.setdefault("LOGURU_LEVEL", "WARNING")
    os.environ.setdefault("TT_LOGGER_LEVEL", "error")
    import ttnn

    tensor = torch.from_numpy(values)
    return lambda: ttnn.to_torch(ttnn.from_torch(tensor, dtype=ttnn.bfloat8_b, layout=ttnn.TILE_LAYOUT))


def _modelopt(values: np.ndarray) -> Callable[[], object] | str:
    if importlib.util.find_spec("modelopt") is None:
        return "nvidia-modelopt is not installed; pip install 'precision-search[hopper]'"
    from modelopt.torch.quantization.config import QuantizerAttributeConfig
    from modelopt.torch.quantization.nn import TensorQuantizer

    quantizer = TensorQuantizer(QuantizerAttributeConfig(num_bits=(4, 3)))
    quantizer.amax = torch.tensor(float(np.abs(values).max()))
    tensor = torch.from_numpy(values)
    return lambda: quantizer(tensor)


def medians(runs: int, *calls: Callable[[], object]) -> tuple[float, ...]:
    """Median seconds of each call, run in turns after one round that does not count."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(runs + 1):
        for call, taken in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            if turn:
                taken.append(time.perf_counter() - start)
    return tuple(statistics.median(taken) for taken in seconds)


def line(what: str, value: str, target: tuple[bool, str] | None = None) -> None:
    told = "" if target is None else f"  target {target[1]}: {'met' if target[0] else 'MISSED'}"
    print(f"  {what:44} {value:34}{told}".rstrip(), flush=True)


def _bf16(values: np.ndarray) -> np.ndarray:
    return torch.from_numpy(values).to(torch.bfloat16).to(torch.float32).numpy()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    main()
