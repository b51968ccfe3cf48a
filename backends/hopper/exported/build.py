#!/usr/bin/env python3
"""Build a TensorRT engine of the model in this folder, and say what each of its sites got.

Every type is the one in model.onnx (strong typing) and TF32 is off, so that what was heard is what runs. An engine is
for the kind of card and the TensorRT that built it.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True  # this folder stays as it was exported

try:
    # The files beside this one, here and in an export.
    import builder  # type: ignore[import-not-found]
    import checking  # type: ignore[import-not-found]
    import departures  # type: ignore[import-not-found]
    import engine  # type: ignore[import-not-found]
    import facts  # type: ignore[import-not-found]
    import gpu  # type: ignore[import-not-found]
    import inspected  # type: ignore[import-not-found]
    import refitting  # type: ignore[import-not-found]
    import runtime  # type: ignore[import-not-found]
except ImportError as error:
    sys.exit(f"build.py: {error}; pip install -r requirements.txt")

EXAMPLES = """\
examples:
  python build.py --check                          no card: the model is valid, and has Q/DQ where program.json says
  python build.py                                  engine.plan for the card here, and a row for each site
  python build.py --size frames=16:512:4096        other limits of an axis than those of program.json
  python build.py --layers layers.json             keep TensorRT's account of its layers
  python build.py --table layers.json              no card: read such an account (trtexec --exportLayerInfo writes one)
  python build.py --refit                          an engine whose scales can be changed
  python build.py --scales new/scales.json         change them in engine.plan, without a build
  python build.py --trtexec                        print the command that builds the same by TensorRT's own tool

exit status: 0 done; 1 a failed check or build, no TensorRT or no card, with --strict also a site that departs from the
policy; 2 wrong use; 130 stopped by Ctrl-C, with nothing written
"""
FAILURES = (
    builder.BuildFailedError,
    checking.CheckFailedError,
    engine.EngineError,
    gpu.NoGpuError,
    inspected.UninspectableError,
    refitting.RefitError,
)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="check the model only; needs onnx and no card")
    what.add_argument("--table", type=Path, metavar="JSON", help="print the sites of such an account; no card")
    what.add_argument("--scales", type=Path, metavar="JSON", help="put these scales into the engine that is there")
    what.add_argument("--trtexec", action="store_true", help="print the command that does the same")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the engine (default: engine.plan in this folder)")
    parser.add_argument("--device", type=int, default=0, help="number of the card (default 0)")
    parser.add_argument("--size", type=_size, action="append", default=[], metavar="AXIS=MIN:OPT:MAX")
    parser.add_argument("--level", type=int, choices=range(6), default=3, help="TensorRT's optimization level")
    parser.add_argument("--refit", action="store_true", help="keep scales changeable; TensorRT may fuse less")
    parser.add_argument("--timings", type=Path, metavar="FILE", help="TensorRT's timing cache, read and written")
    parser.add_argument("--layers", type=Path, metavar="FILE", help="write TensorRT's account of its layers there")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a site departs from the policy")
    return parser.parse_args(arguments)


def _size(text: str) -> tuple[str, dict[str, int]]:
    axis, _, limits = text.partition("=")
    sizes = limits.split(":")
    if not (axis and len(sizes) == 3 and all(size.isdecimal() for size in sizes)):
        raise argparse.ArgumentTypeError(f"limits of an axis are AXIS=MIN:OPT:MAX, as frames=16:512:4096; got {text!r}")
    return axis, dict(zip(facts.SIZES, map(int, sizes), strict=True))


def main(arguments: list[str] | None = None, folder: Path | None = None) -> int:
    """Do what the command line says, of the export in a folder (that of this file); give the exit status."""
    options, folder = parse(arguments), folder or Path(__file__).resolve().parent
    try:
        return _do(options, folder)
    except FAILURES as error:
        return _fail(str(error))
    except (facts.FactError, runtime.UseError) as error:
        return _fail(str(error), 2)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}", 2)
    except KeyboardInterrupt:
        return _fail("stopped; nothing was written", 130)


def _fail(message: str, status: int = 1) -> int:
    print(f"build.py: {message}", file=sys.stderr)
    return status


def _do(options: argparse.Namespace, folder: Path) -> int:
    manifest, path = runtime.read_manifest(folder), facts.engine_model(folder)
    plan = options.out or folder / "engine.plan"
    if options.table:
        return _table(manifest, checking.read_json(options.table), path, options.strict)
    if manifest["route"] != "tensorrt":
        raise checking.CheckFailedError(
            f"this export is of route {manifest['route']!r}: plain products by torch or Transformer Engine, which have"
            " what TensorRT lacks (E5M2); there is no engine of it. Export with --route tensorrt for one"
        )
    shapes = facts.inputs(facts.read(path))
    known = sorted(facts.axes_of(shapes) | manifest["axes"].keys())
    if unknown := sorted({axis for axis, _ in options.size} - set(known)):
        raise facts.FactError(f"--size: no axis that varies is called {', '.join(unknown)}; there are {known}")
    profile = facts.profile(shapes, {**manifest["axes"], **dict(options.size)})
    settings = builder.Settings(refit=options.refit, level=options.level)
    if options.check:
        print("\n".join(checking.check(path, manifest, profile)))
        if manifest["host"] is not None:
            print(checking.host(folder / "host.onnx", manifest))
        return 0
    if options.trtexec:
        print(" ".join(builder.trtexec(path.name, plan.name, settings, profile)))
        return 0
    trt, card = engine.library(), gpu.gpu(options.device)
    gpu.use(options.device)
    if options.scales:
        return _rescale(options.scales, plan, path)
    if checking.has_fp8(manifest):
        card.check_fp8()
    print(f"{card.name}, TensorRT {trt.__version__}, digest {facts.digest(path)[:16]}", flush=True)
    for line in checking.narrowed(facts.read(path)):
        print(f"build.py: {line}", file=sys.stderr)
    marked = checking.scales(checking.read_json(folder / "scales.json")) if options.refit else {}
    data = builder.build(
        trt,
        engine.journal(),
        path,
        profile,
        settings,
        timings=options.timings or folder / f"timings-{trt.__version__}-{card.slug}.cache",
        marked=tuple(marked),
        progress=_progress if sys.stderr.isatty() else None,
    )
    builder.write_whole(plan, data)
    print(f"{plan}: {len(data) / 1e6:.1f} MB")
    account = engine.Loaded(data).account()
    if options.layers:
        builder.write_whole(options.layers, json.dumps(account, indent=1).encode())
    return _table(manifest, account, path, options.strict)


def _table(manifest: dict[str, Any], account: Any, path: Path, strict: bool) -> int:
    sites, calls = manifest["sites"], inspected.calls_of(node.name for node in facts.read(path).graph.node)
    got = inspected.found(account, [call for call in calls if departures.site_of(call, sites) in sites])
    print(departures.report(got, sites))
    return 1 if strict and departures.mismatches(got, sites) else 0


def _rescale(file: Path, plan: Path, path: Path) -> int:
    loaded = engine.Loaded(plan)
    changed = checking.scales(checking.read_json(file))
    refused = refitting.refit(loaded, engine.journal(), changed, lambda name: checking.constant(path, name))
    builder.write_whole(plan, bytes(loaded.handle.serialize()))
    print(f"{len(changed) - len(refused)} of {len(changed)} scales changed in {plan}")
    for name, why in refused.items():
        print(f"  {name}: {why}")
    return 1 if refused else 0


def _progress(phase: str, step: int, steps: int) -> None:
    print(f"\r\033[K{phase}: {step} of {steps}", end="" if step < steps else "\r\033[K", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
