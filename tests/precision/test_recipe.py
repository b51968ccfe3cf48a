"""Recipes: what is read, what it comes to, and that it reads back as it was."""

import string
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precision import model_section
from precision.document import dump
from precision.gates import Gate
from precision.policy import FIDELITIES, LEVERS, Scheme
from precision.recipe import Known, RecipeError, load_recipe
from precision.site import OPS
from tests.precision.recipes import GOOD, KNOWN, PROFILE, changed, finite, texts
from voice import family


def test_a_recipe_becomes_schemes_and_gates() -> None:
    recipe = load_recipe(GOOD, KNOWN)
    assert recipe.schemes == (
        Scheme("bf16", "bf16", "bf16", "fp32", "hifi4"),
        Scheme("lofi_bfp8", "bfp8_b", "bf16", "fp32", "lofi", levers=("fidelity_rounding",)),
    )
    assert recipe.baseline is recipe.scheme("bf16")
    assert recipe.gates == PROFILE
    assert (recipe.name, recipe.model.name, recipe.target.device) == ("tts_blackhole", "embedded", "p150a")
    assert (recipe.data.search, recipe.data.held_back, recipe.data.audio) == (8, 12, None)
    assert (recipe.calibrate.method, recipe.calibrate.percentile) == ("percentile", 99.99)
    assert recipe.search.evaluations == 120
    with pytest.raises(KeyError):
        recipe.scheme("fp4")


def test_a_missing_cost_has_its_stated_defaults() -> None:
    recipe = load_recipe(GOOD, KNOWN)
    assert recipe.written.cost is None
    assert (recipe.cost.against.device, recipe.cost.streams) == ("l40s", 32)
    assert recipe.cost_scheme == recipe.baseline
    assert "cost" not in recipe.to_yaml()


def test_a_profile_is_changed_gate_by_gate() -> None:
    gates = (
        "gates: {profile: transparent, add: [{metric: stoi, over: worst, min: 0.9}], replace: [{metric: stoi, min: 1}]}"
    )
    recipe = load_recipe(changed("gates: {profile: transparent, add: [], replace: []}", gates), KNOWN)
    assert recipe.gates == (Gate("stoi", "mean", min=1.0), *PROFILE[1:], Gate("stoi", "worst", min=0.9))


def test_gates_may_be_a_plain_list() -> None:
    text = changed("gates: {profile: transparent, add: [], replace: []}", "gates: [{metric: lsd_db, max: 1e-1}]")
    assert load_recipe(text, KNOWN).gates == (Gate("lsd_db", max=0.1),)


def test_digest_follows_the_content_and_only_that(tmp_path: Path) -> None:
    digest = load_recipe(GOOD, KNOWN).digest
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    path = tmp_path / "elsewhere.yaml"
    path.write_text("# a comment\n" + GOOD + "cost: {years: 4}\n", encoding="utf-8")
    assert load_recipe(path, KNOWN).digest == digest
    others = [
        load_recipe(GOOD, KNOWN, [override]).digest
        for override in ("search.seed=1", "model.checkpoint=x", "data.audio=x", "cost.years=5", "space[1].allow=[bf16]")
    ]
    # A profile that has changed makes another promise, though the file is the same.
    others.append(
        load_recipe(GOOD, Known(KNOWN.models, KNOWN.devices, KNOWN.metrics, {"transparent": PROFILE[:2]})).digest
    )
    assert len({digest, *others}) == 7


def test_what_a_target_leaves_open_does_not_count_and_what_it_says_does() -> None:
    digest = load_recipe(GOOD, KNOWN).digest
    assert load_recipe(GOOD, KNOWN, ["target.route=null", "target.slow_fp8=refuse"]).digest == digest
    said = [load_recipe(GOOD, KNOWN, [key]) for key in ("target.route=tensorrt", "target.route=gemm")]
    said.append(load_recipe(GOOD, KNOWN, ["target.slow_fp8=allow"]))
    assert len({digest, *(recipe.digest for recipe in said)}) == 4
    assert [load_recipe(recipe.to_yaml(), KNOWN).target for recipe in said] == [recipe.target for recipe in said]


def test_a_model_of_ones_own_counts_as_it_is_written() -> None:
    # As it was before models were named in any other way: studies of then can be gone on with.
    assert load_recipe(GOOD, KNOWN).digest == "b02327d1838ab618"
    assert load_recipe(GOOD, KNOWN, ["model.config=x"]).digest == "f75e11a5fba9251b"
    digests = {"b02327d1838ab618", "f75e11a5fba9251b"}
    own = "entrypoint: 'mine.vocoder:build'"
    models = (
        "{hf: kyutai/mimi}",
        "{hf: kyutai/mimi, revision: main}",
        "{hf: kyutai/mimi, trust_remote_code: true}",
        f"{{{own}}}",
        f"{{{own}, inputs: 'mine.vocoder:clips', sample_rate_hz: 16000, family: codec}}",
        f"{{{own}, inputs: {{mel: [1, 80, 100], f0: [7]}}, outputs: {{sound: 0, text: hidden.logits}}}}",
    )
    for model in models:
        recipe = load_recipe(changed("{name: embedded}", model), KNOWN)
        assert load_recipe(recipe.to_yaml(), KNOWN) == recipe
        digests.add(recipe.digest)
    assert len(digests) == 2 + len(models)
    assert recipe.model.inputs == {"mel": (1, 80, 100), "f0": (7,)}
    assert recipe.model.outputs == {"sound": "0", "text": "hidden.logits"}


def test_a_family_is_one_that_voices_have() -> None:
    assert get_args(model_section.Family) == get_args(family.Family)


def test_adaptation_is_off_by_default_and_one_line_away() -> None:
    plain = load_recipe(GOOD, KNOWN)
    assert plain.adapt is None
    asked = load_recipe(GOOD + "adapt: {}\n", KNOWN)
    assert asked.adapt is not None
    assert asked.adapt.steps == 300
    assert load_recipe(asked.to_yaml(), KNOWN) == asked
    assert asked.digest != plain.digest
    with pytest.raises(RecipeError, match=r"adapt.steps .*got 0, must be at least 1"):
        load_recipe(GOOD + "adapt: {steps: 0}\n", KNOWN)


names = st.text(string.ascii_lowercase + string.digits + "_", min_size=1, max_size=8)
counts = st.integers(2, 2**31 - 1)


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, object]:
    def maybe(**values: st.SearchStrategy[object]) -> dict[str, object]:
        return {key: draw(value) for key, value in values.items() if draw(st.booleans())}

    schemes = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    formats = st.sampled_from(sorted(KNOWN.formats))
    levers = st.lists(st.sampled_from(LEVERS), unique=True)
    allow = st.lists(st.sampled_from(schemes), min_size=1, unique=True)
    metrics = draw(st.lists(st.sampled_from(sorted(KNOWN.metrics)), min_size=1, unique=True))
    gates = [{"metric": metric, draw(st.sampled_from(["min", "max"])): draw(finite)} for metric in metrics]
    profiled = {"profile": "transparent", "add": [{"metric": "stoi", "over": "worst", "min": draw(finite)}]}
    return {
        "version": 1,
        "name": draw(names),
        "model": {"name": "embedded", **maybe(checkpoint=texts, config=texts)},
        "target": {"device": "n300"},
        "data": {"search": draw(counts), "held_back": draw(counts), **maybe(audio=texts)},
        "calibrate": draw(
            st.sampled_from([{"method": "mse"}, {"method": "percentile", "percentile": 1e-7}, {"method": "amax"}])
        ),
        "schemes": {
            name: {
                "weight": draw(formats),
                "activation": draw(formats),
                **maybe(fidelity=st.sampled_from(FIDELITIES), levers=levers, weight_scale=st.just("tensor")),
            }
            for name in schemes
        },
        "baseline": draw(st.sampled_from(schemes)),
        "space": [
            {"match": match, "allow": draw(allow), **maybe(op=st.sampled_from(OPS))}
            for match in draw(st.lists(texts, min_size=1, max_size=3))
        ],
        "gates": draw(st.sampled_from([gates, profiled])),
        "search": {
            "minimize": "seconds",
            "candidates": 1,
            "evaluations": draw(counts),
            "seed": draw(st.integers(0, 9)),
            **maybe(method=st.sampled_from(["exact", "exhaustive", "tpe", "nsga2"])),
            **draw(st.sampled_from([{}, {"within": {"usd": 1}}, {"goal": "best_audio", "within": {"seconds": 0.8}}])),
        },
        **maybe(cost=st.fixed_dictionaries({"years": st.floats(1e-9, 100), "against": st.just({"device": "l40s"})})),
    }


@settings(max_examples=60, derandomize=True, deadline=None)
@given(recipes())
def test_reading_what_was_written_gives_the_same_recipe(data: dict[str, object]) -> None:
    recipe = load_recipe(dump(data), KNOWN)
    again = load_recipe(recipe.to_yaml(), KNOWN)
    assert again == recipe
    assert again.digest == recipe.digest
    assert again.to_yaml() == recipe.to_yaml()
