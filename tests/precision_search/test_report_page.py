"""The report's page, as a screen reader and a suspicious browser take it; whole, broken and older studies."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from precision.study import Study
from precision_search.report import write_report
from precision_search.report.markup import Html, breakable, element
from tests.precision_search.report_study import EVIL, SECTIONS, Reader, changed, page_of, write_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("studies") / "tts_blackhole")


@pytest.fixture(scope="module")
def page(folder) -> str:
    return page_of(folder)


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
        assert page.count("url(") == page.count("url(#")
        assert "@import" not in page

    def test_what_a_screen_reader_needs(self, page):
        reader = Reader.of(page)
        assert reader.all("html")[0]["lang"] == "en"
        assert len(reader.all("h1")) == 1
        assert len(reader.all("caption")) == len(reader.all("table"))
        assert all(head["scope"] in {"row", "col"} for head in reader.all("th"))
        assert all(image["alt"] for image in reader.all("img"))
        assert all(svg["role"] == "img" and svg["aria-labelledby"] in page for svg in reader.all("svg"))
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


def test_reading_studies_loads_no_plotting_library():
    code = "import sys, precision_search.overview; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
