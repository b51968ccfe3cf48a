"""What a CUDA GPU does with FP8: its sums against our model of them, its speed beside bf16, and our own kernels.

`python benchmarks/hopper_gpu.py --out benchmarks/results/hopper_h100.json` takes under 8 minutes (`--quick`: 2), needs
torch, numpy and this checkout alone, and runs four parts, each in a process of its own, so that one that fails leaves
the others be:

  numerics  FP8 products against backends.hopper.accumulation: probes that show how a sum is made, the model that fits,
            and with how many equal bits; scales; our quantization on the card against the host's, bit for bit.
  gemm      bf16 and FP8 products on a grid, with and without quantizing the activation, beside NVIDIA's table.
  sites     the same for the sites of the embedded voice, HiFi-GAN V2 and a 7B decoder, at 1 to 64 streams.
  kernels   fake quantization by torch, by torch.compile and by our Triton kernel.

Without a card it runs on the CPU, says so, and proves only that it runs. `backends.hopper.measured_results` reads what
it writes.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
for folder in (ROOT, ROOT / "benchmarks"):  # for checkouts that are not installed
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import torch  # noqa: E402
from hopper.machine import Part, asked_card, environment  # noqa: E402
from hopper.tables import lines  # noqa: E402

from backends.hopper.measured_results import PARTS, VERSION, MeasuredResults  # noqa: E402

SECONDS = {"numerics": 120.0, "gemm": 60.0, "sites": 160.0, "kernels": 60.0}
QUICK_SHARE = 0.2
GRACE_SECONDS = 20.0
"""What a part may take beyond its time to come to an end; then it is stopped, and what it wrote stays."""


def main() -> None:
    arguments = parse()
    if arguments.write_sites:
        importlib.import_module("hopper.sites").write_sites()
        return
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if arguments.only:
        seconds = SECONDS[arguments.only] * (QUICK_SHARE if arguments.quick else 1.0)
        run_here(arguments.only, Part(device, arguments.quick, seconds, arguments.out))
        return
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: torch finds no CUDA device here; take a machine with one, or --device cpu")
    results = run(arguments.parts, device, arguments.quick)
    for line in lines(results):
        print(line)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(laid_out(results) + "\n", encoding="utf-8")
        held = MeasuredResults.load(arguments.out)
        print(f"\n{arguments.out}: {len(held.gemms)} products, {len(held.kernels)} kernels, {len(held.sums)} models")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON to write; without it tables are printed only")
    parser.add_argument("--quick", action="store_true", help="fewer sizes")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="cuda where there is one, otherwise cpu")
    parser.add_argument("--parts", type=chosen_parts, default=PARTS, metavar="PART,PART", help=f"of {','.join(PARTS)}")
    parser.add_argument("--write-sites", action="store_true", help="write hopper/sites.json from the models, and end")
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen_parts(told: str) -> tuple[str, ...]:
    parts = tuple(told.split(","))
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return parts


def laid_out(told: Any, depth: int = 0) -> str:
    """JSON with a row of a table on each line."""
    inside, end = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(told, dict) and depth < 3 and told:
        held = (f"{json.dumps(name)}: {laid_out(value, depth + 1)}" for name, value in told.items())
        return "{" + inside + ("," + inside).join(held) + end + "}"
    if isinstance(told, list) and told and isinstance(told[0], dict):
        return "[" + inside + ("," + inside).join(map(json.dumps, told)) + end + "]"
    return json.dumps(told)


def run(parts: tuple[str, ...], device: torch.device, quick: bool) -> dict[str, Any]:
    """Run each part in a process of its own, and put together what they wrote."""
    if device.type == "cpu":
        torch.set_num_threads(1)
        print("no CUDA device in use: the CPU computes, which shows that the benchmark runs and nothing of a card")
    told = environment(device)
    print(", ".join(f"{name} {value}" for name, value in told.items()))
    command = f"benchmarks/hopper_gpu.py --device {device.type}" + (" --quick" if quick else "")
    results: dict[str, Any] = {"version": VERSION, "command": command, "environment": told}
    if device.type == "cpu":
        results["fallback"] = "no CUDA device was used: this shows that the benchmark runs, and nothing of a card"
    for part in PARTS:
        print(f"\n{part}", flush=True)
        results[part] = run_apart(part, device, quick) if part in parts else {"not_measured": "not asked for"}
        if device.type == "cuda":
            results[part]["card_after"] = asked_card(device)
    return results


def run_apart(part: str, device: torch.device, quick: bool) -> dict[str, Any]:
    """What a part found; with `failed` beside it where it came to no good end."""
    limit = SECONDS[part] * (QUICK_SHARE if quick else 1.0) + GRACE_SECONDS
    if device.type == "cpu":
        limit *= 2
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "part.json"
        command = [sys.executable, str(Path(__file__)), "--only", part, "--device", device.type, "--out", str(out)]
        try:
            code = subprocess.run(command + ["--quick"] * quick, timeout=limit, check=False, env=os.environ).returncode
            failed = None if code == 0 else f"its process ended with {code}; what it printed says why"
        except subprocess.TimeoutExpired:
            failed = f"it took more than {limit:.0f} s and was stopped"
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    if failed is not None:
        print(f"  {part} failed: {failed}")
        found["failed"] = failed
    elif not found:
        found["failed"] = "it wrote nothing"
    return found | {"seconds": round(time.monotonic() - started, 1)}


def run_here(name: str, part: Part) -> None:
    """Run one part in this process."""
    if not part.on_card:
        torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.inference_mode():
        importlib.import_module(f"hopper.{name}").measure(part)


if __name__ == "__main__":
    main()
