"""Space: first match wins, and nothing is left over on either side."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precision.document import dump
from precision.policy import Scheme
from precision.recipe import Known, Recipe, RecipeError, load_recipe
from precision.site import Op, Site
from precision.space import resolve_groups, resolve_space

KNOWN = Known(("embedded",), ("p150a",), ("stoi",), {})


def recipe_of(*rules: Mapping[str, object]) -> Recipe:
    full = {"weight": "bf16", "activation": "bf16"}
    data = {
        "version": 1,
        "name": "tiny",
        "model": {"name": "embedded"},
        "target": {"device": "p150a"},
        "data": {"search": 1, "held_back": 1},
        "calibrate": {"method": "amax"},
        "schemes": {"full": full, "half": {**full, "weight": "bfp8_b"}, "low": {**full, "weight": "bfp4_b"}},
        "baseline": "full",
        "space": list(rules),
        "gates": [{"metric": "stoi", "min": 0.9}],
        "search": {"minimize": "seconds", "candidates": 1, "evaluations": 1, "seed": 0},
    }
    return load_recipe(dump(data), KNOWN)


def site(name: str, op: Op = "linear", group: str | None = None) -> Site:
    return Site(name, op, (8, 8), 8, 8, 100.0, group=group)


SITES = (
    site("encoder.q", group="qkv"),
    site("encoder.k", group="qkv"),
    site("vocoder.up", "conv_transpose1d"),
    site("vocoder.head", "conv1d"),
)


def names(space: dict[str, tuple[Scheme, ...]]) -> dict[str, list[str]]:
    return {name: [scheme.name for scheme in schemes] for name, schemes in space.items()}


def lines(*rules: dict[str, object], sites: tuple[Site, ...] = SITES) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        resolve_space(recipe_of(*rules), sites)
    return caught.value.lines


def test_first_match_wins_and_the_order_is_the_models() -> None:
    recipe = recipe_of(
        {"match": "vocoder.head", "op": "conv1d", "allow": ["full"]},
        {"match": "*", "op": "conv_transpose1d", "allow": ["half", "full"]},
        {"match": "*", "allow": ["low"]},
    )
    space = resolve_space(recipe, SITES)
    assert list(names(space).items()) == [
        ("encoder.q", ["low"]),
        ("encoder.k", ["low"]),
        ("vocoder.up", ["half", "full"]),
        ("vocoder.head", ["full"]),
    ]
    assert space["vocoder.head"] == (recipe.baseline,)


def test_sites_of_one_module_and_one_rule_agree() -> None:
    parts = ("query", "key", "value", "out")
    attentions = [site(f"{block}.attention.{part}") for block in ("a", "b") for part in parts]
    sites = (*attentions, site("c.query"), site("alone", "conv1d"))
    recipe = recipe_of(
        {"match": "b.*.key", "allow": ["full"]},
        {"match": "*.[qkv]*", "allow": ["low", "full"], "agree": "module"},
        {"match": "*", "allow": ["low"]},
    )
    found = resolve_groups(recipe, sites)
    assert {name for name, group in found.items() if group == found["a.attention.key"]} == {
        "a.attention.query", "a.attention.key", "a.attention.value",
    }  # fmt: skip
    assert {name for name, group in found.items() if group == found["b.attention.query"]} == {
        "b.attention.query", "b.attention.value",
    }  # fmt: skip
    assert len(found) == 5, "what is alone in its module, or in a rule that does not ask for it, moves alone"


def test_all_sites_of_a_rule_agree() -> None:
    sites = (site("blocks.0.convs.2", "conv1d"), site("blocks.1.convs.2", "conv1d"), site("blocks.1.convs.1", "conv1d"))
    recipe = recipe_of(
        {"match": "blocks.*.convs.2", "allow": ["low", "full"], "agree": "rule"}, {"match": "*", "allow": ["low"]}
    )
    found = resolve_groups(recipe, sites)
    assert found["blocks.0.convs.2"] == found["blocks.1.convs.2"]
    assert len(found) == 2


def test_everything_left_over_is_told_at_once() -> None:
    found = lines(
        {"match": "vocoder.*", "allow": ["full"]},
        {"match": "vocoder.head", "op": "conv1d", "allow": ["half"]},
        {"match": "encodr.q", "allow": ["half"]},
        {"match": "vocoder.up", "op": "conv2d", "allow": ["half"]},
        {"match": "encoder.k", "allow": ["half"]},
        {"match": "Encoder.?", "op": "linear", "allow": ["half"]},
    )
    assert len(found) == 5
    assert "space[1] ('vocoder.head', op conv1d) comes too late: vocoder.head is taken by space[0]" in found[0]
    assert "space[2] ('encodr.q') matches no site; did you mean 'encoder.q'?" in found[1]
    assert "space[3] ('vocoder.up', op conv2d) matches no site: the name fits vocoder.up (conv_transpose1d)" in found[2]
    assert "space[5] ('Encoder.?', op linear) matches no site" in found[3]
    assert "site 'encoder.q' (linear) matches no rule; the nearest pattern is" in found[4]


def test_a_site_whose_name_fits_and_op_does_not() -> None:
    (found,) = lines(
        {"match": "encoder.*", "allow": ["full"]},
        {"match": "vocoder.*", "op": "conv1d", "allow": ["full"]},
    )
    assert found.startswith(
        "site 'vocoder.up' (conv_transpose1d) matches no rule: space[1] ('vocoder.*', op conv1d) fits"
    )


def test_a_group_shares_one_list() -> None:
    (found,) = lines({"match": "encoder.q", "allow": ["full"]}, {"match": "*", "allow": ["full", "low"]})
    assert "sites of group 'qkv'" in found
    assert "[full] for encoder.q by space[0]; [full, low] for encoder.k by space[1]" in found
    space = resolve_space(recipe_of({"match": "encoder.q", "allow": ["low"]}, {"match": "*", "allow": ["low"]}), SITES)
    assert set(map(tuple, names(space).values())) == {("low",)}


def test_a_model_without_sites_and_one_with_twins() -> None:
    assert lines({"match": "*", "allow": ["full"]}, sites=()) == ("space[0] ('*') matches no site",)
    with pytest.raises(ValueError, match="different names"):
        resolve_space(recipe_of({"match": "*", "allow": ["full"]}), (SITES[0], SITES[0]))


patterns = st.sampled_from(["*", "a", "b", "a.*", "*.b", "a.?", "[ab]", "c"])
ops = st.sampled_from([None, "linear", "conv1d"])
rules = st.lists(st.tuples(patterns, ops, st.sampled_from(["full", "half", "low"])), min_size=1, max_size=4)
models = st.dictionaries(
    st.sampled_from(["a", "b", "a.a", "a.b", "b.b"]), st.sampled_from(["linear", "conv1d"]), max_size=5
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(rules, models)
def test_a_space_is_total_and_uses_every_rule_or_is_refused(
    rules: list[tuple[str, str | None, str]], model: dict[str, Op]
) -> None:
    expected: dict[str, str] = {}
    used = set()
    for name, op in model.items():
        for index, (pattern, rule_op, scheme) in enumerate(rules):
            if fnmatchcase(name, pattern) and rule_op in (None, op):
                expected[name] = scheme
                used.add(index)
                break
    recipe = recipe_of(*({"match": m, "allow": [a], **({"op": op} if op else {})} for m, op, a in rules))
    sites = tuple(site(name, op) for name, op in model.items())
    if len(expected) == len(model) and len(used) == len(rules):
        assert names(resolve_space(recipe, sites)) == {name: [scheme] for name, scheme in expected.items()}
    else:
        with pytest.raises(RecipeError) as caught:
            resolve_space(recipe, sites)
        assert len(caught.value.lines) == len(model) - len(expected) + len(rules) - len(used)
