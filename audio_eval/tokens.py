"""Tokens: how far the choices of a model with token heads have moved, both runs forced to the same tokens before.

Logits are floating point [steps, vocabulary], one array or a mapping of heads (`text`, `audio.0`, `audio.1` ...) that
may differ in steps and vocabulary; scores are taken head by head and every head counts alike. All is computed in
float64. Whatever is added to all logits of a step changes nothing. -inf, or less than -1e30, masks a token out; NaN,
+inf, a step with all tokens masked, other shapes, no steps and fewer than two tokens raise `UndefinedScore`.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from audio_eval.clip import T, UndefinedScore

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Steps: TypeAlias = npt.NDArray[np.float64]
"""One number a step [steps]."""

ONLY_HEAD = "tokens"
"""Name of the head where the logits come without one."""
BLOCK = 1 << 20
"""Logits widened to float64 at a time."""
MASKED_NATS = 1e30
"""A token so much less likely than another is masked: masks are written as -inf or as the lowest of a format."""


class Heads:
    """Logits of one clip by head, and what metrics computed from them.

    Every metric takes Heads wherever it takes arrays, and then reuses what several of them need. Nothing is copied:
    the arrays must not change while they are scored.

    Raises:
        UndefinedScore: no head, or an array that is not floating point [steps, vocabulary].
    """

    __slots__ = ("_memo", "logits")

    def __init__(self, logits: Array | Mapping[str, Array]) -> None:
        named = dict(logits) if isinstance(logits, Mapping) else {ONLY_HEAD: logits}
        if not named:
            raise UndefinedScore("there is no token head to compare")
        self.logits: dict[str, Array] = {}
        for head, given in named.items():
            array: Array = np.asarray(given)
            if not np.issubdtype(array.dtype, np.floating):
                raise UndefinedScore(f"head {head}: logits are floating point, got {array.dtype}")
            if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
                raise UndefinedScore(f"head {head}: logits are [steps, vocabulary of 2 or more], got {array.shape}")
            self.logits[head] = array
        self._memo: dict[Hashable, Any] = {}

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """`compute()`, or what it gave under this key before."""
        if key not in self._memo:
            self._memo[key] = compute()
        value: T = self._memo[key]
        return value

    def relative(self, head: str) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
        """A head's logits less the largest of their step, as float64: some steps at a time, to need little memory."""
        array, largest = self.logits[head], self.largest(head)
        size = max(1, BLOCK // array.shape[1])
        for start in range(0, len(array), size):
            rows = slice(start, start + size)
            with np.errstate(over="ignore"):  # a token 1e308 below the likeliest is as good as masked
                block = array[rows].astype(np.float64) - largest[rows, None]
            yield rows, block

    def largest(self, head: str) -> Steps:
        """Largest logit of each step [steps].

        Raises:
            UndefinedScore: a step with NaN or +inf in it, or with all of its tokens masked.
        """

        def compute() -> Steps:
            found: Steps = np.max(self.logits[head], axis=1).astype(np.float64)
            faulty = np.flatnonzero(~np.isfinite(found))
            if faulty.size:
                why = "has all tokens masked" if found[faulty[0]] == -np.inf else "has NaN or +inf"
                raise UndefinedScore(f"head {head}: {faulty.size} steps have no distribution; step {faulty[0]} {why}")
            return found

        return self.once(("largest", head), compute)

    def choice(self, head: str) -> npt.NDArray[np.intp]:
        """Token of the largest logit of each step [steps], the lowest of equals."""
        self.largest(head)
        return self.once(("choice", head), lambda: np.argmax(self.logits[head], axis=1))

    def normalizer(self, head: str) -> Steps:
        """What log probabilities are below the logits less the largest of their step [steps], 0 or more."""

        def compute() -> Steps:
            sums = [np.exp(block).sum(axis=1) for _, block in self.relative(head)]
            normalizer: Steps = np.log(np.concatenate(sums))
            return normalizer

        return self.once(("normalizer", head), compute)


Given: TypeAlias = Array | Mapping[str, Array] | Heads


def _paired(reference: Given, degraded: Given) -> tuple[Heads, Heads]:
    first, second = (given if isinstance(given, Heads) else Heads(given) for given in (reference, degraded))
    if first.logits.keys() != second.logits.keys():
        raise UndefinedScore(
            f"the reference has the heads {', '.join(sorted(first.logits))} and the degraded "
            f"{', '.join(sorted(second.logits))}; both must have the same"
        )
    for head, array in first.logits.items():
        if array.shape != second.logits[head].shape:
            raise UndefinedScore(
                f"head {head}: logits must have one shape, got {array.shape} of reference and "
                f"{second.logits[head].shape} of degraded; force the same tokens on both"
            )
    return first, second


def _divergence(first: Heads, second: Heads, head: str) -> Steps:
    """KL divergence of each step in nats [steps]; rounding never makes it negative."""

    def compute() -> Steps:
        before, after = first.normalizer(head), second.normalizer(head)
        found = np.empty(len(before))
        for (rows, block), (_, moved) in zip(first.relative(head), second.relative(head), strict=True):
            log_first = block - before[rows, None]
            probability = np.exp(log_first)
            # What the reference never chooses counts nothing, whatever the degraded model makes of it.
            possible = probability > 0.0
            with np.errstate(over="ignore"):
                change = np.subtract(log_first, moved - after[rows, None], where=possible, out=np.zeros_like(block))
                found[rows] = np.sum(probability * change, axis=1)
        infinite = np.flatnonzero(~(found < MASKED_NATS))
        if infinite.size:
            raise UndefinedScore(
                f"head {head}: the degraded model rules out tokens that the reference may choose in {infinite.size} "
                f"steps, the first of them step {infinite[0]}; the divergence is infinite"
            )
        return np.maximum(found, 0.0)

    return second.once(("divergence", first, head), compute)


def token_agreement(*, reference: Given, degraded: Given) -> float:
    """Share of steps (0..1) in which both choose the same token: the largest logit, the lowest index of equals.

    For the report, and as a coarse gate: it counts a toss between two likely tokens like the loss of a sure one, and
    coarse formats toss more often, as equal logits are then common.
    """
    first, second = _paired(reference, degraded)
    return float(np.mean([np.mean(first.choice(head) == second.choice(head)) for head in first.logits]))


def kl_nats(*, reference: Given, degraded: Given) -> float:
    """Kullback-Leibler divergence of the degraded from the reference distribution, nats a step; 0 where they agree.

    Sum over tokens of p log(p / q), p of the reference: Kullback and Leibler, "On information and sufficiency", Annals
    of Mathematical Statistics 22(1), 1951. A token masked in the reference counts 0.

    Raises:
        UndefinedScore: as the module says, or a token that the reference may choose is masked in the degraded.
    """
    first, second = _paired(reference, degraded)
    return float(np.mean([np.mean(_divergence(first, second, head)) for head in first.logits]))


def worst_kl_nats(*, reference: Given, degraded: Given) -> float:
    """The same divergence in the one step and head where it is highest.

    Not a quantile: a stream goes on from the token that one derailed step of one codebook gave it.
    """
    first, second = _paired(reference, degraded)
    return float(max(np.max(_divergence(first, second, head)) for head in first.logits))
