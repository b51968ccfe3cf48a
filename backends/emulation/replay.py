"""DamageProbe: one site lowered, all others in fp32, at the price of what lies behind it."""

from collections.abc import Sequence

from torch import Tensor

from backends.base import Arithmetic
from backends.emulation.preparation import Preparation
from calibrate.calibration import Calibration
from precision.policy import Scheme
from voice.intercept import intercept
from voice.model import Clip, Rendering, Voice
from voice.site_call import SiteCall


class DamageProbe:
    """Renders of a voice in fp32, and with one site under a scheme.

    The fp32 run of each clip is recorded, call by call; up to the first call of the lowered site nothing can differ, so
    the recorded results are given back there and only what comes after is computed.
    """

    def __init__(
        self,
        voice: Voice,
        clips: Sequence[Clip],
        arithmetic: Arithmetic | Preparation,
        calibration: Calibration | None = None,
        *,
        limit_bytes: int = 1 << 30,
    ) -> None:
        """Run and record the reference of each clip.

        Args:
            voice: deterministic; its weights must not change afterwards.
            clips: of unique names.
            arithmetic: of the lowered site; a `Preparation` shares prepared weights with engines.
            calibration: for static scales.
            limit_bytes: for all recordings together; a clip that does not fit is rendered in full every time.
        """
        self._voice = voice
        self._preparation = arithmetic if isinstance(arithmetic, Preparation) else Preparation(arithmetic)
        self._calibration = calibration
        self._references: dict[str, Rendering] = {}
        self._results: dict[str, list[Tensor]] = {}
        self._sites: dict[str, list[str]] = {}
        self._free_bytes = limit_bytes
        for clip in clips:
            if clip.name in self._references:
                raise ValueError(f"clip names must be unique, got {clip.name!r} twice; rename one")
            self._record(clip)

    @property
    def recorded(self) -> tuple[str, ...]:
        """Names of the clips whose results fitted the limit."""
        return tuple(self._results)

    def reference(self, clip: Clip) -> Rendering:
        """What fp32 makes, as recorded: with interception, under which attention is two plain products."""
        return self._references[self._known(clip)]

    def render(self, site: str, scheme: Scheme, clip: Clip) -> Rendering:
        """Render with one site under a scheme, everything else in fp32.

        Raises:
            KeyError: the clip is not one of the probe's.
            ValueError: the site is not called in this clip, or the model made other calls than when it was recorded.
        """
        name = self._known(clip)
        sites, results = self._sites[name], self._results.get(name, [])
        if site not in sites:
            raise ValueError(f"site {site!r} is not called in clip {name}; find the model's sites again")
        first = sites.index(site)

        def handle(call: SiteCall) -> Tensor:
            if call.index >= len(sites) or sites[call.index] != call.site:
                raise ValueError(
                    f"clip {name}: call {call.index} is of {call.site!r} and was not when recorded; the voice must be"
                    " deterministic"
                )
            if call.index < first and results:
                return results[call.index].clone()  # the model may write into what it gets
            if call.site != site:
                return call.compute()
            return self._preparation.compute(call, {site: scheme}, self._calibration)

        with intercept(self._voice.module, handle):
            return self._voice.render(clip)

    def _known(self, clip: Clip) -> str:
        if clip.name not in self._references:
            raise KeyError(f"clip {clip.name!r} was not recorded; give it to the probe when making it")
        return clip.name

    def _record(self, clip: Clip) -> None:
        sites: list[str] = []
        results: list[Tensor] = []
        held = 0

        def handle(call: SiteCall) -> Tensor:
            nonlocal held
            sites.append(call.site)
            result = call.compute()
            held += result.nbytes
            if held <= self._free_bytes:
                results.append(result.clone())
            else:
                results.clear()
            return result

        with intercept(self._voice.module, handle):
            self._references[clip.name] = self._voice.render(clip)
        self._sites[clip.name] = sites
        if held <= self._free_bytes:
            self._results[clip.name] = results
            self._free_bytes -= held
