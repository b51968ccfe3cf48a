"""What a kill costs a search: a short one, killed by SIGKILL at 30 random moments, and resumed to the same policy.

`python benchmarks/kills.py --kills 30` makes a small random vocoder and a few clips in a temporary folder and searches
them once undisturbed. Then it starts the same search in a new folder, kills its whole process group at a random moment
of its duration, resumes it to the end and compares, 30 times; and at last kills one study 30 times in a row. A moment
is so many CPU seconds of all its processes together, which a busy machine does not shift. They are drawn by a seed, one
from each part of what the undisturbed search took: a sixth of them from the time before its first finding, in which it
loads and calibrates, the others from the time after. A search that ends before its moment is begun again with an
earlier one. Linux only; 15 minutes on one quiet core.

Every measurement is noted as it begins, by the process that makes it: what is noted both before a kill and after it was
repeated. A damage, a policy heard in the fast arithmetic, a clip of a policy in the exact one and a yardstick are one
measurement each. Loading, calibration, the last check and the samples are made again whenever a run is resumed.
"""

import argparse
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NOTES = "KILLS_NOTES"
"""Environment variable of a child: the file in which measurements are noted."""
CHILD = "--child"

CONFIG = {
    "resblock": "2",
    "upsample_rates": [8, 8, 4],
    "upsample_kernel_sizes": [16, 16, 8],
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
    "num_mels": 80,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22050,
    "fmin": 0,
    "fmax": 8000,
}
RECIPE = """
version: 1
name: kills
model: {{name: hifigan, checkpoint: {folder}/small.safetensors}}
target: {{device: p150a}}
data: {{search: 3, held_back: 2, audio: {folder}/clips}}
calibrate: {{method: amax}}
schemes:
  bf16: {{weight: bf16, activation: bf16, fidelity: hifi4}}
  lofi: {{weight: bfp8_b, activation: bf16, fidelity: lofi, levers: [fidelity_rounding]}}
  bold: {{weight: bfp4_b, activation: bfp8_b, fidelity: lofi}}
baseline: bf16
space: [{{match: "*", allow: [bf16, lofi, bold]}}]
gates:
  - {{metric: lsd_db, max: 3.0}}
  - {{metric: group_delay_rad, max: 0.2}}
  - {{metric: finite, over: worst, min: 1.0}}
  - {{metric: length_samples, over: worst, max: 0}}
search: {{minimize: seconds, candidates: 3, evaluations: 12, seed: 0}}
"""
CLIP_SECONDS = 1.0


@dataclass(frozen=True)
class Undisturbed:
    """The search as it goes when nothing kills it; in CPU seconds."""

    seconds: float
    first_seconds: float
    """Until its first damage was in the log."""
    policy: bytes
    found: dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="of as many studies, and of one study in a row")
    parser.add_argument("--workers", type=int, default=1, help="processes of each search")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    from gates import environment  # late: a child needs none of it

    environment(1)
    with TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        make_subject(folder)
        search = functools.partial(Search, folder / "small.yaml", asked.workers)
        alone = undisturbed(search(folder / "undisturbed"))
        print(
            f"\nundisturbed: {alone.seconds:.1f} CPU seconds, {alone.first_seconds:.1f} until the first damage is in"
            f" the log, {len(alone.found)} findings; workers: {asked.workers}",
            flush=True,
        )
        same = each_once(search, folder, alone, asked.kills, asked.seed)
        one = in_a_row(search(folder / "in_a_row"), alone, asked.kills, asked.seed)
    print(f"\n{same} of {asked.kills} identical policies; one study killed {asked.kills} times in a row: {one}")
    sys.exit(0 if same == asked.kills and one == "identical" else 1)


@dataclass(frozen=True)
class Search:
    """One study folder, and the command that fills it."""

    recipe: Path
    workers: int
    out: Path

    def start(self, session: int) -> subprocess.Popen[bytes]:
        """Begin or resume it, in a process group of its own."""
        command = [sys.executable, __file__, CHILD, "run", str(self.recipe), "--out", str(self.out), "--resume"]
        notes = {NOTES: str(self.notes(session)), "OMP_NUM_THREADS": "1"}
        notes["PRECISION_SEARCH_CACHE"] = f"{self.out}.cache"  # of its own: what another study measured would be found
        return subprocess.Popen(
            [*command, "--quiet", "--workers", str(self.workers)],
            stdout=subprocess.DEVNULL,
            env=os.environ | notes,
            start_new_session=True,
        )

    def finish(self, session: int) -> None:
        """Begin or resume it, to its end."""
        self.start(session).wait()
        self.ended()

    def ended(self) -> None:
        """Check that the search came to a policy, kept or not; RuntimeError where it did not."""
        if not (self.out / "policy.yaml").is_file():
            raise RuntimeError(f"{self.out}: the search came to no policy; its message is above")

    def kill_after(self, seconds: float, session: int) -> bool:
        """Begin or resume it and kill all its processes after so many CPU seconds; False where it had ended before."""
        process = self.start(session)
        while process.poll() is None:
            if spent(process.pid) >= seconds:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return True
            time.sleep(0.01)
        return False

    def notes(self, session: int) -> Path:
        """Where the measurements that a session begins are noted."""
        return self.out.with_name(f"{self.out.name}.{session}.notes")

    def lines(self) -> tuple[list[dict[str, Any]], bool]:
        """The whole lines of the log, and whether the last was cut short."""
        log = self.out / "study.jsonl"
        content = log.read_bytes() if log.is_file() else b""
        whole, _, rest = content.rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()], bool(rest)

    def state(self) -> str:
        """How far the log is."""
        lines, cut = self.lines()
        kinds = Counter(line["kind"] for line in lines)
        told = ", ".join(f"{kinds[kind]} {kind}" for kind in kinds if kind not in ("header", "recipe"))
        ended = ", summary written" if (self.out / "summary.json").is_file() else ""
        return (told or ("begun" if lines else "no line")) + (", half a line" if cut else "") + ended

    def found(self) -> dict[str, str]:
        """What is in the log by its key, less what the clock gave; RuntimeError where a key is there twice."""
        found: dict[str, str] = {}
        for line in self.lines()[0]:
            timeless = {name: value for name, value in line.items() if not name.endswith("seconds")}
            content = json.dumps(timeless, sort_keys=True)
            parts = [line[part] for part in ("key", "digest", "split", "arithmetic", "name") if part in line]
            key = " ".join(map(str, [line["kind"], *(parts or [content])]))
            if key in found:
                raise RuntimeError(f"{self.out} holds {key} twice")
            found[key] = content
        return found

    def repeated(self, sessions: int) -> int:
        """Measurements begun in more sessions than one, counted once for each but the first."""
        begun = [
            set(self.notes(session).read_text().splitlines()) for session in range(sessions) if self._noted(session)
        ]
        return sum(count - 1 for count in Counter(key for keys in begun for key in keys).values())

    def _noted(self, session: int) -> bool:
        return self.notes(session).is_file()


def undisturbed(search: Search) -> Undisturbed:
    """Run a search to its end, and time it."""
    first = seconds = 0.0
    process = search.start(0)
    while process.poll() is None:
        seconds = max(seconds, spent(process.pid))
        if not first and any(line["kind"] == "damage" for line in search.lines()[0]):
            first = seconds
        time.sleep(0.01)
    search.ended()
    return Undisturbed(seconds, first, (search.out / "policy.yaml").read_bytes(), search.found())


def each_once(search: Callable[[Path], Search], folder: Path, alone: Undisturbed, kills: int, seed: int) -> int:
    """Kill one study after another, each once; how many came to the same policy."""
    same = 0
    print(
        "\nkill  after CPU s  state at the kill                                          repeated  policy     findings"
    )
    for kill, moment in enumerate(moments(alone, kills, random.Random(seed))):
        killed = search(folder / f"kill{kill}")
        tries = 0
        while not killed.kill_after(moment, 0):
            tries += 1
            moment *= 0.9
            killed = search(folder / f"kill{kill}-{tries}")
        state = killed.state()
        killed.finish(1)
        policy, findings = compared(killed, alone)
        same += policy == "identical"
        print(f"{kill + 1:4} {moment:12.2f}  {state:60} {killed.repeated(2):7}  {policy:9}  {findings}", flush=True)
    return same


def moments(alone: Undisturbed, kills: int, draw: random.Random) -> list[float]:
    """When to kill, in order: CPU seconds, one drawn from each of so many parts of the search."""
    early = max(kills // 6, 1)
    late = kills - early
    rest = alone.seconds - alone.first_seconds
    before = [alone.first_seconds * (part + draw.random()) / early for part in range(early)]
    return before + [alone.first_seconds + rest * (part + draw.random()) / late for part in range(late)]


def in_a_row(search: Search, alone: Undisturbed, kills: int, seed: int) -> str:
    """Kill one study again and again, so that it advances by about a thirtieth between two; how it compares."""
    draw = random.Random(seed + 1)
    start, rest = alone.first_seconds, alone.seconds - alone.first_seconds
    print("\nthe same study killed again and again\nkill  after CPU s  state at the kill")
    session = 0
    for kill in range(kills):
        moment = 0.7 * start + draw.random() * (0.3 * start + 3 * rest / kills)
        while not search.kill_after(moment, session):
            session, moment = session + 1, 0.8 * moment
        session += 1
        print(f"{kill + 1:4} {moment:12.2f}  {search.state()}", flush=True)
    search.finish(session)
    policy, findings = compared(search, alone)
    print(f"repeated {search.repeated(session + 1)} measurements over {kills} kills; findings {findings}")
    return policy


def spent(group: int) -> float:
    """CPU seconds that the living processes of a process group have taken, and those of their children that ended."""
    ticks = 0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[2]) == group:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def compared(search: Search, alone: Undisturbed) -> tuple[str, str]:
    """Policy, byte for byte, and findings, less their times, against the undisturbed search."""
    found = search.found()
    differing = sorted(key for key in {*found, *alone.found} if found.get(key) != alone.found.get(key))
    same = (search.out / "policy.yaml").read_bytes() == alone.policy
    return "identical" if same else "DIFFERS", f"{len(differing)} DIFFER: {differing[0]}" if differing else "the same"


def make_subject(folder: Path) -> None:
    """Write a random HiFi-GAN, chirps in noise, and the recipe that searches them."""
    import numpy as np
    import soundfile
    import torch
    from safetensors.torch import save_file

    from voice.hifigan import Generator, read_config

    (folder / "config.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    generator = Generator(read_config(folder / "config.json"))
    for name, parameter in generator.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    save_file(generator.state_dict(), folder / "small.safetensors")
    (folder / "clips").mkdir()
    draw = np.random.default_rng(0)
    seconds = np.arange(int(CLIP_SECONDS * 22050)) / 22050
    for number in range(5):
        chirp = 0.3 * np.sin(2 * np.pi * (150 + 40 * number + 200 * seconds) * seconds * np.exp(-seconds))
        noise = 0.01 * draw.standard_normal(len(seconds))
        soundfile.write(folder / "clips" / f"clip{number}.wav", chirp + noise, 22050)
    (folder / "small.yaml").write_text(RECIPE.format(folder=folder))


def note_what_begins() -> None:
    """Have every measurement of this process noted in a file before it is made."""
    from precision_search.auditions import Auditions

    def damage(site: str, scheme: Any, *_: object) -> str:
        return f"damage of {site} as {scheme.name}"

    def around(policy: Any, site: str, scheme: Any, *_: object) -> str:
        return f"damage of {site} as {scheme.name} in {policy.digest}"

    def render(split: str, policy: Any, _index: int, metrics: Sequence[str], *_: object) -> str | None:
        return f"policy {policy.digest} on {split}" if metrics else None  # none are asked of the samples

    def exactly(policy: Any, index: int) -> str:
        return f"policy {policy.digest} exactly on clip {index}"

    def yardstick(name: str, *_: object) -> str:
        return f"yardstick {name}"

    keys: dict[str, Callable[..., str | None]] = {
        "damage": damage,
        "damage_around": around,
        "render": render,
        "render_exactly": exactly,
        "yardstick": yardstick,
    }
    for method, key_of in keys.items():
        setattr(Auditions, method, _noted(getattr(Auditions, method), key_of))


def _noted(method: Callable[..., Any], key_of: Callable[..., str | None]) -> Callable[..., Any]:
    @functools.wraps(method)
    def noting(self: object, *arguments: Any) -> Any:
        key = key_of(*arguments)
        if key is not None:
            with Path(os.environ[NOTES]).open("a", encoding="utf-8") as file:
                file.write(f"{key}\n")
        return method(self, *arguments)

    return noting


if NOTES in os.environ:  # in a search's process, and in those that it starts, which import this file by another name
    note_what_begins()

if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        from precision_search.main import main as precision_search

        precision_search(sys.argv[2:])
    main()
