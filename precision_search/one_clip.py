"""OneClip: one clip of a study heard under any policy, in seconds: what a site does, before or after a search."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from audio_eval.clip import Samples
from audio_eval.output import Output
from calibrate.adapted import StoredAdaptations
from precision.gates import Verdict
from precision.policy import Policy
from precision_search.auditions import Auditions
from precision_search.costing import cost_model_of
from precision_search.jury import bench_of
from precision_search.progress import Progress
from precision_search.reading import OpenStudy
from precision_search.run import calibrated, moments_of
from precision_search.setting import Setting
from precision_search.wire import make_setting
from voice.intercept import intercept
from voice.model import Clip
from voice.site_call import SiteCall

with warnings.catch_warnings():
    # In a notebook librosa's downloader warns that there are no widgets for bars, which nothing here draws.
    warnings.filterwarnings("ignore", message="IProgress not found")
    import librosa.filters  # noqa: F401 - the metrics import it, later and without this


@dataclass(frozen=True, slots=True)
class HeardClip:
    """What was heard of one clip under one policy."""

    policy: Policy
    output: Output
    sample_rate_hz: int
    scores: Mapping[str, float]
    """Metric -> value; NaN where the metric has none."""
    verdicts: tuple[Verdict, ...]
    """Of every gate that one clip can be held against: a confidence bound needs two."""
    seconds_cost: float
    """Modelled seconds of the card per second of audio."""

    @property
    def kept(self) -> bool:
        """Whether every gate was kept, on this clip alone."""
        return all(verdict.kept for verdict in self.verdicts)

    @property
    def samples(self) -> Samples:
        """The sound, [time].

        Raises:
            ValueError: the model makes none.
        """
        return self.output.signal


class OneClip:
    """A study's model with one clip held back, rendered under policies in the arithmetic of the search."""

    def __init__(self, study: OpenStudy, clip: str | None = None) -> None:
        """Load the model, and measure on the search's clips what the recipe's schemes need (seconds).

        Args:
            study: Opened; nothing is written to it.
            clip: Name of a clip held back; None takes the first.

        Raises:
            ValueError: there is no such clip; the message names those that there are.
            SetupError, CheckpointError, AudioFileError: as for a recipe that is to be run.
        """
        setting, progress = make_setting(study.recipe), Progress(quiet=True)
        named = {one.name: one for one in setting.held_back_clips}
        if clip is not None and clip not in named:
            raise ValueError(f"no clip {clip!r} is held back, only {', '.join(named)}")
        self.clip: Clip = named[clip] if clip is not None else setting.held_back_clips[0]
        self.setting: Setting = replace(setting, held_back_clips=(self.clip,))
        moments, calibration = moments_of(setting, progress), calibrated(setting, progress)
        self._auditions = Auditions(self.setting, calibration, moments, StoredAdaptations(study.folder))
        self._bench = bench_of(self.setting, "held_back")
        self._cost = cost_model_of(setting.recipe, setting.device, setting.sites)

    @property
    def reference(self) -> Samples:
        """The clip as fp32 renders it, [time]."""
        return self._auditions.of("held_back").outputs[0].signal

    def changed(self, policy: Policy, site: str, scheme: str) -> Policy:
        """The same policy with one site under another scheme of the recipe, and all that compute as one with it.

        Raises:
            ValueError: the model has no such site, or the recipe no such scheme.
        """
        sites = {one.name: one for one in self.setting.sites}
        schemes = {one.name: one for one in self.setting.recipe.schemes}
        if site not in sites:
            raise ValueError(f"the model has no site {site!r}; the keys of the policy are its sites")
        if scheme not in schemes:
            raise ValueError(f"the recipe has no scheme {scheme!r}, only {', '.join(schemes)}")
        group = sites[site].group
        for name, other in sites.items():
            if name == site or (group is not None and other.group == group):
                policy = policy.replace(name, schemes[scheme])
        return policy

    def hear(self, policy: Policy) -> HeardClip:
        """Render the clip and hold it against every gate that one clip can be held against.

        Raises:
            ValueError: sites are missing or not the model's, the card refuses a site its scheme, or sites that compute
                as one part; all of them are named.
        """
        self._refuse(policy)
        output, scores = self._auditions.render("held_back", policy, 0, self._bench.metrics)
        verdicts = self._bench.verdicts([scores], seed=self.setting.recipe.search.seed)
        cost = self._cost.policy_seconds(self.setting.sites, policy)
        return HeardClip(policy, output, self.setting.voice.sample_rate_hz, scores, verdicts, cost)

    @cached_property
    def calls(self) -> Mapping[str, SiteCall]:
        """Site -> its first call in the clip under fp32: what goes in, and the weight (or what it is multiplied by)."""
        found: dict[str, SiteCall] = {}

        def handle(call: SiteCall) -> torch.Tensor:
            found.setdefault(call.site, call)
            return call.compute()

        with torch.no_grad(), intercept(self.setting.voice.module, handle):
            self.setting.voice.render(self.clip)
        # Copied out here: what a voice made in inference mode can be computed with only there.
        return {site: _apart(call) for site, call in found.items()}

    def _refuse(self, policy: Policy) -> None:
        names = [site.name for site in self.setting.sites]
        mistakes = [f"{name}: the model has no such site" for name in policy if name not in names]
        mistakes += [f"{name}: has no scheme" for name in names if name not in policy]
        refuses = self.setting.backend.refuses
        told = {site.name: refuses(site, policy[site.name]) for site in self.setting.sites if site.name in policy}
        mistakes += [f"{name}: {policy[name].name} is refused: {why}" for name, why in told.items() if why is not None]
        groups: dict[str, dict[str, str]] = {}
        for site in self.setting.sites:
            if site.group is not None and site.name in policy:
                groups.setdefault(site.group, {})[site.name] = policy[site.name].name
        mistakes += [
            f"{', '.join(found)} compute as one and must agree, got {', '.join(found.values())}"
            for found in groups.values()
            if len(set(found.values())) > 1
        ]
        if mistakes:
            raise ValueError(f"the policy does not fit, {len(mistakes)} mistakes\n  " + "\n  ".join(mistakes))


def _apart(call: SiteCall) -> SiteCall:
    """The call with operands of its own, which remember no gradient."""
    bias = None if call.bias is None else call.bias.detach().clone()
    return replace(call, x=call.x.detach().clone(), weight=call.weight.detach().clone(), bias=bias)
