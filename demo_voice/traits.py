"""Who is heard, and what exaggeration and guidance do: measured of the packed voice, at fp32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from chatterbox_nb import text as text_rules
from chatterbox_nb.audio import Clip
from chatterbox_nb.engine import conditioning, decode
from chatterbox_nb.engine.model import Model
from demo_voice import corpus, texts
from demo_voice.pack import VOICES
from demo_voice.recipe import NEUTRAL, PITCH_RANGES, SPEAKERS, manner
from demo_voice.words import Wave, errors, loaded, said_by, spoken, voice_of, words_of

_EXAGGERATIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
ALIKE = 0.9  # a cosine of two clips of one speaker
_GUIDANCES = (0.0, 0.5, 1.0)


def likeness(folder: str, count: int) -> dict[str, float]:
    """Cosines by the voice encoder: of clips of each speaker, and of what is spoken with them, to both speakers."""
    checkpoint = Path(folder) / "checkpoint"
    model = loaded(str(checkpoint))
    voices = [voice_of(model, checkpoint / name) for name in VOICES]
    lines = texts.evaluation()["natural"][:count]
    found: dict[str, list[float]] = {name: [] for name in ("clip_own", "clip_other", "take_own", "take_other")}
    for speaker in range(len(SPEAKERS)):
        true = [corpus.utterance(line, manner(speaker, NEUTRAL)).audio / np.float32(32768) for line in lines]
        for kind, waves in (("clip", true), ("take", spoken(model, voices[speaker], lines, seed=0))):
            for embedding in _embeddings(model, waves):
                for whose, other in (("own", speaker), ("other", 1 - speaker)):
                    cosine = torch.nn.functional.cosine_similarity(embedding, voices[other].speaker[0], dim=0)
                    found[f"{kind}_{whose}"].append(float(cosine))
    worst = {name: min(some) if name.endswith("own") else max(some) for name, some in found.items()}
    return {
        **{name: round(cosine, 4) for name, cosine in worst.items()},
        **{f"{name}_mean": round(float(np.mean(some)), 4) for name, some in found.items()},
        "takes": len(found["take_own"]),
        "takes_like": sum(cosine >= ALIKE for cosine in found["take_own"]),
    }


def _embeddings(model: Model, waves: list[Wave]) -> list[Tensor]:
    encoders = model.read_encoders()
    with torch.inference_mode():
        clips = [Clip(wave.astype(np.float32), model.spec.sample_rate) for wave in waves]
        return [conditioning.prepare(clip, encoders, model.spec, "clip").speaker[0] for clip in clips]


def exaggeration(folder: str, count: int) -> list[dict[str, float]]:
    """Of the built-in voice, at several."""
    model, lines = loaded(str(Path(folder) / "checkpoint")), texts.evaluation()["natural"][:count]
    return [{"exaggeration": how, **exaggerated(model, lines, how)} for how in _EXAGGERATIONS]


def exaggerated(model: Model, lines: Sequence[str], how: float) -> dict[str, float]:
    """Spread of the pitch in semitones, and pace in characters a second."""
    waves = spoken(model, model.builtin_voice(), lines, seed=1, how=how)
    heights = [height for height in map(_semitones, waves) if len(height)]
    spread = [float(np.subtract(*np.percentile(height, [90, 10]))) for height in heights]
    pace = sum(map(len, lines)) / (sum(map(len, waves)) / model.spec.sample_rate)
    return {"pitch_spread_semitones": round(float(np.mean(spread or [0.0])), 3), "characters_a_second": round(pace, 2)}


def _semitones(wave: Wave) -> Wave:
    """Of the voiced frames, over 100 Hz."""
    samples = (wave.clip(-1, 1) * 32767).astype(np.int16)
    pitch = corpus.pitch(samples, len(samples) // 480, PITCH_RANGES[0]).astype(np.float32)
    return 12 * np.log2(pitch[pitch > 0] / 100)


def guidance(folder: str, count: int) -> list[dict[str, float]]:
    """Of the built-in voice, at several."""
    model, lines = loaded(str(Path(folder) / "checkpoint")), texts.evaluation()["template"][:count]
    return [{"guidance": cfg, **guided(model, lines, cfg)} for cfg in _GUIDANCES]


def guided(model: Model, lines: Sequence[str], cfg: float) -> dict[str, float]:
    """Words lost of templates, and what the text adds to the likelihood of the drawn tokens."""
    chunks = said_by(model, model.builtin_voice(), lines, seed=2, cfg=cfg)
    lost = errors("template", lines, [chunk.samples for chunk in chunks], model.spec.sample_rate)
    asked = sum(len(words_of(line)) for line in lines)
    gains = [text_gain(model, line, torch.tensor(chunk.tokens)) for line, chunk in zip(lines, chunks, strict=True)]
    return {"words_lost_percent": round(100 * sum(lost) / asked, 2), "nats_a_token": round(float(np.mean(gains)), 4)}


def text_gain(model: Model, line: str, tokens: Tensor) -> float:
    """Nats by which tokens are likelier with their text than without it, a token."""
    t3, voice, count = model.t3, model.builtin_voice(), len(tokens)
    with torch.inference_mode():
        prefix = decode.prefill(t3, voice.speaker, voice.t3_prompt, NEUTRAL)
        begin = t3.text(model.text_ids(text_rules.apply_rules(line, model.spec.text)), guided=True)
        given = t3.speech(tokens, torch.arange(1, count + 1))[None].expand(2, -1, -1)
        cache = prefix.cache(t3.dims, 2, prefix.length + begin.shape[1] + count)
        states = t3.backbone(torch.cat([begin, given], 1), cache, prefix.length)[:, -count - 1 : -1]
        likelihoods = t3.head(states).float().log_softmax(-1).gather(2, tokens.expand(2, -1)[..., None])
    return float((likelihoods[0] - likelihoods[1]).mean())
