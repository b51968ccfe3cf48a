"""DamageProbe: few sites changed, all others as they were, at the price of what lies behind them."""

from collections import Counter
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
    """Renders of a voice under a base, fp32 or a policy, and with one site of it changed, or few.

    The base's run of each clip is recorded; up to the first call of a changed site nothing can differ, so what was
    recorded is given back there, and so it is for whatever is not behind such a site. Only the rest is computed.
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
        """Set up; the base is run and recorded on each clip when that is first asked for.

        Args:
            voice: deterministic; its weights must not change afterwards.
            clips: of unique names.
            arithmetic: of the changed site, and of the base where it is a policy; a `Preparation` shares prepared
                weights with engines.
            calibration: for static scales.
            base: how all sites compute but the changed one; None: as the model has it, in fp32.
            limit_bytes: for all recordings together; a clip that does not fit is rendered in full every time.

        Raises:
            ValueError: two clips of one name.
        """
        self._voice = voice
        self._preparation = arithmetic if isinstance(arithmetic, Preparation) else Preparation(arithmetic)
        self._calibration = calibration
        self._base: Mapping[str, Scheme] = {} if base is None else dict(base.schemes)
        self._total = base is not None
        self._limit_bytes = limit_bytes
        self._recorded: dict[str, tuple[Recording, Rendering]] = {}
        self._clips = frozenset(clip.name for clip in clips)
        twice = [name for name, count in Counter(clip.name for clip in clips).items() if count > 1]
        if twice:
            raise ValueError(f"clip names must be unique, got {twice[0]!r} twice; rename one")

    @property
    def recorded(self) -> tuple[str, ...]:
        """Names of the clips that were run and whose results fitted the limit."""
        return tuple(name for name, (recording, _) in self._recorded.items() if recording.held_bytes)

    @property
    def held_bytes(self) -> int:
        """Size of all recordings."""
        return sum(recording.held_bytes for recording, _ in self._recorded.values())

    def reference(self, clip: Clip) -> Rendering:
        """What the base makes, as recorded: with interception, under which attention is two plain products.

        Raises:
            KeyError: the clip is not one of the probe's.
            ValueError: a site was called that has no scheme in the base.
        """
        return self._run(clip)[1]

    def render(self, site: str, scheme: Scheme, clip: Clip) -> Rendering:
        """Render with one site under a scheme; as `render_changed`."""
        return self.render_changed({site: scheme}, clip)

    def render_changed(self, changes: Mapping[str, Scheme], clip: Clip) -> Rendering:
        """Render with some sites under other schemes, everything else as the base has it; bit-equal to a full render.

        Raises:
            KeyError: the clip is not one of the probe's.
            ValueError: a changed site is not called in this clip, a called one has no scheme, or the model made other
                calls than when it was recorded.
        """
        recording, _ = self._run(clip)
        for site in changes:
            if site not in recording.sites:
                raise ValueError(f"site {site!r} is not called in clip {clip.name}; find the model's sites again")
        schemes = {**self._base, **changes}
        changed = set(changes).union(*(self._readers(site, scheme) for site, scheme in changes.items()))
        differing = [index for index, called in enumerate(recording.sites) if called in changed]
        try:
            return recording.replay(self._voice, clip, lambda call: self._compute(call, schemes), differing)
        except ReplayError as error:
            raise ValueError(f"clip {clip.name}: {error}; the voice must be deterministic") from error

    def _readers(self, site: str, scheme: Scheme) -> set[str]:
        """Sites that compute otherwise because this one does: the order of channels lies in the reader's weights."""
        before, reader = self._base.get(site), self._preparation.reader_of(site)
        if before is None or reader is None or (CHANNEL_ORDER in before.levers) == (CHANNEL_ORDER in scheme.levers):
            return set()
        return {reader}

    def _run(self, clip: Clip) -> tuple[Recording, Rendering]:
        if clip.name not in self._clips:
            raise KeyError(f"clip {clip.name!r} was not recorded; give it to the probe when making it")
        if clip.name not in self._recorded:
            self._recorded[clip.name] = Recording.of(
                self._voice,
                clip,
                lambda call: self._compute(call, self._base),
                self._limit_bytes - self.held_bytes,
            )
        return self._recorded[clip.name]

    def _compute(self, call: SiteCall, schemes: Mapping[str, Scheme]) -> Tensor:
        if call.site in schemes:
            return self._preparation.compute(call, schemes, self._calibration)
        if self._total:
            raise ValueError(f"site {call.site!r} was called and the policy has no scheme for it; add it")
        return call.compute()
