"""Models as users bring them: functions of their own, torch modules, Voices, and what is said of each mistake."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from precision.model_section import ModelSection
from precision_search.bundle import pack
from precision_search.entrypoint import load_entrypoint
from precision_search.loading import load_model
from precision_search.main import main
from precision_search.setting import SetupError
from precision_search.sources import sources_of
from precision_search.wire import load_setting, read_recipe, read_text
from voice.hf.base import Recording
from voice.sites import discover

MODEL = '''
"""A vocoder with two layers."""

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from voice.model import Clip, Rendering

from .shapes import CHANNELS


class Vocoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = weight_norm(nn.ConvTranspose1d(CHANNELS, 8, 128, stride=64, padding=32))
        self.post = nn.Conv1d(8, 1, 7, padding=3)

    def forward(self, mel):
        return torch.tanh(self.post(torch.relu(self.up(mel))))


class Told(Vocoder):
    sample_rate_hz = 16000
    family = "vocoder"


class Spoken:
    """A Voice of its own."""

    name, family, sample_rate_hz, protected = "spoken", "codec", 8000, {}

    def __init__(self):
        self.module = Vocoder()

    def unforced(self, clip):
        return None

    def reseeded(self, clip, seed):
        return None

    def render(self, clip):
        with torch.inference_mode():
            x = self.module.up(clip.inputs[0])
            return Rendering(self.module.post(x).reshape(-1), {"text": x[0].T})

    def clips(self, count, recordings):
        said = [Clip(one.name, (torch.ones(1, CHANNELS, 30),), 0.24, one.samples) for one in recordings]
        return said[:count]


class Restless(Told):
    def forward(self, mel):
        return super().forward(mel) * float(np.random.rand())


class Torn(Told):
    def forward(self, mel):
        return super().forward(mel) / 0.0


class Mute(Told):
    def forward(self, mel):
        return super().forward(mel) * 0.0


class Loose(nn.Module):
    def forward(self, mel):
        return mel.mean(1)


def clips(count):
    for seed in range(count):
        yield {"mel": torch.randn(1, CHANNELS, 100, generator=torch.Generator().manual_seed(seed))}


def coded(recordings):
    return [torch.from_numpy(one.samples[:6400]).reshape(1, CHANNELS, -1) for one in recordings]


def broken(count):
    raise OSError("no such file")


def nothing():
    return None
'''
BUILD, CLIPS = "own_voices.vocoder:Told", "own_voices.vocoder:clips"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working directory, with a package of the user's in it."""
    package = tmp_path / "own_voices"
    package.mkdir()
    (package / "shapes.py").write_text("CHANNELS = 16\n")
    (package / "vocoder.py").write_text(MODEL)
    (package / "torn.py").write_text("import no_such_module_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != ""])
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "own_voices"]:
        del sys.modules[name]


def told(capsys, *arguments, code=0):
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert exit_.value.code == code, said.err
    return said.err if code else said.out


def loaded(entrypoint=BUILD, inputs=CLIPS, audio=False, count=2, **keys):
    def recordings(rate):
        samples = np.sin(np.arange(rate, dtype=np.float32))
        return tuple(Recording(f"said{i}", samples * (i + 1) / 4) for i in range(4))

    return load_entrypoint(
        ModelSection(entrypoint=entrypoint, inputs=inputs, **keys), count, recordings, own_audio=audio
    )


def test_sites_of_a_function_without_a_recipe(capsys):
    model = ["sites", "--model", f"entrypoint:{BUILD}", "--set", f"model.inputs={CLIPS}"]
    text = told(capsys, *model)
    assert "vocoder, vocoder: 2 sites, 100.00% of" in text
    assert "16,440 of 16,449 weights" in text
    assert "warning" not in text
    data = json.loads(told(capsys, *model, "--json"))
    assert [site["name"] for site in data["sites"]] == ["up", "post"]
    macs = 100 * 16 * 8 * 128 + 6400 * 8 * 7
    assert data["macs_per_second"] == pytest.approx(macs / (6400 / 16000))
    assert (data["warning"], data["outside"]) == (None, [])


def test_a_recipe_that_init_writes_loads_the_same_in_another_process(capsys, folder):
    path = folder / "mine.yaml"
    inputs = "model.inputs={mel: [1, 16, 90]}"
    few = ["--set", "data.search=1", "--set", "data.held_back=2", "--set", inputs]
    told(capsys, "init", f"entrypoint:{BUILD}", "--out", path, *few)
    assert "nothing wrong" in told(capsys, "check", path)
    assert "2 sites, 100.00% of" in told(capsys, "sites", path)
    recipe = read_recipe(str(path), ())
    assert recipe.model.inputs == {"mel": (1, 16, 90)}
    here, there = load_setting(recipe), load_setting(read_text(recipe.to_yaml()))
    assert torch.equal(here.first.sound, there.first.sound), "weights that are drawn are drawn by one seed"
    told(capsys, "init", f"entrypoint:{BUILD}", *few)
    assert (folder / "vocoder_p150a.yaml").is_file()
    assert read_recipe(str(folder / "vocoder_p150a.yaml"), ()).name == "vocoder_p150a"


def test_a_machine_without_the_users_files_has_what_it_needs(folder, tmp_path_factory):
    voice, clips = loaded()
    sources = sources_of(ModelSection(entrypoint=BUILD))
    assert {"own_voices/vocoder.py", "own_voices/shapes.py"} <= sources.keys()
    assert not any(name.startswith(("torch/", "voice/", "numpy/")) for name in sources)
    assert sources_of(ModelSection(name="embedded")) == {}
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "sources").write_bytes(pickle.dumps(sources))
    (elsewhere / "packed").write_bytes(pack((voice, clips[0])))
    script = (
        "import pickle, pathlib; from precision_search.sources import install;"
        "install(pickle.loads(pathlib.Path('sources').read_bytes()));"
        "from precision_search.bundle import unpack; voice, clip = unpack(pathlib.Path('packed').read_bytes());"
        "print(voice.render(clip).sound.double().sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=elsewhere, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(voice.render(clips[0]).sound.double().sum().item())


def test_a_voice_of_ones_own_makes_its_clips_of_recordings():
    voice, clips = loaded("own_voices.vocoder:Spoken", None, audio=True)
    assert [clip.name for clip in clips] == ["said0", "said1"]
    assert (voice.name, voice.family, len(clips[0].natural)) == ("spoken", "codec", 8000)
    assert not voice.module.training
    found = discover(voice.module, lambda: voice.render(clips[0]), clips[0].seconds)
    assert [site.name for site in found.sites] == ["up", "post"]
    with pytest.raises(SetupError, match=r"model.inputs, model.family: own_voices.vocoder:Spoken gives a Voice"):
        loaded("own_voices.vocoder:Spoken", family="codec")


def test_inputs_may_be_made_of_recordings():
    voice, clips = loaded(inputs="own_voices.vocoder:coded", count=3)
    assert [clip.name for clip in clips] == ["clip0", "clip1", "clip2"]
    assert voice.render(clips[0]).sound.shape == (400 * 64,)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"entrypoint": "own_voices.vocodr:build"}, "no module own_voices.vocodr; Python looked in"),
        (
            {"entrypoint": "own_voices.torn:build"},
            "importing own_voices.torn raises ModuleNotFoundError: No module",
        ),
        ({"entrypoint": "own_voices.vocoder:Tol"}, "own_voices.vocoder has no Tol; did you mean 'Told'?"),
        ({"entrypoint": "own_voices.shapes:CHANNELS"}, "own_voices.shapes:CHANNELS is a int, must be a function"),
        ({"entrypoint": "own_voices.vocoder:broken"}, "raises TypeError: broken() missing 1 required"),
        ({"entrypoint": "own_voices.vocoder:nothing"}, "gives a NoneType, must be a torch.nn.Module, or a Voice"),
        ({"entrypoint": "own_voices.vocoder:Restless"}, "makes something else of clip0 the second time"),
        ({"entrypoint": "own_voices.vocoder:Torn"}, "gives NaN or Inf for clip0 in fp32 already"),
        ({"entrypoint": "own_voices.vocoder:Mute"}, "is silent on clip0"),
        ({"inputs": "own_voices.vocoder:broken"}, "own_voices.vocoder:broken raises OSError: no such file"),
        ({"inputs": "own_voices.vocoder:nothing"}, "raises TypeError: 'NoneType' object is not iterable"),
        ({"inputs": {"mel": (1, 15, 9)}}, "on its clips raises RuntimeError: Given transposed=1"),
        ({"inputs": {"melody": (1, 16, 9)}}, "unexpected keyword argument 'melody'"),
        ({"audio": True}, "data.audio: own_voices.vocoder:clips takes no argument `recordings`"),
        ({"inputs": {"mel": (1, 16, 9)}, "audio": True}, "data.audio: noise is what model.inputs asks for"),
        ({"outputs": {"sound": "audio"}}, "model.outputs.sound: audio of audio is not in a tensor [1, 1, 6400]"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(keys, said):
    with pytest.raises(SetupError) as caught:
        loaded(**keys)
    assert said in str(caught.value), caught.value
    assert "\n" not in str(caught.value)


def test_all_that_a_module_leaves_open_is_told_at_once(capsys):
    with pytest.raises(SetupError) as caught:
        loaded("own_voices.vocoder:Vocoder", None)
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == [
        "model.inputs",
        "model.sample_rate_hz",
        "model.family",
    ]
    voice, _ = loaded("own_voices.vocoder:Vocoder", family="sampler", sample_rate_hz=24000)
    assert (voice.family, voice.sample_rate_hz) == ("sampler", 24000)
    model = ["sites", "--model", "entrypoint:own_voices.vocoder:Loose", "--set", "model.inputs={mel: [1, 16, 9]}"]
    keys = ["--set", "model.family=vocoder", "--set", "model.sample_rate_hz=16000"]
    assert "has no sites that can be found" in told(capsys, *model, *keys, code=2)
    assert "and not both" in told(capsys, "sites", "tts_blackhole", *model[1:], code=2)
    assert "named by hf:PATH" in told(capsys, "sites", "--model", "hfmimi", code=2)


def test_a_model_of_hugging_face_is_found_listened_to_and_written_a_recipe_for(capsys, folder):
    pytest.importorskip("transformers")
    from voice.hf.twins import build

    build("mimi", folder / "mimi")
    data = json.loads(told(capsys, "sites", "--model", "hf:mimi", "--json"))
    assert (data["model"], data["family"]) == ("mimi", "codec")
    assert data["covered_mac_share"] >= 0.99
    few = ["--set", "data.search=1", "--set", "data.held_back=2", "--set", "data.seconds=1"]
    told(capsys, "init", "hf:mimi", *few)
    recipe = read_recipe("mimi_p150a.yaml", ())
    assert (recipe.model.hf, recipe.model.name) == ("mimi", None)
    _, clips = load_model(recipe)
    assert len(clips) == 3
    assert clips[0].seconds == pytest.approx(1.0, abs=0.1), "of the embedded voice's recordings"
    assert "no such folder" in told(capsys, "sites", "--model", "hf:mimo", code=2)
