"""Every family of speech model: its sites found, a recipe written by `init`, searched a little, judged; one table.

    python benchmarks/voices.py                      every twin of voice.hf.twins, and the voices of the package
    python benchmarks/voices.py mimi decoder         these
    python benchmarks/voices.py --hifigan generator_v2.pt --hifigan-audio wavs/     and a real HiFi-GAN

Twins are built from tiny configurations with seeded random weights, in a temporary folder: what they say is noise, so
the table is about the way through the toolkit, not about precision. A metric that has no score of such noise, not even
of fp32 against itself, is left out of the gates, and named with its reason below the table. A row that fails says
what happened, and makes the exit code 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from precision.gates import Gate

MARK = "ROW "
NATIVE = ("embedded", "decoder", "blvoice", "blvoice_codec", "nsf", "vocos")
SHORT = ("data.search=1", "data.held_back=2", "search.evaluations=4", "search.candidates=2")
SECONDS = "data.seconds=1.5"
"""Of each recording; models that speak take their own sentences."""
LIMIT_SECONDS = 180.0


def schemes_of(device: str) -> list[str]:
    """Two schemes, the baseline and one of 8 bits: the proof at a search's end tries each cheaper one of each site."""
    from precision_search.wire import devices

    card = devices()[device]
    if card.is_tensix:
        passes = "hifi4" if card.architecture == "blackhole" else "hifi3"
        low = "{weight: bfp8_b, activation: bf16, fidelity: lofi, levers: [fidelity_rounding]}"
        return [f"schemes.bf16={{weight: bf16, activation: bf16, fidelity: {passes}}}", f"schemes.lofi={low}"]
    return ["schemes.bf16={weight: bf16, activation: bf16}", "schemes.fp8={weight: fp8_e4m3, activation: fp8_e4m3}"]


@dataclass(frozen=True)
class Row:
    """What was found of a model."""

    name: str
    family: str = ""
    sites: int = 0
    mmacs: float = 0.0
    covered: float = 0.0
    judged: int = 0
    kept: int = 0
    lofi: float = 0.0
    fp8: float = 0.0
    seconds: float = 0.0
    unscorable: dict[str, str] | None = None
    """Metric -> why it has no score."""
    failed: str | None = None


def main() -> None:
    """Print the table."""
    from voice.hf.twins import TWINS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join((*NATIVE, 'hifigan', *TWINS))}")
    parser.add_argument("--device", default="p150a", help="default: p150a")
    parser.add_argument("--hifigan", metavar="CHECKPOINT", help="of a real HiFi-GAN, its config.json beside it")
    parser.add_argument("--hifigan-audio", metavar="FOLDER", help="recordings for it")
    parser.add_argument("--limit", type=float, default=LIMIT_SECONDS, metavar="S", help="seconds of a row, at most")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="rows at a time; a core each")
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    names = parsed.names or [*NATIVE, *(["hifigan"] if parsed.hifigan else []), *TWINS]
    unknown = [name for name in names if name not in (*NATIVE, "hifigan", *TWINS)]
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}")
    if parsed.row:
        print(MARK + json.dumps(asdict(examined(names[0], parsed))))
        return
    rows = []
    print(f"on {parsed.device}; {', '.join((*SHORT, SECONDS, *schemes_of(parsed.device)))}")
    print(HEAD, flush=True)
    with ThreadPoolExecutor(parsed.jobs) as pool:
        for row in pool.map(lambda name: apart(name, parsed), names):
            rows.append(row)
            print(line(row), flush=True)
    print("\n".join(footnotes(rows)))
    sys.exit(1 if any(row.failed for row in rows) else 0)


def apart(name: str, parsed: argparse.Namespace) -> Row:
    """A row, in a process of its own: it may crash, or take too long."""
    options = [f"--device={parsed.device}"]
    options += [f"--hifigan={parsed.hifigan}"] if parsed.hifigan else []
    options += [f"--hifigan-audio={parsed.hifigan_audio}"] if parsed.hifigan_audio else []
    command = [sys.executable, __file__, name, "--row", *options]
    begun = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=parsed.limit)
    except subprocess.TimeoutExpired:
        return Row(name, failed=f"took more than {parsed.limit:g} s", seconds=parsed.limit)
    told = [text for text in done.stdout.splitlines() if text.startswith(MARK)]
    if not told:
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        return Row(name, failed=f"exit code {done.returncode}: {last}", seconds=time.monotonic() - begun)
    return replace(Row(**json.loads(told[-1].removeprefix(MARK))), seconds=time.monotonic() - begun)


def examined(name: str, parsed: argparse.Namespace) -> Row:
    """A model from its weights to its verdict, in this process."""
    from precision_search.commands import INPUT_ERRORS, run
    from precision_search.init import init
    from precision_search.progress import Progress
    from precision_search.unscorable import unscorable
    from precision_search.wire import make_setting, read_recipe
    from voice.hf.twins import TWINS, build

    found = Row(name)
    progress = Progress(quiet=True)
    with tempfile.TemporaryDirectory(prefix="voices-") as temporary:
        folder = Path(temporary)
        recipe, changes = folder / "recipe.yaml", [*SHORT, SECONDS, "presets=[]", *schemes_of(parsed.device)]
        if name == "hifigan":
            changes += [f"model.checkpoint={parsed.hifigan}"]
            changes += [f"data.audio={parsed.hifigan_audio}"] if parsed.hifigan_audio else []
        try:
            model = f"hf:{build(name, folder / name)}" if name in TWINS else name
            init(model, parsed.device, changes, recipe, force=True)
            setting = make_setting(read_recipe(str(recipe), ()))
            discovery = setting.discovery
            found = replace(
                found,
                family=setting.voice.family,
                sites=len(setting.sites),
                mmacs=discovery.total_macs_per_second / 1e6,
                covered=discovery.covered_share,
            )
            without = unscorable(setting, progress, 1)
            found = replace(found, unscorable={metric: reasons[0] for metric, reasons in without.items()})
            overrides = [f"gates={json.dumps(list(left(setting, without)))}"] if without else []
            summary = run(
                str(recipe), overrides, folder / "study", resume=False, workers=1, progress=progress, cached=False
            ).data
        except INPUT_ERRORS as error:
            return replace(found, failed=f"{type(error).__name__}: {error}")
        except Exception as error:
            traceback.print_exc()
            where = traceback.extract_tb(error.__traceback__)[-1]
            at = f"{Path(where.filename).name}, line {where.lineno}"
            return replace(found, failed=f"{type(error).__name__}: {error} ({at})")
    gates = [*summary["gates"], *((summary["unforced"] or {}).get("gates", []))]
    more = {gate["metric"]: gate["reason"] for gate in (summary["unforced"] or {}).get("unjudged", [])}
    return replace(
        found,
        judged=len(gates),
        kept=sum(gate["kept"] for gate in gates),
        lofi=summary["lofi_mac_share"],
        fp8=summary["fp8_mac_share"],
        unscorable={**(found.unscorable or {}), **more},
    )


def left(setting, without) -> Iterator[dict[str, object]]:
    """The gates of a recipe on what such a model makes, less those on some metrics, as a recipe has them."""
    from audio_eval.suite import METRICS
    from voice.family import COMPARISONS

    material = setting.material("held_back")
    for gate in setting.recipe.gates:
        metric = METRICS[gate.metric]
        fits = metric.misfit(replace(material, free=metric.free)) is None
        if fits and (COMPARISONS[setting.voice.family].free or not metric.free) and gate.metric not in without:
            yield entry(gate)


def entry(gate: Gate) -> dict[str, object]:
    """A gate as a recipe has it."""
    side = {"min": gate.min} if gate.min is not None else {"max": gate.max}
    return {"metric": gate.metric, "over": gate.over, **side}


HEAD = (
    f"{'model':22} {'family':18} {'sites':>5} {'MMAC/s':>10} {'covered':>8} {'judged':>6} {'kept':>5}"
    f" {'unscorable':>10} {'LoFi':>7} {'FP8':>7} {'seconds':>8}"
)


def line(row: Row) -> str:
    """A row as it is printed."""
    looked = f"{row.name:22} {row.family:18} {row.sites or '-':>5} "
    looked += f"{row.mmacs:10.1f} {row.covered:8.2%}" if row.sites else f"{'-':>10} {'-':>8}"
    if row.failed:
        return f"{looked} FAILED: {row.failed.splitlines()[0]}"
    unscorable = len(row.unscorable or {})
    return f"{looked} {row.judged:6} {row.kept:5} {unscorable:10} {row.lofi:7.1%} {row.fp8:7.1%} {row.seconds:8.1f}"


def footnotes(rows: list[Row]) -> Iterator[str]:
    """What failed in full, and the reasons of what has no score: one line a reason, with the models it holds for."""
    for row in rows:
        if row.failed:
            yield f"\n{row.name} FAILED: {row.failed}"
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for reason in (row.unscorable or {}).values():
            # Without the clip's name, which says nothing here.
            reasons.setdefault(reason.partition(": ")[2] or reason, []).append(row.name)
    if reasons:
        yield "\nno score, of fp32 against itself:"
    for reason, names in reasons.items():
        yield f"  {reason}\n      {', '.join(names)}"


if __name__ == "__main__":
    main()
