"""Print the README's table from finished studies: `python benchmarks/readme_table.py studies/*`."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import yaml

from backends.workload import compared
from precision_search.reading import OpenStudy, open_study

COLUMNS = (
    "recipe",
    "card",
    "gates",
    "LoFi share of MACs",
    "bfp8_b share of weights",
    "FP8 share of MACs",
    "PESQ-WB parity, mean / worst",
    "LSD dB",
    "USD a stream against an L40S in bf16",
    "both by rooflines",
)


def alike(study: OpenStudy) -> str:
    """The ratio with both cards by a roofline."""
    terms = replace(study.terms, measured=False)
    return f"{compared(study.workload, *study.sides, terms, study.accounting).ratio.middle:.2f}"


def row(summary: dict, minimize: str) -> list[str]:
    value = {(gate["metric"], gate["over"]): gate["value"] for gate in summary["gates"]}
    broken = sum(not gate["kept"] for gate in summary["gates"])
    cost = summary["cost"]
    return [
        f"`{summary['recipe']}`"
        + (f", {minimize}" if minimize != "seconds" else "")
        + (", adapted" if summary["adaptation"] else ""),
        summary["device"],
        (f"{len(summary['gates'])} kept" if not broken else f"{broken} of {len(summary['gates'])} broken")
        + (", to the bit" if summary["exact"] else ""),
        f"{summary['lofi_mac_share']:.1%}",
        f"{summary['bfp8_weight_share']:.1%}",
        f"{summary['fp8_mac_share']:.1%}",
        f"{value['pesq_wb', 'mean']:.2f} / {value['pesq_wb', 'worst']:.2f}",
        f"{value['lsd_db', 'mean']:.2f}",
        f"{cost['ratio']:.2f} ({cost['low']:.2f} to {cost['high']:.2f})",
    ]


def main() -> None:
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---" * len(COLUMNS) + "|")
    for folder in sys.argv[1:]:
        summary = json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8"))
        recipe = yaml.safe_load((Path(folder) / "recipe.yaml").read_text(encoding="utf-8"))
        cells = [*row(summary, recipe["search"]["minimize"]), alike(open_study(folder))]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
