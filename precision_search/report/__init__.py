"""The report of a study: one HTML file that needs nothing else."""

from pathlib import Path

__all__ = ["write_report"]


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a finished study, as `page.write_report` has it; give its path."""
    from precision_search.report import page  # late: matplotlib takes its time, and lists of studies do without

    return page.write_report(folder)
