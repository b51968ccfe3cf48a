"""Uncovered: what a model multiplies outside of its sites, in words."""

from collections.abc import Sequence

WHOLE = 0.99
"""Share of the MACs under which sites are too few to speak for a model."""
_MOST = 12


def outside_lines(uncovered: Sequence[tuple[str, float]]) -> list[str]:
    """A line a module that multiplies outside of the sites, with its share of all MACs; the smallest in one."""
    lines = [f"outside: {path} {_percent(share)}" for path, share in uncovered[:_MOST]]
    rest = uncovered[_MOST:]
    if rest:
        lines.append(f"outside: {len(rest)} more modules {_percent(sum(share for _, share in rest))}")
    return lines


def warning(covered: float) -> str | None:
    """What it means that the sites are so small a share of the MACs; None where they are 99 % or more."""
    if covered >= WHOLE:
        return None
    return (
        f"the sites are {covered:.2%} of the MACs, under {WHOLE:.0%}. What is outside of them stays in fp32 when the"
        " policy is heard, and has no part in its cost"
    )


def _percent(share: float) -> str:
    return f"{share:.2%}" if share >= 5e-5 else "under 0.01%"
