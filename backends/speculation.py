"""Speculation: a small decoder drafts rows, and the large one checks all of them in one pass."""

import math
from dataclasses import dataclass, replace

from backends.decoder_pass import DecoderCost
from voice.decoder_config import DecoderConfig

ASSUMPTIONS: tuple[str, ...] = (
    "drafted rows are accepted independently of each other, at the acceptance that the recipe gives (Leviathan et al."
    " 2023, arXiv 2211.17192); the draft has a cache of its own, of as many rows, whose memory is not counted",
    "rows are written ahead of being heard: where each waits for a frame of the user, nothing can be drafted",
)


@dataclass(frozen=True, slots=True)
class Speculation:
    """A smaller decoder drafts rows, the large one checks all of them in one pass (Leviathan et al. 2023, 2211.17192).

    A row is a frame of one text token and a code of each codebook: it is accepted where all of them are.
    """

    draft: DecoderCost
    acceptance: float
    """Share of drafted rows that are accepted, 0..1, each alike and apart from the others."""
    drafted: int
    """Rows that are drafted before each pass of the large one."""

    def __post_init__(self) -> None:
        """Refuse what is no share, and no draft."""
        if not 0 <= self.acceptance <= 1 or self.drafted < 1:
            raise ValueError(
                f"0 <= acceptance <= 1 and drafted >= 1 must hold, got {self.acceptance} and {self.drafted}"
            )

    @property
    def expected_rows(self) -> float:
        """Rows that a pass of the large decoder gives: those accepted, and one of its own."""
        return expected_rows(self.acceptance, self.drafted)

    @property
    def token_acceptance(self) -> float:
        """What the acceptance of single tokens would be, were those of a row independent of each other."""
        return float(self.acceptance ** (1 / (1 + self.draft.config.codec.codebooks)))

    def round_seconds(self, target: DecoderCost, streams: int, context: int) -> float:
        """Seconds of one round, codec left out: the drafts one after another, and their check."""
        drafts = self.drafted * self.draft.pass_cost(streams, context).transformer
        return drafts + target.pass_cost(streams, context, rows=self.drafted + 1).transformer

    def row_seconds(self, target: DecoderCost, streams: int, context: int) -> float:
        """Seconds of a pass's share that takes every stream one row further, codec left out."""
        return self.round_seconds(target, streams, context) / self.expected_rows

    def needed_acceptance(self, target: DecoderCost, streams: int, context: int) -> float | None:
        """The least acceptance at which it takes no longer than without; None where not even 1 is enough."""
        needed = self.round_seconds(target, streams, context) / target.pass_cost(streams, context).transformer
        if needed > self.drafted + 1:
            return None
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if expected_rows(middle, self.drafted) < needed else (low, middle)
        return high


def expected_rows(acceptance: float, drafted: int) -> float:
    """Rows that a pass gives: the sum of acceptance to the powers 0 to `drafted`."""
    return math.fsum(acceptance**power for power in range(drafted + 1))


def draft_config(config: DecoderConfig, layers: int, width: int) -> DecoderConfig:
    """A decoder of the same rows and codec, scaled down: heads as large, hidden width in proportion.

    Raises:
        ValueError: it has no layer, more than the large one, or a width that its heads do not divide.
    """
    heads = width // config.head_size
    if not 1 <= layers <= config.layers or heads < 1 or width % config.head_size or width > config.width:
        raise ValueError(
            f"a draft has 1 to {config.layers} layers and a width that {config.head_size} divides, up to"
            f" {config.width}; got {layers} layers of {width}"
        )
    sharing = config.heads // config.kv_heads
    shared = math.gcd(heads, max(1, heads // sharing))
    hidden = -(-config.hidden * width // config.width)
    return replace(config, layers=layers, width=width, heads=heads, kv_heads=shared, hidden=hidden)
