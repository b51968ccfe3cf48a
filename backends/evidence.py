"""Evidence: what a cost rests on, and what share of a sum rests on what."""

import math
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

Evidence = Literal["measured", "calibrated", "roofline"]
"""Best first. `measured`: on or between points of NVIDIA's tables, or of what the user's own card was measured at.
`calibrated`: by a formula that was fitted to those tables. `roofline`: by the figures of data sheets alone."""
EVIDENCE: tuple[Evidence, ...] = get_args(Evidence)


def weaker(first: Evidence, second: Evidence) -> Evidence:
    """What something rests on that is made of two."""
    return max(first, second, key=EVIDENCE.index)


def evidence_shares(parts: Iterable[tuple[Evidence, float]]) -> dict[Evidence, float]:
    """Shares of a sum, by what its parts rest on; what nothing rests on is not named, and of nothing there are none.

    Args:
        parts: evidence and amount, at least 0, of each part.
    """
    held: dict[Evidence, list[float]] = {name: [] for name in EVIDENCE}
    for name, amount in parts:
        held[name].append(amount)
    sums = {name: math.fsum(amounts) for name, amounts in held.items()}
    whole = math.fsum(sums.values())
    return {name: amount / whole for name, amount in sums.items() if amount > 0}


def joined_shares(parts: Iterable[tuple[Mapping[Evidence, float], float]]) -> dict[Evidence, float]:
    """Shares of a sum of parts that have shares of their own."""
    return evidence_shares((name, share * amount) for shares, amount in parts for name, share in shares.items())
