"""Study: a log that survives kills, full disks and second runs."""

import errno
import itertools
import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precision import journal
from precision.gates import Gate, Verdict
from precision.policy import Policy, Scheme
from precision.site import Site
from precision.study import LOG, Candidate, Study, StudyError, evaluation_key, pareto, sites_digest, write_atomic

ROOT = Path(__file__).parents[2]
HEADER: dict[str, str | int | float | bool | None] = {
    "recipe": "0123456789abcdef",
    "checkpoint": "ff",
    "code": "0.1.0",
    "sites": "aa",
    "seed": 0,
}
FULL = Scheme("full", "bf16", "bf16")
LOW = Scheme("low", "bfp8_b", "bf16", fidelity="lofi", levers=("fidelity_rounding",))
POLICY = Policy((("a", FULL), ("b", LOW)))


def candidate(policy: Policy = POLICY, value: float = 0.99) -> Candidate:
    return Candidate.of(
        policy,
        "held_back",
        predicted={"lsd_db": 0.1 + 0.2},
        scores={"clip one": {"stoi": value, "lsd_db": math.inf}, "clip two": {"stoi": 0.5}},
        gates=[Verdict(Gate("stoi", "worst", min=0.9), value), Verdict(Gate("lsd_db", max=2.0), 1.5)],
        seconds_cost=1e-5,
        elapsed_seconds=3.25,
    )


def filled(folder: Path) -> Path:
    with Study.create(folder, HEADER) as study:
        study.add_damage("a", LOW, {"lsd_db": 0.1, "stoi": math.nan})
        study.add_damage("b", LOW, {"lsd_db": math.inf})
        study.append({"kind": "note", "text": "größer"})
        study.add_candidate(candidate())
    return folder / LOG


def test_what_was_found_is_found_again(tmp_path: Path) -> None:
    filled(tmp_path / "study")
    for study in (Study.open(tmp_path / "study", HEADER), Study.read(tmp_path / "study")):
        with study:
            damage = study.damage("a", LOW)
            assert damage is not None
            assert damage["lsd_db"] == 0.1
            assert math.isnan(damage["stoi"])
            assert study.damage("b", LOW) == {"lsd_db": math.inf}
            assert study.damage("a", FULL) is None
            assert study.candidate(POLICY.digest, "held_back") == candidate()
            assert study.candidate(POLICY.digest, "search") is None
            assert study.candidates() == (candidate(),)
            assert study.candidates("search") == ()
            assert study.records("note") == ({"kind": "note", "text": "größer"},)
            assert len(study.records("damage")) == 2
            assert study.header == HEADER
            assert study.records("header") == ()


def test_the_log_is_plain_json_of_the_agreed_shape(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in filled(tmp_path).read_text(encoding="utf-8").splitlines()]
    assert [line["kind"] for line in lines] == ["header", "damage", "damage", "note", "candidate"]
    assert lines[0] == {"kind": "header", **HEADER}
    assert lines[1] == {
        "kind": "damage",
        "site": "a",
        "scheme": "low",
        "key": evaluation_key("a", LOW),
        "damage": {"lsd_db": 0.1, "stoi": "nan"},
    }
    assert lines[4]["policy"] == {"a": "full", "b": "low"}
    assert lines[4]["gates"][0] == {
        "metric": "stoi",
        "over": "worst",
        "side": "min",
        "threshold": 0.9,
        "value": 0.99,
        "margin": pytest.approx(0.09),
        "kept": True,
    }
    assert lines[4]["kept"] is True


def test_a_candidate_is_kept_when_every_gate_is() -> None:
    assert candidate().kept
    assert not candidate(value=0.5).kept
    assert not candidate(value=math.nan).kept


def test_measurements_are_addressed_by_content() -> None:
    renamed = Scheme("other", LOW.weight, LOW.activation, LOW.accumulate, LOW.fidelity, levers=LOW.levers)
    assert evaluation_key("a", renamed) == evaluation_key("a", LOW)
    assert len({evaluation_key("a", LOW), evaluation_key("b", LOW), evaluation_key("a", FULL)}) == 3
    one = Site("a", "linear", (4, 4), 4, 4, 10.0)
    assert len({sites_digest([one]), sites_digest([]), sites_digest([Site("a", "linear", (4, 4), 4, 4, 10.5)])}) == 3


def test_a_kill_at_any_byte_of_the_last_record_loses_that_record_only(tmp_path: Path) -> None:
    log = filled(tmp_path)
    content = log.read_bytes()
    start = content.rindex(b"\n", 0, -1) + 1
    for length in range(start, len(content)):
        log.write_bytes(content[:length])
        assert len(Study.read(tmp_path).records("damage")) == 2
        assert log.read_bytes() == content[:length]
        with Study.open(tmp_path, HEADER) as study:
            assert log.read_bytes() == content[:start]
            assert study.candidates() == ()
            assert study.records("note")
            if length % 40 == 0:
                study.add_candidate(candidate())
                assert log.read_bytes() == content


def test_a_kill_in_the_header_leaves_a_study_that_starts_anew(tmp_path: Path) -> None:
    header = filled(tmp_path / "whole").read_bytes().splitlines(keepends=True)[0]
    for length, begin in itertools.product(range(0, len(header), 7), (Study.open, Study.create)):
        (tmp_path / LOG).write_bytes(header[:length])
        with begin(tmp_path, HEADER) as study:
            assert study.header == HEADER
        assert (tmp_path / LOG).read_bytes() == header
    (tmp_path / LOG).write_bytes(header[:10])
    with pytest.raises(StudyError, match="does not begin with a header"):
        Study.read(tmp_path)


@pytest.mark.parametrize("line", [b"{", b"[]", b"{}", b'{"kind": 1}', b"\xff", b"\0\0", b""])
@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_corrupt_line_is_told_with_its_number(tmp_path: Path, line: bytes, number: int) -> None:
    log = filled(tmp_path)
    lines = log.read_bytes().splitlines()
    lines[number - 1] = line
    content = b"\n".join(lines) + b"\n"
    log.write_bytes(content)
    with pytest.raises(StudyError, match=f"line {number} "):
        Study.open(tmp_path, HEADER)
    with pytest.raises(StudyError, match=f"line {number} "):
        Study.read(tmp_path)
    assert log.read_bytes() == content


def test_a_line_that_lacks_a_part_is_told(tmp_path: Path) -> None:
    log = filled(tmp_path)
    with log.open("ab") as file:
        file.write(b'{"kind": "damage", "site": "a"}\n')
    with pytest.raises(StudyError, match="lacks a part"):
        Study.open(tmp_path, HEADER)


def test_the_study_of_something_else_is_refused_with_all_that_differs(tmp_path: Path) -> None:
    log = filled(tmp_path)
    before = log.read_bytes()
    other = {**HEADER, "recipe": "fedcba9876543210", "code": "0.2.0", "clips": "cc"}
    del other["seed"]
    with pytest.raises(StudyError) as caught:
        Study.open(tmp_path, other)
    assert str(caught.value).splitlines() == [
        f"{tmp_path} holds the study of something else (old -> new):",
        "  recipe: 0123456789abcdef -> fedcba9876543210",
        "  code: 0.1.0 -> 0.2.0 (the package's source has changed; a study is finished by the code that began it)",
        "  seed: 0 -> (not given)",
        "  clips: (not given) -> cc",
        "choose another folder with --out, or delete this one",
    ]
    assert log.read_bytes() == before
    Study.open(tmp_path, HEADER).close()


def test_create_and_open_do_not_stand_in_for_each_other(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no study to resume"):
        Study.open(tmp_path / "none", HEADER)
    with pytest.raises(StudyError, match="cannot be read"):
        Study.read(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    filled(tmp_path)
    with pytest.raises(StudyError, match="holds a study already"):
        Study.create(tmp_path, HEADER)
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="could not be written"):
        Study.create(tmp_path / "file" / "study", HEADER)


@pytest.mark.parametrize("locks", ["flock", "file"])
def test_a_second_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: str) -> None:
    if locks == "file":
        monkeypatch.setattr(journal, "fcntl", None)
    log = filled(tmp_path)
    with Study.open(tmp_path, HEADER) as study:
        with pytest.raises(StudyError, match="another run is writing"):
            Study.open(tmp_path, HEADER)
        with pytest.raises(StudyError, match="another run is writing"):
            Study.create(tmp_path, HEADER)
        study.add_damage("c", FULL, {"lsd_db": 0.0})
        assert Study.read(tmp_path).damage("c", FULL) == {"lsd_db": 0.0}
    with Study.open(tmp_path, HEADER) as study:
        assert study.damage("c", FULL)
    assert [path.name for path in tmp_path.iterdir()] == [log.name]


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    code = f"""
    import sys, time
    from pathlib import Path
    from precision.study import Study
    study = Study.create(Path({str(tmp_path)!r}), {HEADER!r})
    study.append({{"kind": "note"}})
    print("ready", flush=True)
    time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(StudyError, match="another run is writing"):
            Study.open(tmp_path, HEADER)
        process.kill()
    with Study.open(tmp_path, HEADER) as study:
        assert len(study.records("note")) == 1


def test_a_full_disk_leaves_the_study_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(tmp_path)
    before = log.read_bytes()
    write = os.write
    calls = 0

    def half(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[: len(data) // 2])

    with Study.open(tmp_path, HEADER) as study:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", half)
            with pytest.raises(StudyError, match=r"No space left on device; make room and go on with --resume"):
                study.add_damage("c", LOW, {"lsd_db": 1.0})
        assert log.read_bytes() == before
        assert study.damage("c", LOW) is None
        study.add_damage("c", LOW, {"lsd_db": 1.0})
    assert Study.read(tmp_path).damage("c", LOW) == {"lsd_db": 1.0}


def test_a_real_limit_on_the_file_is_survived(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    code = f"""
    import resource
    from pathlib import Path
    from precision.study import Study, StudyError, write_atomic
    folder = Path({str(tmp_path)!r})
    study = Study.create(folder, {HEADER!r})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    written = 0
    try:
        for written in range(100):
            study.append({{"kind": "note", "text": "x" * 50}})
    except StudyError as error:
        assert "make room" in str(error), error
    assert len(Study.read(folder).records("note")) == written > 0
    (folder / "report.html").write_text("old")
    try:
        write_atomic(folder / "report.html", b"x" * 5000)
    except StudyError as error:
        assert "make room" in str(error), error
    assert (folder / "report.html").read_text() == "old"
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "study.jsonl"]
    print(written)
    """
    ran = subprocess.run(
        [sys.executable, "-B", "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert ran.returncode == 0, ran.stderr
    with Study.open(tmp_path, HEADER) as study:
        assert len(study.records("note")) == int(ran.stdout)


def test_what_cannot_be_logged_is_refused(tmp_path: Path) -> None:
    log = filled(tmp_path)
    before = log.read_bytes()
    study = Study.open(tmp_path, HEADER)
    for record in ({"text": "x"}, {"kind": "header"}, {"kind": "note", "value": math.nan}):
        with pytest.raises(ValueError, match=r"kind|JSON"):
            study.append(record)
    study.close()
    study.close()
    with pytest.raises(StudyError, match="open for reading, or closed"):
        study.append({"kind": "note"})
    with pytest.raises(StudyError, match="open for reading, or closed"):
        Study.read(tmp_path).append({"kind": "note"})
    assert log.read_bytes() == before


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_atomic(path, "größe\n")
    assert path.read_bytes() == "größe\n".encode()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StudyError, match="make room"):
            write_atomic(path, b"new")
    assert path.read_bytes() == "größe\n".encode()
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(StudyError, match="check the folder"):
        write_atomic(tmp_path / "none" / "x", "")


values = st.floats() | st.integers(0, 3).map(float)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.lists(st.tuples(values, values), max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    def beats(p: tuple[float, float], q: tuple[float, float]) -> bool:
        return p[0] <= q[0] and p[1] <= q[1] and p != q

    expected = [
        i
        for i, point in enumerate(points)
        if not any(map(math.isnan, point))
        and not any(beats(other, point) for other in points)
        and point not in points[:i]
    ]
    front = pareto(points)
    assert sorted(front) == expected
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


numbers = st.floats() | st.integers(-5, 5).map(float)
words = st.text(st.characters(codec="utf-8"), max_size=6)
scores = st.dictionaries(words, numbers, max_size=3)
sites = st.lists(st.tuples(words, st.sampled_from([FULL, LOW])), max_size=3, unique_by=lambda pair: pair[0])


@settings(max_examples=60, derandomize=True, deadline=None)
@given(sites, scores, st.dictionaries(words, scores, max_size=2), numbers, numbers)
def test_a_candidate_survives_its_line(
    schemes: list[tuple[str, Scheme]],
    predicted: dict[str, float],
    heard: dict[str, dict[str, float]],
    value: float,
    cost: float,
) -> None:
    verdict = Verdict(Gate("stoi", min=0.5), value)
    policy = Policy(tuple(schemes))
    tried = Candidate.of(
        policy, "search", predicted=predicted, scores=heard, gates=[verdict], seconds_cost=cost, elapsed_seconds=0.0
    )
    line = json.dumps(tried.to_dict(), allow_nan=False)
    again = Candidate.from_dict(json.loads(line))
    assert json.dumps(again.to_dict()) == line
    # NaN is not equal to itself, but repr tells it apart from everything else.
    assert repr(again) == repr(tried)
