"""`precision-search plan STUDY`: a policy's program planned by the card's own library, with no card."""

import argparse

from precision_search.commands import Answer
from precision_search.progress import Progress
from precision_search.selection import add_selection

_EPILOG = """examples:
  precision-search plan studies/tts_blackhole                        the study's policy on its own card
  precision-search plan studies/tts_blackhole --card wormhole_n150   what that one refuses, and what to use
  precision-search plan studies/a --policy mine.yaml --sites-only    one line a site, of a policy of your own
  precision-search plan tts_blackhole --seconds 1 --json             a recipe's baseline, as JSON

ttnn 0.81.1 itself checks every operation, lays out its buffers and says what it would run; nothing computes, and no
card is needed. What every site really gets (types, fidelity, accumulation) is read back and held against the policy.
exit codes: 0 every site as the policy says, 1 a site got something else or the library refused an operation,
2 bad input, a policy that the card cannot run among it"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `plan`."""
    text = "Plan a study's policy on a card that is not there: operations, types, fidelities, memory, refusals."
    sub = subparsers.add_parser(
        "plan", help=text, description=text, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_selection(sub)
    sub.add_argument("--sites-only", action="store_true", help="one line a site, not one an operation")
    sub.add_argument("--quiet", action="store_true", help="no progress")
    sub.set_defaults(answer=answer)


def answer(parsed: argparse.Namespace) -> Answer:
    """Plan.

    Raises:
        CommandError, and what `choose` raises: bad input, a policy that the card cannot run among it.
    """
    # Late: the compiled kernels of the exact arithmetic take a second to import.
    from precision_search.planned import plan_study

    progress = Progress(quiet=parsed.quiet or parsed.json)
    try:
        return plan_study(parsed, progress)
    finally:
        progress.end()
