"""What would break next, as a summary and a log have it."""

from pathlib import Path

import numpy as np
import pytest

from precision.candidate import Candidate
from precision.gates import Gate, Verdict
from precision.policy import Policy
from precision.study import Study
from precision_search.report.breaks import breaks
from precision_search.report.results import Results, read_results
from tests.precision_search.report_study import SCHEMES, SITES, Reader, candidate_of, changed, write_study

LOWEST = SCHEMES[-1].name
OWN, OTHER = SITES[3], SITES[6]
"""Two sites that have the scheme before the lowest."""
REFUTED = {
    "metric": "lsd_db",
    "over": "mean",
    "side": "max",
    "threshold": 2.5,
    "value": 3.0,
    "kept": False,
    "split": "search",
    "arithmetic": "tensix_fast",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("studies") / "breaks", seconds=0.1, clips=("anna",))


def read(folder: Path, to: Path, refuted: list[dict] | None = None, **summary) -> Results:
    def tell(found):
        found["protected"] = {}
        found["left_high"] = [] if refuted is None else [{"site": OWN.name, "refuted": refuted}]
        found.update(summary)

    return read_results(changed(folder, to, "summary.json", tell))


def rows_of(results: Results) -> list[str]:
    page = breaks(results).replace("<wbr>", "")
    return [Reader.of("<tr>" + part.split("</tr>")[0] + "</tr>").text for part in page.split("<tr>")[2:]]


def test_what_was_heard_is_told_with_its_saving(folder, tmp_path):
    own = [{**REFUTED, "sites": [OWN.name], "scheme": LOWEST}]
    rows = rows_of(read(folder, tmp_path / "s", own, one_optimal=True))
    row = next(row for row in rows if row.startswith(f"{OWN.name} "))
    assert f"lofi_bfp8 \u2192 {LOWEST}" in row
    assert "lsd_db (mean): 3, must be \u2264 2.5; on the search's clips, tensix_fast 20.0 %" in row
    assert "8.33 \u00b5s/s" in row  # 1e-4 / 3 less 1e-4 / 4


def test_sites_that_compute_as_one_are_one_row_with_all_their_saving(folder, tmp_path):
    both = [{**REFUTED, "sites": [OWN.name, OTHER.name], "scheme": LOWEST}]
    rows = rows_of(read(folder, tmp_path / "s", both))
    row = next(row for row in rows if row.startswith(f"{OWN.name} "))
    assert "and 1 other that compute as one with it" in row
    assert not any(row.startswith(f"{OTHER.name} ") for row in rows)


def test_the_most_valuable_comes_first_and_what_nobody_tried_is_said(folder, tmp_path):
    results = read(folder, tmp_path / "s")
    rows = rows_of(results)
    saved = [float(row.split(" \u00b5s/s")[0].split()[-1]) for row in rows]
    assert saved == sorted(saved, reverse=True)
    assert all("not tried" in row for row in rows)
    assert "did not try every single lowering" in breaks(results)


def test_a_study_that_does_not_say_is_read_by_its_log(folder, tmp_path):
    final = candidate_of(np.random.default_rng(0), 2, "held_back")
    names = dict(final.policy) | {OWN.name: LOWEST}
    named = {scheme.name: scheme for scheme in SCHEMES}
    lowered = Candidate.of(
        Policy.of({site: named[scheme] for site, scheme in names.items()}),
        "search",
        predicted={},
        scores={"anna": {"lsd_db": 5.0}},
        gates=[Verdict(Gate("lsd_db", max=2.5), 5.0)],
        seconds_cost=1e-4,
        elapsed_seconds=1.0,
    )
    study = changed(folder, tmp_path / "s", "summary.json", lambda summary: summary.update(left_high=[], protected={}))
    before = len(Study.read(study).candidates())
    with Study.open(study, Study.read(study).header) as log:
        log.add_candidate(lowered)
    assert len(Study.read(study).candidates()) == before + 1
    row = next(row for row in rows_of(read_results(study)) if row.startswith(f"{OWN.name} "))
    assert "lsd_db (mean): 5, must be \u2264 2.5; on the search's clips 100 %" in row


def test_protected_sites_are_counted_with_their_reason(folder, tmp_path):
    results = read(folder, tmp_path / "s", protected=dict.fromkeys((site.name for site in SITES), "it makes the phase"))
    assert not rows_of(results)
    assert "12 sites protected and not tried: it makes the phase." in breaks(results)
    assert "No site has a cheaper scheme open to it" not in breaks(results)
