"""Recipes that are refused, and in which words."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precision.document import Document, dump
from precision.recipe import RecipeError, load_recipe
from tests.precision.recipes import GOOD, KNOWN, changed, mistakes, trees


def test_every_mistake_is_told_at_once() -> None:
    text = """\
version: 1
name: Bad Name
model: {name: embeded}
target: {device: p150}
data: {search: 0, held_back: 1}
calibrate: {method: percentile}
schemes:
  bf16: {weight: bf17, activation: bf16, fidelity: hifi5}
  lofi: {weight: bfp8_b, activation: bf16, wieght: 1, levers: [gain_folding, gain_folding, rounding]}
  lofi: {weight: bf16, activation: bf16}
baseline: bf61
space:
  - {match: "*", op: conv, allow: [bf16, lof]}
gates:
  profile: transparent
  add: [{metric: stoy, min: 1, max: 2}, {metric: pesq, max: .nan}, {metric: stoi, min: 0.5}]
  replace: [{metric: stoi, max: 3}, {metric: lsd_db}]
serch: {minimize: seconds}
"""
    lines = mistakes(text)
    for start, part in {
        "name (line 2): got 'Bad Name'": "lower-case",
        "model.name (line 3): got 'embeded'": "did you mean 'embedded'?",
        "target.device (line 4): got 'p150'": "did you mean 'p150a'?",
        "data.search (line 5): got 0": "at least 1",
        "data.held_back (line 5): got 1": "at least 2",
        "calibrate.percentile: missing": "with method percentile",
        "schemes.bf16.weight (line 8): got 'bf17'": "did you mean 'bf16'?",
        "schemes.bf16.fidelity (line 8): got 'hifi5'": "'hifi2', 'hifi3' or 'hifi4'",
        "schemes.lofi.wieght (line 9): unknown key": "did you mean 'weight'?",
        "schemes.lofi.levers[1] (line 9): got 'gain_folding' a second time": "once",
        "schemes.lofi.levers[2] (line 9): got 'rounding'": "did you mean 'fidelity_rounding'?",
        "schemes.lofi (line 9): stands twice (lines 9 and 10)": "once",
        "baseline (line 11): got 'bf61'": "one of this recipe's schemes (bf16, lofi); did you mean 'bf16'?",
        "space[0].op (line 13): got 'conv'": "'conv1d'",
        "space[0].allow[1] (line 13): got 'lof'": "did you mean 'lofi'?",
        "gates.add[0].metric (line 16): got 'stoy'": "did you mean 'stoi'?",
        "gates.add[0] (line 16): got min 1 and max 2": "exactly one",
        "gates.add[1].max (line 16): got nan": "finite",
        "gates.add[2] (line 16): got stoi over mean with min again": "change it under gates.replace",
        "gates.replace[0] (line 17): got stoi over mean with max": "must be a gate of profile transparent",
        "gates.replace[1] (line 17): got neither min nor max": "exactly one",
        "serch (line 18): unknown key": "did you mean 'search'?",
        "search: missing": "must be given",
    }.items():
        assert [line for line in lines if line.startswith(start) and part in line], (start, lines)
    assert len(lines) == 23


@pytest.mark.parametrize("section", [line.split(":")[0] for line in GOOD.splitlines() if line[0] not in " -"])
def test_a_missing_section_is_refused(section: str) -> None:
    document = Document.parse(GOOD)
    del document.data[section]
    assert any(line.startswith(f"{section}: missing") for line in mistakes(dump(document.data)))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version: 1", "version: 2", "version (line 1): got 2, must be 1"),
        ("version: 1", "version: true", "version (line 1): got true, must be 1"),
        ("search: 8", "search: true", "got true, must be a whole number"),
        ("search: 8", "search: 8.0", "got 8.0, must be a whole number"),
        ("search: 8", "search: '8'", "got '8', must be a whole number"),
        ("search: 8", "search: 99999999999999999999999", "got 1e+23, must be a whole number"),
        ("seed: 0", "seed: -1", "got -1, must be at least 0"),
        ("99.99", "101", "got 101, must be at most 100"),
        ("99.99", "0", "got 0, must be more than 0"),
        ("99.99", ".inf", "got inf, must be a finite number"),
        ("99.99", "1e999", "got inf, must be a finite number"),
        ("method: percentile", "method: amax", "got 99.99 with method amax, must be left out"),
        ("minimize: seconds", "minimize: second", "did you mean 'seconds'?"),
        ("{name: embedded}", "embedded", "model (line 3): got 'embedded', must be a mapping with the keys name"),
        ("{name: embedded}", "{name: 3}", "model.name (line 3): got 3, must be text"),
        ("{name: embedded}", "{name: embedded, checkpoint: ''}", "must be text that is not empty"),
        ("profile: transparent", "profile: transparant", "did you mean 'transparent'?"),
        ("gates: {profile: transparent, add: [], replace: []}", "gates: []", "gates (line 14): got a list of 0"),
        ("gates: {profile: transparent, add: [], replace: []}", "gates: none", "a mapping with a profile, or a list"),
        ("allow: [bf16]", "allow: []", "space[0].allow (line 12): got a list of 0"),
        ("allow: [bf16]", "allow: [bf16, bf16]", "space[0].allow[1] (line 12): got 'bf16' a second time"),
        ("allow: [bf16]", "allow: bf16", "space[0].allow (line 12): got 'bf16', must be a list"),
        ("  lofi_bfp8:", "  LoFi:", "schemes.LoFi (line 9): got 'LoFi', must be lower-case"),
        ("seed: 0}", "seed: 0}\ncost: {against: {device: l40, scheme: fp8}}", "did you mean 'l40s'?"),
        ("seed: 0}", "seed: 0}\ncost: {utilization: 1.5}", "cost.utilization (line 16): got 1.5, must be at most 1"),
        ("seed: 0}", "seed: 0}\nsearch: {}", "search (line 15): stands twice (lines 15 and 16)"),
    ],
)
def test_one_mistake_is_told_in_its_own_words(old: str, new: str, said: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    assert any(said in line for line in mistakes(text)), mistakes(text)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{}", ("model.name: missing, must be given: name, or in its place hf or entrypoint",)),
        (
            "{name: embedded, hf: x, config: c, inputs: 'a:b'}",
            (
                "model (line 3): got name and hf, must set exactly one of name, hf, entrypoint",
                "model.inputs (line 3): given, must be left out with name: it goes with entrypoint",
            ),
        ),
        (
            "{hf: kyutai/mimi, trust_remote_code: 1, checkpoint: x}",
            (
                "model.trust_remote_code (line 3): got 1, must be true or false",
                "model.checkpoint (line 3): given, must be left out with hf: it goes with name",
            ),
        ),
        (
            "{entrypoint: a.b.c, inputs: 3, family: vocodr, sample_rate_hz: 0}",
            (
                "model.inputs (line 3): got 3, must be a function that gives clips",
                "model.sample_rate_hz (line 3): got 0, must be at least 1",
                "did you mean 'vocoder'?",
                "model.entrypoint (line 3): got 'a.b.c', must be module:function, as my_package.my_model:build",
            ),
        ),
        (
            "{entrypoint: 'a.b:c', inputs: {mel: [1, 80, 0], x: 4}, outputs: {sound: [1]}}",
            (
                "model.inputs.mel[2] (line 3): got 0, must be at least 1",
                "model.inputs.x (line 3): got 4, must be a list",
                "model.outputs.sound (line 3): got a list of 1, must be text",
            ),
        ),
    ],
)
def test_a_model_is_named_in_one_way_with_what_goes_with_it(model: str, said: tuple[str, ...]) -> None:
    lines = mistakes(changed("{name: embedded}", model))
    assert len(lines) == len(said)
    assert all(any(part in line for line in lines) for part in said), lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1,\n b", "not YAML: line 2, column 3"),
        ("a: &x 1\nb: *x", "line 2, column 4: an alias"),
        ("a: !!python/object:os.system x", "line 1, column 4: the tag"),
        ("a: !!int x", "the tag"),
        ('a: "\\ud800"', "the tag"),
        ("[" * 5000, "nesting deeper"),
        ("a: \x07", "line 1, column 4: a character"),
        ("a: 1\n---\nb: 2", "another document"),
        ("", "got null, must be a mapping"),
        ("recipes/x.yaml", "a file is named with a pathlib.Path"),
        ("#" * (1 << 21), "is this a recipe?"),
    ],
)
def test_what_is_not_a_recipe_at_all(text: str, said: str) -> None:
    (line,) = mistakes(text)
    assert said in line


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        load_recipe(path, KNOWN)
    path.write_bytes(b"name: \xff")
    with pytest.raises(RecipeError, match="not UTF-8 text: byte 6 is 0xff"):
        load_recipe(path, KNOWN)
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_recipe(path, KNOWN) == load_recipe(GOOD, KNOWN)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.dictionaries(st.sampled_from(["version", "name", "model", "schemes", "space", "gates", "data", "x"]), trees))
def test_whatever_stands_in_a_file_is_told_and_not_raised(data: dict[str, object]) -> None:
    assert Document.parse(dump(data)).data == data
    assert mistakes(dump(data))
