"""What effort measures of one cell: word errors, a speaker's embedding and mels of the demo voice; full-size seconds.

Each function runs in a process of a pool, is given and gives plain data. Speech tokens are drawn once, by fp32; a cell
only makes other mels and waves of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from benchmarks import quality_worker, teacher
from benchmarks.quality_worker import FP32, Tokens
from chatterbox_nb.audio import Samples, resample
from chatterbox_nb.checkpoint import source, synthetic
from chatterbox_nb.checkpoint.cache import QuantizedCache
from chatterbox_nb.engine import flow, vocoder
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.conditioning import S3_RATE, TOKENS_PER_SECOND, Voice
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.precision import device

LONG_SECONDS = 10.0  # what the package reads of a clip
EMBEDDED = 12  # sentences whose waves the voice encoder reads
AUDIO_SECONDS, ROUNDS = 4, 3  # of the full-size times
_PROMPT_SEED, _OTHER_SEED = 1000, 2000  # noise that no take of a cell has


@dataclass(frozen=True)
class Cell:
    """One way to make mels of the same speech tokens.

    Args:
        voice: "builtin", or "long", the same with 10 s of reference.
        seconds: of reference that the flow continues; None is all.
        end: which end of it: "last" or "first".
        other_noise: the flow starts from other noise: what chance does.
    """

    voice: str
    steps: int
    seconds: float | None = None
    end: str = "last"
    other_noise: bool = False

    @property
    def name(self) -> str:
        much = "all" if self.seconds is None else f"{self.end} {self.seconds:g} s"
        return f"{self.voice}, {self.steps} steps, {much}" + (", other noise" if self.other_noise else "")


class _From(StageNoise):
    """Noise of a flow whose prompt lacks its first frames: what is spoken starts from the same as with all of it."""

    def __init__(self, seed: int, chunk: int, skipped: int) -> None:
        super().__init__(seed, chunk)
        self.skipped = skipped

    def flow(self, channels: int, frames: int) -> Tensor:
        return super().flow(channels, frames + self.skipped)[:, :, self.skipped :].contiguous()


def drawn(seed: int) -> list[Tokens]:
    """Speech tokens of every sentence."""
    return quality_worker.drawn(quality_worker.loaded(FP32), seed, quality_worker.sentences())


@cache
def voice_of(name: str) -> Voice:
    """The demo voice as it is, or with 10 s of its own speech: held-out utterances, and the mels the flow makes."""
    model = quality_worker.loaded(FP32)
    own = model.builtin_voice()
    if name == "builtin":
        return own
    wanted, tokens, mels = round(LONG_SECONDS * TOKENS_PER_SECOND), own.prompt_tokens[:, :0], own.prompt_mel[:, :0]
    with torch.inference_mode():
        for index, (_, speech) in enumerate(teacher.heldout()):
            if tokens.shape[1] >= wanted:
                break
            said = speech[speech < model.spec.s3gen.codes][None]
            noise = StageNoise(_PROMPT_SEED, index)
            mel = flow.tokens_to_mel(model.flow, said, own, noise, model.spec.s3gen.cfm_steps)
            tokens, mels = torch.cat([tokens, said], dim=1), torch.cat([mels, mel.transpose(1, 2)], dim=1)
    return replace(own, name=name, prompt_tokens=tokens[:, :wanted], prompt_mel=mels[:, : 2 * wanted])


def _cut(cell: Cell) -> Voice:
    whole = voice_of(cell.voice)
    if cell.seconds is None or cell.end == "last":
        return whole.shortened(cell.seconds)
    kept = round(cell.seconds * TOKENS_PER_SECOND)
    return replace(whole, prompt_tokens=whole.prompt_tokens[:, :kept], prompt_mel=whole.prompt_mel[:, : 2 * kept])


def mels(cell: Cell, seed: int, tokens: Sequence[Tokens]) -> list[Tensor]:
    """A mel `[1, 80, T]` of each sentence."""
    model, voice = quality_worker.loaded(FP32), _cut(cell)
    skipped = voice_of(cell.voice).prompt_mel.shape[1] - voice.prompt_mel.shape[1]
    seed += _OTHER_SEED * cell.other_noise
    with torch.inference_mode():
        return [
            flow.tokens_to_mel(model.flow, torch.tensor([said]), voice, _From(seed, index, skipped), cell.steps)
            for index, said in enumerate(tokens)
        ]


def measure(cell: Cell, seed: int, tokens: Sequence[Tokens], folder: Path) -> dict[str, Any]:
    """Edits of each sentence; for the first seed the cosines of takes to the voice, and the distance of mels to best.

    Args:
        folder: where the mels of best are kept.
    """
    model = quality_worker.loaded(FP32)
    found = mels(cell, seed, tokens)
    with torch.inference_mode():
        waves = [
            vocoder.mel_to_wave(model.vocoder, mel, StageNoise(seed, index)).numpy() for index, mel in enumerate(found)
        ]
    rate = model.spec.sample_rate
    pairs = zip(quality_worker.sentences(), waves, strict=True)
    edits = [quality_worker.word_errors(sentence, wave, rate) for sentence, wave in pairs]
    if seed:
        return {"edits": edits}
    distance = _distance(found, torch.load(best_mels(folder, cell.voice), weights_only=True))
    return {"edits": edits, "cosines": _cosines(waves[:EMBEDDED], rate), "mel": distance}


def best_mels(folder: Path, voice: str) -> Path:
    """Where the mels of best are kept, with the first seed."""
    return folder / f"best-{voice}.pt"


def keep_best(voice: str, tokens: Sequence[Tokens], folder: Path) -> None:
    best = Cell(voice, quality_worker.loaded(FP32).spec.s3gen.cfm_steps)
    torch.save(mels(best, 0, tokens), best_mels(folder, voice))


@lru_cache(maxsize=1)
def _encoder() -> Any:
    return quality_worker.loaded(FP32).read_encoders().voice_encoder


def _cosines(waves: Sequence[Samples], rate: int) -> list[float]:
    """Of the embedding of each wave to the voice's own."""
    clips = [resample(wave, rate, S3_RATE) for wave in waves]
    with torch.inference_mode():
        found = [torch.from_numpy(_encoder().embeds_from_wavs([clip], sample_rate=S3_RATE)).mean(0) for clip in clips]
        own = quality_worker.loaded(FP32).builtin_voice().speaker[0]
        return [float(cosine_similarity(one.double(), own.double(), dim=0)) for one in found]


def noise_cosine() -> float:
    """Of white noise to the voice: what a cosine is worth."""
    rate = quality_worker.loaded(FP32).spec.sample_rate
    noise = np.random.default_rng(0).standard_normal(2 * rate, dtype=np.float32)
    return round(_cosines([0.1 * noise], rate)[0], 5)


def _distance(found: Sequence[Tensor], best: Sequence[Tensor]) -> float:
    """Mean L1 of log mels."""
    return statistics.fmean(float((one - other).abs().mean()) for one, other in zip(found, best, strict=True))


def times(cells: Sequence[tuple[int, float | None]], folder: Path) -> dict[str, Any]:
    """Seconds of the flow for 4 s of speech by (steps, seconds of voice): random weights of the English model's size,
    as `auto` loads them here, every cell in turn.
    """
    model = _full(folder)
    drawn = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, model.spec.s3gen.codes, (1, AUDIO_SECONDS * TOKENS_PER_SECOND), generator=drawn)
    voice, runs = model.builtin_voice(), [list[float]() for _ in cells]
    with torch.inference_mode():
        flow.tokens_to_mel(model.flow, tokens, voice, StageNoise(0), 1)  # the first call warms it up
        for _ in range(ROUNDS):
            for run, (steps, seconds) in zip(runs, cells, strict=True):
                started = time.perf_counter()
                flow.tokens_to_mel(model.flow, tokens, voice.shortened(seconds), StageNoise(0), steps)
                run.append(time.perf_counter() - started)
    return {
        "precision": model.plan.precision,
        "kernel": model.plan.kernel,
        "threads": torch.get_num_threads(),
        "voice_seconds": voice.seconds,
        "audio_seconds": AUDIO_SECONDS,
        "rounds": ROUNDS,
        "cells": [
            {"steps": steps, "seconds": seconds, "flow": [round(second, 3) for second in sorted(run)]}
            for run, (steps, seconds) in zip(runs, cells, strict=True)
        ],
    }


def _full(folder: Path) -> Model:
    spec, files = source.find("english", synthetic.kept_full(folder))
    return engine.load(spec, files, "auto", device.facts("cpu"), cache=QuantizedCache(folder.parent / "quantized"))
