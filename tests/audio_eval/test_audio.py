import numpy as np
import pytest
import soundfile

from audio_eval.audio import AudioFileError, read_audio, read_folder, resample, write_wav

RATE = 22050


@pytest.fixture
def folder(tmp_path, clean):
    soundfile.write(tmp_path / "good.wav", clean, RATE)
    soundfile.write(tmp_path / "good.flac", clean, RATE)
    return tmp_path


def spoil(path, kind, clean):
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "no audio":
        path.write_bytes(b"name,text\n" * 50)
    elif kind == "silent":
        soundfile.write(path, clean * 1e-4, RATE)
    elif kind == "no samples":
        soundfile.write(path, clean[:0], RATE)
    elif kind == "short":
        soundfile.write(path, clean[: RATE // 2 - 1], RATE)
    elif kind == "stereo":
        soundfile.write(path, np.stack([clean, clean], axis=1), RATE)
    elif kind == "8-bit":
        soundfile.write(path, clean, RATE, subtype="PCM_U8")
    elif kind == "nan":
        soundfile.write(path, np.where(np.arange(len(clean)) == 9, np.nan, clean), RATE, subtype="FLOAT")
    elif kind == "inf":
        soundfile.write(path, np.where(np.arange(len(clean)) == 9, np.inf, clean), RATE, subtype="FLOAT")
    elif kind == "slow":
        soundfile.write(path, clean, 6000)


FAULTS = {
    "empty": "is empty",
    "no audio": "not audio that can be read",
    "silent": "is silent",
    "no samples": "lasts 0.000 s",
    "short": r"at least 0.5 s",
    "stereo": "has 2 channels, mono is needed",
    "8-bit": "8-bit samples",
    "nan": "1 samples are NaN or Inf",
    "inf": "1 samples are NaN or Inf",
    "slow": "6000 Hz is under 8000 Hz",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_bad_files_are_refused_by_name_in_one_line(kind, tmp_path, clean):
    path = tmp_path / "bad.wav"
    spoil(path, kind, clean)
    with pytest.raises(AudioFileError, match=FAULTS[kind]) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", FAULTS)
def test_what_a_model_made_may_be_broken_but_not_its_file(kind, tmp_path, clean):
    path = tmp_path / "made.wav"
    spoil(path, kind, clean)
    if kind in ("silent", "no samples", "short", "nan", "inf"):
        samples, rate = read_audio(path, recording=False)
        assert (rate, len(samples)) == (RATE, soundfile.info(path).frames)
    else:
        with pytest.raises(AudioFileError, match=FAULTS[kind]):
            read_audio(path, recording=False)


def test_missing_and_folders(tmp_path):
    with pytest.raises(AudioFileError, match="no such file"):
        read_audio(tmp_path / "nowhere.wav")
    with pytest.raises(AudioFileError, match="no such file"):
        read_audio(tmp_path)
    with pytest.raises(AudioFileError, match="no such folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(AudioFileError, match=r"holds no \.wav or \.flac file"):
        read_folder(tmp_path)


def test_a_folder_names_every_bad_file_at_once(folder, clean):
    (folder / "notes.csv").write_text("ignored")
    clips = read_folder(folder)
    assert list(clips) == ["good.flac", "good.wav"]
    assert clips["good.wav"][1] == RATE
    assert clips["good.wav"][0].dtype == np.float32
    for kind in FAULTS:
        spoil(folder / f"{kind}.wav", kind, clean)
    with pytest.raises(AudioFileError) as caught:
        read_folder(folder)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(FAULTS)
    assert all(any(f"{kind}.wav" in line for line in lines) for kind in FAULTS)


def test_writing_and_reading_back(tmp_path, clean):
    path = tmp_path / "out.wav"
    write_wav(path, clean.astype(np.float32), RATE, encoding="float32")
    assert np.array_equal(read_audio(path)[0], clean.astype(np.float32))
    first = path.read_bytes()
    write_wav(path, clean.astype(np.float32), RATE, encoding="float32")
    assert path.read_bytes() == first
    write_wav(path, clean * 4, RATE)
    samples, rate = read_audio(path)
    assert rate == RATE
    assert np.max(np.abs(samples - np.clip(clean * 4, -1, 1 - 2**-15))) <= 2**-16 + 1e-7
    with pytest.raises(AudioFileError, match="only finite mono"):
        write_wav(path, np.array([0.0, np.nan]), RATE)
    with pytest.raises(FileNotFoundError):
        write_wav(tmp_path / "no" / "folder.wav", clean, RATE)


def test_the_resampler_keeps_a_tone_and_its_length():
    time = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 1000 * time)
    lowered = resample(tone, RATE, 16000)
    assert len(lowered) == 16000
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    assert np.max(np.abs(lowered - expected)[500:-500]) < 1e-3
    assert np.array_equal(resample(tone, RATE, RATE), tone.astype(np.float32))
