"""`plan`: a policy on a card that is not there: what the library makes of it, and what is refused before that."""

import json
import sys
from dataclasses import replace

import pytest
import yaml

from backends.tenstorrent import engine
from backends.tenstorrent.planning import Plan
from precision.study import LOG
from precision_search import planned
from precision_search.lowering import Asked, choose
from precision_search.main import main
from precision_search.plan_table import plan_table
from precision_search.programs import Made, make
from precision_search.progress import Progress

pytestmark = pytest.mark.tenstorrent
ENDINGS = {"conv_pre": "bf16", "conv_post": "bf16"}


def run(*arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return caught.value.code or 0, said.out, said.err


@pytest.fixture(scope="module")
def whole(study, mock_cards) -> tuple[Made, Plan]:
    """The study on its own card, planned once."""
    made = make(choose(Asked(str(study), seconds=0.1)), host=False, chunk_ms=None, progress=Progress(quiet=True))
    return made, planned.plan_program(made, Progress(quiet=True))


@pytest.fixture(scope="module")
def data(whole):
    return planned.plan_data(*whole)


def test_every_site_is_as_the_policy_says(data):
    assert (data["verdict"], data["refusals"], data["mismatches"]) == ("kept", [], [])
    rows = {row["site"]: row for row in data["steps"] if row["site"] is not None}
    assert len(rows) == data["sites"] == 11
    assert [rows["conv_pre"][key] for key in ("weight", "fidelity", "accumulate", "out")] == [
        "bf16", "hifi4", "fp32", "bf16",
    ]  # fmt: skip
    assert [rows["ups.0"][key] for key in ("op", "weight", "fidelity")] == ["conv_transpose1d", "bfp8_b", "lofi"]
    assert 0 < data["totals"]["mac_share_by_fidelity"]["lofi"] < 1


def test_memory_is_that_of_a_core_and_of_the_card(data):
    total = data["totals"]
    assert 0 < total["l1_peak_bytes_per_core"] < total["l1_bytes_per_core"]
    assert total["grid"] == [13, 10]
    assert total["dram_peak_bytes"] == max(row["dram_bytes"] for row in data["steps"])
    json.dumps(data, allow_nan=False)


def test_it_is_said_how_much_of_a_clip_was_taken(study, data):
    assert data["clip_told"].startswith("0.10 s of ")
    longer = choose(Asked(str(study), seconds=99))
    assert longer.clip_told == f"all {longer.clip.seconds:.2f} s of {longer.clip.name}"


def test_the_table_has_a_line_a_step_or_a_site(data):
    whole, short = (plan_table(data, sites_only=only).splitlines() for only in (False, True))
    assert len([line for line in short if line.rstrip().endswith(tuple(row["site"] or "-" for row in data["steps"]))])
    assert sum("conv_transpose1d" in line for line in short) == 3
    assert not any("leaky_relu" in line for line in short)
    assert sum("leaky_relu" in line for line in whole) > 3
    assert "(the model itself):" in whole
    assert short[-1] == "realized: each of 11 sites as the policy says, and ttnn takes every operation"


def test_a_site_that_gets_something_else_breaks_the_verdict(whole, study, monkeypatch):
    made, plan = whole
    steps = [
        replace(step, compute=replace(step.compute, fidelity="hifi2")) if step.site == "conv_pre" else step
        for step in plan.steps
    ]
    refused = next(step.index for step in steps if step.op == "tanh")
    steps[refused] = replace(steps[refused], refused="no such\n  tanh", output=None)
    found = planned.plan_data(made, replace(plan, steps=tuple(steps)))
    assert found["verdict"] == "broken"
    text = plan_table(found, sites_only=False)
    assert "conv_pre (step" in text
    assert "fidelity hifi4, got hifi2" in text
    assert "TTNN REFUSES 1 OPERATIONS" in text
    assert "no such tanh" in text
    monkeypatch.setattr(planned, "plan_program", lambda *_: replace(plan, steps=tuple(steps)))
    with pytest.raises(SystemExit) as caught:
        main(["plan", str(study), "--seconds", "0.1", "--quiet"])
    assert caught.value.code == 1


def test_the_command_prints_json(study, mock_cards, capsys):
    code, out, err = run("plan", study, "--seconds", "0.1", "--json", capsys=capsys)
    assert (code, err) == (0, "")
    assert json.loads(out)["card"] == "blackhole_p150"


def test_a_policy_of_ones_own_brings_its_schemes(study, tmp_path, mock_cards, capsys):
    sites = yaml.safe_load((study / "policy.yaml").read_text())["sites"]
    schemes = {"mine": {"weight": "bfp8_b", "activation": "bf16", "fidelity": "hifi2"}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"schemes": schemes, "sites": dict.fromkeys(sites, "mine")}))
    command = ("plan", study, "--card", "wormhole_n150", "--policy", path, "--seconds", "0.1", "--sites-only")
    code, out, _ = run(*command, "--quiet", capsys=capsys)
    assert code == 0
    assert "MACs of its sites: hifi2 100.0%" in out
    assert "wormhole_n150" in out.splitlines()[0]


def test_what_a_card_refuses_is_named_site_by_site_with_what_to_use(study, capsys):
    code, out, err = run("plan", study, "--card", "wormhole_n150", capsys=capsys)
    assert (code, out) == (2, "")
    assert "wormhole_n150 refuses 2 of 11 sites" in err
    assert "bf16: hifi4 with fp32 accumulation: wrong sums on Wormhole (tt-metal #38306); use hifi3" in err
    assert "2 sites: conv_pre, conv_post" in err


def test_what_is_refused_in_a_stream_alone_is_named(study, tmp_path, capsys):
    sites = yaml.safe_load((study / "policy.yaml").read_text())["sites"]
    loud = {"weight": "bf16", "activation": "bf16", "fidelity": "hifi4", "activation_scale": "dynamic"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"schemes": {"loud": loud}, "sites": {**sites, "conv_pre": "loud"}}))
    code, out, err = run("plan", study, "--policy", path, "--stream", "--seconds", "0.1", "--quiet", capsys=capsys)
    assert (code, out) == (2, "")
    assert err.startswith("precision-search: blackhole_p150 refuses 1 of 11 sites")
    assert "activation_scale dynamic: the scale of a chunk is not that of the whole" in err


def test_a_voice_that_does_not_stream_is_told(study, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["voice.streaming.streamable"], "_PARTS", {})
    code, out, err = run("plan", study, "--stream", "--seconds", "0.1", "--quiet", capsys=capsys)
    assert (code, out) == (2, "")
    assert "does not say what of it can be streamed" in err
    assert "or leave out --stream" in err


@pytest.mark.slow
def test_a_decoder_is_planned_row_by_row(mock_cards, capsys):
    code, out, err = run("plan", "decoder_blackhole", "--stream", "--json", capsys=capsys)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["verdict"], found["chunk_ms"], found["left_on_host"]) == ("kept", 80.0, [])
    assert len({row["site"] for row in found["steps"]} - {None}) == found["sites"] == 59
    assert sum(row["call"] == "ttnn.copy" for row in found["steps"]) == 8 + 11  # caches, and what the codec keeps


def test_a_recipe_is_planned_at_its_baseline(tiny, capsys):
    chosen = choose(Asked(str(tiny.recipe)))
    assert {scheme.name for scheme in chosen.policy.values()} == {"bf16"}
    assert chosen.policy_source == "the baseline bf16 at every site"
    assert chosen.clip.name in ("clip2", "clip3")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--clip", "nobody"), "there is no such clip; take one of clip2, clip3, clip0, clip1"),
        (("--set", "search.seed=1"), "a study's recipe stands as it was searched"),
        (("--policy", "nowhere.yaml"), "nowhere.yaml: cannot be read (No such file or directory)"),
    ],
)
def test_bad_input_is_told(study, capsys, options, said):
    code, _, err = run("plan", study, *options, capsys=capsys)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sites: {conv_pre: lofi}", "conv_post: has no scheme"),
        ("sites: {nobody: lofi}", "nobody: the model has no such site"),
        ("sites: [", "not YAML"),
        ("[]", "has a mapping of `sites` to schemes"),
        ("{schemes: {mine: {weight: bf17}}, sites: {}}", "its schemes do not fit the recipe"),
    ],
)
def test_policies_that_do_not_fit_are_told(study, tmp_path, capsys, text, said):
    (tmp_path / "mine.yaml").write_text(text)
    code, _, err = run("plan", study, "--policy", tmp_path / "mine.yaml", capsys=capsys)
    assert code == 2
    assert said in err


def test_studies_that_cannot_be_planned_are_told(tmp_path, study, capsys):
    assert "neither a study's folder nor a recipe" in run("plan", tmp_path / "no", capsys=capsys)[2]
    assert "holds no study" in run("plan", tmp_path, capsys=capsys)[2]
    (tmp_path / LOG).write_text("")
    assert "the study has not ended" in run("plan", tmp_path, capsys=capsys)[2]
    code, _, err = run("plan", "tts_hopper", capsys=capsys)
    assert code == 2
    assert "tts_hopper: is for h100_sxm, a card of hopper" in err


def test_other_weights_than_those_searched_are_told(study, tmp_path, capsys):
    for name in ("recipe.yaml", "policy.yaml"):
        (tmp_path / name).write_text((study / name).read_text())
    (tmp_path / "summary.json").write_text(json.dumps({"digests": {"weights": "0123"}}))
    assert "was searched with weights 0123" in run("plan", tmp_path, capsys=capsys)[2]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x"])
def test_lengths_that_are_none_are_told(study, capsys, seconds):
    code, _, err = run("plan", study, f"--seconds={seconds}", capsys=capsys)
    assert code == 2
    assert f"a number above 0 is needed, got {seconds}" in err


@pytest.mark.parametrize(
    ("python", "said"), [((3, 11, 9), "no wheel for Python 3.11"), ((3, 12, 1), "pip install 'precision-search[")]
)
def test_a_missing_ttnn_is_told_with_what_to_install(study, capsys, monkeypatch, python, said):
    monkeypatch.setattr("precision_search.selection.importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("precision_search.selection.sys.version_info", python)
    code, _, err = run("plan", study, capsys=capsys)
    assert code == 2
    assert said in err


def test_what_the_engine_cannot_do_is_told(study, capsys, monkeypatch):
    def fail(*_):
        raise engine.EngineError("a real card is there")

    monkeypatch.setattr(planned, "pack", fail)
    code, _, err = run("plan", study, "--seconds", "0.1", "--quiet", capsys=capsys)
    assert (code, err) == (2, "precision-search: a real card is there\n")
