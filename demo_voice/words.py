"""How well the voice is understood, by the engine at fp32.

The ear is pocketsphinx, as in `benchmarks/recognition`. espeak-ng itself, heard by the same ear, is the ceiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from benchmarks import bootstrap, recognition
from chatterbox_nb import text as text_rules
from chatterbox_nb.audio import Clip
from chatterbox_nb.checkpoint import source
from chatterbox_nb.engine import conditioning, flow, vocoder
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.conditioning import Voice
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.pipeline import Speaker, SpokenChunk
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.precision import device
from demo_voice import codec, corpus, texts
from demo_voice.pack import VOICES
from demo_voice.recipe import NEUTRAL, manner

Wave = NDArray[np.float32]
_TOGETHER = 4  # chunks side by side


@cache
def loaded(checkpoint: str) -> Model:
    spec, files = source.find(source=Path(checkpoint))
    return engine.load(spec, files, "fp32", device.facts("cpu"))


def voice_of(model: Model, clip: Path) -> Voice:
    """What the voice's own encoders make of a clip."""
    samples, rate = soundfile.read(clip, dtype="float32")
    with torch.inference_mode():
        return conditioning.prepare(Clip(samples, rate), model.read_encoders(), model.spec, clip.stem)


def said_by(
    model: Model, voice: Voice, said: Sequence[str], seed: int, cfg: float = 0.5, how: float = NEUTRAL
) -> list[SpokenChunk]:
    """Sentences by the engine, each a chunk, at the package's default temperature."""
    lines = [text_rules.apply_rules(line, model.spec.text) for line in said]
    with torch.inference_mode():
        return list(Speaker(model, voice, Sampling(cfg_weight=cfg), how, StageNoise(seed), lines, at_once=_TOGETHER))


def spoken(model: Model, voice: Voice, said: Sequence[str], seed: int, how: float = NEUTRAL) -> list[Wave]:
    return [chunk.samples for chunk in said_by(model, voice, said, seed, how=how)]


# Words


def words_of(line: str) -> list[str]:
    return "".join(c for c in line.lower() if c.isalpha() or c in " '").split()


def errors(kind: str, said: Sequence[str], waves: Sequence[Wave], rate: int) -> list[int]:
    """Edits of each sentence, heard with the grammar of its kind."""
    found = []
    for line, wave in zip(said, waves, strict=True):
        if kind == "natural":
            heard = recognition.heard_openly(wave, rate)
        elif kind == "unseen":
            heard = recognition.heard(wave, rate, recognition.slots(texts.held_out(), 3))
        else:
            heard = recognition.heard(wave, rate, kind)
        found.append(recognition.edits(words_of(line), heard))
    return found


def rate_of(kind: str, said: Sequence[str], runs: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Word error rate in per cent over all runs, each run's, and a 95 % interval over sentences drawn anew."""
    words = np.array([len(words_of(line)) for line in said])
    edits = np.mean(np.array(runs), axis=0)
    return {
        "kind": kind,
        "wer": round(100 * float(edits.sum() / words.sum()), 2),
        "runs": [round(100 * sum(run) / int(words.sum()), 2) for run in runs],
        "interval": bootstrap.interval(100 * edits, words),
        "exact": f"{sum(run.count(0) for run in map(list, runs))} of {len(said) * len(runs)}",
    }


def by_espeak(said: Sequence[str], speaker: int) -> list[Wave]:
    """espeak-ng itself, the ceiling. It goes on from where it was: spoken again, it is not the same to the sample."""
    return [corpus.said(line, manner(speaker, NEUTRAL)).samples for line in said]


def resynthesis(folder: str, kind: str, said: Sequence[str], speaker: int) -> list[int]:
    """Of espeak-ng's own tokens, through flow and vocoder."""
    checkpoint = Path(folder) / "checkpoint"
    model, quantizer = loaded(str(checkpoint)), codec.trained(Path(folder))
    voice = voice_of(model, checkpoint / VOICES[speaker])
    fines = [corpus.utterance(line, manner(speaker, NEUTRAL)).fine for line in said]
    waves = []
    for index, tokens in enumerate(codec.tokens_of(quantizer, fines)):
        noise = StageNoise(0, index)
        with torch.inference_mode():
            mel = flow.tokens_to_mel(model.flow, torch.tensor(tokens.astype(np.int64))[None], voice, noise, 10)
            waves.append(vocoder.mel_to_wave(model.vocoder, mel, noise).numpy())
    return errors(kind, said, waves, model.spec.sample_rate)


def takes(folder: str, kind: str, said: Sequence[str], speaker: int, seed: int) -> list[int]:
    """Of the whole voice."""
    checkpoint = Path(folder) / "checkpoint"
    model = loaded(str(checkpoint))
    voice = model.builtin_voice() if speaker == 0 else voice_of(model, checkpoint / VOICES[speaker])
    return errors(kind, said, spoken(model, voice, said, seed), model.spec.sample_rate)
