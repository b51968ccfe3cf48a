"""HiFi-GAN and UnivNet of transformers alone, and HiFi-GAN beside an acoustic model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from voice.family import Family
from voice.hf.base import HfError, HfVoice, Recording
from voice.hf.sources import folder_of, require_weights
from voice.model import Clip, Rendering

ESPNET_RATE_HZ = 22050
"""Of LJSpeech, on which ESPnet's HiFi-GAN was trained; its configuration names no rate."""
LOWEST_HZ, HIGHEST_HZ, FLOOR = 80.0, 7600.0, 1e-10
"""Of the mel frames that both HiFi-GANs take: SpeechT5FeatureExtractor has these, and ESPnet's recipes."""


class WithVocoder(nn.Module):
    """An acoustic model and the vocoder that makes sound of its frames."""

    def __init__(self, model: nn.Module, vocoder: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.vocoder = vocoder

    @classmethod
    def read(
        cls, folder: str, classes: tuple[str, str], repository: str, **options: Any
    ) -> tuple["WithVocoder", dict[str, Any]]:
        """Read both from safetensors.

        Args:
            folder: of the acoustic model; the vocoder lies in its folder `vocoder`, or else in `repository`.
            classes: names of the classes of transformers, acoustic model and vocoder.
            repository: of the vocoder that the acoustic model was published with.
            options: of both `from_pretrained`.

        Returns:
            The module, and what was found in the files.

        Raises:
            HfError: the vocoder is neither beside the model nor in its repository.
        """
        library = import_module("transformers")
        model, found = getattr(library, classes[0]).from_pretrained(folder, **options)
        vocoder, beside = getattr(library, classes[1]).from_pretrained(vocoder_folder(folder, repository), **options)
        return cls(model, vocoder), {"missing_keys": [*found["missing_keys"], *beside["missing_keys"]]}


def vocoder_folder(folder: str, repository: str) -> str:
    """Folder of the vocoder that belongs to an acoustic model.

    Raises:
        HfError: it is neither in the folder `vocoder` beside the model, nor in its repository.
    """
    beside = Path(folder) / "vocoder"
    if not beside.is_dir():
        try:
            beside = folder_of(repository)
        except HfError as error:
            raise HfError(
                f"the model makes frames, and its vocoder is not there: put one into {beside} ({error})"
            ) from error
    require_weights(beside)
    return str(beside)


def hifigan_rate_hz(config: Any) -> int:
    """Rate of a HiFi-GAN's sound, by its configuration."""
    return int(getattr(config, "sampling_rate", ESPNET_RATE_HZ))


def hifigan_hop(config: Any) -> int:
    """Samples that a HiFi-GAN makes of a frame."""
    return prod(config.upsample_rates)


@dataclass(frozen=True)
class HifiGanVoice(HfVoice):
    """SpeechT5HifiGan or FastSpeech2ConformerHifiGan alone (Kong et al. 2020); run on tiny weights only.

    A clip is (frames [time, mels],): decimal logarithms of the recording's mel amplitudes.
    """

    family: ClassVar[Family] = "vocoder"

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the audio made."""
        return hifigan_rate_hz(self.module.config)

    def clips(self, count: int, recordings: Sequence[Recording] = ()) -> tuple[Clip, ...]:
        """Mel frames of recordings; HfError where there are fewer of them than clips."""
        return recorded_clips(self, recordings, count, hifigan_hop(self.module.config), self._frames)

    def rendered(self, *inputs: Tensor) -> Rendering:
        """Sound of the frames."""
        return Rendering(self.module(inputs[0]))

    def _frames(self, samples: NDArray[np.float32], _number: int) -> tuple[Tensor, ...]:
        config: Any = self.module.config
        hop = hifigan_hop(config)
        audio = import_module("transformers.audio_utils")
        window = 4 * hop
        filters = audio.mel_filter_bank(
            num_frequency_bins=window // 2 + 1,
            num_mel_filters=config.model_in_dim,
            min_frequency=LOWEST_HZ,
            max_frequency=HIGHEST_HZ,
            sampling_rate=self.sample_rate_hz,
            norm="slaney",
            mel_scale="slaney",
        )
        mel = audio.spectrogram(
            samples,
            window=audio.window_function(window, "hann_window", periodic=True),
            frame_length=window,
            hop_length=hop,
            power=1.0,
            mel_filters=filters,
            mel_floor=FLOOR,
            log_mel="log10",
        )
        return (torch.from_numpy(mel.T[: len(samples) // hop].astype(np.float32)),)


@dataclass(frozen=True)
class UnivNetVoice(HfVoice):
    """UnivNetModel (Jang et al. 2021, arXiv 2106.07889): noise to sound, by frames; run on tiny weights only.

    A clip is (frames [time, mels], noise [time, channels]). What its kernel predictors give are the kernels of
    convolutions further on, which are products of two activations.
    """

    family: ClassVar[Family] = "vocoder"

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the audio made."""
        return int(self._extractor().sampling_rate)

    def clips(self, count: int, recordings: Sequence[Recording] = ()) -> tuple[Clip, ...]:
        """Frames of recordings and noise; HfError where there are fewer recordings than clips."""
        return recorded_clips(self, recordings, count, self._extractor().hop_length, self._frames)

    def reseeded(self, clip: Clip, seed: int) -> Clip:
        """The same frames with other noise."""
        frames = clip.inputs[0]
        return replace(clip, inputs=(frames, self._noise(len(frames), seed)))

    def rendered(self, *inputs: Tensor) -> Rendering:
        """Sound of frames and noise."""
        frames, noise = inputs
        return Rendering(self.module(frames[None], noise[None]).waveforms[0])

    def _extractor(self) -> Any:
        kind = import_module("transformers").UnivNetFeatureExtractor
        if (Path(self.folder) / "preprocessor_config.json").is_file():
            return kind.from_pretrained(self.folder)
        config: Any = self.module.config
        return kind(num_mel_bins=config.num_mel_bins, hop_length=prod(config.resblock_stride_sizes))

    def _frames(self, samples: NDArray[np.float32], number: int) -> tuple[Tensor, ...]:
        extractor = self._extractor()
        frames = extractor.mel_spectrogram(samples)
        frames = extractor.normalize(frames) if extractor.do_normalize else frames
        return torch.from_numpy(np.asarray(frames, np.float32)), self._noise(len(frames), number)

    def _noise(self, frames: int, seed: int) -> Tensor:
        channels = self.module.config.model_in_channels  # type: ignore[union-attr]
        return torch.randn(frames, channels, generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]


def recorded_clips(
    voice: HfVoice, recordings: Sequence[Recording], count: int, hop: int, frames_of: Any
) -> tuple[Clip, ...]:
    """Clips of recordings, cut to whole frames.

    Raises:
        HfError: there are fewer recordings than clips.
    """
    if len(recordings) < count:
        raise HfError(
            f"{voice.name}: a vocoder's clips are recordings, and there are {len(recordings)} for {count} clips; give"
            " more, or ask for fewer clips"
        )
    found = []
    for number, recording in enumerate(recordings[:count]):
        natural = recording.samples[: len(recording.samples) // hop * hop]
        inputs = frames_of(natural, number)
        found.append(Clip(recording.name, inputs, len(natural) / voice.sample_rate_hz, natural))
    return tuple(found)
