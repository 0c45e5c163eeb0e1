"""The two encoders that tell who speaks: CAMPPlus for the flow, the voice encoder's LSTM for T3.

Both learn to keep clips of one voice together and of others apart, the two speakers among them and strangers besides,
so that a clip of a speaker it knows gives that speaker.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from demo_voice import corpus, networks, store, texts, train
from demo_voice.corpus import RATE_16, said
from demo_voice.espeak import RATE, Manner
from demo_voice.recipe import SEED, SPEAKERS, STRANGERS, Fit, Recipe

_SCALE = 12.0  # of a cosine, before it is a logit
_APART = 0.3  # a cosine of two voices that costs nothing
_CAMPLUS_FRAMES, _PARTIAL = 90, 160  # of 10 ms, that a step looks at
_BANK = 40  # embeddings of each speaker that flow and T3 learn with
_HISS = 0.003


def _clip(job: tuple[str, str, int, int]) -> NDArray[np.float32]:
    """A clip at 16 kHz."""
    text, voice, rate, range_ = job
    return soxr.resample(said(text, Manner(voice, rate, range_)).samples, RATE, RATE_16).astype(np.float32)


def _clips(count: int) -> list[list[NDArray[np.float32]]]:
    """So many of each voice, the speakers' first; each 1.6 s or longer."""
    random = np.random.default_rng(SEED)
    lines = [text for text in texts.training(count * 6, SEED + 2) if len(text) >= 40]
    voices = (*SPEAKERS, *STRANGERS)
    jobs = [
        (str(random.choice(lines)), voice, int(random.integers(135, 166)), int(random.integers(0, 100)))
        for voice in voices
        for _ in range(count)
    ]
    with corpus.fresh_processes() as pool:
        found = pool.map(_clip, jobs, chunksize=corpus.AT_ONCE)
    return [found[index * count : (index + 1) * count] for index in range(len(voices))]


class _Told(nn.Module):
    """An encoder with the directions of its voices."""

    def __init__(self, encoder: nn.Module, voices: int, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.directions = nn.Parameter(torch.rand(voices, width))

    def losses(self, embeddings: Tensor, voice: Tensor) -> train.Losses:
        """Embeddings `[B, width]` of unit length; nearest to their own direction, far from the others'."""
        cosines = embeddings @ F.normalize(self.directions, dim=1).T
        own = cosines.gather(1, voice[:, None])[:, 0]
        others = cosines.masked_fill(F.one_hot(voice, cosines.shape[1]).bool(), -1.0)
        told = F.cross_entropy(cosines * _SCALE, voice)
        return {
            "own": own.mean(),
            "other": others.amax(1).mean(),
            "loss": told + 4 * (1 - own).mean() + 4 * (others - _APART).relu().sum(1).mean(),
        }


def _drawn(
    random: np.random.Generator, features: Sequence[Sequence[Tensor]], batch: int, frames: int
) -> tuple[Tensor, Tensor]:
    """Stretches of clips `[B, frames, mels]`, and whose each is; a third of them the two speakers'."""
    voice = random.integers(0, len(features), batch)
    voice[: batch // 3] %= len(SPEAKERS)
    pieces = []
    for one in voice:
        clip = features[one][random.integers(0, len(features[one]))]
        begin = random.integers(0, max(1, len(clip) - frames + 1))
        piece = clip[begin : begin + frames]
        pieces.append(F.pad(piece, (0, 0, 0, frames - len(piece))))
    return torch.stack(pieces), torch.tensor(voice)


def train_speakers(folder: Path, recipe: Recipe) -> dict[str, float]:
    """Trains both, and keeps embeddings of clips of the two speakers for flow and T3."""
    clips, modules = _clips(recipe.clips), networks.fresh()
    camplus, voice_encoder = modules.s3gen.speaker_encoder, modules.voice_encoder
    told = {f"camplus_{key}": value for key, value in _train_camplus(camplus, clips, recipe.camplus, folder).items()}
    found = _train_voice_encoder(voice_encoder, clips, recipe.voice_encoder, folder)
    told |= {f"voice_encoder_{key}": value for key, value in found.items()}
    own = [voices[:_BANK] for voices in clips[: len(SPEAKERS)]]
    with torch.inference_mode():
        banks = {
            "flow": [
                torch.cat([F.normalize(camplus.inference([torch.tensor(c)]), dim=1) for c in some]) for some in own
            ],
            "t3": [torch.tensor(voice_encoder.embeds_from_wavs(some, sample_rate=RATE_16)) for some in own],
        }
    store.save_tensors(folder / "banks.pt", banks)
    store.save_tensors(folder / "camplus.pt", camplus.state_dict())
    store.save_tensors(folder / "voice_encoder.pt", voice_encoder.state_dict())
    means = [F.normalize(bank.mean(0), dim=0) for bank in banks["t3"]]
    told["cosine_to_own"] = round(
        min(float((bank @ mean).min()) for bank, mean in zip(banks["t3"], means, strict=True)), 4
    )
    told["cosine_to_other"] = round(max(float((banks["t3"][i] @ means[1 - i]).max()) for i in range(2)), 4)
    return told


def _train_camplus(camplus: nn.Module, clips: Sequence[Any], plan: Fit, folder: Path) -> dict[str, float]:
    from chatterbox.models.s3gen.xvector import extract_feature

    features = [[extract_feature([torch.tensor(clip)])[0][0] for clip in voices] for voices in clips]
    told = _Told(camplus, len(clips), 192)

    def losses(step: int, random: np.random.Generator) -> train.Losses:
        pieces, voice = _drawn(random, features, plan.batch, _CAMPLUS_FRAMES)
        return told.losses(F.normalize(camplus(pieces), dim=1), voice)

    return train.fit("camplus", told, losses, plan, folder, train.adamw(told, plan.rate), averaged=0.9)


def _train_voice_encoder(encoder: nn.Module, clips: Sequence[Any], plan: Fit, folder: Path) -> dict[str, float]:
    from chatterbox.models.voice_encoder.melspec import melspectrogram

    hiss = np.random.default_rng(SEED)
    features = [
        [
            torch.tensor(
                melspectrogram(clip + _HISS * hiss.random() * hiss.standard_normal(len(clip), np.float32), encoder.hp).T
            )
            for clip in voices
        ]
        for voices in clips
    ]
    told = _Told(encoder, len(clips), encoder.hp.speaker_embed_size)

    def losses(step: int, random: np.random.Generator) -> train.Losses:
        pieces, voice = _drawn(random, features, plan.batch, _PARTIAL)
        return told.losses(encoder(pieces), voice)

    return train.fit("voice_encoder", told, losses, plan, folder, train.adamw(told, plan.rate), averaged=0.9)
