"""Our search against what people use: the optimum it misses, the evaluations and the seconds it takes.

`python benchmarks/search.py --cache DIR` enumerates two spaces in full, every policy rendered and scored (about 15
minutes of one core each; the tables are kept in DIR): the embedded voice's vocoder in 11 units and its transformer in
10, three schemes of a Blackhole card each. There the true optimum is known at each of 7 budgets, and every method's
evaluation is looked up. With `--checkpoint` and `--audio` it goes on to HiFi-GAN V2, 78 sites on recordings, with real
evaluations, all methods given as many as ours used.

Ours is the search of a recipe. The others: steepest and one-pass greedy lowering, a threshold on the damage of single
sites, random draws, TPE and NSGA-II of Optuna from nothing, and ModelOpt's auto_quantize.
"""

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from searching.enumerated import compete, modelopt_on, report, rows, save
from searching.enumeration import enumerate_space
from searching.hifigan import PEERS, race

SPACES = ("vocoder", "transformer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("search_tables"), metavar="DIR", help="of the tables")
    parser.add_argument("--spaces", nargs="*", choices=SPACES, default=SPACES, help="that are enumerated")
    parser.add_argument("--evaluations", type=int, default=60, help="of each method, measurements of damage included")
    parser.add_argument("--seeds", type=int, default=5, help="of each method that draws")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--checkpoint", type=Path, help="a HiFi-GAN generator, its config.json beside it")
    parser.add_argument("--audio", type=Path, metavar="DIR", help="recordings for it")
    parser.add_argument("--clips", type=int, default=8, help="recordings that are searched on")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each recording")
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=PEERS, help="of HiFi-GAN, beside ours and steepest"
    )
    parser.add_argument("--greedy-factor", type=float, default=1.0, help="steepest greedy's seconds there, in ours")
    parser.add_argument("--json", type=Path, metavar="FILE", help="for every figure")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = ("torch", "numpy", "scipy", "optuna", "nvidia-modelopt")
    print(f"{platform.machine()}, {os.cpu_count()} cores; {', '.join(f'{name} {_version(name)}' for name in names)}")
    data: dict[str, object] = {}
    for name in arguments.spaces:
        table = enumerate_space(name, arguments.cache, arguments.workers)
        offered, seconds = modelopt_on(name, arguments.cache)
        results = compete(table, arguments.evaluations, arguments.seeds, offered)
        print(
            f"\n=== {name}: {len(table.units)} units, {table.scores[..., 0].size} policies enumerated in"
            f" {table.cpu_seconds / 60:.0f} minutes of one core; one policy takes {table.policy_seconds:.3f} s;"
            f" {arguments.evaluations} evaluations each, {arguments.seeds} seeds"
        )
        print("\n".join(report(table, results, seconds, arguments.evaluations)), flush=True)
        data[name] = rows(results)
    if arguments.checkpoint is None or arguments.audio is None:
        print("\nHiFi-GAN V2 is left out: it needs --checkpoint and --audio")
    else:
        finishes = race(
            arguments.checkpoint,
            arguments.audio,
            arguments.clips,
            arguments.seconds,
            arguments.workers,
            peers=arguments.peers,
            factor=arguments.greedy_factor,
        )
        data["hifigan"] = [{k: v for k, v in vars(finish).items() if k != "course"} for finish in finishes]
    if arguments.json is not None:
        save(arguments.json, data)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
