"""A recipe with nothing wrong, the names it may use, and what is wrong with others."""

import pytest
from hypothesis import strategies as st

from precision.gates import Gate
from precision.recipe import Known, RecipeError, load_recipe

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
    """Every line that is told of a recipe that must be refused."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(text, KNOWN, overrides)
    assert len(str(caught.value).splitlines()) == len(caught.value.lines) + 1
    return caught.value.lines


def changed(old: str, new: str) -> str:
    """The good recipe with one passage replaced."""
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
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
"""Whatever plain data a file may hold."""
