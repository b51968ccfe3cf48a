"""What a study of another recipe, checkpoint or code version is refused with: which keys, and what they were."""

from pathlib import Path

import pytest
import yaml

from precision.differences import header_differences, recipe_differences
from precision.study import LOG, Study, StudyError

RECIPE = """
version: 1
name: small
model: {name: hifigan, checkpoint: g.safetensors}
target: {device: p150a}
data: {search: 2, held_back: 2}
calibrate: {method: amax}
schemes:
  bf16: {weight: bf16, activation: bf16, fidelity: hifi4}
  lofi: {weight: bfp8_b, activation: bf16, fidelity: lofi}
baseline: bf16
space: [{match: "*", allow: [bf16, lofi]}]
gates: [{metric: lsd_db, max: 3.0}, {metric: stoi, over: worst, min: 0.9}]
search: {minimize: seconds, candidates: 3, evaluations: 80, seed: 0}
"""
HEADER = {"recipe": "small", "recipe_digest": "aa", "weights": "11", "clips": "22", "code": "0.1.0+33"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("evaluations: 80", "evaluations: 100", ["search.evaluations: 80 -> 100"]),
        ("search: 2,", "search: 2, audio: wavs/,", ["data.audio: (not given) -> wavs/"]),
        ("allow: [bf16, lofi]", "allow: [bf16]", ["space[0].allow: [bf16, lofi] -> [bf16]"]),
        ("max: 3.0", "max: 3.5", ["gates[lsd_db mean].max: 3.0 -> 3.5"]),
        (  # a gate put in front moves none of the others
            "gates: [",
            "gates: [{metric: pesq, min: 3.0}, ",
            [
                "gates[pesq mean].metric: (not given) -> pesq",
                "gates[pesq mean].over: (not given) -> mean",
                "gates[pesq mean].min: (not given) -> 3.0",
            ],
        ),
        ("fidelity: lofi}", "fidelity: lofi, bias_apart: true}", ["schemes.lofi.bias_apart: false -> true"]),
        ("seed: 0}", "seed: 0, method: exact}", ["the same keys in another order, or in other words"]),
        ("", "", []),
    ],
)
def test_recipes_differ_in_the_keys_that_were_changed(old, new, told):
    assert recipe_differences(RECIPE, RECIPE.replace(old, new)) == told


def test_a_default_counts_as_what_it_is():
    assert recipe_differences(RECIPE, RECIPE.replace("seed: 0", "seed: 0, goal: best_audio")) == [
        "search.goal: cheapest -> best_audio"
    ]


def test_recipes_of_other_versions_are_compared_as_they_are_written():
    assert recipe_differences("a: 1\nb: {c: [1, 2]}", "a: 2\nb: {c: [1]}") == ["a: 1 -> 2", "b.c: [1, 2] -> [1]"]


def test_many_differences_are_cut():
    many = [yaml.safe_dump({f"k{key}": value for key in range(40)}) for value in (1, 2)]
    told = recipe_differences(*many)
    assert len(told) == 21
    assert told[-1] == "and 20 more"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"recipe_digest": "bb"},
            [
                "  recipe_digest: aa -> bb",
                "    search.evaluations: 80 -> 100",
            ],
        ),
        (
            {"code": "0.1.0+44"},
            [
                "  code: 0.1.0+33 -> 0.1.0+44 (the package's source has changed; a study is finished by the code"
                " that began it)"
            ],
        ),
        ({"weights": "12"}, ["  weights: 11 -> 12 (the checkpoint holds other numbers)"]),
        ({"clips": "23"}, ["  clips: 22 -> 23 (other recordings, or cut otherwise)"]),
    ],
)
@pytest.mark.parametrize("finished_by_older_code", [False, True])
def test_a_study_of_something_else_is_refused_with_what_differs(tmp_path: Path, changed, told, finished_by_older_code):
    if finished_by_older_code:  # the log did not hold the recipe then, the folder did
        Study.create(tmp_path, HEADER).close()
        (tmp_path / "recipe.yaml").write_text(RECIPE)
    else:
        Study.create(tmp_path, HEADER, RECIPE).close()
    before = (tmp_path / LOG).read_bytes()
    with pytest.raises(StudyError) as caught:
        Study.open(tmp_path, HEADER | changed, RECIPE.replace("evaluations: 80", "evaluations: 100"))
    assert str(caught.value).splitlines()[1:-1] == told
    assert (tmp_path / LOG).read_bytes() == before


def test_a_recipe_that_is_not_known_is_not_guessed_at():
    other = HEADER | {"recipe_digest": "bb"}
    assert header_differences(HEADER, other, None, RECIPE) == ["recipe_digest: aa -> bb"]
    assert header_differences(HEADER, other, "{", RECIPE)[1:] == [
        "  which keys is not known: the recipe of the study cannot be read"
    ]
    assert header_differences(HEADER, other, RECIPE, RECIPE)[1:] == [
        "  the same as written; the code takes it otherwise now: a default, or the gates of a profile"
    ]


def test_a_study_killed_before_its_recipe_was_logged_is_gone_on_with(tmp_path: Path):
    Study.create(tmp_path / "whole", HEADER, RECIPE).close()
    content = (tmp_path / "whole" / LOG).read_bytes()
    header = content.index(b"\n") + 1
    folder = tmp_path / "killed"
    folder.mkdir()
    for length in (0, 10, header, header + 1, len(content) - 1, len(content)):
        (folder / LOG).write_bytes(content[:length])
        with Study.open(folder, HEADER, RECIPE) as study:
            assert study.recipe == RECIPE
        assert (folder / LOG).read_bytes() == content
    assert Study.read(folder).recipe == RECIPE
