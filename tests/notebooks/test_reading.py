"""A study opened by its parts, and one clip of it heard: both agree with what the study says of itself."""

import json
import math
import shutil

import numpy as np
import pytest
import yaml

from backends.hopper.measured_results import VERSION
from backends.money import compare
from precision_search.one_clip import OneClip
from precision_search.reading import OpenStudy, open_study
from precision_search.setting import SetupError


@pytest.fixture(scope="module")
def opened(ended) -> OpenStudy:
    return open_study(ended)


@pytest.fixture(scope="module")
def one(opened) -> OneClip:
    return OneClip(opened)


def test_sites_and_policy_are_those_that_were_priced(opened):
    assert opened.policy.digest == opened.summary["policy_digest"]
    workload, terms = opened.workload, opened.terms
    served = [workload.serve(side.device, side.policy, terms, side.label) for side in opened.sides]
    priced = compare(*served, opened.accounting).to_dict()
    for key in ("ratio", "low", "high", "usd_per_stream", "streams", "ratio_per_hour"):
        assert priced[key] == opened.cost[key], key
    entries = json.loads((opened.folder / "sites.json").read_text())
    assert [site.macs_per_second for site in opened.sites] == [entry["macs_per_second"] for entry in entries]


def test_what_the_user_measured_of_the_card_goes_with_it(opened, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(opened.folder, folder)
    row = {"m": 8, "n": 64, "k": 64, "dtype": "bf16", "us": 5.0, "spread_us": 0.1, "quantizes": "none", "cache": "warm"}
    parts = {part: {"rows": []} for part in ("sites", "kernels", "numerics")}
    environment = {"type": "cuda", "device": "a card"}
    told = {"version": VERSION, "environment": environment, "gemm": {"rows": [row]}, **parts}
    (folder / "own.json").write_text(json.dumps(told))
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["target"]["measured"] = str(folder / "own.json")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    ours, theirs = open_study(folder).sides
    assert ours.device.own is not None
    assert ours.device.own.seconds("bf16", 8, 64, 64) == pytest.approx(5e-6)
    assert (theirs.device.own, opened.sides[0].device.own) == (None, None)
    (folder / "own.json").unlink()
    with pytest.raises(SetupError, match=r"target\.measured: .*own\.json: cannot be read"):
        open_study(folder).sides  # noqa: B018


def test_damage_is_a_table_of_sites_by_schemes(opened):
    assert opened.schemes == ("bf16", "lofi", "bold")
    table = opened.damage("lsd_db")
    written = json.loads((opened.folder / "damage.json").read_text())
    assert table.shape == (len(written["sites"]), 3)
    for row, site in zip(table, written["sites"], strict=True):
        for option in site["options"]:
            value = row[opened.schemes.index(option["scheme"])]
            assert value == option["damage"]["lsd_db"] or (option["refused"] and math.isnan(value))
    with pytest.raises(ValueError, match="only in lsd_db, group_delay_rad"):
        opened.damage("pesq_wb")
    changes = opened.changes("lsd_db")
    assert [change[0] for change in changes] == sorted((change[0] for change in changes), reverse=True)
    assert all(opened.policy[site].name != scheme for _, site, scheme in changes)


def test_gates_and_samples_are_in_order(opened):
    shares = [gate.relative for gate in opened.gates if gate.relative]
    assert shares == sorted(shares)
    assert {gate.metric for gate in opened.gates[-2:]} == {"finite", "length_samples"}, "flags have no share"
    assert [pair.clip for pair in opened.samples] == ["clip2", "clip3"]
    for pair in opened.samples:
        assert pair.candidate is not None
        assert pair.reference.shape == pair.candidate.shape
        assert pair.sample_rate_hz == 22050
        assert not np.array_equal(pair.reference, pair.candidate)


def test_a_folder_that_is_no_study_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"is no finished study: summary\.json"):
        open_study(tmp_path)


def test_one_clip_is_heard_as_the_search_heard_it(opened, one):
    heard = one.hear(opened.policy)
    (logged,) = (
        candidate
        for candidate in opened.candidates
        if (candidate.digest, candidate.split) == (opened.policy.digest, "held_back")
        and candidate.arithmetic == opened.summary["search_arithmetic"]
    )
    assert heard.scores == logged.scores["clip2"]
    assert heard.seconds_cost == logged.seconds_cost
    assert heard.kept
    _, site, scheme = opened.changes("lsd_db")[0]
    worse = one.hear(one.changed(opened.policy, site, scheme))
    assert worse.scores["lsd_db"] > heard.scores["lsd_db"]
    assert not worse.kept
    assert worse.samples.shape == one.reference.shape


def test_calls_can_be_computed_with(one):
    assert list(one.calls) == [site.name for site in one.setting.sites]
    call = one.calls["conv_pre"]
    assert call.weight.shape == (32, 80, 7)
    assert call.compute().numpy().shape == (1, 32, call.x.shape[-1])


def test_what_does_not_fit_a_clip_is_named(opened, one):
    with pytest.raises(ValueError, match="no clip 'clip0' is held back, only clip2, clip3"):
        OneClip(opened, "clip0")
    with pytest.raises(ValueError, match="no site 'conv'"):
        one.changed(opened.policy, "conv", "lofi")
    with pytest.raises(ValueError, match="no scheme 'int8', only bf16, lofi, bold"):
        one.changed(opened.policy, "conv_pre", "int8")
    missing = type(opened.policy)(opened.policy.schemes[2:])
    with pytest.raises(ValueError, match=r"2 mistakes\n  conv_pre: has no scheme\n  ups\.0: has"):
        one.hear(missing)
