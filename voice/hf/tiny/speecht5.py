"""A twin of SpeechT5 text to speech, its HiFi-GAN in a folder beside it."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from voice.hf.tiny.vocoder import MELS, hifigan_shape, level_hifigan, strengthen
from voice.noise import paired_noise

END_STEP, SURE_STEPS = 80, 6
"""Where it comes to an end, about, and over how many steps it makes up its mind."""
LONGEST = 12.0
"""Steps of two frames that teach it, by token and frame."""


def speecht5(folder: Path) -> None:
    """Write a twin with frames of 20 bands, two a step, that comes to an end after some steps."""
    library = import_module("transformers")
    config = library.SpeechT5Config(
        vocab_size=30,
        hidden_size=48,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=48,
        num_mel_bins=MELS,
        speech_decoder_prenet_units=24,
        speaker_embedding_dim=16,
        speech_decoder_postnet_layers=2,
        speech_decoder_postnet_units=16,
        max_speech_positions=400,
        max_text_positions=100,
        encoder_max_relative_position=8,
        conv_dim=(8,),
        conv_stride=(5,),
        conv_kernel=(10,),
    )
    with paired_noise(21):
        model = library.SpeechT5ForTextToSpeech(config).eval()
        strengthen(model)
        _let_end(model)
        vocoder = library.SpeechT5HifiGan(library.SpeechT5HifiGanConfig(**hifigan_shape(MELS))).eval()
        strengthen(vocoder)
        level_hifigan(vocoder, MELS)
    model.save_pretrained(folder)
    vocoder.save_pretrained(folder / "vocoder")


def _let_end(model: Any) -> None:
    """Give it a sense of time: random weights end at once, or never."""
    prenet, end = model.speecht5.decoder.prenet, model.speech_decoder_postnet.prob_out
    hidden: list[torch.Tensor] = []
    handle = model.speecht5.decoder.wrapped_decoder.register_forward_hook(
        lambda _module, _inputs, output: hidden.append(output.last_hidden_state[0])
    )
    with torch.no_grad():
        prenet.encode_positions.alpha.fill_(4.0)
        prenet.final_layer.weight *= 0.3
        end.weight.zero_()
        end.bias.fill_(-9.0)
        for _ in range(3):
            model.generate_speech(torch.randint(4, 30, (1, 24)), torch.randn(1, 16), maxlenratio=LONGEST)
        handle.remove()
        seen = torch.cat(hidden)
        steps = torch.arange(len(seen) // 3).repeat(3).float()
        told = torch.linalg.lstsq(torch.cat([seen, torch.ones(len(seen), 1)], dim=1), steps[:, None]).solution[:, 0]
        end.weight.copy_(told[:-1].expand(2, -1) / SURE_STEPS)
        end.bias.fill_((told[-1] - END_STEP) / SURE_STEPS)
