"""Mel to wave: the constants that are in no file, the harmonic source, the edges of a wave.

That the wave is the package's, given its noise, is in `test_oracle`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import get_window
from torch import Tensor

from chatterbox_nb.engine import flow, vocoder
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.vocoder import _source

RATE = 24_000


@pytest.fixture(scope="module")
def mel(demo: Callable[..., Model]) -> Tensor:
    """A second of speech-like mel from the demo voice."""
    model = demo()
    tokens = torch.tensor([[(i * 977) % 6561 for i in range(25)]])
    with torch.inference_mode():
        return flow.tokens_to_mel(model.flow, tokens, model.builtin_voice(), StageNoise(0), 4)


def wave_of(model: Model, mel: Tensor, seed: int = 0) -> Tensor:
    with torch.inference_mode():
        return vocoder.mel_to_wave(model.vocoder, mel, StageNoise(seed))


# Constants


def test_the_window_is_the_packages_and_is_counted(demo: Callable[..., Model]) -> None:
    net = demo().vocoder
    expected = get_window("hann", net.istft_params["n_fft"], fftbins=True).astype(np.float32)
    assert net.stft_window.numpy() == pytest.approx(expected, abs=1e-7)
    assert {"stft_window", "trim_fade"} <= set(dict(net.named_buffers()))


def test_the_start_is_20_ms_of_silence_and_20_ms_of_fading_in(demo: Callable[..., Model]) -> None:
    fade = demo().vocoder.trim_fade
    assert fade.shape == (960,)
    assert bool((fade[:480] == 0).all())
    assert float(fade[480]) == 0.0
    assert float(fade[-1]) == 1.0
    assert bool((fade[480:].diff() >= 0).all())


def test_no_weight_norm_is_left_to_recompute(demo: Callable[..., Model]) -> None:
    net = demo().vocoder
    assert not [name for name, _ in net.named_parameters() if "parametrizations" in name]
    assert "f0_predictor.condnet.0" in net.weight_normed


# Wave


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("frames", [1, 2, 3, 50])
def test_a_frame_is_480_samples_within_full_scale(
    demo: Callable[..., Model], mel: Tensor, frames: int, precision: str
) -> None:
    """Also of one frame, which is shorter than the fade at its start."""
    wave = wave_of(demo(precision), mel[:, :, :frames])
    assert wave.shape == (480 * frames,)
    assert wave.dtype == torch.float32
    assert float(wave.abs().max()) <= 0.99


def test_it_starts_in_silence_and_then_sounds(demo: Callable[..., Model], mel: Tensor) -> None:
    wave = wave_of(demo(), mel)
    assert bool((wave[:480] == 0).all())
    assert float(wave[960:].abs().max()) > 0.01


def test_the_same_noise_gives_the_same_bits(demo: Callable[..., Model], mel: Tensor) -> None:
    assert torch.equal(wave_of(demo(), mel), wave_of(demo(), mel))
    assert not torch.equal(wave_of(demo(), mel, seed=1), wave_of(demo(), mel))


def test_the_mel_is_left_as_it_was(demo: Callable[..., Model], mel: Tensor) -> None:
    kept = mel.clone()
    wave_of(demo(), mel)
    assert torch.equal(mel, kept)


def test_a_louder_mel_is_a_louder_wave(demo: Callable[..., Model], mel: Tensor) -> None:
    quiet, loud = wave_of(demo(), mel - 2.0), wave_of(demo(), mel)
    assert float(quiet.square().mean()) < 0.5 * float(loud.square().mean())


def test_nothing_is_printed(demo: Callable[..., Model], mel: Tensor, capfd: pytest.CaptureFixture[str]) -> None:
    wave_of(demo(), mel)
    assert capfd.readouterr() == ("", "")


# Source


class Silent(StageNoise):
    """No noise and no phases, so that the sines stand alone."""

    def phase(self, harmonics: int) -> Tensor:
        return super().phase(harmonics) * 0

    def source(self, harmonics: int, samples: int) -> Tensor:
        return super().source(harmonics, samples) * 0


class OneHarmonic(torch.nn.Module):
    """Lets a single harmonic through, unmixed and small enough that tanh is a line."""

    def __init__(self, module: Any, harmonic: int) -> None:
        super().__init__()
        self.l_sin_gen = module.l_sin_gen
        self.l_linear = torch.nn.Linear(9, 1)
        torch.nn.init.zeros_(self.l_linear.bias)
        torch.nn.init.zeros_(self.l_linear.weight)
        with torch.no_grad():
            self.l_linear.weight[0, harmonic] = 0.1


def loudest_hz(samples: Tensor) -> float:
    spectrum = torch.fft.rfft(samples.flatten() * torch.hann_window(samples.numel())).abs()
    return float(spectrum.argmax()) * RATE / samples.numel()


@pytest.mark.parametrize("harmonic", [0, 1, 8])
def test_a_voiced_source_is_sines_at_f0_and_its_harmonics(demo: Callable[..., Model], harmonic: int) -> None:
    module = OneHarmonic(demo().vocoder.m_source, harmonic)
    with torch.inference_mode():
        source = _source(module, torch.full((1, 1, RATE), 140.0), Silent(0))
    assert source.shape == (1, 1, RATE)
    assert loudest_hz(source) == pytest.approx(140.0 * (harmonic + 1), abs=1.0)


def test_an_unvoiced_source_has_no_sine_and_a_voiced_one_little_noise(demo: Callable[..., Model]) -> None:
    module = OneHarmonic(demo().vocoder.m_source, 0)
    with torch.inference_mode():
        assert float(_source(module, torch.zeros(1, 1, 4800), Silent(0)).abs().max()) == 0.0
        unvoiced = _source(module, torch.zeros(1, 1, 4800), StageNoise(0)).std()
        sine = _source(module, torch.full((1, 1, 4800), 140.0), Silent(0))
        noisy = _source(module, torch.full((1, 1, 4800), 140.0), StageNoise(0))
    assert float(unvoiced) == pytest.approx(0.1 * 0.1 / 3, rel=0.05)  # a third of the sines' amplitude
    assert float((noisy - sine).std()) < float(sine.std())


def test_the_first_harmonic_always_starts_at_phase_0(demo: Callable[..., Model]) -> None:
    module = OneHarmonic(demo().vocoder.m_source, 0)

    class OnlyPhases(Silent):
        def phase(self, harmonics: int) -> Tensor:
            return StageNoise.phase(self, harmonics)

    f0 = torch.full((1, 1, 480), 140.0)
    with torch.inference_mode():
        assert torch.equal(_source(module, f0, OnlyPhases(1)), _source(module, f0, Silent(0)))
        other = OneHarmonic(demo().vocoder.m_source, 1)
        assert not torch.equal(_source(other, f0, OnlyPhases(1)), _source(other, f0, Silent(0)))


def test_a_steady_pitch_does_not_drift_over_a_minute(demo: Callable[..., Model]) -> None:
    """Its phase is a running sum in float32."""
    module = OneHarmonic(demo().vocoder.m_source, 0)
    with torch.inference_mode():
        source = _source(module, torch.full((1, 1, 60 * RATE), 140.0), Silent(0))
    assert loudest_hz(source[..., -RATE:]) == pytest.approx(140.0, abs=1.0)
