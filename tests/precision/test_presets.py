"""Presets: schemes by one name, whose they are, and what a recipe makes of them."""

import pytest

from precision.mistakes import RecipeError
from precision.policy import Scheme
from precision.presets import Preset, load_presets
from precision.recipe import Known, Recipe, load_recipe
from precision.sections import SchemeEntry

NAMES = {"format": ("bf16", "bfp8_b", "fp8_e4m3"), "architecture": ("blackhole", "hopper")}
GOOD = """\
presets:
  wide:
    about: what nobody hears
    architectures: [blackhole]
    schemes:
      bf16: {weight: bf16, activation: bf16, fidelity: hifi4}
  lofi:
    about: one pass
    architectures: [blackhole]
    schemes:
      bfp8_lofi: {weight: bfp8_b, activation: bf16, fidelity: lofi, levers: [gain_folding]}
      bfp8_hifi2: {weight: bfp8_b, activation: bf16, fidelity: hifi2}
  other_card:
    about: the same name, computed otherwise
    architectures: [hopper]
    schemes: {bf16: {weight: bf16, activation: bf16}}
  same_again:
    about: what wide has, and more
    architectures: [blackhole]
    schemes:
      bf16: {weight: bf16, activation: bf16, fidelity: hifi4}
      bf16_lofi: {weight: bf16, activation: bf16, fidelity: lofi}
"""
RECIPE = """\
version: 1
name: tiny
model: {name: embedded}
target: {device: p150a}
data: {search: 1, held_back: 2}
calibrate: {method: amax}
presets: [wide, lofi]
baseline: bf16
space: [{match: "*", allow: [bf16, bfp8_lofi]}]
gates: [{metric: stoi, min: 0.9}]
search: {minimize: seconds, candidates: 1, evaluations: 1, seed: 0}
"""
KNOWN = Known(("embedded",), ("p150a",), ("stoi",), {}, presets=load_presets(GOOD, NAMES))


def read(*overrides: str, text: str = RECIPE) -> Recipe:
    return load_recipe(text, KNOWN, overrides)


def mistakes(*overrides: str, text: str = RECIPE) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        read(*overrides, text=text)
    return caught.value.lines


def test_presets_bring_their_schemes() -> None:
    recipe = read()
    assert recipe.schemes == (
        Scheme("bf16", "bf16", "bf16", fidelity="hifi4"),
        Scheme("bfp8_lofi", "bfp8_b", "bf16", fidelity="lofi", levers=("gain_folding",)),
        Scheme("bfp8_hifi2", "bfp8_b", "bf16", fidelity="hifi2"),
    )
    assert recipe.baseline.fidelity == "hifi4"


def test_what_presets_bring_is_spelled_out_so_that_a_study_stays_what_it_was() -> None:
    recipe = read()
    assert "presets" not in recipe.to_yaml()
    plain = load_recipe(recipe.to_yaml(), Known(("embedded",), ("p150a",), ("stoi",), {}))
    assert (plain, plain.digest) == (recipe, recipe.digest)
    changed = KNOWN.presets | {
        "lofi": Preset("one pass", ("blackhole",), {"bfp8_lofi": SchemeEntry("bfp8_b", "bf16", fidelity="lofi")})
    }
    other = load_recipe(RECIPE, Known(("embedded",), ("p150a",), ("stoi",), {}, presets=changed))
    assert other.digest != recipe.digest


def test_a_recipes_own_scheme_takes_the_place_of_a_presets() -> None:
    recipe = read(
        "schemes.bf16={weight: bf16, activation: bf16, fidelity: hifi3}", "schemes.own={weight: bf16, activation: bf16}"
    )
    assert [scheme.name for scheme in recipe.schemes] == ["bf16", "bfp8_lofi", "bfp8_hifi2", "own"]
    assert recipe.baseline.fidelity == "hifi3"


def test_presets_may_be_set_where_a_recipe_has_none() -> None:
    own = RECIPE.replace("presets: [wide, lofi]\n", "schemes: {bf16: {weight: bf16, activation: bf16}}\n")
    recipe = read("presets=[lofi]", text=own)
    assert [scheme.name for scheme in recipe.schemes] == ["bfp8_lofi", "bfp8_hifi2", "bf16"]


def test_a_rule_may_allow_a_preset_for_all_that_it_brings() -> None:
    recipe = read("space=[{match: 'a*', allow: [bfp8_hifi2, lofi]}, {match: '*', allow: [wide, lofi, bf16]}]")
    assert [rule.allow for rule in recipe.space] == [("bfp8_hifi2", "bfp8_lofi"), ("bf16", "bfp8_lofi", "bfp8_hifi2")]
    assert load_recipe(recipe.to_yaml(), KNOWN) == recipe
    named_alike = read("schemes.lofi={weight: bf16, activation: bf16}", "space=[{match: '*', allow: [lofi]}]")
    assert named_alike.space[0].allow == ("lofi",)


def test_presets_that_agree_go_together_and_others_do_not() -> None:
    assert [scheme.name for scheme in read("presets=[wide, same_again, lofi]").schemes][:2] == ["bf16", "bf16_lofi"]
    (line,) = mistakes("presets=[wide, lofi, other_card]")
    assert "got 'other_card', whose scheme 'bf16' is not that of 'wide'; drop one of the two" in line
    own = "schemes.bf16={weight: bf16, activation: bf16}"
    assert read("presets=[wide, lofi, other_card]", own).baseline.fidelity is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["presets=[wide, lofy]", "space[0].allow=[bf16]"],
            "(lofi, other_card, same_again, wide); did you mean 'lofi'?",
        ),
        (["presets=[wide, lofi, wide]"], "presets[2] (--set): got 'wide' a second time, must be listed once"),
        (["presets=wide", "space[0].allow=[bf16]"], "presets (--set): got 'wide', must be a list"),
        (["baseline=bf61"], "one of this recipe's schemes (bf16, bfp8_lofi, bfp8_hifi2); did you mean 'bf16'?"),
        (["space=[{match: '*', allow: [lofy]}]"], "or one of its presets (wide, lofi); did you mean 'lofi'?"),
        (["space=[{match: '*', allow: [same_again]}]"], "must be one of this recipe's schemes"),
        (["baseline=wide"], "baseline (--set): got 'wide', must be one of this recipe's schemes"),
        (["presets=[]"], "schemes: missing, must be given, or presets that bring them"),
        (["presets=[]", "schemes={}"], "schemes (--set): missing, must be given, or presets that bring them"),
    ],
)
def test_what_is_wrong_with_presets_is_told(overrides: list[str], said: str) -> None:
    assert any(said in line for line in mistakes(*overrides)), mistakes(*overrides)


def test_every_mistake_of_a_file_of_presets_is_told_at_once() -> None:
    text = """\
presets:
  Wide: {about: x, architectures: [blackhole], schemes: {bf16: {weight: bf16, activation: bf16}}}
  lofi:
    architectures: [blackhol, hopper, hopper]
    schemes:
      a: {weight: bf17, activation: bf16, wieght: bf16}
      b: {weight: bf16, activation: bf16, levers: [gain_folding, gain_folding]}
  none: {about: x, architectures: [], schemes: {}}
  flat: 3
"""
    with pytest.raises(RecipeError) as caught:
        load_presets(text, NAMES)
    lines = caught.value.lines
    for start, part in {
        "presets.Wide (line 2): got 'Wide'": "lower-case",
        "presets.lofi.about": "must be given",
        "presets.lofi.architectures[0] (line 4): got 'blackhol'": "did you mean 'blackhole'?",
        "presets.lofi.architectures[2] (line 4): got 'hopper' a second time": "once",
        "presets.lofi.schemes.a.weight (line 6): got 'bf17'": "did you mean 'bf16'?",
        "presets.lofi.schemes.a.wieght (line 6): unknown key": "did you mean 'weight'?",
        "presets.lofi.schemes.b.levers[1] (line 7): got 'gain_folding' a second time": "once",
        "presets.none.architectures (line 8): got a list of 0": "at least one",
        "presets.none.schemes (line 8): got a mapping of 0": "at least one",
        "presets.flat (line 9): got 3": "a mapping with the keys about, architectures, schemes",
    }.items():
        assert [line for line in lines if line.startswith(start) and part in line], (start, lines)
    assert len(lines) == 10


@pytest.mark.parametrize(
    ("text", "said"), [("[1", "not YAML: line 1"), ("3", "a mapping with the key presets"), ("x: 1", "unknown key")]
)
def test_what_is_no_file_of_presets(text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_presets(text, NAMES)
