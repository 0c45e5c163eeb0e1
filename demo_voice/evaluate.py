"""How well the voice speaks: words understood, likeness, and what exaggeration and guidance do; by the engine, at fp32.

The ear is pocketsphinx, as in `benchmarks/recognition`. espeak-ng itself, heard by the same ear, is the ceiling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from benchmarks import pool, recognition
from chatterbox_nb import text as text_rules
from chatterbox_nb.audio import Clip
from chatterbox_nb.checkpoint import source
from chatterbox_nb.engine import conditioning, flow, vocoder
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.conditioning import Voice
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.pipeline import Speaker
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.precision import device
from demo_voice import codec, corpus, texts
from demo_voice.pack import VOICES
from demo_voice.recipe import NEUTRAL, PITCH_RANGES, SPEAKERS, TOKEN_RATE, Recipe, manner

Wave = NDArray[np.float32]
_EXAGGERATIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
_GUIDANCES = (0.0, 0.5, 1.0)
_CLIPS = 12  # of each speaker, that likeness is measured on
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


def spoken(
    model: Model, voice: Voice, said: Sequence[str], seed: int, cfg: float = 0.5, how: float = NEUTRAL
) -> list[Wave]:
    """Sentences by the engine, each a chunk, at the package's default temperature."""
    lines = [text_rules.apply_rules(line, model.spec.text) for line in said]
    sampling = Sampling(cfg_weight=cfg)
    with torch.inference_mode():
        speaker = Speaker(model, voice, sampling, how, StageNoise(seed), lines, at_once=_TOGETHER)
        return [chunk.samples for chunk in speaker]


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


def _rate(kind: str, said: Sequence[str], runs: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Word error rate in per cent over all runs, each run's, and a 95 % interval over sentences drawn anew."""
    words = np.array([len(words_of(line)) for line in said])
    edits = np.mean(np.array(runs), axis=0)
    drawn = np.random.default_rng(0).integers(0, len(words), (10_000, len(words)))
    rates = 100 * edits[drawn].sum(1) / words[drawn].sum(1)
    return {
        "kind": kind,
        "wer": round(100 * float(edits.sum() / words.sum()), 2),
        "runs": [round(100 * sum(run) / int(words.sum()), 2) for run in runs],
        "interval": [round(float(bound), 2) for bound in np.percentile(rates, [2.5, 97.5])],
        "exact": f"{sum(run.count(0) for run in map(list, runs))} of {len(said) * len(runs)}",
    }


def ceiling(kind: str, said: Sequence[str], speaker: int) -> list[int]:
    """Of espeak-ng itself."""
    waves = [corpus.said(line, manner(speaker, NEUTRAL)).samples for line in said]
    return errors(kind, said, waves, corpus.RATE)


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


# Likeness, exaggeration, guidance


def likeness(folder: str) -> dict[str, float]:
    """Cosines by the voice encoder: of clips of each speaker, and of what is spoken with them, to both speakers."""
    checkpoint = Path(folder) / "checkpoint"
    model = loaded(str(checkpoint))
    voices = [voice_of(model, checkpoint / name) for name in VOICES]
    lines = texts.evaluation()["natural"][:_CLIPS]
    found: dict[str, list[float]] = {name: [] for name in ("clip_own", "clip_other", "take_own", "take_other")}
    encoders = model.read_encoders()
    for speaker in range(len(SPEAKERS)):
        clips = [
            Clip(corpus.utterance(line, manner(speaker, NEUTRAL)).audio.astype(np.float32) / 32768, corpus.RATE_24)
            for line in lines
        ]
        made = [Clip(wave, model.spec.sample_rate) for wave in spoken(model, voices[speaker], lines, seed=0)]
        for kind, some in (("clip", clips), ("take", made)):
            with torch.inference_mode():
                embeddings = [conditioning.prepare(clip, encoders, model.spec, kind).speaker[0] for clip in some]
            for embedding in embeddings:
                for whose, other in (("own", speaker), ("other", 1 - speaker)):
                    cosine = torch.nn.functional.cosine_similarity(embedding, voices[other].speaker[0], dim=0)
                    found[f"{kind}_{whose}"].append(float(cosine))
    worst = {"own": min, "other": max}
    return {name: round(worst[name.split("_")[1]](cosines), 4) for name, cosines in found.items()}


def exaggeration(folder: str, count: int) -> list[dict[str, float]]:
    """Of the built-in voice, at several: spread of the pitch in semitones, and pace in characters a second."""
    model, lines = loaded(str(Path(folder) / "checkpoint")), texts.evaluation()["natural"][:count]
    found = []
    for how in _EXAGGERATIONS:
        waves = spoken(model, model.builtin_voice(), lines, seed=1, how=how)
        heights = [_semitones(wave) for wave in waves]
        pace = sum(map(len, lines)) / (sum(map(len, waves)) / model.spec.sample_rate)
        spread = float(np.mean([np.subtract(*np.percentile(own, [90, 10])) for own in heights if len(own)] or [0.0]))
        found.append(
            {"exaggeration": how, "pitch_spread_semitones": round(spread, 3), "characters_a_second": round(pace, 2)}
        )
    return found


def _semitones(wave: Wave) -> Wave:
    """Of the voiced frames, over 100 Hz."""
    samples = (wave.clip(-1, 1) * 32767).astype(np.int16)
    pitch = corpus.pitch(samples, len(samples) // 480, PITCH_RANGES[0]).astype(np.float32)
    return 12 * np.log2(pitch[pitch > 0] / 100)


def guidance(folder: str, count: int) -> list[dict[str, float]]:
    """At several: word error rate of templates."""
    model = loaded(str(Path(folder) / "checkpoint"))
    lines = texts.evaluation()["template"][:count]
    found = []
    for cfg in _GUIDANCES:
        waves = spoken(model, model.builtin_voice(), lines, seed=2, cfg=cfg)
        edits = errors("template", lines, waves, model.spec.sample_rate)
        found.append({"guidance": cfg, "wer": _rate("template", lines, [edits])["wer"]})
    return found


# All of it


def evaluate(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Every measure, in two processes."""
    own, few = str(folder), min(recipe.evaluated, 12)
    sets = {kind: said[: recipe.evaluated] for kind, said in texts.evaluation().items()}
    with pool.processes() as workers:
        jobs: dict[str, Mapping[str, Any]] = {
            kind: {
                "espeak": [workers.submit(ceiling, kind, said, speaker) for speaker in (0, 1)],
                "resynthesis": [workers.submit(resynthesis, own, kind, said, speaker) for speaker in (0, 1)],
                "first": [workers.submit(takes, own, kind, said, 0, seed) for seed in range(recipe.seeds)],
                "second": [workers.submit(takes, own, kind, said, 1, seed) for seed in range(min(2, recipe.seeds))],
            }
            for kind, said in sets.items()
        }
        others = (
            workers.submit(likeness, own),
            workers.submit(exaggeration, own, few),
            workers.submit(guidance, own, few * 2),
        )
        rates = {}
        for kind, by_who in jobs.items():
            espeak, again = ([job.result() for job in by_who[name]] for name in ("espeak", "resynthesis"))
            rates[kind] = {
                "espeak": [_rate(kind, sets[kind], [edits]) for edits in espeak],
                "resynthesis": [_rate(kind, sets[kind], [edits]) for edits in again],
                "first": _rate(kind, sets[kind], [job.result() for job in by_who["first"]]),
                "second": _rate(kind, sets[kind], [job.result() for job in by_who["second"]]),
            }
        like, exaggerated, guided = (job.result() for job in others)
    return {"words": rates, "likeness": like, "exaggeration": exaggerated, "guidance": guided, "token_rate": TOKEN_RATE}
