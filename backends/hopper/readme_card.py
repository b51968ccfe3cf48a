"""What an exported folder says of cards: an engine by build.py, by trtexec and by ONNX Runtime, and other scales."""

from collections.abc import Mapping
from typing import Any

from backends.hopper.exported.builder import Settings, trtexec
from backends.hopper.exported.facts import Profile, profile

ONNXRUNTIME, ONNX, TENSORRT = "1.31.1", "1.23.2", "11.4"
"""What the folder's files were written and, but for TensorRT, run against."""


def card_sections(manifest: Mapping[str, Any]) -> list[list[str]]:
    """Lines of each section, of a program.json."""
    if manifest["route"] != "tensorrt":
        return [_gemm(manifest)]
    return [_engine(manifest), _trtexec(manifest), _provider(), _refit()]


def profiles_of(manifest: Mapping[str, Any]) -> dict[str, Profile]:
    """Smallest, usual and largest shape of each input of what an engine is built of, where an axis varies."""
    host = manifest["host"] or {"alone": [], "gives": []}
    held = [spec for spec in manifest["inputs"] if spec["name"] not in host["alone"]] + host["gives"]
    return profile({spec["name"]: spec["shape"] for spec in held}, manifest["axes"])


def _usual(manifest: Mapping[str, Any]) -> list[str]:
    """Trtexec's flag for the shapes that an engine is run with; none where all are fixed."""
    shapes = (f"{name}:{'x'.join(map(str, usual))}" for name, (_, usual, _) in profiles_of(manifest).items())
    text = ",".join(shapes)
    return [f"--shapes={text}"] if text else []


def _engine(manifest: Mapping[str, Any]) -> list[str]:
    host = manifest["host"]
    parted = (
        []
        if host is None
        else [
            "",
            f"TensorRT has no float64, in which the model adds up phases. So {host['nodes']} nodes that need"
            f" {', '.join(host['takes'])} alone are in `host.onnx`, and the rest in `device.onnx`, of which the engine"
            " is built; `run.py` runs the one on the CPU before the other, every time.",
        ]
    )
    return [
        "## Building and running an engine",
        "",
        f"On the card: an NVIDIA GPU with FP8 (Hopper, Ada or later), its driver, and TensorRT {TENSORRT}.",
        "",
        "```sh",
        "pip install -r requirements-tensorrt.txt",
        "python build.py --check                           # no card: the model is whole, Q/DQ where they belong",
        "python build.py                                   # engine.plan, for this card and this TensorRT alone",
        "python run.py --runtime tensorrt --check          # the sample, under the card's tolerance",
        "python run.py --runtime tensorrt --input sample/input.npz --output output.npz",
        "python run.py --runtime tensorrt --input sample/input.npz --repeat 100   # times, copies included",
        "```",
        "",
        "A build ends with a row for each site: what the engine runs it in, by the account of TensorRT's own inspector,"
        " what `program.json` wants, and why they differ where they do. `build.py --help` says what else there is.",
        *parted,
    ]


def _trtexec(manifest: Mapping[str, Any]) -> list[str]:
    build = [
        *trtexec(
            "model.onnx" if manifest["host"] is None else "device.onnx",
            "engine.plan",
            Settings(),
            profiles_of(manifest),
        )[1:],
        "--stronglyTyped",
        "--timingCacheFile=timing.cache",
        "--exportLayerInfo=layers.json",
        "--skipInference",
    ]
    usual = _usual(manifest)
    timing = ["--loadEngine=engine.plan", *usual, "--useCudaGraph", "--noDataTransfers", "--useSpinWait"]
    layers = ["--loadEngine=engine.plan", *usual, "--dumpProfile", "--separateProfileRun"]
    what = {
        "--stronglyTyped": "types are the graph's, and TensorRT chooses none. TensorRT 11 always does so and takes the"
        " flag for nothing; TensorRT 10 needs it",
        "--noTF32": "fp32 sites compute in fp32; without it their operands are cut to 10 bits of mantissa",
        "--minShapes, --optShapes, --maxShapes": "between which shapes the engine runs, and for which it is tuned",
        "--builderOptimizationLevel": "how long TensorRT looks for faster kernels, 0 to 5; 3 is its own choice",
        "--timingCacheFile": "measured times of kernels are kept, so that the next build is short and chooses the same",
        "--profilingVerbosity=detailed": "the engine keeps names and types of its layers; without it nobody can tell"
        " what a site runs in",
        "--exportLayerInfo": "these as JSON: in which layer each `site/NAME/ROLE` went, and what it reads and writes",
        "--skipInference": "build alone",
        "--useCudaGraph, --noDataTransfers, --useSpinWait": "times of kernels: no launches, copies or sleep",
        "--dumpProfile --separateProfileRun": "a time for every layer, in a run of its own",
    }
    if not usual:
        del what["--minShapes, --optShapes, --maxShapes"]
    state = (
        " It feeds states with what it feeds inputs, random numbers: its times hold, its outputs mean nothing."
        if manifest["streaming"]
        else ""
    )
    return [
        "## The same by trtexec",
        "",
        "`trtexec` comes with NVIDIA's packages and containers, not with pip. `build.py` needs none of it; the same"
        f" engine by it, timed, and layer by layer:{state}",
        "",
        "```sh",
        _command(build),
        _command(timing),
        _command(layers),
        "python build.py --table layers.json               # what each site got, of an engine that trtexec built",
        "```",
        "",
        "| flag | what for |",
        "|---|---|",
        *(f"| `{flag}` | {why} |" for flag, why in what.items()),
    ]


def _command(flags: list[str]) -> str:
    return " \\\n    ".join(["trtexec", *flags])


def _provider() -> list[str]:
    return [
        "## The same by ONNX Runtime",
        "",
        "```sh",
        "python run.py --runtime ort-tensorrt --check",
        "```",
        "",
        "builds engines by ONNX Runtime's TensorRT provider, in `ort_cache/`. It is given no precision flag, so its"
        " network is strongly typed, too; it has no option for TF32, so `NVIDIA_TF32_OVERRIDE=0` is set. It must find"
        f" the TensorRT that it was built with: the wheel of onnxruntime-gpu {ONNXRUNTIME} is linked to TensorRT 10 and"
        " CUDA 13 (`libnvinfer.so.10`), so that it needs `pip install 'tensorrt-cu13<11'` in an environment of its own."
        " Where the provider is not there, `run.py` says so and does not go on by the CPU.",
    ]


def _refit() -> list[str]:
    return [
        "## Scales, and other ones",
        "",
        "```sh",
        "python build.py --refit                           # an engine whose scales can be changed",
        "python build.py --scales scales.json              # put these into it, without a build",
        "```",
        "",
        "`scales.json` has what was calibrated: of every FP8 activation the largest magnitude, the scale made of it"
        " (that over 448, the largest value of E4M3) and the initializer of `model.onnx` that holds it. Scales are"
        " constants of an engine, unless it was built to be refitted; then those of another calibration, in a file of"
        " the same form, can be put into it. Which of them TensorRT had folded into a kernel is said. Expected outputs"
        " hold for the scales of this folder alone.",
    ]


def _gemm(manifest: Mapping[str, Any]) -> list[str]:
    why = sorted(
        {
            "E5M2, which TensorRT does not have"
            for held in manifest["sites"].values()
            if "fp8_e5m2" in (held["weight"], held["activation"])
        }
        | {
            "scales that are taken from each tensor as it comes"
            for held in manifest["sites"].values()
            if held["activation_scale"] == "dynamic"
        }
    )
    reason = f" It has {' and '.join(why)}." if why else ""
    return [
        "## On a card",
        "",
        f"This model was lowered for scaled GEMMs, not for TensorRT.{reason} TensorRT makes no engine of it. On a card"
        " `precision-search` runs it by torch's scaled products or by Transformer Engine; this folder is for checking"
        " it on a CPU, and for whoever takes ONNX.",
    ]
