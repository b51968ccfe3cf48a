"""Gates and verdicts: what is promised, and when it is kept."""

import math
from typing import get_args

import pytest

from precision.candidate import verdict_line
from precision.gates import BOUNDS, Gate, Over, Verdict
from precision.recipe import Known, RecipeError, load_gates, load_recipe
from precision.schema import recipe_schema

PROFILE = (Gate("lsd_db", max=2.5), Gate("estoi", min=0.99))
KNOWN = Known(models=("m",), devices=("l40s",), metrics=("lsd_db", "estoi"), profiles={"transparent": PROFILE})
RECIPE = """
version: 1
name: tail
model: {{name: m}}
target: {{device: l40s}}
data: {{search: 2, held_back: 1}}
calibrate: {{method: amax}}
schemes: {{bf16: {{weight: bf16, activation: bf16}}}}
baseline: bf16
space: [{{match: "*", allow: [bf16]}}]
gates: [{{metric: lsd_db, over: {over}, max: 3.0}}]
search: {{minimize: seconds, candidates: 1, evaluations: 1, seed: 0}}
"""


@pytest.mark.parametrize(("low", "high"), [(None, None), (1.0, 2.0)])
def test_a_gate_has_one_threshold(low, high):
    with pytest.raises(ValueError, match="either min or max"):
        Gate("lsd_db", min=low, max=high)


def test_a_verdict_is_kept_on_the_threshold_and_never_by_nan():
    assert Verdict(Gate("pesq_wb", "tail", min=4.2), 4.2).kept
    assert Verdict(Gate("lsd_db", "tail", max=3.0), 2.75).margin == 0.25
    assert not Verdict(Gate("lsd_db", "tail", max=3.0), 3.1).kept
    assert not Verdict(Gate("lsd_db", max=3.0), math.nan).kept


def test_a_tail_is_written_as_any_other():
    assert verdict_line(Verdict(Gate("lsd_db", "tail", max=3.0), 2.0))["over"] == "tail"
    assert recipe_schema()["$defs"]["GateEntry"]["properties"]["over"]["enum"] == list(get_args(Over))


@pytest.mark.parametrize("over", get_args(Over))
def test_only_a_bound_needs_two_clips(over):
    text = RECIPE.format(over=over)
    if over in BOUNDS:
        with pytest.raises(RecipeError, match="one clip has no confidence bound"):
            load_recipe(text, KNOWN)
    else:
        assert load_recipe(text, KNOWN).gates == (Gate("lsd_db", over, max=3.0),)


def test_gates_may_stand_in_a_file_of_their_own():
    listed = "gates: [{metric: lsd_db, over: tail, max: 3.0}, {metric: estoi, min: 0.9}]"
    assert load_gates(listed, KNOWN) == (Gate("lsd_db", "tail", max=3.0), Gate("estoi", min=0.9))
    changed = "gates: {profile: transparent, replace: [{metric: lsd_db, max: 1}], add: [{metric: estoi, max: 2}]}"
    assert load_gates(changed, KNOWN) == (Gate("lsd_db", max=1.0), PROFILE[1], Gate("estoi", max=2.0))


def test_a_recipe_will_do_for_its_gates(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(over="worst").replace("device: l40s", "device: unknown"))
    assert load_gates(path, KNOWN) == (Gate("lsd_db", "worst", max=3.0),)


def test_every_mistake_of_a_gates_file_is_told_at_once():
    with pytest.raises(RecipeError) as caught:
        load_gates(
            "gates:\n  - {metric: lsd, max: 1}\n  - {metric: estoi}\n  - {metric: estoi, over: tale, min: 1}", KNOWN
        )
    lines = caught.value.lines
    for start, part in {
        "gates[0].metric (line 2): got 'lsd'": "did you mean 'lsd_db'?",
        "gates[1] (line 3): got neither min nor max": "exactly one",
        "gates[2].over (line 4): got 'tale'": "did you mean 'tail'?",
    }.items():
        assert [line for line in lines if line.startswith(start) and part in line], (start, lines)
    assert len(lines) == 3


@pytest.mark.parametrize("text", ["", "[]", "profile: transparent", "gates: []", "gates: 3", "gates: {profile: x}"])
def test_what_holds_no_gates_is_refused(text):
    with pytest.raises(RecipeError, match="1 mistake"):
        load_gates(text, KNOWN)
