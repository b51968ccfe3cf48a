import math

import pytest
import torch

from voice.vocoder import Head, Vocoder, VocoderConfig, make_source

CONFIG = VocoderConfig(channels=(16, 8, 8), kernels=(3,), dilations=(1,))


def test_a_frame_is_256_samples():
    torch.manual_seed(0)
    vocoder = Vocoder(CONFIG).eval()
    source = make_source(torch.full((2, 5), 200.0), CONFIG)
    assert vocoder(torch.randn(2, 80, 5), source).shape == (2, 5 * 256)


def test_synthesis_inverts_a_windowed_dft():
    # A constant spectrum at one bin, its phase turning with the hop, is a sinusoid of that bin's frequency.
    head = Head(CONFIG)
    frames, bin_ = 64, 3
    phase = 2 * math.pi * bin_ * CONFIG.head_hop / CONFIG.head_fft * torch.arange(frames, dtype=torch.float64)
    spectrum = torch.zeros(1, 2 * head.bands, frames)
    spectrum[0, bin_] = (phase.cos() * 8).float()
    spectrum[0, head.bands + bin_] = (phase.sin() * 8).float()
    samples = torch.nn.functional.conv_transpose1d(spectrum, head.basis, stride=head.hop)[0, 0]
    time = torch.arange(len(samples), dtype=torch.float64)
    expected = torch.cos(2 * math.pi * bin_ / CONFIG.head_fft * time).float()
    torch.testing.assert_close(samples[32:-32], expected[32:-32], atol=1e-5, rtol=0)


@pytest.mark.parametrize("f0_hz", [80.0, 123.4, 400.0])
def test_the_source_is_a_pulse_train_of_the_given_frequency(f0_hz):
    pulses = make_source(torch.full((1, 250), f0_hz), VocoderConfig())[0, 0]
    assert pulses.pow(2).mean().item() == pytest.approx(1.0, rel=0.05)
    power = torch.fft.rfft(pulses.double() * torch.hann_window(len(pulses), dtype=torch.float64)).abs()
    peak = (power[10 : int(1.5 * f0_hz * len(pulses) / 16000)].argmax().item() + 10) * 16000 / len(pulses)
    assert peak == pytest.approx(f0_hz, abs=0.5)


def test_unvoiced_frames_have_no_pulses_and_noise_repeats():
    f0 = torch.tensor([[0.0, 0.0, 150.0, 150.0]])
    first, second = make_source(f0, CONFIG), make_source(f0, CONFIG)
    assert (first[0, 0, :512] == 0).all()
    assert (first[0, 0, 512:] != 0).any()
    assert torch.equal(first, second)
    assert not torch.equal(first[0, 1], make_source(f0, CONFIG, seed=1)[0, 1])


def test_phase_begins_anew_after_a_pause():
    # What was voiced before a pause must not move the pulses after it.
    one = make_source(torch.tensor([[150.0, 150.0, 0.0, 180.0, 180.0]]), CONFIG)
    other = make_source(torch.tensor([[151.0, 150.0, 0.0, 180.0, 180.0]]), CONFIG)
    torch.testing.assert_close(one[0, 0, 768:], other[0, 0, 768:], atol=1e-4, rtol=0)
    assert not torch.allclose(one[0, 0, :512], other[0, 0, :512], atol=1e-2)


def test_a_long_vowel_stays_in_tune():
    # 40 seconds: the phase is summed in float64, so the last pulse is where it should be.
    frames = 2500
    pulses = make_source(torch.full((1, frames), 200.0), CONFIG)[0, 0]
    period = 80
    peaks = pulses.view(-1, period).argmax(dim=1)
    assert peaks[0] == peaks[-1]
