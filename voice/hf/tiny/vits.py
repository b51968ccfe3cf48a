"""Twins of VITS: one speaker with the stochastic duration predictor, and several with the plain one."""

from importlib import import_module
from pathlib import Path

import torch

from voice.hf.tiny.levels import bring_to
from voice.noise import paired_noise


def one_speaker(folder: Path) -> None:
    """Write a twin as MMS-TTS is: one speaker, 16 kHz, a hop of 256."""
    _write(folder, speakers=1, embedding=0, stochastic=True)


def speakers(folder: Path) -> None:
    """Write a twin of three speakers, whose durations draw no noise."""
    _write(folder, speakers=3, embedding=8, stochastic=False)


def _write(folder: Path, *, speakers: int, embedding: int, stochastic: bool) -> None:
    library = import_module("transformers")
    config = library.VitsConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=64,
        flow_size=16,
        spectrogram_bins=33,
        use_stochastic_duration_prediction=stochastic,
        num_speakers=speakers,
        speaker_embedding_size=embedding,
        upsample_initial_channel=48,
        upsample_rates=(8, 8, 4),
        upsample_kernel_sizes=(16, 16, 8),
        resblock_kernel_sizes=(3, 5),
        resblock_dilation_sizes=((1, 3), (1, 3)),
        duration_predictor_num_flows=2,
        duration_predictor_filter_channels=24,
        prior_encoder_num_flows=2,
        prior_encoder_num_wavenet_layers=2,
        posterior_encoder_num_wavenet_layers=1,
        speaking_rate=0.8,
    )
    with paired_noise(8):
        model = library.VitsModel(config).eval()
        tokens = torch.randint(1, 40, (1, 41))
        if stochastic:
            # Random flows make durations of seconds: the last step of theirs brings them to a few frames.
            model.duration_predictor.flows[0].translate.data.fill_(-1.0)
            model.duration_predictor.flows[0].log_scale.data.fill_(1.0)
        bring_to(model.decoder.conv_post, lambda: model(tokens, speaker_id=0))
    model.save_pretrained(folder)
