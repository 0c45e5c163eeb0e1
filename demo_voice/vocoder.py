"""HiFT: mel to wave, learned on short crops by spectra at three resolutions, mel and true pitch; no adversary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from demo_voice import networks, store, train
from demo_voice.corpus import FRAMES, SAMPLES, Sound
from demo_voice.recipe import Recipe

_CROP = 24  # frames of 20 ms
_HOP = SAMPLES // FRAMES
_SPECTRA = (400, 1024, 2048)  # lengths of a Fourier transform
_PITCH = 1 / 20  # weight of a Hertz
_SLOW = 0.2  # of the learning rate of kernels, for biases and the slopes of its snakes


class _Spectra(nn.Module):
    """Spectral convergence and log magnitude at several resolutions (Yamamoto et al., 2020, Parallel WaveGAN)."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = [torch.hann_window(length) for length in _SPECTRA]

    def _of(self, wave: Tensor, window: Tensor) -> Tensor:
        length = len(window)
        return torch.stft(wave, length, length // 4, window=window, return_complex=True).abs().clamp(min=1e-5)

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        found = torch.zeros(())
        for window in self.windows:
            own, other = self._of(made, window), self._of(true, window)
            found = found + (other - own).norm() / other.norm() + F.l1_loss(own.log(), other.log())
        return found / len(self.windows)


def train_vocoder(folder: Path, recipe: Recipe) -> dict[str, float]:
    from chatterbox.models.s3gen.utils.mel import mel_spectrogram

    sound, vocoder, spectra = Sound(folder), networks.fresh().s3gen.mel2wav, _Spectra()
    nn.init.constant_(vocoder.f0_predictor.classifier.bias, 80.0)
    frames = len(sound.mel)

    def losses(step: int, random: np.random.Generator) -> train.Losses:
        begins = random.integers(0, frames - _CROP, recipe.vocoder.batch)
        mel, wave, pitch = (
            torch.stack([torch.tensor(array[b * hop : (b + _CROP) * hop].astype(np.float32)) for b in begins])
            for array, hop in ((sound.mel, 1), (sound.audio, _HOP), (sound.pitch, 1))
        )
        mel, wave = mel.transpose(1, 2), wave / 32768
        source, _, _ = vocoder.m_source(vocoder.f0_upsamp(pitch[:, None]).transpose(1, 2))
        made = vocoder.decode(x=mel, s=source.transpose(1, 2))
        found = {
            "spectra": spectra(made, wave),
            "mel": F.l1_loss(mel_spectrogram(made.clamp(-1, 1)), mel_spectrogram(wave)),
            "pitch": F.l1_loss(vocoder.f0_predictor(mel), pitch) * _PITCH,
        }
        return {**found, "loss": sum(found.values())}

    normed = without_norms(vocoder)
    optimizers = train.muon(vocoder, recipe.vocoder.rate, _SLOW, _inside, betas=(0.8, 0.99), decay=1e-4)
    told = train.fit("vocoder", vocoder, losses, recipe.vocoder, folder, optimizers, clip=5.0)
    for layer in normed:
        weight_norm(layer)
    store.save_tensors(folder / "vocoder.pt", vocoder.state_dict())
    return told


def without_norms(vocoder: nn.Module) -> list[nn.Module]:
    """Makes plain weights of normed ones, and gives their layers: an orthogonal step has no use for a length apart."""
    normed = [layer for layer in vocoder.modules() if parametrize.is_parametrized(layer, "weight")]
    for layer in normed:
        parametrize.remove_parametrizations(layer, "weight")
    return normed


def _inside(name: str, parameter: nn.Parameter) -> bool:
    """Kernels of more than one channel."""
    return parameter.ndim == 3 and min(parameter.shape[:2]) > 1
