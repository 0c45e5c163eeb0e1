"""What is heard of one configuration without any words: how far mels move, and who seems to speak.

Mels are compared with equal tokens and equal noise, so that nothing is left to chance: what T3 cannot show. Functions
that are given a configuration run in a process of a pool and give plain data.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from benchmarks import teacher
from benchmarks.quality_worker import DEMO, FP32, Configuration, Sentence, loaded, sentences, spoken
from chatterbox_nb.audio import Samples, read_clip, resample
from chatterbox_nb.engine import flow, vocoder
from chatterbox_nb.engine.conditioning import S3_RATE, mel_spectrogram
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise

UTTERANCES = 6  # held-out ones that become mels and waves
TAKES = 8  # sentences that are spoken to hear who speaks, evenly of all sets
SECOND_VOICE = DEMO / "second_voice.wav"


def mels(model: Model) -> list[Tensor]:
    """Log mels `[1, 80, T]` that a model's flow makes of the first held-out speech tokens."""
    voice, steps = model.builtin_voice(), model.spec.s3gen.cfm_steps
    with torch.inference_mode():
        return [
            flow.tokens_to_mel(model.flow, speech[None], voice, StageNoise(0), steps)
            for _, speech in teacher.heldout()[:UTTERANCES]
        ]


def mels_of_waves(model: Model, mels: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
    """Log mels `[1, 80, T]` of the waves that a model's vocoder makes of mels."""
    with torch.inference_mode():
        return [mel_spectrogram(vocoder.mel_to_wave(model.vocoder, mel, StageNoise(seed))[None]) for mel in mels]


def distance(ones: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Mean L1 of log mels."""
    return sum(float((one - other).abs().mean()) for one, other in zip(ones, others, strict=True)) / len(ones)


@cache
def true_mels() -> list[Tensor]:
    """fp32's."""
    return mels(loaded(FP32))


@cache
def true_waves() -> list[Tensor]:
    """fp32's, of its own mels."""
    return mels_of_waves(loaded(FP32), true_mels())


def moved(configuration: Configuration) -> dict[str, float]:
    """How far a configuration moves the mels, and the mels of waves made of fp32's mels."""
    return moved_by(loaded(configuration))


def moved_by(model: Model) -> dict[str, float]:
    return {
        "mel": round(distance(mels(model), true_mels()), 5),
        "wave": round(distance(mels_of_waves(model, true_mels()), true_waves()), 5),
    }


# Who speaks


def likeness(configuration: Configuration) -> dict[str, list[float]]:
    """Cosines of what a configuration speaks to the voice it speaks with, and to the other speaker where there is one.

    By the voice encoder in fp32, whatever the configuration's own would say.
    """
    return likeness_of(loaded(configuration))


def likeness_of(model: Model) -> dict[str, list[float]]:
    waves = [wave for _, wave in spoken(model, 0, listened_to())]
    return cosines(waves, model.spec.sample_rate)


def cosines(waves: Sequence[Samples], sample_rate: int) -> dict[str, list[float]]:
    """Of each wave to those who could be speaking."""
    found = torch.stack([_speaker(wave, sample_rate) for wave in waves])
    return {name: [round(float(one), 5) for one in cosine_similarity(found, known)] for name, known in _known().items()}


def listened_to() -> list[Sentence]:
    every = len(sentences()) / TAKES
    return [sentences()[int(every * take)] for take in range(TAKES)]


@cache
def _known() -> dict[str, Tensor]:
    """Embeddings `[1, E]` of those who could be speaking."""
    found = {"own": loaded(FP32).builtin_voice().speaker.double()}
    if SECOND_VOICE.exists():
        clip = read_clip(SECOND_VOICE)
        found["other"] = _speaker(clip.samples, clip.sample_rate)[None]
    return found


@cache
def _encoder() -> Any:
    return loaded(FP32).read_encoders().voice_encoder


def _speaker(samples: Samples, sample_rate: int) -> Tensor:
    """A clip's embedding `[E]`, as a voice is prepared with."""
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa on clips shorter than its window
        wave = resample(samples, sample_rate, S3_RATE)
        return torch.from_numpy(_encoder().embeds_from_wavs([wave], sample_rate=S3_RATE)).double().mean(0)
