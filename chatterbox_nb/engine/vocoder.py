"""Mel spectrogram to waveform: f0, a harmonic source, HiFT. Always float32: a half-precision vocoder sounds metallic.

The networks are the package's, weight norms folded. The source is ours, so that its noise can be given.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chatterbox_nb.checkpoint.reference import trim_fade
from chatterbox_nb.engine import finite
from chatterbox_nb.engine.nets.snake import Snake
from chatterbox_nb.engine.nets.upsample import Upsample
from chatterbox_nb.engine.noise import Noise, StageNoise
from chatterbox_nb.precision.exact import exact


def own_layers(vocoder: Any) -> None:
    """Makes its transposed convolutions and activations ours; weight norms are folded already."""
    for layer in vocoder.ups:
        layer.__class__ = Upsample
    for layer in vocoder.modules():
        if type(layer).__name__ == "Snake" and not layer.alpha_logscale:
            layer.__class__ = Snake


def own_constants(vocoder: Any, sample_rate: int, device: str) -> None:
    """Puts in what was built on the meta device and is in no file: the window and the fade at the start."""
    size = vocoder.istft_params["n_fft"]
    del vocoder.stft_window  # a plain attribute there; as a buffer it is counted and moved
    window = torch.hann_window(size, dtype=torch.float64).float()
    vocoder.register_buffer("stft_window", window.to(device), persistent=False)
    vocoder.register_buffer("trim_fade", trim_fade(sample_rate).to(device), persistent=False)


def mel_to_wave(vocoder: Any, mel: Tensor, noise: Noise, first: int = 0) -> Tensor:
    """A log mel `[1, 80, T]` to samples `[480 (T - first)]` in [-0.99, 0.99].

    Args:
        first: frame that the samples begin at; what is before it only leads to the source's phase.

    Raises:
        EngineError: the waveform is not finite.
    """
    with exact(mel.device):
        f0 = vocoder.f0_predictor(mel)  # [1, T], Hz
        source = _source(vocoder.m_source, vocoder.f0_upsamp(f0[:, None]), noise)
        wave: Tensor = vocoder.decode(x=mel[:, :, first:], s=source[:, :, source.shape[2] // mel.shape[2] * first :])
    faded = min(wave.shape[1], len(vocoder.trim_fade)) if first == 0 else 0
    wave[:, :faded] *= vocoder.trim_fade[:faded]
    finite.check(wave, "the waveform", wave.dtype)
    return wave[0]


def draw_ahead(vocoder: Any, noise: StageNoise, frames: int) -> None:
    """Begins to draw the noise for a mel of so many frames, while a GPU is busy with that."""
    generator = vocoder.m_source.l_sin_gen
    noise.ahead(generator.harmonic_num + 1, round(frames * vocoder.f0_upsamp.scale_factor))


def _source(module: Any, f0: Tensor, noise: Noise) -> Tensor:
    """Sines at f0 and its harmonics where there is voice, noise elsewhere, mixed to one channel: `[1, 1, samples]`.

    Args:
        f0: `[1, 1, samples]` in Hz.
    """
    generator = module.l_sin_gen
    harmonics, samples = generator.harmonic_num + 1, f0.shape[-1]
    cycles = torch.cat([f0 * (k + 1) / generator.sampling_rate for k in range(harmonics)], dim=1)
    angle = 2 * torch.pi * (torch.cumsum(cycles, dim=-1) % 1)
    phase = noise.phase(harmonics).to(f0.device)
    phase[:, 0, :] = 0
    sines = generator.sine_amp * torch.sin(angle + phase)
    voiced = (f0 > generator.voiced_threshold).float()
    level = voiced * generator.noise_std + (1 - voiced) * generator.sine_amp / 3
    mixed = sines * voiced + level * noise.source(harmonics, samples).to(f0.device)
    noise.end(samples)
    return torch.tanh(module.l_linear(mixed.transpose(1, 2))).transpose(1, 2)
