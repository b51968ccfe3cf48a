"""Allowance: how much of what a gate allows is used, on one scale for every metric."""

import math

# Of two equal signals. PESQ's are the highest that the mappings of ITU-T P.862.1 and P.862.2 reach, at a raw 4.5.
PERFECT = {
    "pesq_nb": 0.999 + 4.0 / (1.0 + math.exp(-1.4945 * 4.5 + 4.6607)),
    "pesq_wb": 0.999 + 4.0 / (1.0 + math.exp(-1.3669 * 4.5 + 3.8224)),
    "pesq_change": 0.0,
    "stoi": 1.0,
    "estoi": 1.0,
    "finite": 1.0,
    "polarity": 1.0,
    "text_agreement": 1.0,
    "audio_agreement": 1.0,
}
"""Best value of each metric that is better when it is higher; of the others it is 0."""


def used(metric: str, side: str, threshold: float | None, value: float | None) -> float | None:
    """Share of a gate's allowance that a value uses.

    0 is a perfect value and 1 the threshold; more is broken, infinitely where nothing was allowed.

    Args:
        metric: Its name.
        side: `min` or `max`.
        threshold: What the gate demands.
        value: What was found; NaN uses infinitely much.

    Returns:
        The share; None where the metric's best value is not known, or there is nothing to compare.

    >>> used("lsd_db", "max", 2.0, 0.5), used("estoi", "min", 0.5, 0.75), used("finite", "min", 1.0, 0.5)
    (0.25, 0.5, inf)
    """
    perfect = PERFECT.get(metric) if side == "min" else 0.0 if side == "max" else None
    if perfect is None or threshold is None or value is None:
        return None
    allowed, taken = abs(threshold - perfect), (perfect - value if side == "min" else value - perfect)
    if math.isnan(value):
        return math.inf
    if (threshold > perfect) if side == "min" else (threshold < perfect):
        return None  # better than perfect is demanded: the table does not know this metric
    if taken <= 0:
        return 0.0
    return taken / allowed if allowed else math.inf
