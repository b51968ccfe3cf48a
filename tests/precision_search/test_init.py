"""`init`: a recipe for a model that was looked at, which runs as it is written; and what an editor needs beside it."""

import json

import pytest

from precision.schema import recipe_schema
from precision_search.main import main
from precision_search.wire import presets, read_recipe
from voice.embedded import bundled_clips

GATES = "gates=[{metric: lsd_db, max: 3.0}, {metric: finite, over: worst, min: 1.0}]"


@pytest.fixture
def command(capsys):
    def run(*arguments: object, code: int = 0) -> str:
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        assert exit_.value.code == code, told.err
        return told.err if code == 2 else told.out

    return run


@pytest.fixture
def hifigan(tiny):
    return ["hifigan", "--set", f"model.checkpoint={tiny.checkpoint}", "--set", f"data.audio={tiny.wavs}"]


@pytest.mark.parametrize("device", ["p150a", "n300", "h100_sxm"])
def test_what_is_written_for_a_vocoder_has_no_mistake(device, command, hifigan, tiny, tmp_path):
    path = tmp_path / "mine.yaml"
    told = command("init", *hifigan, "--device", device, "--out", path)
    assert f"precision-search run {path}" in told
    assert "nothing wrong" in command("check", path)
    recipe = read_recipe(str(path), ())
    assert (recipe.name, recipe.model.checkpoint, recipe.target.device) == ("mine", str(tiny.checkpoint), device)
    # Four clips of a second: two of five search, and there is nothing to cut.
    assert (recipe.data.search, recipe.data.held_back, recipe.data.seconds) == (1, 3, None)
    assert [rule.match for rule in recipe.space] == [
        "conv_pre",
        "conv_post",
        "ups.*",
        *(f"resblocks.{block}.*" for block in range(3)),
    ]
    text = path.read_text()
    assert "the first layer" in text
    assert "% of the MACs" in text
    if device == "h100_sxm":
        assert "fp8_e4m3 is refused: TensorRT: no FP8 transposed convolution" in text
        assert recipe.space[2].allow == ("bf16", "fp16")
    else:
        assert recipe.baseline.fidelity == ("hifi4" if device == "p150a" else "hifi3")
        assert recipe.space[0].allow[0] == "fp32"
        assert "bfp8_both_lofi" in recipe.space[3].allow
    assert max(map(len, text.splitlines())) < 200
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("device", ["p150a", "h100_sxm"])
def test_what_is_written_for_the_embedded_voice_has_no_mistake(device, command, tmp_path):
    path = tmp_path / "voice.yaml"
    command("init", "embedded", "--device", device, "--out", path)
    recipe = read_recipe(str(path), ())
    assert recipe.data.search == 8
    assert recipe.data.held_back == 12 <= len(bundled_clips()) - 8
    assert recipe.data.seconds is None, "it speaks its own sentences, whole"
    assert recipe.space[0].match == "prosody.*"
    assert recipe.space[0].allow == ("bf16",)
    text = path.read_text()
    assert "protected: it decides timing and pitch" in text
    assert any(rule.op == "matmul" for rule in recipe.space)
    assert "is for 200,000 policies at most" in text
    assert "nothing wrong" in command("check", path)


@pytest.mark.slow
def test_what_is_written_runs(command, hifigan, tmp_path):
    path = tmp_path / "quick.yaml"
    fewer = ["--set", GATES, "--set", "search.evaluations=4", "--set", "search.candidates=2"]
    command("init", *hifigan, "--out", path, *fewer)
    recipe = read_recipe(str(path), ())
    assert (recipe.search.evaluations, recipe.search.candidates, len(recipe.gates)) == (4, 2, 2)
    summary = json.loads(command("run", path, "--out", tmp_path / "study", "--workers", 1, "--json"))
    assert summary["verdict"] == "kept"
    assert (tmp_path / "study" / "policy.yaml").is_file()


def test_what_is_set_is_written(command, hifigan, tmp_path):
    path = tmp_path / "Für mich.yaml"
    changed = [
        "search.method=tpe",
        "search.within={joules: 0.95}",
        "schemes.own={weight: bfp8_b, activation: bf16, fidelity: hifi4}",
        "presets=[blackhole_wide, tensix_bold]",
        "adapt={}",
        "cost.streams=7",
        "data.held_back=2",
    ]
    data = json.loads(command("init", *hifigan, "--out", path, *[f"--set={c}" for c in changed], "--json"))
    recipe = read_recipe(str(path), ())
    assert recipe.name == "f_r_mich"
    assert (recipe.search.method, dict(recipe.search.within)) == ("tpe", {"joules": 0.95})
    assert [scheme.name for scheme in recipe.schemes] == ["fp32", "bf16", "bfp4_lofi", "bfp4_both_lofi", "own"]
    assert recipe.adapt is not None
    assert (recipe.cost.streams, recipe.data.held_back) == (7, 2)
    assert data["recipe"] == str(path)
    assert [row["match"] for row in data["space"]] == [rule.match for rule in recipe.space]
    assert data["policies"] == 4**11
    assert "nothing wrong" in command("check", path)


def test_a_file_that_is_there_is_not_written_over(command, hifigan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hifigan_p150a.yaml"
    path.write_text("mine")
    assert "write over it by --force" in command("init", *hifigan, code=2)
    assert path.read_text() == "mine"
    command("init", *hifigan, "--force")
    assert read_recipe(str(path), ()).name == "hifigan_p150a"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hifigam"], "nsf, vocos); did you mean 'hifigan'?\n  any other model is named by hf:PATH"),
        (["hifigan", "--device", "p150"], "must be a known card"),
        (["hifigan", "--device", "l40s"], "no backend drives it"),
        (["hifigan"], "model.checkpoint"),
        (["hifigan", "--set", "space[0].allow=[bf16]"], "init finds the rules itself"),
        (["hifigan", "--set", "target.device=n300"], "--device"),
        (["hifigan", "--set", "search.evalutions=3"], "did you mean 'evaluations'?"),
    ],
)
def test_what_cannot_be_looked_at_is_told(arguments, said, command, tmp_path):
    assert said in command("init", *arguments, "--out", tmp_path / "x.yaml", code=2)
    assert not list(tmp_path.iterdir())


def test_a_baseline_that_the_card_refuses_is_told(command, hifigan, tmp_path):
    refused = "schemes.bf16={weight: bf16, activation: bf16, fidelity: hifi4}"
    told = command("init", *hifigan, "--device", "n300", "--set", refused, "--out", tmp_path / "x.yaml", code=2)
    assert "cannot run the baseline bf16" in told
    assert "use hifi3" in told


def test_long_recordings_are_cut(command, tiny, tmp_path):
    path = tmp_path / "x.yaml"
    # Without recordings of one's own those of the embedded voice are taken; some are longer than three seconds.
    command("init", "hifigan", "--set", f"model.checkpoint={tiny.checkpoint}", "--out", path)
    assert read_recipe(str(path), ()).data.seconds == 3
    command(
        "init",
        "hifigan",
        "--set",
        f"model.checkpoint={tiny.checkpoint}",
        "--set",
        "data.seconds=1",
        "--out",
        path,
        "--force",
    )
    assert read_recipe(str(path), ()).data.seconds == 1


def test_too_few_clips_are_told(command, hifigan, tmp_path):
    told = command("init", *hifigan, "--set", "data.search=3", "--out", tmp_path / "x.yaml", code=2)
    assert "3 + 3 clips are asked for, and there are 4" in told


def test_an_editor_finds_the_schema_where_it_lies(command, hifigan, tmp_path):
    path = tmp_path / "x.yaml"
    command("init", *hifigan, "--out", path)
    line = "# yaml-language-server: $schema=./recipe.schema.json"
    assert line not in path.read_text().splitlines()
    assert "precision-search schema > recipe.schema.json" in path.read_text()
    (tmp_path / "recipe.schema.json").write_text(command("schema"))
    schema = json.loads((tmp_path / "recipe.schema.json").read_text())
    assert schema["properties"].keys() == recipe_schema()["properties"].keys()
    assert schema["properties"]["presets"]["items"]["enum"] == list(presets())
    assert "h100_sxm" in schema["$defs"]["TargetSection"]["properties"]["device"]["enum"]
    command("init", *hifigan, "--out", path, "--force")
    assert line in path.read_text().splitlines()


def test_presets_are_listed(command):
    text = command("presets")
    rows = json.loads(command("presets", "--json"))["presets"]
    assert [row["name"] for row in rows] == list(presets())
    for row in rows:
        assert row["about"] in text
        assert all(scheme in text for scheme in row["schemes"])
