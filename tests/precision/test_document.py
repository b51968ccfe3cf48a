"""The YAML of a recipe as plain data, and what `--set` changes in it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precision.document import Document, YamlError, flow
from precision.recipe import load_recipe
from tests.precision.recipes import GOOD, KNOWN, mistakes, trees


def test_yaml_scalars_are_those_of_version_1_2() -> None:
    data = Document.parse("[1e-3, no, 2026-11-20, 012, 1_0, 12:30, ~, TRUE, '1', -.5, <<]").data
    assert data == [1e-3, "no", "2026-11-20", 12, "1_0", "12:30", None, True, "1", -0.5, "<<"]


def test_set_changes_what_the_file_says() -> None:
    overrides = ["model.checkpoint=/tmp/a b.safetensors", "space[1].allow=[bf16]", "cost.streams=8", "search.seed=1"]
    recipe = load_recipe(GOOD, KNOWN, [*overrides, "search.seed=7", "data.audio=no"])
    assert recipe.model.checkpoint == "/tmp/a b.safetensors"
    assert recipe.space[1].allow == ("bf16",)
    assert (recipe.cost.streams, recipe.search.seed, recipe.data.audio) == (8, 7, "no")
    amax = load_recipe(GOOD, KNOWN, ["calibrate.method=amax", "calibrate.percentile=null"])
    assert (amax.calibrate.method, amax.calibrate.percentile) == ("amax", None)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("search.seed", "--set search.seed: must be key.path=value"),
        ("=1", "--set =1: must be key.path=value"),
        ("a[=1", "must be key.path=value"),
        ("space[9].op=linear", "space has 2 entries"),
        ("name.x=1", "name is 'tts_blackhole' and has no 'x'"),
        ("name=[1", "the value is not YAML: line 1"),
        ("presets[0]=wide", "presets is not there to have entries; set all of it, as presets=[...]"),
        ("search.within[0]=0.8", "search.within is not there to have entries"),
        ("serch.seed=1", "serch (--set): unknown key"),
        ("model.name=hifigam", "model.name (--set): got 'hifigam', must be a known model"),
    ],
)
def test_set_is_checked_as_the_file_is(override: str, said: str) -> None:
    assert any(said in line for line in mistakes(GOOD, override)), mistakes(GOOD, override)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.text("ab:-[]{},'\"#&*!|>%@? \n\t\x00\x85~0.e", max_size=30))
def test_any_text_is_yaml_or_a_yaml_error(text: str) -> None:
    try:
        Document.parse(text)
    except YamlError as error:
        assert "line" in str(error)  # noqa: PT017 - either outcome is right


@settings(max_examples=100, derandomize=True, deadline=None)
@given(trees)
def test_a_value_in_one_line_reads_back(value: object) -> None:
    line = flow(value)
    assert "\n" not in line
    assert Document.parse(f"key: {line}  # said of it").data == {"key": value}
