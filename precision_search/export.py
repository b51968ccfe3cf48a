"""`precision-search export STUDY`: a policy as a folder that the target's own software runs, without this toolkit."""

import argparse
from pathlib import Path
from typing import get_args

from backends.hopper.support import Route
from precision_search.commands import Answer, CommandError
from precision_search.lowering import backend_of_study
from precision_search.progress import Progress
from precision_search.selection import add_selection, asked_of, require

_EPILOG = """examples:
  precision-search export studies/tts_blackhole --out voice_p150/         the study's policy, for its own card
  precision-search export studies/tts_blackhole --card wormhole_n150 --policy mine.yaml --out voice_n150/
  precision-search export tts_blackhole --seconds 1 --out baseline/       a recipe's baseline, no search needed
  precision-search export studies/a --stream --chunk-ms 80 --out live/    a program that runs chunk by chunk
  precision-search export studies/tts_hopper --out voice_h100/            ONNX with Q/DQ, and what builds an engine
  precision-search export studies/tts_hopper --to modelopt --out cfg/     quant_cfg.json for NVIDIA's ModelOpt

the folder for a Tenstorrent card: model.py (plain calls of ttnn), weights/ by ttnn's own packer, policy.yaml, run.py, a
sample with the output to be expected and its tolerance, README.md. It needs ttnn and nothing else of this toolkit:
  python run.py --plan                                                    no card: the library checks every operation
  python run.py --device 0 --input sample/input.npz --output out.npz
shapes are those of the clip: a program is for inputs of one length.

the folder for a Hopper GPU: model.onnx (strongly typed, Q/DQ where the policy has FP8), scales.json, policy.yaml,
build.py, run.py, a sample with tolerances, README.md. It needs onnxruntime or TensorRT:
  python run.py --check                                                   no GPU: the sample, by ONNX Runtime's CPU
  python build.py && python run.py --runtime tensorrt --check             on the GPU
lengths stay open as far as the model lets them. Neither card is needed to export.
exit codes: 0 written, 2 bad input, 130 stopped (nothing is left behind)"""

_ONLY = {
    "tenstorrent": {"card": None, "no_host": False, "between": "fp32"},
    "hopper": {"route": None, "to": "onnx", "fixed": False, "ranges": None},
}
"""Backend -> options that it alone has, and what they are where they are not given."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `export`."""
    text = "Write a study's policy as a folder that runs on its card without this toolkit."
    sub = subparsers.add_parser(
        "export", help=text, description=text, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_selection(sub)
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; must be new or empty")
    sub.add_argument("--backend", choices=tuple(_ONLY), help="what it is to run on (default: what the study is for)")
    hopper = sub.add_argument_group("of a Hopper GPU")
    hopper.add_argument(
        "--route",
        choices=get_args(Route),
        help="tensorrt: one engine, FP8 E4M3 by static scales (default); gemm: E5M2 and dynamic scales too, for scaled"
        " GEMMs and ONNX Runtime",
    )
    hopper.add_argument(
        "--to", choices=("onnx", "modelopt"), default="onnx", help="onnx: the folder; modelopt: quant_cfg.json alone"
    )
    hopper.add_argument("--fixed", action="store_true", help="shapes of the clip alone; quicker, of one length")
    hopper.add_argument(
        "--ranges",
        type=Path,
        metavar="FILE",
        help="of activations, from a model that ModelOpt calibrated (torch.save of its state_dict, mto.save or"
        " safetensors), in place of those that are measured here",
    )
    sub.add_argument("--quiet", action="store_true", help="no progress")
    sub.set_defaults(answer=answer)


def answer(parsed: argparse.Namespace) -> Answer:
    """Write the folder.

    Raises:
        CommandError, and what `choose` raises: nothing is written.
    """
    # Late: ONNX, and the compiled kernels of the exact arithmetic, take seconds to import.
    backend = parsed.backend or backend_of_study(asked_of(parsed)) or "tenstorrent"
    foreign = [
        f"--{name.replace('_', '-')}: is for {other}, and the export is for {backend}; leave it out"
        for other, options in _ONLY.items()
        if other != backend
        for name, default in options.items()
        if getattr(parsed, name) != default
    ]
    if foreign:
        raise CommandError("\n".join(foreign))
    progress = Progress(quiet=parsed.quiet or parsed.json)
    try:
        if backend == "hopper":
            require("onnx", "onnxscript", extra="hopper")  # what is imported next begins with it
            from precision_search.written_onnx import export_onnx

            return export_onnx(parsed, progress)
        from precision_search.written import export_study

        return export_study(parsed, progress)
    finally:
        progress.end()
