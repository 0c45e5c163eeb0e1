"""Texts spoken by espeak-ng, and what the trainings read of them.

`sound`: every text by both speakers, as audio, mels, pitch and phonemes, with a map from each frame to the frame in
which the other speaker says the same. `speech`: every text by one speaker, as speech tokens of the trained codec.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from demo_voice import espeak, store, texts
from demo_voice.espeak import RATE, Manner, Spoken
from demo_voice.recipe import NEUTRAL, PITCH_RANGES, SECONDS, SEED, SPEAKERS, TOKEN_RATE, Recipe, manner

Array = NDArray[Any]
RATE_24, RATE_16 = 24_000, 16_000
SAMPLES = RATE_24 // TOKEN_RATE  # 960 a token, of audio at 24 kHz; 480 a frame of mel
FRAMES, FINE = 2, 4  # a token: frames of mel at 50 a second; frames of the codec's mel at 100
_BEFORE, _AFTER, _QUIET, _LEVEL = 0.02, 0.06, 0.005, 0.9  # seconds kept around speech; what is quiet; loudness
AT_ONCE = 64  # utterances of a process: espeak-ng goes on from where it was, so each such group begins anew


@dataclass(frozen=True)
class Utterance:
    """`audio` [n] at 24 kHz, int16, whole tokens long; `phonemes` with the seconds they begin at, after trimming."""

    audio: Array
    fine: Array  # [80, 4 n] float16, the codec's mel
    phonemes: tuple[tuple[str, float], ...]

    @property
    def tokens(self) -> int:
        return len(self.audio) // SAMPLES


def said(text: str, how: Manner) -> Spoken:
    """As espeak-ng says it, without most of the silence around it, and a little softer."""
    spoken = espeak.speaker().speak(text, how)
    loud = np.flatnonzero(np.abs(spoken.samples) > _QUIET)
    first = max(0, loud[0] - int(_BEFORE * RATE))
    samples = spoken.samples[first : loud[-1] + int(_AFTER * RATE)] * _LEVEL
    return Spoken(samples, tuple((name, begin - first / RATE) for name, begin in spoken.phonemes))


def utterance(text: str, how: Manner) -> Utterance:
    spoken = said(text, how)
    tokens = -(-len(spoken.samples) * TOKEN_RATE // RATE)
    padded = np.pad(spoken.samples, (0, RATE))
    at_24, at_16 = (_resampled(padded, rate, tokens) for rate in (RATE_24, RATE_16))
    return Utterance((at_24.clip(-1, 1) * 32767).astype(np.int16), fine_mel(at_16), spoken.phonemes)


def _resampled(samples: Array, rate: int, tokens: int) -> Array:
    return soxr.resample(samples, RATE, rate)[: tokens * rate // TOKEN_RATE].astype(np.float32)


_FILTERS = torch.tensor(librosa.filters.mel(sr=RATE_16, n_fft=400, n_mels=80))
_WINDOW = torch.hann_window(400)


def fine_mel(samples: Array) -> Array:
    """The S3 tokenizer's own log mel, `[80, n / 160]`; samples `[n]` at 16 kHz."""
    spectrum = torch.stft(torch.tensor(samples), 400, 160, window=_WINDOW, return_complex=True)[..., :-1].abs() ** 2
    mel = (_FILTERS @ spectrum).clamp(min=1e-10).log10()
    return ((mel.maximum(mel.max() - 8.0) + 4.0) / 4.0).half().numpy()


def pitch(audio: Array, frames: int, bounds: tuple[float, float]) -> Array:
    """Fundamental of each 20 ms in Hz, 0 where there is none; by autocorrelation of 80 ms. Audio int16 at 24 kHz."""
    window = np.hanning(1920).astype(np.float32)
    padded = np.pad(audio.astype(np.float32) / 32768, (720, 1920))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, 1920)[::480][:frames] * window
    shortest, longest = int(RATE_24 / bounds[1]), int(RATE_24 / bounds[0])
    own = np.fft.irfft(np.abs(np.fft.rfft(window, 4096)) ** 2)[:longest]
    found = np.fft.irfft(np.abs(np.fft.rfft(pieces, 4096)) ** 2)[:, :longest]
    normal = found / np.maximum(found[:, :1], 1e-9) / (own / own[0])
    lags = normal[:, shortest:].argmax(1) + shortest
    voiced = (normal[np.arange(len(lags)), lags] > 0.45) & (found[:, 0] > 0.02)
    return np.where(voiced, RATE_24 / lags, 0).astype(np.float16)


def warp(own: Sequence[tuple[str, float]], other: Sequence[tuple[str, float]], frames: int, limit: int) -> Array:
    """For each of so many frames of the one, the frame of the other that says the same, by their phonemes."""
    if [name for name, _ in own] != [name for name, _ in other]:
        return np.linspace(0, limit - 1, frames).round().astype(np.int32)
    begins = np.interp(np.arange(frames) / 50, [begin for _, begin in own], [begin for _, begin in other])
    return (begins * 50).round().clip(0, limit - 1).astype(np.int32)


def labels(phonemes: Sequence[tuple[str, float]], names: dict[str, int], frames: int) -> Array:
    """The number of the phoneme of each frame."""
    begins = np.array([begin for _, begin in phonemes])
    index = np.searchsorted(begins, (np.arange(frames) + 0.5) / 50, side="right") - 1
    numbers = np.array([names[name] for name, _ in phonemes])
    return numbers[index.clip(0)].astype(np.uint8)


# The two stages


def fresh_processes() -> Any:
    """A pool whose processes end after a group of `AT_ONCE`; forked of a server that has no threads yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context.Pool(2, maxtasksperchild=1)


def _exaggerations(count: int) -> Array:
    """Neutral half of the time, from 0 to 1 otherwise."""
    random = np.random.default_rng(SEED)
    return np.where(random.random(count) < 0.5, NEUTRAL, random.random(count)).astype(np.float32)


def _both(job: tuple[str, float]) -> list[Utterance]:
    return [utterance_of((job[0], speaker, job[1])) for speaker in range(len(SPEAKERS))]


def make_sound(folder: Path, recipe: Recipe) -> dict[str, float]:
    """Speaks each text by both, and writes flat arrays: text i is utterance 2 i by the first, 2 i + 1 by the second."""
    from chatterbox.models.s3gen.utils.mel import mel_spectrogram

    said_texts = texts.training(recipe.sound_texts, SEED)
    with fresh_processes() as pool:
        pairs = pool.map(_both, zip(said_texts, _exaggerations(len(said_texts)), strict=True), chunksize=AT_ONCE)
    pairs = [pair for pair in pairs if max(one.tokens for one in pair) <= SECONDS * TOKEN_RATE]
    spoken = [one for pair in pairs for one in pair]
    names = {name: number for number, name in enumerate(sorted({name for one in spoken for name, _ in one.phonemes}))}
    offsets = np.concatenate([[0], np.cumsum([one.tokens for one in spoken])])
    arrays: dict[str, list[Array]] = {name: [] for name in ("mel", "pitch", "phoneme", "twin")}
    for index, one in enumerate(spoken):
        twin, frames = spoken[index ^ 1], one.tokens * FRAMES
        audio = torch.tensor(one.audio.astype(np.float32) / 32768)
        arrays["mel"].append(mel_spectrogram(audio)[0].T.half().numpy())
        arrays["pitch"].append(pitch(one.audio, frames, PITCH_RANGES[index % 2]))
        arrays["phoneme"].append(labels(one.phonemes, names, frames))
        mapped = warp(one.phonemes, twin.phonemes, frames, twin.tokens * FRAMES)
        arrays["twin"].append(mapped + offsets[index ^ 1] * FRAMES)
    for name, parts in arrays.items():
        store.save_array(folder / f"sound/{name}.npy", np.concatenate(parts))
    store.save_array(folder / "sound/audio.npy", np.concatenate([one.audio for one in spoken]))
    store.save_array(folder / "sound/fine.npy", np.concatenate([one.fine.T for one in spoken]))
    store.save_array(folder / "sound/offsets.npy", offsets)
    voiced = np.concatenate(arrays["pitch"])
    return {
        "utterances": len(spoken),
        "hours": round(offsets[-1] / TOKEN_RATE / 3600, 2),
        "phonemes": len(names),
        "voiced": round(float((voiced > 0).mean()), 4),
    }


class Sound:
    """The arrays of `sound`, mapped. Utterance i is by speaker i % 2; `offsets` count tokens."""

    def __init__(self, folder: Path) -> None:
        names = ("audio", "fine", "mel", "pitch", "phoneme", "twin", "offsets")
        for name in names:
            setattr(self, name, np.load(folder / f"sound/{name}.npy", mmap_mode=None if name == "offsets" else "r"))

    audio: Array  # [960 n] int16
    fine: Array  # [4 n, 80]
    mel: Array  # [2 n, 80]
    pitch: Array  # [2 n] Hz
    phoneme: Array  # [2 n]
    twin: Array  # [2 n] frames of the mel, of the other speaker
    offsets: Array  # [utterances + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def tokens(self, index: int) -> int:
        return int(self.offsets[index + 1] - self.offsets[index])

    def clip(self, index: int) -> Array:
        """The audio of an utterance, float32 at 24 kHz."""
        begin, end = self.offsets[index] * SAMPLES, self.offsets[index + 1] * SAMPLES
        return self.audio[begin:end].astype(np.float32) / 32768


def utterance_of(job: tuple[str, int, float]) -> Utterance:
    """Of a text, a speaker and an exaggeration."""
    return utterance(job[0], manner(job[1], job[2]))


def _fine_of(job: tuple[str, int, float]) -> Array:
    return utterance_of(job).fine


def make_speech(folder: Path, recipe: Recipe) -> dict[str, float]:
    """Speaks each text by one speaker, and keeps its tokens: `texts`, `tokens` end to end, `offsets`, who and how."""
    from demo_voice import codec

    spoken = texts.training(recipe.speech_texts, SEED + 1)
    exaggerations = _exaggerations(len(spoken))
    jobs = [(text, index % 2, float(how)) for index, (text, how) in enumerate(zip(spoken, exaggerations, strict=True))]
    quantizer = codec.trained(folder)
    found: list[Array] = []
    with fresh_processes() as pool:
        for fines in _in_groups(pool.imap(_fine_of, jobs, chunksize=AT_ONCE), 64):
            found += codec.tokens_of(quantizer, fines)
    fits = [len(tokens) <= SECONDS * TOKEN_RATE for tokens in found]
    kept = [tokens for tokens, short in zip(found, fits, strict=True) if short]
    store.save_json(folder / "speech/texts.json", [text for text, short in zip(spoken, fits, strict=True) if short])
    store.save_array(folder / "speech/tokens.npy", np.concatenate(kept).astype(np.int16))
    store.save_array(folder / "speech/offsets.npy", np.concatenate([[0], np.cumsum([len(one) for one in kept])]))
    store.save_array(folder / "speech/speaker.npy", np.arange(len(spoken), dtype=np.int8)[fits] % 2)
    store.save_array(folder / "speech/exaggeration.npy", exaggerations[fits])
    return {"utterances": len(kept), "hours": round(sum(map(len, kept)) / TOKEN_RATE / 3600, 2)}


def _in_groups(items: Iterator[Array], size: int) -> Iterator[list[Array]]:
    group: list[Array] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
