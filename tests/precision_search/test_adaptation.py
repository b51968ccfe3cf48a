"""The main job with weights trained for the cheapest policy."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from backends.emulation.adaptation import TRAINED, adapt, adapted_policy
from calibrate.adapted import Operands, Plan, load_adapted
from precision.policy import Policy, Scheme
from precision.search.outcome import Evaluation, Outcome, Trial
from precision.search.problem import Choice, Problem
from precision_search.adaptation import target_of
from precision_search.main import main
from precision_search.results import read_policy
from precision_search.table import table
from precision_search.wire import make_setting, read_recipe
from voice.embedded import EmbeddedVoice, bundled_clips

LEVERS = "[fidelity_rounding, gain_folding, error_feedback, bias_correction]"
OVERRIDES = (
    "--set",
    "adapt={steps: 4, local_steps: 2}",
    "--set",
    f"schemes.lofi.levers={LEVERS}",
    "--set",
    "space=[{match: '*', allow: [bf16, lofi]}]",
    "--set",
    # Without training not every site can be lowered.
    "gates=[{metric: lsd_db, max: 1.9}, {metric: group_delay_rad, max: 0.2}]",
)


def precision_search(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return int(exit_.value.code or 0)


def the_dearest(problem: Problem, budgets: object, evaluate: Callable[[Choice], Evaluation], **_: object) -> Outcome:
    """A search that finds nothing cheaper than the dearest choice: what is cheaper is left to training."""
    dear = np.where(np.isinf(problem.cost), -1, problem.cost)
    choice = tuple(int(option) for option in dear.argmax(axis=1))
    trial = Trial("safest", choice, float(dear.max(axis=1).sum()), problem.predicted(choice), evaluate(choice))
    return Outcome(trial, (trial,), "evaluations", one_optimal=False)


@pytest.fixture(autouse=True, scope="module")
def _all_is_left_to_training():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("precision_search.searching.search", the_dearest)
        patch.setattr("precision_search.deciding.SLACKS", (1e9,))
        yield


@pytest.fixture(scope="module")
def study(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted") / "tiny"
    assert precision_search("run", made / "tiny.yaml", "--out", folder, "--quiet", "--workers", 2, *OVERRIDES) == 0
    return folder


def records(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "study.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "adaptation"]


def test_a_run_tells_what_its_adaptation_took_and_gave(study):
    told = json.loads((study / "summary.json").read_text())["adaptation"]
    assert (told["steps"], told["local_steps"], told["sites"]) == (4, 2, 11)
    assert told["loss_after"] <= told["loss_before"]
    assert told["minutes"] > 0
    assert "weights of 11 sites trained in" in table(json.loads((study / "summary.json").read_text()))
    policy = yaml.safe_load((study / "policy.yaml").read_text())
    assert policy["adapted"]["weights"] in [record["weights"] for record in records(study)]
    assert set(load_adapted(study / policy["adapted"]["file"]).operands) == set(policy["sites"])
    trained = set(policy["adapted"]["sites"])
    assert trained
    assert trained <= set(policy["sites"])


def test_a_resumed_run_trains_nothing_again(study, made, monkeypatch):
    before, trained = (study / "policy.yaml").read_bytes(), records(study)
    monkeypatch.setattr("precision_search.adaptation.adapt", None)
    arguments = ("run", made / "tiny.yaml", "--out", study, "--quiet", "--workers", 1, "--resume", *OVERRIDES)
    summary = study / "summary.json"
    summary.unlink()
    assert precision_search(*arguments) == 0
    assert (study / "policy.yaml").read_bytes() == before
    assert records(study) == trained != []


def test_a_policy_file_may_not_adapt_a_site_that_it_lacks(study, tmp_path):
    data = yaml.safe_load((study / "policy.yaml").read_text())
    data["adapted"]["sites"].append("nowhere")
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ValueError, match="nowhere: is adapted and has no scheme"):
        read_policy(make_setting(read_recipe(str(study / "recipe.yaml"), ())), path)


def test_evaluate_hears_the_trained_weights(study, capsys):
    assert precision_search("evaluate", study, "--json") == 0
    again = json.loads(capsys.readouterr().out)
    summary = json.loads((study / "summary.json").read_text())
    assert again["policy_digest"] == summary["policy_digest"]
    expected = {gate["metric"]: gate["fast_value"] for gate in summary["gates"]}
    assert {gate["metric"]: gate["value"] for gate in again["gates"]} == pytest.approx(expected)


def test_trained_levers_are_not_applied_again_and_raised_sites_keep_theirs():
    scheme = Scheme("lofi", "bfp8_b", "bf16", fidelity="lofi", levers=("fidelity_rounding", *sorted(TRAINED)))
    policy = adapted_policy(Policy.uniform(["a", "b"], scheme), "0f", {"a": "lofi", "b": "bold"})
    assert policy["a"].levers == ("fidelity_rounding",)
    assert policy["a"].adapted == "0f"
    assert policy["b"] == scheme
    assert policy.digest != Policy.uniform(["a", "b"], scheme).digest


def test_weights_are_trained_for_a_policy_a_little_beyond_the_best():
    cost = np.array([[2.0, 1.0], [2.0, 1.0]])
    problem = Problem(("a", "b"), (("x", "y"),) * 2, cost, ("m",), np.array([[[1.0, 3.0], [1.0, 5.0]]]))

    def target(damage: float) -> Choice | None:
        return target_of(problem, {"m": damage}, 1.25)

    assert target(0.99 * 10**0.5 / 1.25) == (0, 0)
    assert target(1.01 * 10**0.5 / 1.25) == (1, 0)
    assert target(100.0) == (1, 1)
    assert target(0.1) is None


def test_what_costs_next_to_nothing_is_not_given_up():
    cost = np.array([[1.001, 1.0, 2.0], [1.0, 0.5, 3.0]])
    damage = np.array([[[1.0, 9.0, 0.1], [2.0, 3.0, 0.1]]])
    problem = Problem(("a", "b"), (("x", "y", "z"),) * 2, cost, ("m",), damage)
    assert target_of(problem, {"m": 100.0}, 1.0) == (0, 1)


def test_what_weights_are_trained_for_damages_no_metric_beyond_the_slack():
    # b as z would damage the least in both metrics together, but too much in one; x is the cheapest.
    cost = np.array([[2.0, 2.0], [1.0, 1.0015]])
    damage = np.array([[[0.1, 0.1], [1.2, 1.4]], [[0.1, 0.1], [1.2, 0.1]]])
    problem = Problem(("a", "b"), (("y", "y2"), ("x", "z")), cost, ("m", "n"), damage)
    assert target_of(problem, {"m": 1.0, "n": 1.0}, 1.25) == (0, 0)
    assert target_of(problem, {"m": 1.0, "n": 1.0}, 1.5) == (0, 1)


def test_the_embedded_voice_can_be_trained_and_what_is_protected_stays():
    voice, clips = EmbeddedVoice.load(), bundled_clips()[:1]
    lofi = Scheme("lofi", "bfp8_b", "bf16", fidelity="lofi", levers=("fidelity_rounding",))
    fp32 = Scheme("fp32", "fp32", "fp32", fidelity="hifi4")
    setting = make_setting(read_recipe("tts_blackhole", []))
    names = [site.name for site in setting.sites]
    policy = Policy(tuple((name, fp32 if name in setting.protected else lofi) for name in names))
    before = {name: tensor.clone() for name, tensor in voice.module.state_dict().items()}
    adapted = adapt(
        voice,
        clips,
        policy,
        setting.backend.arithmetic,
        calibration=None,
        moments={},
        plan=Plan(2, 1, 1e-4),
        fixed=setting.protected,
    )
    assert adapted.operands
    assert not any(site.startswith("prosody") for site in adapted.operands)
    assert all(isinstance(held, Operands) for held in adapted.operands.values())
    assert all(torch.equal(before[name], tensor) for name, tensor in voice.module.state_dict().items())


def test_a_model_that_cannot_be_trained_is_refused(tiny, monkeypatch):
    monkeypatch.delattr("voice.recorded.Resynthesis.excerpt")
    with pytest.raises(ValueError, match="adapt: hifigan cannot be trained"):
        make_setting(read_recipe(str(tiny.recipe), ["adapt={}"]))
