"""Studies looked at: listed, shown while they run, set side by side, exported; and what cannot be looked at."""

import csv
import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from precision.candidate import Candidate
from precision.gates import Gate, Verdict
from precision.policy import Policy, Scheme
from precision.study import LOG, Study
from precision_search import tracking
from precision_search.main import main
from precision_search.overview import binding, read_overview
from precision_search.tracking import TrackingError, track
from precision_search.wire import make_setting, read_recipe, study_header

ROOT = Path(__file__).parents[2]
SCHEMES = {
    "bf16": Scheme("bf16", "bf16", "bf16", fidelity="hifi4"),
    "lofi": Scheme("lofi", "bfp8_b", "bf16", fidelity="lofi"),
    "bold": Scheme("bold", "bfp4_b", "bfp8_b", fidelity="lofi"),
}
SITES = ("pre", "mid", "post")
MACS = {"pre": 100.0, "mid": 250.0, "post": 650.0}
DAMAGE = {"bf16": 0.1, "lofi": 1.0, "bold": 3.0}
RECIPE = """version: 1
name: small
model: {{name: hifigan, checkpoint: g.safetensors}}
target: {{device: p150a}}
data: {{search: 2, held_back: 2}}
calibrate: {{method: amax}}
schemes:
  bf16: {{weight: bf16, activation: bf16, fidelity: hifi4}}
  lofi: {{weight: bfp8_b, activation: bf16, fidelity: lofi}}
baseline: bf16
space: [{{match: "*", allow: [bf16, lofi]}}]
gates: [{{metric: lsd_db, max: 2.5}}]
search: {{minimize: seconds, candidates: 3, evaluations: {evaluations}, seed: 0}}
"""


def recipe(evaluations: int = 80) -> str:
    return RECIPE.format(evaluations=evaluations)


def heard(schemes: str, *, split: str = "search", lsd: float = 2.0, arithmetic: str = "fast") -> Candidate:
    named = dict(zip(SITES, schemes.split(), strict=True))
    cost = math.fsum(MACS[site] * {"bf16": 4, "lofi": 2, "bold": 1}[name] for site, name in named.items()) * 1e-8
    found = {"lsd_db": lsd, "finite": 1.0}
    return Candidate.of(
        Policy.of({site: SCHEMES[name] for site, name in named.items()}),
        split,  # type: ignore[arg-type]
        predicted={"lsd_db": lsd * 1.1},
        scores={"anna": found, "bruno": {**found, "lsd_db": lsd + 0.2}},
        gates=[Verdict(Gate("lsd_db", max=2.5), lsd + 0.1), Verdict(Gate("finite", "worst", min=1.0), 1.0)],
        seconds_cost=cost,
        elapsed_seconds=2.5,
        arithmetic=arithmetic,
    )


def begin(folder: Path, *, text: str | None = "", evaluations: int = 80) -> Study:
    header = {
        "recipe": "small",
        "recipe_digest": f"{evaluations:016d}",
        "model": "hifigan",
        "weights": "aa",
        "clips": "bb",
        "code": "0.1.0+cc",
    }
    study = Study.create(folder, header, recipe(evaluations) if text == "" else text)
    for site in SITES:
        for name, scheme in SCHEMES.items():
            study.add_damage(site, scheme, {"lsd_db": DAMAGE[name] * (1 + SITES.index(site))})
    for candidate in (
        heard("bf16 bf16 bf16", lsd=0.2),
        heard("lofi lofi lofi", lsd=2.2),
        heard("lofi bold bold", lsd=math.inf),
        heard("bold lofi lofi", lsd=2.6),
    ):
        study.add_candidate(candidate)
    return study


def finish(study: Study, chosen: str = "lofi lofi lofi", *, older: bool = False) -> Path:
    final = heard(chosen, split="held_back", lsd=2.3, arithmetic="exact")
    study.add_candidate(final)
    study.close()
    folder = study.folder
    sites = [{"name": site, "op": "conv1d", "weight_shape": [8, 8, 3], "k": 24, "n": 8, "groups": 1} for site in SITES]
    for site in sites:
        site["macs_per_second"] = MACS[str(site["name"])]
    table = [
        {
            **site,
            "weight_elements": 192,
            "options": [
                {
                    "scheme": name,
                    "refused": None,
                    "damage": {"lsd_db": DAMAGE[name] * (1 + place)},
                    "seconds": 1e-6 * (1 + place),
                }
                for name in SCHEMES
            ],
        }
        for place, site in enumerate(sites)
    ]
    summary = {
        "recipe": "small",
        "device": "p150a",
        "verdict": "kept",
        "policy_digest": final.digest,
        "gates": [
            {"metric": "lsd_db", "over": "mean", "threshold": 2.5, "value": 2.4, "margin": 0.1, "kept": True},
        ],
    }
    if not older:
        summary |= {
            "arithmetic": "exact",
            "exact": True,
            "lofi_mac_share": 0.9,
            "bfp8_weight_share": 0.8,
            "fp8_mac_share": 0.0,
            "cost": {"ratio": 0.25, "usd_per_stream": {"candidate": 0.05, "baseline": 0.2}},
            "against": "l40s in bf16",
            "evaluations": 5,
            "repairs": 1,
            "seconds": 12.5,
        }
    for name, data in {
        "sites.json": sites,
        "damage.json": {"metrics": ["lsd_db"], "sites": table, "chosen": dict(final.policy)},
        "summary.json": summary,
    }.items():
        (folder / name).write_text(json.dumps(data))
    (folder / "policy.yaml").write_text(json.dumps({"sites": dict(final.policy)}))
    (folder / "report.html").write_text("<html></html>")
    return folder


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    root = tmp_path / "studies"
    finish(begin(root / "one"))
    finish(begin(root / "deep" / "two", evaluations=100), "bold lofi lofi")
    finish(begin(root / "old", text=None), older=True)
    begin(root / "part").close()
    return root


def asked(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["study", *map(str, arguments)])
    captured = capsys.readouterr()
    assert (exit_.value.code or 0) == 0, captured.err
    return captured.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["study", *map(str, arguments)])
    captured = capsys.readouterr()
    assert exit_.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("precision-search: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_every_study_below_a_folder_is_listed(studies, capsys):
    rows = {Path(row["study"]).name: row for row in json.loads(asked(capsys, "ls", studies, "--json"))["studies"]}
    assert list(rows) == ["two", "old", "one", "part"]
    one = rows["one"]
    assert one["recipe"] == "small"
    assert one["model"] == "hifigan"
    assert one["device"] == "p150a"
    assert (one["state"], one["ratio"], one["lofi_mac_share"]) == ("kept", 0.25, 0.9)
    assert (one["evaluations"], one["seconds"]) == (5, 12.5)
    assert one["seconds_cost"] == pytest.approx(2e-5)
    part = rows["part"]
    assert (part["state"], part["damages"], part["heard"], part["ratio"]) == ("unfinished", 9, 4, None)
    assert part["device"] == "p150a", "the recipe in the log names it"
    assert part["evaluations_limit"] == 80
    assert part["seconds"] == 10.0
    assert rows["old"]["ratio"] is None
    text = asked(capsys, "ls", studies)
    assert len(text.splitlines()) == 6
    assert "9 damages, 4 heard so far" in next(line for line in text.splitlines() if line.startswith("part"))
    assert next(line for line in text.splitlines() if line.startswith("deep/two")).split()[4] == "kept"


def test_the_default_folder_is_studies(studies, capsys, monkeypatch):
    monkeypatch.chdir(studies.parent)
    assert len(json.loads(asked(capsys, "ls", "--json"))["studies"]) == 4


def test_a_study_that_cannot_be_read_is_listed_with_the_reason(studies, capsys):
    with (studies / "part" / LOG).open("a") as file:
        file.write("{\n")
    assert "part/study.jsonl line 16 is not JSON" in asked(capsys, "ls", studies)
    rows = json.loads(asked(capsys, "ls", studies, "--json"))["studies"]
    assert [row["state"] for row in rows] == ["kept", "kept", "kept", "unreadable"]


def test_a_finished_study_is_shown(studies, capsys):
    text = asked(capsys, "show", studies / "one")
    for told in ("0.1.0+cc", "every gate kept", "0.25 of what l40s in bf16", "LoFi share of MACs", "90.0%", "<= 2.5"):
        assert told in text
    assert "held back in exact: lsd_db (mean) 4 % inside its threshold" in text
    found = json.loads(asked(capsys, "show", studies / "one", "--json"))
    assert found["sites"] == dict.fromkeys(SITES, "lofi")
    assert found["header"]["weights"] == "aa"
    assert found["gates"][0]["value"] == 2.4


def test_the_front_is_of_cost_against_the_most_binding_gate(studies):
    front = read_overview(studies / "one").front()
    # The cheapest breaks without measure, the next breaks by (2.7 - 2.5) / 2.5, and a flag that holds never binds.
    assert [row["metric"] for row in front] == ["lsd_db"] * 4
    assert [row["kept"] for row in front] == [False, False, True, True]
    assert [row["excess"] for row in front] == pytest.approx([math.inf, 0.08, -0.08, -0.88])
    costs = [row["seconds_cost"] for row in front]
    assert costs == sorted(costs)


def test_a_flag_binds_only_where_it_is_broken_or_alone():
    flag = Verdict(Gate("finite", "worst", min=1.0), 1.0)
    lsd = Verdict(Gate("lsd_db", max=2.5), 2.0)
    many = heard("lofi lofi lofi")
    for gates, bound in (([flag, lsd], lsd), ([flag], flag), ([], None)):
        assert binding(Candidate.of(**_parts(many, gates))) == bound
    broken = Verdict(flag.gate, 0.0)
    assert binding(Candidate.of(**_parts(many, [broken, lsd]))) == broken
    undefined = Verdict(Gate("stoi", min=0.9), math.nan)
    assert binding(Candidate.of(**_parts(many, [undefined]))) is None


def _parts(candidate: Candidate, gates: list[Verdict]) -> dict:
    return {
        "policy": Policy.of({site: SCHEMES[name] for site, name in candidate.policy.items()}),
        "split": candidate.split,
        "predicted": {},
        "scores": {},
        "gates": gates,
        "seconds_cost": 1.0,
        "elapsed_seconds": 1.0,
    }


def test_a_study_is_shown_while_it_is_written(studies, capsys):
    text = asked(capsys, "show", studies / "part")
    assert "unfinished: 9 damages measured, 0 settled, 4 policies heard, the last line" in text
    kept = heard("lofi lofi lofi")
    assert f"the cheapest policy kept so far {kept.digest}" in text
    assert "policy" in text.splitlines()[-1]
    with begin(studies / "running") as study, (study.folder / LOG).open("a") as file:
        file.write('{"kind": "damage", "site": "p')  # a line that is being written
        file.flush()
        assert json.loads(asked(capsys, "show", study.folder, "--json"))["state"] == "unfinished"


def test_what_was_settled_and_what_was_measured_again_is_told(tmp_path, capsys):
    with begin(tmp_path / "study") as study:
        line = {"kind": "damage", "site": "pre", "scheme": "odd", "key": "k", "damage": {"lsd_db": "inf"}}
        study.append({**line, "settled": "hopeless"})
        study.append({**line, "kind": "around", "key": ["d1g35t", "k"], "damage": {"lsd_db": 2.0}})
    text = asked(capsys, "show", tmp_path / "study")
    assert "9 damages measured, 1 settled" in text
    assert "damage of pre as odd: lsd_db inf (not measured: hopeless)" in text
    assert "damage of pre as odd in policy d1g35t: lsd_db 2" in text
    asked(capsys, "export", tmp_path / "study", "--csv", tmp_path)
    assert (tmp_path / "damage.csv").read_text().splitlines()[-1] == "pre,odd,lsd_db,inf,,hopeless"


def test_a_study_just_begun_is_shown(tmp_path, capsys):
    Study.create(tmp_path / "new", {"recipe": "small", "model": "hifigan"}, recipe()).close()
    text = asked(capsys, "show", tmp_path / "new")
    assert "unfinished: 0 damages measured, 0 settled, 0 policies heard" in text
    assert "no policy was heard yet" in text


def test_studies_of_older_code_are_shown_and_compared(studies, capsys):
    assert "every gate kept" in asked(capsys, "show", studies / "old")
    found = json.loads(asked(capsys, "compare", studies / "one", studies / "old", "--json"))
    assert found["recipes"] == {"old": None}
    assert found["sites"] == []
    assert "recipe: not known of both" not in asked(capsys, "compare", studies / "one", studies / "part")
    assert "recipe: not known of both" in asked(capsys, "compare", studies / "one", studies / "old")


def test_studies_are_set_side_by_side(studies, capsys):
    both = studies / "one", studies / "deep" / "two"
    found = json.loads(asked(capsys, "compare", *both, "--json"))
    assert found["headers"]["two"] == ["recipe_digest: 0000000000000080 -> 0000000000000100"]
    assert found["recipes"]["two"] == ["search.evaluations: 80 -> 100"]
    assert found["sites"] == [
        {
            "site": "pre",
            "mac_share": 0.1,
            "schemes": {"one": "lofi", "two": "bold"},
            "damage": {"one": {"lsd_db": 1.0}, "two": {"lsd_db": 3.0}},
        }
    ]
    assert found["gates"][0]["values"]["two"]["value"] == 2.4
    text = asked(capsys, "compare", *both, studies / "part")
    assert "recipe: search.evaluations: 80 -> 100" in text
    assert "the policies differ at 1 sites, 10.0% of the sites' MACs; damage as lsd_db" in text
    assert text.splitlines()[-1].split() == ["pre", "10.00%", "lofi", "1", "bold", "3", "lofi", "1"]
    assert "the policies agree at every site" in asked(capsys, "compare", studies / "one", studies / "part")


def test_studies_of_the_same_folder_name_are_told_apart(studies, capsys):
    finish(begin(studies / "other" / "one"))
    found = json.loads(asked(capsys, "compare", studies / "one", studies / "other" / "one", "--json"))
    assert list(found["studies"]) == [str(studies / "one"), str(studies / "other" / "one")]


def compared(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["compare", *map(str, arguments)])
    captured = capsys.readouterr()
    assert (exit_.value.code or 0) == 0, captured.err
    return captured.out


def test_compare_is_a_command_of_its_own(studies, capsys):
    both = studies / "one", studies / "deep" / "two"
    assert compared(capsys, *both) == asked(capsys, "compare", *both)
    found = json.loads(compared(capsys, *both, "--json"))
    assert found["cautions"] == []
    assert found["studies"]["one"]["worst_gate"] == {
        "metric": "lsd_db",
        "over": "mean",
        "kept": True,
        "margin_share": pytest.approx(0.04),
    }
    assert found["studies"]["one"]["digests"]["weights"] == "aa"
    text = compared(capsys, *both)
    assert "lsd_db (mean) 4.0 % inside" in text
    assert "90.0 %" in text


def test_least_room_is_of_what_a_gate_allows_and_not_of_its_threshold(studies, capsys):
    path = studies / "one" / "summary.json"
    summary = json.loads(path.read_text())
    # Of what the estoi allows nine tenths are left, though it lies half a percent from its threshold.
    estoi = {"metric": "estoi", "over": "mean", "side": "min", "threshold": 0.995, "value": 0.9995, "margin": 0.0045}
    lsd = {"metric": "lsd_db", "over": "mean", "side": "max", "threshold": 2.5, "value": 1.0, "margin": 1.5}
    summary["gates"] = [gate | {"kept": True} for gate in (estoi, lsd)]
    path.write_text(json.dumps(summary))
    assert "lsd_db (mean) 60.0 % inside" in compared(capsys, studies / "one", studies / "deep" / "two")


def test_what_money_says_of_a_study_is_in_its_column(studies, capsys):
    path = studies / "one" / "summary.json"
    summary = json.loads(path.read_text())
    summary["cost"] |= {
        "low": 0.1,
        "high": 0.5,
        "candidate": {"usd_per_stream": {"low": 0.01, "middle": 0.05, "high": 0.07}},
        "evidence": {"candidate": {"measured": 0.75, "roofline": 0.25}, "baseline": {"measured": 1.0}},
        "fleet": {
            "streams": 550,
            "candidate": {
                "cards": {"low": 20.0, "middle": 27.0, "high": 40.0},
                "usd": {"low": 27000.0, "middle": 37000.0, "high": 37000.0},
            },
        },
    }
    path.write_text(json.dumps(summary))
    text = compared(capsys, studies / "one", studies / "deep" / "two")
    for told in (
        "$0.05 ($0.01 to $0.07)",
        "0.25 (0.1 to 0.5)",
        "75.0 % measured, 25.0 % roofline",
        "27 (20 to 40) cards for 550 streams, $37,000 ($27,000 to $37,000)",
    ):
        assert told in text


def test_what_is_not_to_be_read_out_of_a_comparison_is_said_first(studies, capsys):
    found = json.loads(compared(capsys, studies / "one", studies / "part", "--json"))
    (caution,) = found["cautions"]
    assert caution.startswith("part has not ended: its column is of the cheapest policy kept among the 4 heard so far")
    Study.create(studies / "new", {"recipe": "small", "model": "hifigan", "clips": "cc"}, recipe()).close()
    found = json.loads(compared(capsys, studies / "one", studies / "new", "--json"))
    assert found["sites"] == [], "what has no policy differs in none"
    assert found["cautions"][1] == "they were heard on other clips: gates and damage differ by that, too"
    other = studies / "deep" / "two"
    for name in ("study.jsonl", "damage.json", "sites.json", "policy.yaml"):
        text = (other / name).read_text().replace('"hifigan"', '"embedded"')
        for site in SITES:
            text = text.replace(f'"{site}"', f'"decoder.{site}"')
        (other / name).write_text(text)
    path = other / "summary.json"
    path.write_text(path.read_text().replace("l40s in bf16", "h100_sxm in bf16"))
    text = compared(capsys, studies / "one", other)
    told = [line for line in text.splitlines() if line.startswith("caution: ")]
    assert told == [
        "caution: unlike models (one of hifigan, two of embedded): gates are of other sound, and a price is of other"
        " work",
        "caution: their ratios are to unlike baselines: h100_sxm in bf16, l40s in bf16",
        "caution: their sites are mostly not the same, so policies are not set side by side",
    ]
    assert text.splitlines()[-1] == "their sites are not set side by side"


def test_a_comparison_is_a_page_that_needs_nothing_else(studies, tmp_path, capsys):
    path = studies / "one" / "summary.json"
    path.write_text(path.read_text().replace('"l40s in bf16"', '"<b>l40s</b> & more"'))
    pages = [tmp_path / name for name in ("first.html", "second.html")]
    for page in pages:
        assert str(page) in compared(
            capsys, studies / "one", studies / "deep" / "two", studies / "part", "--html", page
        )
    text = pages[0].read_text()
    assert text == pages[1].read_text()
    assert "<b>l40s" not in text
    assert "&lt;b&gt;l40s&lt;/b&gt; &amp; more" in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", ""), "nothing is fetched"
    for told in ("Caution: part has not ended", "lsd_db", "search.evaluations: 80 -&gt; 100", "bold, 3", "10.0 %"):
        assert told.replace("_", "_<wbr>") in text or told in text
    closed = [text.count(f"<{name}") == text.count(f"</{name}>") for name in ("table", "section", "tr", "td", "main")]
    assert all(closed)


def test_what_cannot_be_compared_is_refused_in_a_line(studies, tmp_path, capsys):
    one, two = studies / "one", studies / "deep" / "two"
    for arguments, told in (
        ((one,), "compare: got 1 study, must be at least 2"),
        ((one, one / ".." / "one"), "compare: the same study is named twice"),
        ((one, two, "--html", tmp_path), "--html"),
        ((one, two, "--html", tmp_path / "none" / "page.html"), "must be a file in a folder that is there"),
        ((one, tmp_path), "holds no study"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["compare", *map(str, arguments)])
        captured = capsys.readouterr()
        assert exit_.value.code == 2
        assert captured.out == ""
        assert told in captured.err


def test_a_study_is_exported_as_tables(studies, tmp_path, capsys):
    asked(capsys, "export", studies / "one", "--csv", tmp_path / "new" / "tables")
    rows = {
        path.name: list(csv.DictReader(path.read_text().splitlines()))
        for path in (tmp_path / "new" / "tables").iterdir()
    }
    assert {name: len(found) for name, found in rows.items()} == {"candidates.csv": 5, "sites.csv": 3, "damage.csv": 9}
    last = rows["candidates.csv"][-1]
    assert last["digest"] == heard("lofi lofi lofi").digest
    assert (last["split"], last["arithmetic"], last["kept"]) == ("held_back", "exact", "True")
    assert last["worst_gate"] == "lsd_db mean"
    assert float(last["worst_excess"]) == pytest.approx(-0.04)
    assert float(last["gate lsd_db mean"]) == 2.4
    assert float(last["gate finite worst"]) == 1.0
    assert float(last["predicted lsd_db"]) == pytest.approx(2.53)
    assert float(last["measured lsd_db"]) == pytest.approx(2.4)
    assert rows["candidates.csv"][2]["measured lsd_db"] == "inf"
    assert rows["sites.csv"][1] == {
        "site": "mid",
        "op": "conv1d",
        "weight_shape": "8x8x3",
        "k": "24",
        "n": "8",
        "groups": "1",
        "macs_per_second": "250.0",
        "scheme": "lofi",
    }
    assert rows["damage.csv"][2] == {
        "site": "pre",
        "scheme": "bold",
        "metric": "lsd_db",
        "damage": "3.0",
        "seconds": "1e-06",
        "settled": "",
    }


def test_what_a_running_study_has_is_exported(studies, tmp_path, capsys):
    assert "sites.csv is left out" in asked(capsys, "export", studies / "part", "--csv", tmp_path / "tables")
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"candidates.csv", "damage.csv"}


def test_what_cannot_be_looked_at_is_refused_in_a_line(studies, tmp_path, capsys):
    one = studies / "one"
    assert "there is no such folder" in refused(capsys, "show", tmp_path / "none")
    assert "there is no such folder" in refused(capsys, "ls", tmp_path / "none")
    assert "holds no study (no study.jsonl)" in refused(capsys, "show", studies)
    (tmp_path / "empty").mkdir()
    assert "holds no study; `precision-search run` makes one" in refused(capsys, "ls", tmp_path / "empty")
    assert "got 1 study, must be at least 2" in refused(capsys, "compare", one)
    assert "the same study is named twice" in refused(capsys, "compare", one, studies / "deep" / ".." / "one")
    assert "say where to: --csv DIR, --mlflow [URI], or both" in refused(capsys, "export", one)
    assert "cannot be made" in refused(capsys, "export", one, "--csv", one / LOG / "tables")
    for arguments in (("show",), ("compare", one), ("export", "--csv", tmp_path / "tables")):
        (one / "damage.json").rename(tmp_path / "damage.json")
        other = (arguments[0], *arguments[1:], studies / "old") if arguments[0] == "compare" else (*arguments, one)
        assert "no finished study: damage.json missing" in refused(capsys, *other)
        (tmp_path / "damage.json").rename(one / "damage.json")
    log = studies / "part" / LOG
    content = log.read_bytes()
    log.write_bytes(content[:20])
    assert "it is no study, or only just begun" in refused(capsys, "show", studies / "part")
    log.write_bytes(content.replace(b'"search"', b'"se', 1))
    assert "is not JSON" in refused(capsys, "export", studies / "part", "--csv", tmp_path / "tables")
    (one / "sites.json").write_text("{}")
    (one / "sites.json").write_text('[{"name": "pre"}]')
    assert "sites.json is not a list of sites" in refused(capsys, "export", one, "--csv", tmp_path / "tables")


def test_mlflow_that_is_not_installed_is_told_by_its_extra(studies, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert "pip install 'precision-search[mlflow]'" in refused(capsys, "export", studies / "one", "--mlflow")


def test_a_study_that_has_not_ended_is_not_tracked(studies):
    with pytest.raises(TrackingError, match="has not ended"):
        track(read_overview(studies / "part"), "sqlite:///none.db")


def test_what_is_tracked_of_a_study(studies):
    overview = read_overview(studies / "one")
    parameters = tracking.parameters(overview)
    assert parameters["search.evaluations"] == "80"
    assert parameters["weights"] == "aa"
    final = tracking.final_metrics(overview)
    assert (final["ratio"], final["kept"], final["gate/lsd_db/mean"]) == (0.25, 1.0, 2.4)
    steps = list(tracking.step_metrics(overview))
    assert [(value, step) for key, value, step in steps if key == "search/kept"] == [(1, 0), (1, 1), (0, 2), (0, 3)]
    cheapest = [value for key, value, _ in steps if key == "search/cheapest_kept"]
    assert cheapest == pytest.approx([4e-5, 2e-5, 2e-5, 2e-5])
    assert [step for key, _, step in steps if key == "held_back/kept"] == [4]
    assert all(math.isfinite(value) for _, value, _ in steps)


@pytest.mark.slow
def test_a_study_is_a_run_of_mlflow(studies, tmp_path):
    # In a process of its own: MLflow and its store warn of their own deprecations, which are errors here.
    pytest.importorskip("sqlalchemy")
    code = f"""
    import json, sys
    from pathlib import Path
    from mlflow.tracking import MlflowClient
    from precision_search.overview import read_overview
    from precision_search.tracking import TrackingError, track

    overview, uri = read_overview(Path({str(studies / "one")!r})), "sqlite:///runs.db"
    first, second = track(overview, uri), track(overview, uri)
    client = MlflowClient(uri)
    run = client.get_run(first["run_id"])
    history = client.get_metric_history(first["run_id"], "search/seconds_cost")
    try:
        track(overview, "nonsense://host")
    except TrackingError as error:
        refused = str(error)
    print(json.dumps({{
        "known": [first["known"], second["known"]],
        "same": first["run_id"] == second["run_id"],
        "status": run.info.status,
        "seconds": run.info.end_time - run.info.start_time,
        "name": run.info.run_name,
        "params": run.data.params,
        "metrics": run.data.metrics,
        "steps": [metric.step for metric in history],
        "refused": refused,
        "files": [file.path for file in client.list_artifacts(first["run_id"])],
    }}))
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["known"] == [False, True]
    assert found["same"]
    assert (found["status"], found["seconds"], found["name"]) == ("FINISHED", 12500, "small")
    assert found["params"]["recipe_digest"] == f"{80:016d}"
    assert found["metrics"]["ratio"] == 0.25
    assert found["steps"] == [0, 1, 2, 3]
    assert found["refused"].startswith("--mlflow: nonsense://host refuses: ")
    assert found["files"] == ["policy.yaml", "report.html", "summary.json"]
    assert not (tmp_path / "mlflow.db").exists(), "the store that was named is the only one"


def test_a_study_of_something_else_is_not_gone_on_with(tiny, tmp_path, capsys):
    setting = make_setting(read_recipe(str(tiny.recipe), ()))
    mine = study_header(setting)
    changed = {
        "recipe": (mine, "    search.evaluations: 12 -> 13"),
        "weights": (
            mine | {"weights": "aa"},
            f"  weights: aa -> {mine['weights']} (the checkpoint holds other numbers)",
        ),
        "code": (mine | {"code": "0.0.1+aa"}, f"  code: 0.0.1+aa -> {mine['code']} (the package's source has changed;"),
    }
    for name, (header, told) in changed.items():
        Study.create(tmp_path / name, header, setting.recipe.to_yaml()).close()
        override = ("--set", "search.evaluations=13") if name == "recipe" else ()
        with pytest.raises(SystemExit) as exit_:
            main(["run", str(tiny.recipe), "--out", str(tmp_path / name), "--resume", "--quiet", *override])
        assert exit_.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == f"precision-search: {tmp_path / name} holds the study of something else (old -> new):"
        assert any(line.startswith(told) for line in lines), lines
        assert lines[-1] == "choose another folder with --out, or delete this one"
