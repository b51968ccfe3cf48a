"""Waterfall: from the baseline card, one stream a launch, to the policy on its own card, one change a step."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from backends.money import Accounting, Dollars, Range, dollars, rounded
from backends.workload import Side, Terms, Workload
from precision.policy import Policy, Scheme

Change = Literal["baseline", "batching", "card", "format", "fidelity"]


@dataclass(frozen=True, slots=True)
class Step:
    """One change, and what a stream costs after it."""

    told: str
    change: Change
    scheme: str
    """Scheme of all sites; of a policy of several, its label."""
    price: Dollars

    def to_dict(self, first: "Step") -> dict[str, Any]:
        """A row of the block `waterfall` of a summary; the ratio is to the first step's."""
        served = self.price.serving
        per_stream: Range = self.price.usd_per_stream
        return {
            "step": self.told,
            "change": self.change,
            "device": served.device.name,
            "scheme": self.scheme,
            "batch": served.middle.batch,
            "streams": served.middle.streams_per_card,
            "usd_per_stream": per_stream.to_dict(),
            "ratio": rounded(per_stream.over(first.price.usd_per_stream).middle),
        }


def waterfall(
    workload: Workload,
    candidate: Side,
    baseline: Side,
    yardstick: Scheme,
    terms: Terms,
    accounting: Accounting | None = None,
) -> tuple[Step, ...]:
    """Price every step from the baseline to the candidate.

    The order matters to each step's share, and is always this: one stream a launch on the baseline's card; streams
    share launches (this is the baseline of every comparison); the candidate's card, all sites in the recipe's baseline;
    the formats of the policy, and all else of its schemes, at the baseline's math fidelity; its fidelity, where its
    card has one. The last step is the candidate.

    Args:
        workload: the model.
        candidate: its policy on its card.
        baseline: the scheme and the card that it is set against.
        yardstick: the scheme that every site takes when the card changes: the recipe's baseline.
        terms: how both cards serve; the first step alone takes no batch.
        accounting: as `dollars` has it.

    Raises:
        ValueError: as `Workload.serve` and `dollars` have it.
    """

    def priced(side: Side, asked: Terms = terms) -> Dollars:
        return dollars(workload.serve(side.device, side.policy, asked, side.label), accounting)

    def steps() -> Iterator[Step]:
        card, theirs = candidate.device, baseline.device.title
        name = baseline.label
        alone = priced(baseline, replace(terms, max_batch=1))
        yield Step(f"{theirs}, {name}, one stream a launch", "baseline", name, alone)
        yield Step("streams share launches", "batching", name, priced(baseline))
        uniform = Side(card, Policy.uniform(list(candidate.policy), yardstick), yardstick.name)
        if card.name != baseline.device.name or uniform.policy != baseline.policy:
            yield Step(f"{card.title}, {yardstick.name}", "card", yardstick.name, priced(uniform))
        formats = Side(card, _at_fidelity_of(candidate.policy, yardstick), candidate.label)
        if formats.policy != candidate.policy:
            told = f"formats of the policy, all in {yardstick.fidelity}"
            yield Step(told, "format", f"{candidate.label}, {yardstick.fidelity}", priced(formats))
            yield Step("math fidelity of the policy", "fidelity", candidate.label, priced(candidate))
        else:
            yield Step("formats of the policy", "format", candidate.label, priced(candidate))

    return tuple(steps())


def _at_fidelity_of(policy: Policy, yardstick: Scheme) -> Policy:
    """The policy with the math fidelity of the yardstick at every site; the policy itself where there is none."""
    if yardstick.fidelity is None:
        return policy
    return Policy(tuple((site, replace(scheme, fidelity=yardstick.fidelity)) for site, scheme in policy.schemes))
