"""The machine under test: what a part is told, what it may use, and what the machine says of itself."""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "triton", "numpy")
_ASKED = (
    "name",
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
)


@dataclass(slots=True)
class Part:
    """What a part runs with, and where it writes what it has found so far."""

    device: torch.device
    quick: bool
    seconds: float
    """After which it should come to its end."""
    out: Path
    started: float = field(default_factory=time.monotonic)

    @property
    def on_card(self) -> bool:
        """Whether the device is a CUDA card."""
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - (time.monotonic() - self.started)

    def say(self, line: str) -> None:
        """Print a line of progress."""
        print(f"  [{time.monotonic() - self.started:5.1f} s] {line}", flush=True)

    def write(self, found: Mapping[str, Any]) -> None:
        """Write all that was found so far; a part that dies later leaves it."""
        beside = self.out.with_name(f".{self.out.name}.part")
        beside.write_text(json.dumps(found), encoding="utf-8")
        beside.replace(self.out)


def environment(device: torch.device) -> dict[str, Any]:
    """What the machine is, as far as it can be read."""
    told: dict[str, Any] = {
        "type": device.type,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "device": _cpu(),
    }
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        told |= {
            "device": card.name,
            "compute_capability": f"{card.major}.{card.minor}",
            "multiprocessors": card.multi_processor_count,
            "memory_bytes": card.total_memory,
            "l2_bytes": l2_bytes(device),
            "cuda": torch.version.cuda,
            "cublas": _cublas(),
            "card": asked_card(device),
        }
    else:
        told["threads"] = torch.get_num_threads()
    return told


def asked_card(device: torch.device) -> dict[str, str]:
    """Driver, clocks, power and heat as nvidia-smi reads them; it changes nothing."""
    if shutil.which("nvidia-smi") is None:
        return {"not_measured": "there is no nvidia-smi"}
    command = ["nvidia-smi", f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader"]
    try:
        made = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return {"not_measured": f"nvidia-smi: {error}"}
    # It lists all cards in the order of their bus, torch those that it may see: of several, the one of the same name.
    name = torch.cuda.get_device_properties(device).name
    lines = [dict(zip(_ASKED, map(str.strip, line.split(",")), strict=False)) for line in made.stdout.splitlines()]
    return next((line for line in lines if line.get("name") == name), {"not_measured": f"nvidia-smi lists no {name}"})


def l2_bytes(device: torch.device) -> int:
    """Size of the L2 cache; 50 MB, an H100's, where torch does not say."""
    return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or 50_000_000)


def _cpu() -> str:
    listed = Path("/proc/cpuinfo")
    fallback = platform.processor() or platform.machine()
    if not listed.is_file():
        return fallback
    return next((line.split(": ")[1] for line in listed.read_text().splitlines() if "model name" in line), fallback)


def _cublas() -> str:
    for name in ("nvidia-cublas", "nvidia-cublas-cu12"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "not known"


def _version(name: str) -> str:
    try:
        return version(name) if importlib.util.find_spec(name) else "absent"
    except PackageNotFoundError:
        return "not known"


def _commit() -> str:
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        made = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return "not known"
    return made.stdout.strip()
