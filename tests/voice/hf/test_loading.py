"""load: what is wrong with a folder or a repository is said in one message, at once, with what to do."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from voice.hf import loading
from voice.hf.base import HfError, HfVoice
from voice.hf.loading import ARCHITECTURES, Architecture, load
from voice.hf.twins import TWINS, build, main

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return build("whisper", tmp_path_factory.mktemp("hf") / "whisper")


@pytest.fixture
def folder(whisper, tmp_path):
    return shutil.copytree(whisper, tmp_path / "whisper")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the Hub's, and no network."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def settings(folder, **changed):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def refused(source, message, **options):
    with pytest.raises(HfError, match=message) as caught:
        load(str(source), **options)
    assert len(str(caught.value)) < 1500
    return str(caught.value)


def test_a_folder_is_loaded_ready_to_render(folder):
    voice = load(str(folder))
    assert voice.name == "whisper"
    assert voice.folder == str(folder)
    assert not voice.module.training
    assert {(weight.dtype, weight.requires_grad) for weight in voice.module.parameters()} == {(torch.float32, False)}


def test_every_adapter_and_every_twin_is_there():
    for architecture in ARCHITECTURES.values():
        adapter = loading._named(architecture.adapter)
        assert issubclass(adapter, HfVoice)
        assert hasattr(loading._named(architecture.loads) if ":" in architecture.loads else adapter, "__doc__")
    assert {"whisper", "voxtral", "ultravox", "qwen2_5_omni"} <= TWINS.keys() & ARCHITECTURES.keys()


def test_a_twin_is_written_by_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["twins", "moonshine", str(tmp_path / "new" / "twin")])
    main()
    assert (tmp_path / "new" / "twin" / "model.safetensors").is_file()
    assert capsys.readouterr().out.strip() == str(tmp_path / "new" / "twin")


def test_no_such_folder(tmp_path, hub):
    refused(tmp_path / "nowhere", "no such folder, and not the name of a repository either; give the folder that")
    refused("./nowhere", "no such folder, and not the name")
    refused("a/b/c", "no such folder, and not the name")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", r"is a file; give the folder that config\.json")


def test_a_folder_that_is_no_model(tmp_path, folder):
    refused(tmp_path, r"no config\.json in .*, so it is not a model that save_pretrained wrote")
    refused(folder, "a folder has no revision main; leave revision out", revision="main")
    (folder / "config.json").write_text("{")
    refused(folder, r"config\.json cannot be read: ")
    (folder / "config.json").write_text("{}")
    refused(folder, r"config\.json names no model_type")
    settings(folder, istftnet={"upsample_rates": [10, 6]})
    refused(folder, r"names no model_type.*python -m voice\.hf\.kokoro")


def test_an_architecture_without_an_adapter(folder):
    settings(folder, model_type="bert")
    message = refused(folder, "no adapter for the architecture bert. There are adapters for .*moonshine.*whisper")
    assert "model.entrypoint: a function that builds it" in message
    settings(folder, model_type="mine", auto_map={"AutoModel": "mine.Model"})
    refused(folder, "no adapter for the architecture mine; the Python that lies beside it is not run")


def test_python_beside_the_weights_is_run_only_where_it_is_trusted(folder, monkeypatch):
    known = {**ARCHITECTURES, "mine": Architecture("whisper:WhisperVoice", "AutoModel")}
    monkeypatch.setattr(loading, "ARCHITECTURES", known)
    settings(folder, model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModel": "mine.Model"})
    (folder / "mine.py").write_text("raise RuntimeError('this was run')\n")
    refused(folder, "does not know the architecture mine, and the model brings Python of its own; read it, and where")
    refused(folder, "this was run", trust_remote_code=True)
    # What transformers knows itself needs no such trust, whatever lies beside it.
    settings(folder, model_type="whisper", auto_map={"AutoModel": "mine.Model"})
    assert load(str(folder)).name == "whisper"


def test_weights_are_safetensors(folder):
    (folder / "model.safetensors").rename(folder / "elsewhere")
    refused(folder, r"weights are missing: model\.safetensors; copy them there, or fetch them again")
    torch.save({}, folder / "pytorch_model.bin")
    message = refused(folder, r"its weights are pickles \(pytorch_model\.bin\), which can run code when they are read")
    assert "save_pretrained" in message


def test_all_files_of_weights_in_pieces_are_asked_for(folder):
    index = folder / "model.safetensors.index.json"
    pieces = [f"model-{number:05}-of-00005.safetensors" for number in range(1, 6)]
    index.write_text(json.dumps({"weight_map": {f"weight{number}": piece for number, piece in enumerate(pieces)}}))
    shutil.copy(folder / "model.safetensors", folder / pieces[0])
    message = refused(folder, "weights are missing: ")
    assert all(piece in message for piece in pieces[1:4])
    assert "and 1 more" in message
    assert pieces[0] not in message
    index.write_text("[]")
    refused(folder, r"model\.safetensors\.index\.json cannot be read")


def test_weights_that_do_not_fit(folder):
    path = folder / "model.safetensors"
    weights = load_file(path)
    kept = {name: value for name, value in weights.items() if "encoder.layers.0" not in name}
    save_file(kept, path, metadata={"format": "pt"})
    message = refused(folder, r"\d+ weights are missing: model\.encoder\.layers\.0")
    assert "more. They would be random; is it the checkpoint of another architecture, or only a part of one?" in message
    save_file(weights, path, metadata={"format": "pt"})
    settings(folder, d_model=32)
    refused(folder, "cannot be read as a model of the architecture whisper: ")
    settings(folder, d_model=64)
    path.write_bytes(path.read_bytes()[:1000])
    refused(folder, "cannot be read as a model of the architecture whisper: ")


def test_transformers_is_not_installed(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(folder, r"models of Hugging Face need transformers; pip install 'precision-search\[hf\]'")


def test_a_repository_in_the_cache_is_loaded_without_a_network(folder, hub):
    repository = hub / "models--someone--listener"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for revision in (None, "main", COMMIT):
        voice = load("someone/listener", revision=revision)
        assert voice.name == "listener"
        assert voice.folder == str(repository / "snapshots" / COMMIT)
    refused("someone/listener", "someone/listener at v2: no such folder, and as a repository", revision="v2")


def test_a_repository_that_is_not_in_the_cache_ends_at_once(hub):
    message = refused(
        "someone/else", "no such folder, and as a repository it is not in the cache and cannot be fetched"
    )
    assert "Without a network give a folder; a closed repository wants a token" in message
    assert "\n" not in message
