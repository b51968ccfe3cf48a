"""Panel: a set of reference clips that many degraded sets are scored against."""

from collections.abc import Mapping, Sequence

from audio_eval.clip import Samples
from audio_eval.scoring import score_clips, threads
from audio_eval.suite import Material, ReferenceClip, common

Scores = tuple[Mapping[str, float], ...]
"""By clip: metric -> score, NaN where the clip has none."""


class Panel:
    """Scores sets of clips; what is computed of a reference is computed once.

    Args:
        originals: [time] of each clip in -1..1, what the defects are planted in.
        sample_rate_hz: of all.
        naturals: the recordings that they imitate, where there are such, of equal lengths.
        workers: threads.
    """

    def __init__(
        self,
        originals: Sequence[Samples],
        sample_rate_hz: int,
        naturals: Sequence[Samples] | None = None,
        workers: int = 1,
    ) -> None:
        self.originals = tuple(originals)
        self.sample_rate_hz = sample_rate_hz
        self._workers = workers
        beside = [None] * len(self.originals) if naturals is None else naturals
        self._references = [
            ReferenceClip(clip, sample_rate_hz, natural) for clip, natural in zip(self.originals, beside, strict=True)
        ]

    @property
    def material(self) -> Material:
        """What there is to judge by."""
        return common([reference.material for reference in self._references])

    def score(self, degraded: Sequence[Samples], metrics: Sequence[str]) -> Scores:
        """Scores of one degraded clip a reference, in their order.

        Raises:
            ValueError: another number of clips, or an unknown metric.
        """
        pairs = list(zip(self._references, degraded, strict=True))
        with threads(self._workers) as mapped:
            return tuple(score_clips(metrics, pairs, mapped=mapped)[0])
