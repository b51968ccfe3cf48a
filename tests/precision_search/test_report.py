"""The report of a small study, as a reader, a screen reader and a suspicious browser take it."""

import json
import math
import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from backends.devices import load_devices
from backends.money import compare
from backends.serving import serve
from precision.candidate import Candidate
from precision.gates import Gate, Verdict
from precision.policy import Policy, Scheme
from precision.site import Site
from precision.study import Study
from precision_search.report import write_report
from precision_search.report.damage import LogScale
from precision_search.report.figures import percent, significant, told_apart
from precision_search.report.markup import VOID, Html, breakable, element
from precision_search.report.plots import Axis
from precision_search.report.prediction import spearman
from precision_search.report.spectrogram import draw, levels_db, magnitudes

EVIL = "<script>alert('x')</script>&\"quoted\""
RATE = 22050
SCHEMES = (
    Scheme("bf16", "bf16", "bf16", fidelity="hifi4"),
    Scheme("hifi2_bfp8", "bfp8_b", "bf16", fidelity="hifi2"),
    Scheme("lofi_bfp8", "bfp8_b", "bf16", fidelity="lofi", levers=("fidelity_rounding",)),
    Scheme("lofi_bfp4", "bfp4_b", "bf16", fidelity="lofi"),
)
SITES = tuple(
    Site(f"vocoder.stages.{stage}.convs.{conv}", "conv1d", (64, 64, 7), 448, 64, 5512.0 * (stage + 1), kernel=7)
    for stage in range(4)
    for conv in range(3)
)
METRICS = ("lsd_db", "group_delay_rad")
GATES = (
    Gate("lsd_db", max=2.5),
    Gate("group_delay_rad", max=0.16),
    Gate("pesq_wb", min=4.4),
    Gate("pesq_wb", "worst", min=4.2),
    Gate("length_samples", max=0.0),
)
SECTIONS = (
    "verdict",
    "gates",
    "arithmetic",
    "damage",
    "prediction",
    "front",
    "cost",
    "listening",
    "policy",
    "provenance",
)


def damage_of(site: int, scheme: int, metric: str) -> float:
    scale = {"lsd_db": 0.2, "group_delay_rad": 0.012}[metric]
    return scale * scheme**2 * (0.3 + 0.1 * site)


def candidate_of(rng: np.random.Generator, level: int, split: str) -> Candidate:
    policy = Policy.of(
        {site.name: SCHEMES[(index + level) % 3 if index else level % 4] for index, site in enumerate(SITES)}
    )
    predicted = {metric: 0.6 * (1 + level) * {"lsd_db": 1.0, "group_delay_rad": 0.06}[metric] for metric in METRICS}
    measured = {metric: value * rng.uniform(0.97, 1.03) for metric, value in predicted.items()}
    found = {**measured, "pesq_wb": 4.55 - 0.05 * level, "length_samples": 0.0}
    return Candidate.of(
        policy,
        split,  # type: ignore[arg-type]
        predicted=predicted,
        scores=dict.fromkeys(("anna", "bruno"), found),
        gates=[Verdict(gate, found[gate.metric]) for gate in GATES],
        seconds_cost=2e-3 / (1 + level),
        elapsed_seconds=4.0,
    )


def write_study(
    folder: Path, *, evil: str = "", seconds: float = 1.5, clips: tuple[str, ...] = ("anna", "bruno")
) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    with Study.create(folder, {"recipe_digest": "0123456789abcdef", "clips_digest": "feed", "code": "0.1.0"}) as study:
        for level in range(8):
            study.add_candidate(candidate_of(rng, level, "search"))
        final = candidate_of(rng, 2, "held_back")
        study.add_candidate(final)
    refused = f"TT-NN has no such convolution {evil}"
    sites = [
        {
            "name": site.name,
            "op": site.op,
            "macs_per_second": site.macs_per_second,
            "weight_elements": site.weight_elements,
            "options": [
                {
                    "scheme": scheme.name,
                    "refused": refused if (number, index) == (3, 0) else None,
                    "damage": {} if (number, index) == (3, 0) else {m: damage_of(index, number, m) for m in METRICS},
                    "seconds": 1e-4 / (1 + number),
                    "bytes": 1000,
                }
                for number, scheme in enumerate(SCHEMES)
            ],
        }
        for index, site in enumerate(SITES)
    ]
    (folder / "damage.json").write_text(
        json.dumps({"metrics": METRICS, "sites": sites, "chosen": dict(final.policy)}), encoding="utf-8"
    )
    (folder / "policy.yaml").write_text("".join(f"{k}: {v}\n" for k, v in final.policy.items()), encoding="utf-8")
    devices = load_devices()
    ours = serve(devices["p150a"], SITES, Policy.uniform([s.name for s in SITES], SCHEMES[2]), label="found")
    full = Scheme("bf16", "bf16", "bf16")
    theirs = serve(devices["l40s"], SITES, Policy.uniform([s.name for s in SITES], full), label="bf16")
    summary = {
        "recipe": f"tts_blackhole{evil}",
        "recipe_digest": "0123456789abcdef",
        "model": f"embedded{evil}",
        "device": "p150a",
        "backend": "tenstorrent",
        "verdict": "kept",
        "lofi_mac_share": 0.973,
        "bfp8_weight_share": 0.91,
        "fp8_mac_share": 0.0,
        "gates": [
            {
                "metric": verdict.gate.metric,
                "over": verdict.gate.over,
                "value": verdict.value,
                "threshold": verdict.gate.threshold,
                "kept": verdict.kept,
                "margin": verdict.margin,
                "beside": {"baseline": verdict.value * 0.9, "bf16": verdict.value * 0.95},
            }
            for verdict in final.gates
        ],
        "unjudged": [{"metric": "pesq_change", "over": "lower_bound", "reason": f"needs the natural recording {evil}"}],
        "evaluations": 9,
        "seconds": 412.0,
        "sites": len(SITES),
        "covered_mac_share": 0.9991,
        "cost": compare(ours, theirs).to_dict(),
        "policy_digest": final.digest,
        "versions": {"precision-search": "0.1.0", "torch": "2.13"},
        "seed": 0,
        "schemes": {scheme.name: scheme.to_dict() for scheme in SCHEMES},
        "left_high": [{"site": SITES[-1].name, "scheme": "bf16", "why": f"breaks lsd_db {evil}"}],
        "protected": {SITES[0].name: "makes the phase"},
    }
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    time = np.arange(int(seconds * RATE)) / RATE
    for side, noise in (("reference", 0.0), ("candidate", 0.01)):
        (folder / "samples" / side).mkdir(parents=True)
        for clip in clips:
            voice = 0.3 * np.sin(2 * np.pi * 220 * time * (1 + 0.2 * time)) + noise * rng.standard_normal(len(time))
            soundfile.write(folder / "samples" / side / f"{clip}.wav", voice, RATE, subtype="FLOAT")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("studies") / "tts_blackhole")


@pytest.fixture(scope="module")
def page(folder) -> str:
    return write_report(folder).read_text(encoding="utf-8")


@dataclass
class Reader(HTMLParser):
    """Walks a page; every tag must be closed in turn."""

    open: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "script" not in self.open and "style" not in self.open:
            self.texts.append(text)

    @classmethod
    def of(cls, page: str) -> "Reader":
        reader = cls()
        reader.feed(page)
        reader.close()
        assert not reader.open
        return reader

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def changed(folder: Path, to: Path, name: str, change) -> Path:
    """A copy of a study in which one JSON file was changed."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.wav", "report.html"))
    data = json.loads((to / name).read_text(encoding="utf-8"))
    change(data)
    (to / name).write_text(json.dumps(data), encoding="utf-8")
    return to


def test_what_no_site_computes_is_told_with_a_warning_where_it_is_much(folder, page, tmp_path):
    assert "under 99%" not in page
    assert "outside of all sites" not in page

    def lose(summary):
        summary |= {"covered_mac_share": 0.5, "outside": [{"module": "odd.fft", "mac_share": 0.5}]}

    text = Reader.of(write_report(changed(folder, tmp_path / "half", "summary.json", lose)).read_text()).text
    assert "The sites are 50.00% of the MACs, under 99%" in text
    assert "outside of all sites: odd.fft 50" in text


class TestPage:
    def test_every_section_is_there_in_order_under_a_heading(self, page):
        reader = Reader.of(page)
        assert tuple(section["id"] for section in reader.all("section")) == SECTIONS
        ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert all(section["aria-labelledby"] in ids for section in reader.all("section"))
        assert all(link["href"].removeprefix("#") in ids for link in reader.all("a"))

    def test_nothing_is_loaded_from_anywhere(self, page):
        for tag, attributes in Reader.of(page).tags:
            for key in ("src", "href", "srcset", "poster", "data", "action", "xlink:href"):
                value = attributes.get(key)
                assert value is None or value.startswith(("data:", "#")), (tag, key)
            assert tag not in {"link", "iframe", "object", "embed", "base"}
        assert "url(" not in page
        assert "@import" not in page

    def test_what_a_screen_reader_needs(self, page):
        reader = Reader.of(page)
        assert reader.all("html")[0]["lang"] == "en"
        assert len(reader.all("h1")) == 1
        assert len(reader.all("caption")) == len(reader.all("table"))
        assert all(head["scope"] in {"row", "col"} for head in reader.all("th"))
        assert all(image["alt"] for image in reader.all("img"))
        assert all(svg["aria-label"] for svg in reader.all("svg"))
        assert all(player["aria-label"] for player in reader.all("audio"))

    def test_the_same_folder_gives_the_same_bytes(self, folder, page):
        assert write_report(folder).read_text(encoding="utf-8") == page

    def test_every_string_of_the_study_is_escaped(self, tmp_path):
        page = write_report(write_study(tmp_path / "evil", evil=EVIL, seconds=0.2)).read_text(encoding="utf-8")
        reader = Reader.of(page)
        assert len(reader.all("script")) == 1
        assert "alert('x')" not in page.replace("&#x27;", "'").replace("&lt;script&gt;alert('x')", "")
        assert reader.text.count(EVIL) >= 5

    @settings(derandomize=True, deadline=None)
    @given(st.text(), st.text())
    def test_any_text_stays_text(self, attribute, content):
        reader = Reader.of(element("p", {"title": attribute}, content))
        assert [tag for tag, _ in reader.tags] == ["p"]
        if all(letter >= " " for letter in content) and content:
            assert "".join(reader.texts) == content.encode("utf-8", "replace").decode()

    def test_names_break_where_they_may_and_stay_escaped(self):
        assert breakable("a.b_c<#op0") == "a.<wbr>b_<wbr>c&lt;<wbr>#op0"

    def test_markup_is_not_escaped_twice(self):
        inner = element("b", {}, "a < b")
        assert element("p", {}, inner) == "<p><b>a &lt; b</b></p>"
        assert isinstance(inner, Html)


class TestContents:
    def test_the_verdict_comes_first_with_shares_and_price(self, page):
        text = Reader.of(page).text
        verdict = text[text.index("Verdict") : text.index("Gates")]
        assert "✓ Kept : all of the 5 gates hold." in verdict
        assert "LoFi share of MACs 97.3 %" in verdict
        assert "bfp8_b share of weights 91.0 %" in verdict
        assert "FP8" not in verdict
        assert "on l40s" in verdict
        assert "1 gate could not be judged" in verdict

    @pytest.mark.parametrize(
        ("found", "told"),
        [
            (
                {"count": 5, "seconds": 2.5e-06, "share": 0.0496},
                "each behind a typecast: 5. Typecasts are 5.0 % of the policy's time",
            ),
            ({"count": 0, "seconds": 0.0, "share": 0.0}, "the policy has no typecasts"),
        ],
    )
    def test_typecasts_are_told_where_they_were_counted(self, folder, page, tmp_path, found, told):
        study = changed(folder, tmp_path / "s", "summary.json", lambda summary: summary.update(typecasts=found))
        assert told in Reader.of(write_report(study).read_text(encoding="utf-8")).text
        assert told not in Reader.of(page).text

    def test_on_hopper_the_share_of_fp8_is_told(self, folder, tmp_path):
        study = changed(
            folder, tmp_path / "hopper", "summary.json", lambda s: s.update(backend="hopper", fp8_mac_share=0.5)
        )
        text = Reader.of(write_report(study).read_text(encoding="utf-8")).text
        assert "FP8 share of MACs 50.0 %" in text
        assert "LoFi share of MACs" not in text

    def test_a_broken_gate_is_named_where_the_eye_falls_first(self, folder, tmp_path):
        def broken(summary):
            summary["verdict"] = "broken"
            summary["gates"][0] |= {"value": 2.75, "margin": -0.25, "kept": False}

        page = write_report(changed(folder, tmp_path / "broken", "summary.json", broken)).read_text(encoding="utf-8")
        text = Reader.of(page).text
        assert "✗ Broken : 1 of 5 gates does not hold." in text
        assert "lsd_db (mean) is 2.75, must be ≤ 2.5" in text
        assert "-10 %" in text

    def test_a_verdict_that_its_gates_deny_is_doubted(self, folder, tmp_path):
        study = changed(folder, tmp_path / "s", "summary.json", lambda s: s["gates"][0].update(kept=False))
        assert "do not rely on it" in write_report(study).read_text(encoding="utf-8")

    def test_yardsticks_stand_beside_the_gates_and_a_model_without_sound_has_no_players(self, folder, tmp_path):
        def told(summary):
            summary["comparison"] = {"family": "understanding", "forced": "the same tokens", "judged": ["tokens"]}
            summary["statistics"] = {"lsd_db": {"mean": 1.25, "worst": 2.0, "tail": 1.9, "resolvable_change": "nan"}}
            summary["unforced"] = {"clips": 2, "same_length": 1, "length_change": 0.01, "kept": False, "gates": []}
            summary["sound"] = False

        page = write_report(changed(folder, tmp_path / "s", "summary.json", told)).read_text(encoding="utf-8")
        text = Reader.of(page).text
        assert "Own bf16" in text
        assert "judged by tokens, with the same on both sides: the same tokens" in text
        assert "1.25" in text
        assert "The last check, with nothing forced on the model, is broken" in text
        assert 'id="listening"' not in page
        assert "Listening" not in text

    def test_a_study_from_before_the_yardsticks_has_the_baseline_beside(self, folder, tmp_path):
        def old(summary):
            for gate in summary["gates"]:
                gate["bf16_value"] = gate.pop("beside")["baseline"]

        text = Reader.of(write_report(changed(folder, tmp_path / "s", "summary.json", old)).read_text("utf-8")).text
        assert "Baseline" in text
        assert "Own bf16" not in text

    def test_gates_that_could_not_be_judged_give_their_reason(self, page):
        assert "needs the natural recording" in Reader.of(page).text

    def test_chosen_and_refused_cells_of_the_heat_map(self, page):
        reader = Reader.of(page)
        cells = [cell for cell in reader.all("td") if cell.get("class")]
        assert sum("chosen" in cell["class"].split() for cell in cells) == len(SITES) * len(METRICS)
        refused = [cell for cell in cells if cell["class"] == "refused"]
        assert len(refused) == len(METRICS)
        assert all("no such convolution" in cell["title"] for cell in refused)
        assert f"{SITES[0].name} (lofi_bfp4)" in reader.text

    def test_the_order_of_predictions_is_told(self, page):
        text = Reader.of(page).text
        assert text.count("Spearman rank correlation: 1 on the search's clips (8 candidates)") == len(METRICS)
        assert "too few or equal values on clips held back (1 candidate)" in text

    def test_marks_of_candidates_tell_digest_and_shares_and_differ_in_shape(self, page):
        reader = Reader.of(page)
        assert "share of MACs:" in reader.text
        kept = sum(circle["class"] == "kept" for circle in reader.all("circle"))
        broken = sum(path["class"] == "broken" for path in reader.all("path"))
        assert kept + broken == 9 * (1 + len(METRICS))
        assert min(kept, broken) > 0

    def test_cost_with_its_range_assumptions_and_sources(self, page, folder):
        text = Reader.of(page).text
        cost = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["cost"]
        assert f"{cost['candidate']['serving']['low']['streams_per_card']:,}" in text
        assert all(" ".join(sentence.split()) in text for sentence in cost["assumptions"])
        assert all(" ".join(entry["source"].split()) in text for entry in cost["sources"])

    def test_the_policy_gives_reasons(self, page):
        text = Reader.of(page).text
        assert "protected: makes the phase" in text
        assert "breaks lsd_db" in text
        assert "fidelity_rounding" in text

    def test_players_hold_the_samples_at_16_bits(self, page):
        players = Reader.of(page).all("audio")
        assert [player["aria-label"] for player in players] == [
            f"{clip}, {side}" for clip in ("anna", "bruno") for side in ("reference", "candidate")
        ]
        assert all(player["src"].startswith("data:audio/wav;base64,") for player in players)
        assert len(Reader.of(page).all("img")) == 2


class TestSize:
    def test_long_clips_at_a_high_rate_stay_under_8_mb(self, folder, tmp_path):
        study = tmp_path / "long"
        shutil.copytree(folder, study)
        noise = 0.1 * np.random.default_rng(1).standard_normal(48000 * 6)
        for side in ("reference", "candidate"):
            shutil.rmtree(study / "samples" / side)
            (study / "samples" / side).mkdir()
            for clip in range(8):
                soundfile.write(study / "samples" / side / f"clip{clip}.wav", np.roll(noise, clip), 48000)
        page = write_report(study)
        assert page.stat().st_size < 8_000_000
        text = Reader.of(page.read_text(encoding="utf-8")).text
        assert "The first 6 of 8 clips" in text
        assert "of 6 s" in text


class TestMissing:
    @pytest.mark.parametrize("name", ["summary.json", "damage.json", "study.jsonl", "policy.yaml"])
    def test_a_folder_that_lacks_a_file_is_refused_by_name(self, folder, tmp_path, name):
        study = tmp_path / "s"
        shutil.copytree(folder, study, ignore=shutil.ignore_patterns("report.html"))
        (study / name).unlink()
        with pytest.raises(ValueError, match=f"is no finished study: {name} missing"):
            write_report(study)
        assert not (study / "report.html").exists()

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("summary.json", "{", "cannot be read"),
            ("summary.json", "[]", "must hold an object"),
            ("summary.json", '{"recipe": "x", "device": "y"}', "lacks verdict, gates"),
            ("summary.json", '{"recipe": "x", "device": "y", "verdict": "kept", "gates": [1]}', "list of objects"),
            ("damage.json", "{}", "lacks 'sites'"),
            ("damage.json", '{"metrics": [], "sites": [{"options": [{}]}]}', "lacks 'scheme'"),
            ("damage.json", '{"metrics": [], "sites": 3}', "not the table of a study"),
            ("study.jsonl", "\n", "is not JSON"),
            ("study.jsonl", "", "does not begin with a header"),
        ],
    )
    def test_a_file_that_says_something_else_is_refused(self, folder, tmp_path, name, content, said):
        study = tmp_path / "s"
        shutil.copytree(folder, study)
        (study / name).write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=said):
            write_report(study)

    def test_the_least_a_study_can_hold_is_reported_with_what_is_missing(self, tmp_path):
        study = tmp_path / "least"
        Study.create(study, {}).close()
        (study / "summary.json").write_text('{"recipe": "r", "device": "d", "verdict": "broken", "gates": []}')
        (study / "damage.json").write_text('{"metrics": [], "sites": []}')
        (study / "policy.yaml").write_text("")
        text = Reader.of(write_report(study).read_text(encoding="utf-8")).text
        for said in (
            "no gate was judged",
            "holds no damage of single sites",
            "no candidate was logged",
            "the study was not priced",
            "There are no samples",
            "No versions are recorded",
        ):
            assert said in text

    def test_odd_values_and_samples_are_said(self, folder, tmp_path):
        def odd(summary):
            summary["gates"][0] |= {"value": "nan", "margin": None, "kept": False}
            summary["cost"] |= {"ratio": None, "low": None, "high": None, "sources": None}
            del summary["unjudged"], summary["left_high"], summary["schemes"], summary["versions"]

        study = changed(folder, tmp_path / "s", "summary.json", odd)
        samples = study / "samples"
        for clip in ("anna.wav", "bruno.wav"):
            shutil.copy(folder / "samples" / "reference" / clip, samples / "reference" / clip)
        (samples / "candidate" / "anna.wav").write_bytes(b"RIFF")
        soundfile.write(samples / "candidate" / "bruno.wav", np.full((4000, 2), np.nan), 16000, subtype="FLOAT")
        soundfile.write(samples / "candidate" / "carl.wav", np.zeros(10), 16000)
        text = Reader.of(write_report(study).read_text(encoding="utf-8")).text
        for said in (
            "undefined",
            "There is no ratio of prices",
            "No sources are recorded",
            "candidate/anna.wav cannot be read",
            "The rates differ, 22050 and 16000 Hz",
            "2 channels",
            "8000 samples of NaN",
            "not shown: carl.wav",
        ):
            assert said in text

    def test_damage_without_a_number_does_not_break_the_map(self, folder, tmp_path):
        def odd(damage):
            damage["sites"][0]["options"][1]["damage"] = {"lsd_db": "inf", "group_delay_rad": None}
            damage["sites"][1]["options"] = damage["sites"][1]["options"][:1]
            del damage["chosen"]

        text = Reader.of(write_report(changed(folder, tmp_path / "s", "damage.json", odd)).read_text("utf-8")).text
        for said in ("infinite", "undefined", "not offered", "no other scheme was open to it"):
            assert said in text


class TestFigures:
    def test_a_value_beside_its_threshold_is_told_apart(self):
        assert told_apart(4.39996, 4.4) == "4.39996"
        assert told_apart(4.4, 4.4) == "4.4"
        assert told_apart(math.nan, 4.4) == "undefined"

    @settings(derandomize=True, deadline=None)
    @given(st.floats(-1e300, 1e300))
    def test_figures_keep_their_value(self, value):
        assert float(significant(value).replace(",", "")) == pytest.approx(value, rel=5.1e-3, abs=0)

    @settings(derandomize=True, deadline=None)
    @given(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True))
    def test_a_part_is_never_told_as_all_or_nothing(self, share):
        assert percent(share) not in {"100 %", "100.0 %", "0 %", "0.0 %"}

    @settings(derandomize=True, deadline=None, max_examples=50)
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=30))
    def test_rank_correlation_agrees_with_scipy(self, pairs):
        left, right = [float(pair[0]) for pair in pairs], [float(pair[1]) for pair in pairs]
        found = spearman(left, right)
        if len(set(left)) == 1 or len(set(right)) == 1:
            assert math.isnan(found)
        else:
            assert found == pytest.approx(spearmanr(left, right).statistic, abs=1e-12)

    @settings(derandomize=True, deadline=None)
    @given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=20))
    def test_an_axis_holds_its_values_and_has_ticks(self, values):
        axis = Axis.of("x", values)
        assert all(-1e-9 <= axis.share(value) <= 1 + 1e-9 for value in values)
        ticks = axis.ticks()
        assert 2 <= len(ticks) <= 20
        assert all(-1e-6 <= axis.share(tick) <= 1 + 1e-6 for tick in ticks)

    @settings(derandomize=True, deadline=None)
    @given(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=20))
    def test_classes_of_the_heat_map_rise_with_damage(self, values):
        scale = LogScale.of(values)
        steps = [scale.step(value) for value in sorted(values)]
        assert steps == sorted(steps)
        assert steps[0] >= 0
        assert steps[-1] <= 8
        assert LogScale.of([0.0, math.nan, math.inf]) is None
        assert LogScale.of([1e-12, 2.0]).low == 2e-4


class TestSpectrogram:
    def test_a_full_tone_is_at_its_frequency_and_at_the_peak(self):
        tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
        spectrum = magnitudes(tone)
        levels = levels_db(spectrum, float(spectrum.max()))
        assert spectrum[:, 5].argmax() == 64
        assert levels.max() == 0.0
        assert levels.min() == -80.0

    @pytest.mark.parametrize("length", [1, 500, 5000])
    def test_silence_and_short_clips_are_drawn(self, length):
        png = draw(np.zeros(length, np.float32), np.zeros(length, np.float32), 16000)
        assert png.startswith(b"\x89PNG")
