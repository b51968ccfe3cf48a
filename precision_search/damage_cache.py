"""Damage cache: what was measured in any study, kept by the content of everything that it depends on."""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.candidate import floats, numbers
from precision.policy import Scheme
from precision.study import StudyError, evaluation_key, write_atomic
from precision_search.setting import Setting
from precision_search.wire import code_digest
from voice.checkpoint import content_digest, layers_digest

ENVIRONMENT = "PRECISION_SEARCH_CACHE"


def cache_folder() -> Path:
    """$PRECISION_SEARCH_CACHE, else precision-search in $XDG_CACHE_HOME, else in ~/.cache."""
    if named := os.environ.get(ENVIRONMENT):
        return Path(named)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "precision-search"


class DamageCache:
    """Files of one damage each, addressed by a SHA-256 over what it depends on; safe for many runs at once.

    That is: layers, weights, search clips, the site's calibrated ranges and moments, chains of channels, the
    arithmetic, the code, the versions and processor that computed, the metrics, the site, and the scheme but for its
    name. A file that is not readable, or not of this kind, is as none, and is written anew.
    """

    def __init__(
        self,
        setting: Setting,
        calibration: Calibration | None,
        moments: Mapping[str, Moments],
        metrics: Sequence[str],
        say: Callable[[str], None],
        folder: Path | None = None,
    ) -> None:
        """Stand for one setting.

        Args:
            setting: of the recipe.
            calibration: for static scales.
            moments: of the inputs of sites.
            metrics: that damage is measured in.
            say: told, once, that nothing can be kept.
            folder: None: `cache_folder()`.
        """
        self._folder = cache_folder() if folder is None else folder
        self._calibration, self._moments, self._say = calibration, moments, say
        self._sites: dict[str, str] = {}
        self._writable = True
        self._whole = [
            layers_digest(setting.voice.module),
            content_digest(setting.voice.module.state_dict()),
            _clips_digest(setting),
            setting.voice.name,
            setting.voice.sample_rate_hz,
            setting.backend.arithmetic.name,
            code_digest(),
            [
                torch.__version__,
                *map(version, ("numpy", "scipy", "librosa")),
                platform.machine(),
                torch.backends.cpu.get_cpu_capability(),
            ],
            sorted(setting.chains.items()),
            list(metrics),
        ]

    def get(self, kind: str, site: str, scheme: Scheme) -> dict[str, float] | None:
        """What was kept of an option, `damage` or what else it is of a kind; None where nothing (readable) was."""
        try:
            held = json.loads(self._path(kind, site, scheme).read_text(encoding="utf-8"))
            if held["kind"] != kind or held["site"] != site or not isinstance(held["values"], dict):
                return None
            return floats(held["values"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, kind: str, site: str, scheme: Scheme, values: Mapping[str, float]) -> None:
        """Keep values of an option; no error where that cannot be done."""
        if not self._writable:
            return
        path = self._path(kind, site, scheme)
        content = {"kind": kind, "site": site, "scheme": scheme.to_dict(), "values": numbers(values)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(content))
        except (OSError, StudyError) as error:
            self._writable = False
            self._say(f"damages are not kept for other studies: {error}")

    def _path(self, kind: str, site: str, scheme: Scheme) -> Path:
        content: list[Any] = [kind, *self._whole, self._site(site), evaluation_key(site, scheme)]
        address = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return self._folder / address[:2] / f"{address}.json"

    def _site(self, site: str) -> str:
        """Digest of what is known of a site's activations."""
        if site not in self._sites:
            digest = hashlib.sha256()
            if self._calibration is not None:
                ranges = [entry for entry in self._calibration.ranges if entry[0] == site]
                digest.update(json.dumps([self._calibration.method, ranges]).encode())
            moments = self._moments.get(site)
            if moments is not None:
                digest.update(str(moments.rows).encode())
                digest.update(moments.mean.contiguous().numpy().data)
                digest.update(moments.second.contiguous().numpy().data)
            self._sites[site] = digest.hexdigest()
        return self._sites[site]


def _clips_digest(setting: Setting) -> str:
    digest = hashlib.sha256()
    for clip in setting.search_clips:
        digest.update(f"{clip.name}\0{clip.seconds}\0".encode())
        for tensor in clip.inputs:
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        digest.update(b"" if clip.natural is None else clip.natural.tobytes())
    return digest.hexdigest()
