"""Compare: the command that sets studies side by side, in a terminal, as JSON or as a page."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from precision.study import write_atomic
from precision_search.commands import Answer, CommandError
from precision_search.comparison import comparison
from precision_search.comparison_text import comparison_text
from precision_search.overview import read_overview

_TEXT = "Set studies side by side: verdicts, prices, gates, and the sites where their policies differ."
_EPILOG = """examples:
  precision-search compare studies/tts_blackhole studies/tts_hopper        two cards, one model
  precision-search compare studies/a studies/b studies/c --html abc.html   a page that needs nothing else

The first study is the one that the others are set against. One that has not ended is shown as far as it is; of unlike
models what can be compared is told, and what cannot.
exit codes: 0 done, 2 bad input"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str = "compare") -> None:
    """Add the command, under a name of its own or below `study`."""
    sub = subparsers.add_parser(
        name, help=_TEXT, description=_TEXT, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub.add_argument("studies", type=Path, nargs="+", metavar="STUDY", help="two study folders or more")
    sub.add_argument("--html", type=Path, metavar="FILE", help="write a page, one file without any other")
    sub.add_argument("--json", action="store_true", help="print JSON in place of text")
    sub.set_defaults(answer=lambda parsed: compare_studies(parsed.studies, parsed.html))


def compare_studies(folders: Sequence[Path], page: Path | None = None) -> Answer:
    """Studies side by side, the first of them the one that all others are set against.

    Args:
        folders: two or more, of different studies.
        page: file of an HTML page to write; None writes none.

    Raises:
        CommandError: too few studies, one of them twice, or no such folder for the page.
        StudyError: a folder holds no study, half of one, or a corrupt one; or the page cannot be written.
    """
    if len(folders) < 2:
        raise CommandError(f"compare: got {len(folders)} study, must be at least 2")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise CommandError("compare: the same study is named twice; name two different ones")
    if page is not None and (page.is_dir() or not page.parent.is_dir()):
        raise CommandError(f"--html {page}: must be a file in a folder that is there")
    found = comparison([read_overview(folder) for folder in folders])
    text = comparison_text(found)
    if page is None:
        return Answer(found, text)
    from precision_search.comparison_page import comparison_page  # the report's parts take a second to import

    write_atomic(page, comparison_page(found))
    return Answer(found | {"page": str(page)}, f"{text}\n\n  {page}")
