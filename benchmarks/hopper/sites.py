"""Products of whole models at 1 to 64 streams: the sites of the embedded voice, HiFi-GAN V2 and a 7B decoder.

Their shapes stand in sites.json, so that a machine without the rest of this toolkit's requirements can time them;
`python benchmarks/hopper_gpu.py --write-sites` makes the file anew, and a test holds it against the models.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from hopper.machine import Part
from hopper.nvidia import nvidia_us
from hopper.products import Shape, by_way, counted, time_products

FILE = Path(__file__).with_name("sites.json")
STREAMS = (1, 2, 4, 8, 16, 32, 64)
QUICK_STREAMS = (1, 64)
CPU_STREAMS = (1, 8)


def measure(part: Part) -> None:
    """Time every site with weights, and add the models up."""
    models = json.loads(FILE.read_text(encoding="utf-8"))
    streams = CPU_STREAMS if not part.on_card else QUICK_STREAMS if part.quick else STREAMS
    shapes = {
        shape_of(site, model, count): None
        for count in streams
        for model in models.values()
        for site in model["sites"]
        if timeable(site)
    }
    found: dict[str, Any] = {"streams": streams, "rows": [], "left_out": [], "models": {}}
    # The smallest first: what a short time leaves out is the largest.
    ordered = sorted(shapes, key=lambda shape: shape.macs)
    missing: list[dict[str, Any]] = []
    for done, (rows, left_out) in enumerate(time_products(ordered, part), 1):
        found["rows"] += rows
        missing += left_out
        found["left_out"] = counted(missing)
        if done % 25 == 0 or done == len(ordered):
            part.say(f"{done} of {len(ordered)} shapes of sites")
            part.write(found)
    times = by_way(found["rows"])
    device = torch.cuda.get_device_name(part.device) if part.on_card else "cpu"
    found["models"] = {
        name: [added_up(model, count, times, device) for count in streams] for name, model in models.items()
    }
    found["note"] = "a convolution is timed as its product alone: gathering its rows costs more, and is not in here"
    part.write(found)


def timeable(site: Mapping[str, Any]) -> bool:
    """Whether a site is one product with weights: products of activations, and groups, are not timed."""
    return bool(site["op"] != "matmul" and site["groups"] == 1)


def shape_of(site: Mapping[str, Any], model: Mapping[str, Any], streams: int) -> Shape:
    """The product of one chunk of all streams, as the cost model counts it."""
    rows = math.ceil(site["rows_per_second"] * model["chunk_seconds"] * streams - 1e-9)
    return Shape(max(rows, 1), site["n"], site["k"], model["cache"])


def products_of(name: str, streams: int) -> list[tuple[int, int, int, str]]:
    """Keys of `by_way` of a model's products, the sites with weights in order."""
    model = json.loads(FILE.read_text(encoding="utf-8"))[name]
    shapes = [shape_of(site, model, streams) for site in model["sites"] if timeable(site)]
    return [(shape.m, shape.n, shape.k, shape.cache) for shape in dict.fromkeys(shapes)]


def added_up(
    model: Mapping[str, Any],
    streams: int,
    times: Mapping[tuple[int, int, int, str], Mapping[str, float]],
    device: str,
) -> dict[str, Any]:
    """Microseconds a chunk of a model's sites, of those that were timed in bf16 and in FP8; and NVIDIA's for them."""
    total = dict.fromkeys(("bf16", "fp8", "fp8 static", "fp8 dynamic", "best"), 0.0)
    nvidia: dict[str, float] | None = {"bf16": 0.0, "fp8": 0.0}
    both = faster = sites = 0
    only_bf16 = 0.0
    for site in filter(timeable, model["sites"]):
        shape = shape_of(site, model, streams)
        ways = times.get((shape.m, shape.n, shape.k, shape.cache), {})
        count = site["count"]
        sites += count
        if "bf16" in ways and len(ways) < len(total) - 1:
            only_bf16 += count * ways["bf16"]
        if len(ways) == len(total) - 1:
            both += count
            faster += count * (ways["fp8 static"] < ways["bf16"])
            for way, us in ways.items():
                total[way] += count * us
            bf16, fp8 = nvidia_us(device, shape.m, shape.n, shape.k)
            if nvidia is None or bf16 is None or fp8 is None:
                nvidia = None
            else:
                nvidia = {"bf16": nvidia["bf16"] + count * bf16, "fp8": nvidia["fp8"] + count * fp8}
            total["best"] += count * min(ways["bf16"], ways["fp8 static"])
    return {
        "streams": streams,
        "sites": sites,
        "timed_in_both": both,
        "faster_in_fp8_static": faster,
        "us": total,
        "nvidia_us": nvidia,
        "us_of_sites_without_fp8": only_bf16,
    }


def write_sites() -> None:
    """Write sites.json from the models themselves."""
    models = discovered()
    FILE.write_text(json.dumps(models, indent=1) + "\n", encoding="utf-8")
    print(f"{FILE.name}: " + ", ".join(f"{len(model['sites'])} shapes of {name}" for name, model in models.items()))


def discovered() -> dict[str, Any]:
    """What sites.json holds: each model's shapes, with the name of the first site that has them and how many do."""
    from voice.decoder import SpeechDecoder
    from voice.decoder_config import FRAMES_A_SECOND, SEVEN_B
    from voice.decoder_step import Step
    from voice.embedded import EmbeddedVoice, bundled_clips
    from voice.hifigan import V2, Generator

    voice, clip = EmbeddedVoice.load(), bundled_clips()[0]
    seconds = len(voice.render(clip).sound) / voice.sample_rate_hz
    models = {"embedded": _model(voice.module, lambda: voice.render(clip), seconds, 0.5, "warm")}
    frames, mel, row_seconds = 86, V2.mel, 1 / FRAMES_A_SECOND
    with torch.device("meta"):
        generator, step = Generator(V2), Step(SpeechDecoder(SEVEN_B))

        def one_row() -> None:
            step(*(torch.zeros(n, dtype=torch.long) for n in (1, SEVEN_B.codec.codebooks, 1)), *step.states().values())

        seconds = frames * mel.hop / mel.sample_rate_hz
        models["hifigan_v2"] = _model(
            generator, lambda: generator(torch.zeros(1, mel.mels, frames)), seconds, 0.5, "warm"
        )
        models["decoder_7b"] = _model(step, one_row, row_seconds, row_seconds, "cold")
    return models


def _model(module: Any, run: Callable[[], object], seconds: float, chunk_seconds: float, cache: str) -> dict[str, Any]:
    from voice.sites import discover

    shapes: dict[tuple[Any, ...], dict[str, Any]] = {}
    for site in discover(module, run, seconds).sites:
        told: dict[str, Any] = {"op": site.op, "k": site.k, "n": site.n, "groups": site.groups}
        told["rows_per_second"] = round(site.rows_per_second, 6)
        held = shapes.setdefault(tuple(told.values()), {"name": site.name, **told, "count": 0})
        held["count"] += 1
    return {"chunk_seconds": chunk_seconds, "cache": cache, "sites": list(shapes.values())}
