"""EmulatedEngine: a torch model with every site computed as its target would."""

from collections.abc import Mapping

from torch import Tensor

from backends.base import Arithmetic
from backends.emulation.preparation import Preparation
from calibrate.calibration import Calibration
from precision.policy import Policy, Scheme
from voice.intercept import intercept
from voice.model import Clip, Rendering, Voice
from voice.site_call import SiteCall


class PolicyMismatchError(ValueError):
    """A policy and a model do not have the same sites."""


class EmulatedEngine:
    """A voice under a policy, on the CPU or wherever its weights are. The voice itself is not changed."""

    def __init__(
        self,
        voice: Voice,
        policy: Policy,
        arithmetic: Arithmetic | Preparation,
        calibration: Calibration | None = None,
    ) -> None:
        """Build; give a `Preparation` in place of an arithmetic to share prepared weights between engines."""
        self._voice = voice
        self._policy = policy
        self._schemes = dict(policy.schemes)
        self._preparation = arithmetic if isinstance(arithmetic, Preparation) else Preparation(arithmetic)
        self._calibration = calibration
        self._realized: dict[str, Scheme] = {}

    def render(self, clip: Clip) -> Rendering:
        """What the voice makes of a clip, float32; NaN and Inf come out as the arithmetic makes them.

        Raises:
            PolicyMismatchError: a site was called that the policy does not have, or one of the policy's was not called.
            UncalibratedSiteError: a static scale is missing.
        """
        called: set[str] = set()

        def handle(call: SiteCall) -> Tensor:
            called.add(call.site)
            return self._compute(call)

        with intercept(self._voice.module, handle):
            rendering = self._voice.render(clip)
        missed = [site for site in self._schemes if site not in called]
        if missed:
            raise PolicyMismatchError(
                f"clip {clip.name}: {len(missed)} of the policy's sites were not called, the first is {missed[0]!r};"
                " find the model's sites again"
            )
        return rendering

    def realized(self) -> Mapping[str, Scheme]:
        """What each site did compute under, in the order of first calls; of all renders so far."""
        return dict(self._realized)

    def _compute(self, call: SiteCall) -> Tensor:
        scheme = self._schemes.get(call.site)
        if scheme is None:
            raise PolicyMismatchError(f"site {call.site!r} was called and the policy has no scheme for it; add it")
        result = self._preparation.compute(call, self._schemes, self._calibration)
        self._realized[call.site] = scheme
        return result
