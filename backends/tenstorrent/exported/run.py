#!/usr/bin/env python3
"""Run the program of this folder on a Tenstorrent card, or plan it on a card that is not there."""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True  # this folder stays as it was exported

# The files beside this one, here and in an export.
import arrays  # type: ignore[import-not-found]  # noqa: E402
import checked  # type: ignore[import-not-found]  # noqa: E402
import mock_card  # type: ignore[import-not-found]  # noqa: E402

TRACE_BYTES = 1 << 28
"""Of DRAM, for the commands of a trace."""
EXAMPLES = """\
examples:
  python run.py --plan                                 every operation checked and planned by ttnn; no card needed
  python run.py --check                                the sample, held against what is expected of it
  python run.py --input sample/input.npz --output out.wav
  python run.py --input sample/input.npz --time 20 --trace
  python run.py --stream --input mel.npy --output out.wav    chunks of an utterance of any length, where made for them

exit status: 0 done; 1 refused operations, a failed check, or a device that does not answer; 2 wrong use
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="have ttnn check and plan every operation on a mock card")
    what.add_argument("--check", action="store_true", help="run sample/input.npz, compare with sample/expected.npz")
    what.add_argument("--pack", metavar="NPZ", type=Path, help="write weights/ of the arrays in NPZ, by ttnn's packer")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--device", type=int, default=0, help="number of the card (default 0)")
    where.add_argument("--mesh", type=_mesh, metavar="RxC", help="a mesh of cards, each with all of the program")
    parser.add_argument("--input", type=Path, metavar="FILE", help=".npz by input, or .npy where there is one input")
    parser.add_argument("--output", type=Path, metavar="FILE", help=".npz, or .wav or .npy of the first output")
    parser.add_argument("--stream", action="store_true", help="chunk after chunk of an utterance, keeping state")
    parser.add_argument(
        "--time", type=_count, metavar="N", help="time N runs (of a stream chunks), and every operation of one"
    )
    parser.add_argument("--trace", action="store_true", help="capture the program once and replay it")
    parser.add_argument("--card", choices=mock_card.CARDS, help="mock card (default: that of program.json)")
    parser.add_argument(
        "--on-card", action="store_true", help="plan on the real card, and say what it made of the program"
    )
    parser.add_argument("--even-with-card", action="store_true", help="use a mock card although a real one is present")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plan, or the times, there; - is stdout")
    parser.add_argument("--mock-folder", type=Path, metavar="DIR", help=f"default {mock_card.default_folder()}")
    parser.add_argument("folders", nargs="*", type=Path, help="exports other than the one this file is in")
    options = parser.parse_args(arguments)
    if not (options.plan or options.check or options.pack or options.input):
        parser.error("nothing to do: give --input, --plan or --check")
    if options.trace and not (options.time or options.stream):
        parser.error("--trace is for many runs: give --time or --stream, too")
    return options


def _mesh(text: str) -> tuple[int, int]:
    rows, cross, columns = text.lower().partition("x")
    if not (cross and rows.isdigit() and columns.isdigit()):
        raise argparse.ArgumentTypeError(f"a mesh is ROWSxCOLUMNS, as 1x2; got {text!r}")
    return int(rows), int(columns)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"runs are a whole number, 1 or more; got {text!r}")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; give the exit status."""
    options = parse(arguments)
    folders = options.folders or [Path(__file__).resolve().parent]
    with tempfile.TemporaryDirectory(prefix="ttnn-logs-") as logs:
        os.environ["TT_METAL_LOGS_PATH"] = logs  # or ttnn leaves a folder `generated` wherever it is started
        try:
            for folder in folders:
                checked.check_library(checked.read_manifest(folder))
            # ttnn wants a card to pack tensors for, too; the real one will do.
            if (options.plan and not options.on_card) or (options.pack and not mock_card.REAL_CARDS.exists()):
                os.environ.update(_mock(options, folders[0]))
            import runtime  # type: ignore[import-not-found]  # only now: ttnn reads the environment as it is imported
        except arrays.UseError as error:
            return _fail(str(error), 2)
        except mock_card.MockCardError as error:
            return _fail(str(error))
        except (ImportError, AttributeError) as error:  # the latter where a ttnn lacks what is asked of it
            return _fail(f"{error}; pip install -r requirements.txt (ttnn has wheels for CPython 3.10 and 3.12)")
        try:
            return _do(options, folders)
        except arrays.UseError as error:
            return _fail(str(error), 2)
        except runtime.RuntimeFailure as error:
            return _fail(str(error))
        except OSError as error:
            return _fail(f"{error.filename}: {error.strerror}", 2)


def _fail(message: str, status: int = 1) -> int:
    print(f"run.py: {message}", file=sys.stderr)
    return status


def _mock(options: argparse.Namespace, folder: Path) -> dict[str, str]:
    card = options.card or checked.read_manifest(folder)["card"]
    environment: dict[str, str] = mock_card.prepare(card, options.mock_folder, even_with_card=options.even_with_card)
    return environment


def _do(options: argparse.Namespace, folders: list[Path]) -> int:
    import runtime

    if options.pack:
        import packing  # type: ignore[import-not-found]

        for folder in folders:
            packing.pack(options.pack, folder)
        return 0
    if options.plan:
        with runtime.opened(options.device, options.mesh) as device:
            return _plan(options, folders, device)
    return max(_run(options, folder) for folder in folders)


def _late(manifest: dict[str, Any]) -> int:
    """Samples of a stream that come of what stands before the utterance; those of chunks are cut as they are joined."""
    stream = manifest.get("stream") or {"inputs": {}, "latency_samples": 0}
    return 0 if stream["inputs"] else int(stream["latency_samples"])


def _plan(options: argparse.Namespace, folders: list[Path], device: Any) -> int:
    import listing  # type: ignore[import-not-found]
    import planner  # type: ignore[import-not-found]

    for folder in folders:
        if other := checked.misfit(checked.read_manifest(folder), device):
            print(f"run.py: {folder.name}: {other}: refusals may come of that", file=sys.stderr, flush=True)
    plans = [planner.plan(folder, device, options.card) for folder in folders]
    if options.json:
        text = json.dumps(plans if options.folders else plans[0], indent=1)
        print(text) if str(options.json) == "-" else options.json.write_text(text)
    if str(options.json) != "-":
        for plan in plans:
            print(listing.table(plan))
    return 1 if any(step["refused"] for plan in plans for step in plan["steps"]) else 0


def _check(options: argparse.Namespace, export: Any, inputs: dict[str, Any], stream: bool) -> None:
    """Tell all that is wrong with inputs, and with where results go, before a card is opened."""
    import chunks  # type: ignore[import-not-found]
    import runtime

    found = [arrays.sample_fault(export.folder, export.manifest)] if options.check else []
    found += [arrays.output_fault(options.output, export.manifest.get("sample_rate_hz"))] if options.output else []
    found += [arrays.folder_fault(options.json)] if options.json else []
    try:
        chunks.cut(export.manifest, inputs) if stream else export.check_inputs(inputs)
    except runtime.RuntimeFailure as error:
        found.append(str(error))
    found += checked.faults(export.manifest, inputs)
    if wrong := [one for one in found if one]:
        raise arrays.UseError("\n".join(wrong))


def _run(options: argparse.Namespace, folder: Path) -> int:
    import replay  # type: ignore[import-not-found]
    import runtime

    export = runtime.Export(folder)
    made = export.manifest.get("stream", {}).get("masks", {})  # by chunks.py, of the utterance's length
    names = [spec["name"] for spec in export.manifest["inputs"] if spec["name"] not in made]
    inputs = arrays.read_inputs(folder / "sample" / "input.npz" if options.check else options.input, names)
    stream = options.stream or export.manifest.get("streaming", False)
    _check(options, export, inputs, stream)
    if options.trace and runtime.on_mock():
        raise arrays.UseError("--trace needs a real card: a mock card has no queue of commands to record")
    with runtime.opened(options.device, options.mesh, TRACE_BYTES if options.trace else 0) as device:
        checked.check_card(export.manifest, device)
        session = (replay.Traced if options.trace else replay.Session)(export, device)
        outputs = session.stream(inputs) if stream else session.run(inputs)
        timing = session.time(inputs, options.time) if options.time else None
    if timing:
        print(replay.report(timing))
        if options.json:
            options.json.write_text(json.dumps(timing, indent=1))
    if options.output:
        arrays.write_outputs(options.output, outputs, export.manifest.get("sample_rate_hz"), _late(export.manifest))
    if not options.check:
        return 0
    compared = arrays.compare(folder, export.manifest, outputs)
    print(arrays.told(compared))
    return 0 if all(within for within, _ in compared.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
