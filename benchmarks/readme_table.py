"""Print the README's table from finished studies: `python benchmarks/readme_table.py studies/*`."""

import json
import sys
from pathlib import Path

import yaml

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
)


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
        print("| " + " | ".join(row(summary, recipe["search"]["minimize"])) + " |")


if __name__ == "__main__":
    main()
