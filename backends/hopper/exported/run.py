#!/usr/bin/env python3
"""Run the model of this folder: on a CPU by ONNX Runtime, or on an NVIDIA card by TensorRT."""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True  # this folder stays as it was exported

import listing  # type: ignore[import-not-found]  # noqa: E402  # the files beside this one, here and in an export
import runtime  # type: ignore[import-not-found]  # noqa: E402
import sessions  # type: ignore[import-not-found]  # noqa: E402

EXAMPLES = """\
examples:
  python run.py --list                                 what each site computes in; nothing is run
  python run.py --check                                the sample on this CPU, held against what is expected of it
  python run.py --runtime tensorrt --check             the same by engine.plan, which build.py makes on the card
  python run.py --runtime ort-tensorrt --check         the same by ONNX Runtime's TensorRT provider
  python run.py --runtime tensorrt --input sample/input.npz --output out.wav --repeat 50

An export of a stream takes an utterance of any length and keeps its state from run to run.
exit status: 0 done; 1 a failed check, or a runtime, an engine or a card that is not there; 2 wrong use
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="run sample/input.npz, compare with sample/expected.npz")
    what.add_argument("--list", action="store_true", help="print the sites: formats, and the Q, DQ and casts of each")
    parser.add_argument(
        "--runtime",
        choices=sessions.RUNTIMES,
        default="cpu",
        help="cpu: ONNX Runtime, 16-bit sites in float32 and rounded once (default); tensorrt: an engine of build.py;"
        " ort-tensorrt: ONNX Runtime's TensorRT provider",
    )
    parser.add_argument("--engine", type=Path, metavar="FILE", help="engine of tensorrt (default: engine.plan here)")
    parser.add_argument("--input", type=Path, metavar="FILE", help=".npz by input, or .npy where there is one input")
    parser.add_argument("--output", type=Path, metavar="FILE", help=".npz, or .wav or .npy of the first output")
    parser.add_argument("--seed", type=int, default=0, help="of noise that the model reads and FILE lacks (default 0)")
    parser.add_argument(
        "--repeat", type=_count, metavar="N", help="time N runs more (of a stream chunks), copies to the card included"
    )
    parser.add_argument("--threads", type=_count, metavar="N", help="of a CPU (default: as many as it has cores)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the times there")
    options = parser.parse_args(arguments)
    if not (options.check or options.list or options.input):
        parser.error("nothing to do: give --input, --check or --list")
    if options.check and options.input:
        parser.error("--check runs the sample: leave --input out")
    if options.engine and options.runtime != "tensorrt":
        parser.error("--engine is read by --runtime tensorrt alone")
    if options.json and not options.repeat:
        parser.error("--json writes times: give --repeat, too")
    return options


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"a whole number is asked for, 1 or more; got {text!r}")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; give the exit status."""
    options, folder = parse(arguments), Path(__file__).resolve().parent
    try:
        manifest = runtime.read_manifest(folder)
        if options.list:
            print(listing.table(manifest))
            return 0
        return _run(options, folder, manifest)
    except runtime.UseError as error:
        return _fail(str(error), 2)
    except runtime.RuntimeFailure as error:
        return _fail(str(error))
    except BrokenPipeError:
        sys.stderr.close()  # who read has enough
        return 0
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}", 2)
    except KeyboardInterrupt:
        return _fail("stopped", 130)


def _fail(message: str, status: int = 1) -> int:
    print(f"run.py: {message}", file=sys.stderr)
    return status


def _run(options: argparse.Namespace, folder: Path, manifest: dict[str, Any]) -> int:
    import arrays  # type: ignore[import-not-found]

    rate = manifest.get("sample_rate_hz")
    found = [arrays.sample_fault(folder, manifest)] if options.check else []
    found += [arrays.output_fault(options.output, rate)] if options.output else []
    if wrong := [one for one in found if one]:
        raise runtime.UseError("\n".join(wrong))
    file = folder / "sample" / "input.npz" if options.check else options.input
    inputs = arrays.read_inputs(file, [spec["name"] for spec in manifest["inputs"]])
    if not manifest["streaming"]:
        inputs = runtime.drawn(manifest, inputs, options.seed)
        runtime.checked(manifest, inputs)  # before a runtime is opened, which may take minutes
    run = sessions.opened(options.runtime, folder, manifest, options.engine, options.threads or 0)
    program = runtime.Program(manifest, run)
    outputs = program.utterance(inputs)
    if options.output:
        arrays.write_outputs(options.output, outputs, rate, _late(manifest))
    if options.repeat:
        _tell_times(options, program.times_ms(inputs, options.repeat))
    if not options.check:
        return 0
    compared = arrays.compare(folder, manifest, outputs, "cpu" if options.runtime == "cpu" else "card")
    print(arrays.told(compared))
    return 0 if all(within for within, _ in compared.values()) else 1


def _late(manifest: dict[str, Any]) -> int:
    """Samples of a stream that come of what stands before the utterance; those of chunks are cut as they are joined."""
    stream = manifest.get("stream") or {"inputs": {}, "latency_samples": 0}
    return 0 if stream["inputs"] else int(stream["latency_samples"])


def _tell_times(options: argparse.Namespace, times_ms: list[float]) -> None:
    middle, worst = statistics.median(times_ms), sorted(times_ms)[int(0.95 * (len(times_ms) - 1))]
    print(
        f"{options.runtime}: {len(times_ms)} runs, median {middle:.3f} ms, 95 % below {worst:.3f} ms, copies included"
    )
    if options.json:
        options.json.write_text(json.dumps({"runtime": options.runtime, "times_ms": times_ms}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
