"""Recipes: what is read, what is refused, and in which words."""

import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precision.document import Document, YamlError, dump
from precision.gates import Gate
from precision.policy import FIDELITIES, LEVERS, Scheme
from precision.recipe import Known, RecipeError, load_recipe
from precision.schema import recipe_schema, schema_text
from precision.site import OPS

ROOT = Path(__file__).parents[2]
PROFILE = (Gate("stoi", "mean", min=0.99), Gate("lsd_db", "mean", max=2.5), Gate("pesq", "lower_bound", min=4.0))
KNOWN = Known(
    models=("embedded", "hifigan"),
    devices=("p150a", "n300", "l40s"),
    metrics=("stoi", "lsd_db", "pesq"),
    profiles={"transparent": PROFILE},
)
GOOD = """\
version: 1
name: tts_blackhole
model: {name: embedded}
target: {device: p150a}
data: {search: 8, held_back: 12}
calibrate: {method: percentile, percentile: 99.99}
schemes:
  bf16: {weight: bf16, activation: bf16, accumulate: fp32, fidelity: hifi4}
  lofi_bfp8: {weight: bfp8_b, activation: bf16, accumulate: fp32, fidelity: lofi, levers: [fidelity_rounding]}
baseline: bf16
space:
  - {match: "vocoder.head", op: conv1d, allow: [bf16]}
  - {match: "*", allow: [bf16, lofi_bfp8]}
gates: {profile: transparent, add: [], replace: []}
search: {minimize: seconds, candidates: 20, evaluations: 120, seed: 0}
"""


def mistakes(text: str, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(text, KNOWN, overrides)
    assert len(str(caught.value).splitlines()) == len(caught.value.lines) + 1
    return caught.value.lines


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


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
        ("serch.seed=1", "serch (--set): unknown key"),
        ("model.name=hifigam", "model.name (--set): got 'hifigam', must be a known model"),
    ],
)
def test_set_is_checked_as_the_file_is(override: str, said: str) -> None:
    assert any(said in line for line in mistakes(GOOD, override)), mistakes(GOOD, override)


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


def test_the_search_is_for_the_cheapest_where_nothing_else_is_asked() -> None:
    search = load_recipe(GOOD, KNOWN).search
    assert (search.goal, search.minimize, search.method, dict(search.within)) == ("cheapest", "seconds", "exact", {})
    limits = ["search.within.seconds=0.8", "search.within.effective_bits=6.5"]
    recipe = load_recipe(GOOD, KNOWN, ["search.goal=best_audio", *limits, "search.method=tpe"])
    assert (recipe.search.goal, recipe.search.method) == ("best_audio", "tpe")
    assert dict(recipe.search.within) == {"seconds": 0.8, "effective_bits": 6.5}
    assert "joules" not in recipe.search.within
    with pytest.raises(KeyError):
        recipe.search.within["joules"]
    again = load_recipe(recipe.to_yaml(), KNOWN)
    assert (again, again.digest) == (recipe, recipe.digest)
    assert "within: {seconds: 0.8, effective_bits: 6.5}" in recipe.to_yaml()
    # A limit on what is minimized, and one above the baseline, are promises like others.
    assert dict(load_recipe(GOOD, KNOWN, ["search.within={seconds: 1.5}"]).search.within) == {"seconds": 1.5}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["search.goal=best_audio"], "search.within: missing, must be given with goal best_audio"),
        (["search.goal=best_audio", "search.within={seconds: null}"], "missing, must be given with goal best_audio"),
        (["search.goal=loudest"], "got 'loudest', must be 'cheapest' or 'best_audio'"),
        (["search.method=nsga"], "did you mean 'nsga2'?"),
        (["search.minimize=weights"], "must be 'seconds', 'passes', 'joules', 'usd' or 'weight_bytes'"),
        (["search.within.second=0.8"], "search.within.second (--set): unknown key"),
        (["search.within.seconds=0"], "search.within.seconds (--set): got 0, must be more than 0"),
        (["search.within.usd=4.5"], "got 4.5, must be at most 4"),
        (["search.within.joules='0.8'"], "got '0.8', must be a number"),
        (["search.within.effective_bits=0.5"], "got 0.5, must be at least 1"),
        (["search.within.effective_bits=33"], "got 33, must be at most 32"),
        (["search.within=0.8"], "search.within (--set): got 0.8, must be a mapping with the keys seconds, passes"),
    ],
)
def test_a_goal_that_cannot_be_is_told(overrides: list[str], said: str) -> None:
    assert any(said in line for line in mistakes(GOOD, *overrides)), mistakes(GOOD, *overrides)
    assert len(mistakes(GOOD, *overrides)) == 1


names = st.text(string.ascii_lowercase + string.digits + "_", min_size=1, max_size=8)
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
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


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | finite
    | texts
    | st.sampled_from(["no", "1e-3", "<<", "="])
)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.dictionaries(st.sampled_from(["version", "name", "model", "schemes", "space", "gates", "data", "x"]), trees))
def test_whatever_stands_in_a_file_is_told_and_not_raised(data: dict[str, object]) -> None:
    assert Document.parse(dump(data)).data == data
    assert mistakes(dump(data))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.text("ab:-[]{},'\"#&*!|>%@? \n\t\x00\x85~0.e", max_size=30))
def test_any_text_is_yaml_or_a_yaml_error(text: str) -> None:
    try:
        Document.parse(text)
    except YamlError as error:
        assert "line" in str(error)  # noqa: PT017 - either outcome is right


def test_the_schema_file_is_current(tmp_path: Path) -> None:
    assert (ROOT / "recipes" / "recipe.schema.json").read_text(encoding="utf-8") == schema_text(), (
        "run python -m precision.schema"
    )
    path = tmp_path / "schema.json"
    subprocess.run([sys.executable, "-m", "precision.schema", str(path)], check=True, cwd=ROOT, capture_output=True)
    assert path.read_text(encoding="utf-8") == schema_text()


def test_every_key_of_the_schema_is_titled_and_described() -> None:
    schema = recipe_schema()
    for section in [schema, *schema["$defs"].values()]:
        assert section["additionalProperties"] is False
        for key, entry in section["properties"].items():
            assert entry.get("title"), key
            # pydantic leaves a description to the section where the two are the same.
            section_named = schema["$defs"].get(entry.get("$ref", "").rsplit("/", 1)[-1], {})
            assert entry.get("description") or section_named.get("description"), key


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
