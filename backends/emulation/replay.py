"""DamageProbe: one site changed, all others as they were, at the price of what lies behind it."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from backends.base import Arithmetic
from backends.emulation.channel_order import CHANNEL_ORDER
from backends.emulation.preparation import Preparation
from backends.emulation.recording import Recording, ReplayError
from calibrate.calibration import Calibration
from precision.policy import Policy, Scheme
from voice.model import Clip, Rendering, Voice
from voice.site_call import SiteCall


class DamageProbe:
    """Renders of a voice under a base, fp32 or a policy, and with one site of it changed.

    The base's run of each clip is recorded; up to the first call of the changed site nothing can differ, so what was
    recorded is given back there, and so it is for whatever is not behind the site. Only the rest is computed.
    """

    def __init__(
        self,
        voice: Voice,
        clips: Sequence[Clip],
        arithmetic: Arithmetic | Preparation,
        calibration: Calibration | None = None,
        *,
        base: Policy | None = None,
        limit_bytes: int = 1 << 30,
    ) -> None:
        """Run and record the base on each clip.

        Args:
            voice: deterministic; its weights must not change afterwards.
            clips: of unique names.
            arithmetic: of the changed site, and of the base where it is a policy; a `Preparation` shares prepared
                weights with engines.
            calibration: for static scales.
            base: how all sites compute but the changed one; None: as the model has it, in fp32.
            limit_bytes: for all recordings together; a clip that does not fit is rendered in full every time.

        Raises:
            ValueError: two clips of one name, or a site that was called and has no scheme in the base.
        """
        self._voice = voice
        self._preparation = arithmetic if isinstance(arithmetic, Preparation) else Preparation(arithmetic)
        self._calibration = calibration
        self._base: Mapping[str, Scheme] = {} if base is None else dict(base.schemes)
        self._total = base is not None
        self._references: dict[str, Rendering] = {}
        self._recordings: dict[str, Recording] = {}
        free = limit_bytes
        for clip in clips:
            if clip.name in self._references:
                raise ValueError(f"clip names must be unique, got {clip.name!r} twice; rename one")
            recording, self._references[clip.name] = Recording.of(
                voice, clip, lambda call: self._compute(call, self._base), free
            )
            self._recordings[clip.name] = recording
            free -= recording.held_bytes

    @property
    def recorded(self) -> tuple[str, ...]:
        """Names of the clips whose results fitted the limit."""
        return tuple(name for name, recording in self._recordings.items() if recording.held_bytes)

    @property
    def held_bytes(self) -> int:
        """Size of all recordings."""
        return sum(recording.held_bytes for recording in self._recordings.values())

    def reference(self, clip: Clip) -> Rendering:
        """What the base makes, as recorded: with interception, under which attention is two plain products."""
        return self._references[self._known(clip)]

    def render(self, site: str, scheme: Scheme, clip: Clip) -> Rendering:
        """Render with one site under a scheme, everything else as the base has it; bit-equal to a full render.

        Raises:
            KeyError: the clip is not one of the probe's.
            ValueError: the site is not called in this clip, or the model made other calls than when it was recorded.
        """
        name = self._known(clip)
        recording = self._recordings[name]
        if site not in recording.sites:
            raise ValueError(f"site {site!r} is not called in clip {name}; find the model's sites again")
        schemes = {**self._base, site: scheme}
        changed = {site}
        before = self._base.get(site)
        # The order of a site's channels is folded into the weights of the one that reads them.
        if before is not None and (CHANNEL_ORDER in before.levers) != (CHANNEL_ORDER in scheme.levers):
            changed.add(self._preparation.reader_of(site) or site)
        differing = [index for index, called in enumerate(recording.sites) if called in changed]
        try:
            return recording.replay(self._voice, clip, lambda call: self._compute(call, schemes), differing)
        except ReplayError as error:
            raise ValueError(f"clip {name}: {error}; the voice must be deterministic") from error

    def _compute(self, call: SiteCall, schemes: Mapping[str, Scheme]) -> Tensor:
        if call.site in schemes:
            return self._preparation.compute(call, schemes, self._calibration)
        if self._total:
            raise ValueError(f"site {call.site!r} was called and the policy has no scheme for it; add it")
        return call.compute()

    def _known(self, clip: Clip) -> str:
        if clip.name not in self._references:
            raise KeyError(f"clip {clip.name!r} was not recorded; give it to the probe when making it")
        return clip.name
