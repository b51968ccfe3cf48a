"""Gates and verdicts: what is promised, and when it is kept."""

import math
from typing import get_args

import pytest

from precision.candidate import verdict_line
from precision.gates import BOUNDS, Gate, Over, Verdict
from precision.recipe import Known, RecipeError, load_recipe
from precision.schema import recipe_schema

KNOWN = Known(models=("m",), devices=("l40s",), metrics=("lsd_db",), profiles={})
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
