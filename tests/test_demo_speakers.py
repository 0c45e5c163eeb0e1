"""What the embedded voice can do beside speaking: two speakers, exaggeration, guidance; and that it stays small."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import OTHER_SENTENCE, SENTENCE

from chatterbox_nb.audio import Clip, read_clip
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.engine import conditioning
from chatterbox_nb.engine.conditioning import Voice
from chatterbox_nb.engine.model import Model
from demo_voice import corpus, recipe, traits, words
from demo_voice.pack import VOICES

OWN, OTHER = 0.9, 0.5  # cosines by the voice encoder: at least to one's own, at most to the other's
LARGEST = 12_000_000  # bytes of all its files
LINES = (SENTENCE, OTHER_SENTENCE, "We have seven books, and nine small cups.", "Where is the old kitchen table?")


@pytest.fixture(scope="module")
def voices(demo: Callable[..., Model]) -> list[Voice]:
    return [words.voice_of(demo(), DEMO_FOLDER / name) for name in VOICES]


def cosine(one: Voice, other: Voice) -> float:
    return float(torch.nn.functional.cosine_similarity(one.speaker, other.speaker)[0])


def prepared(model: Model, samples: np.ndarray, rate: int = 24_000) -> Voice:
    with torch.inference_mode():
        return conditioning.prepare(Clip(samples, rate), model.read_encoders(), model.spec, "clip")


def median_pitch(wave: np.ndarray) -> float:
    bounds = recipe.PITCH_RANGES[0][0], recipe.PITCH_RANGES[1][1]
    found = corpus.pitch((wave * 32767).astype(np.int16), len(wave) // 480, bounds)
    return float(np.median(found[found > 0]))


def test_its_files_are_small() -> None:
    assert sum(path.stat().st_size for path in DEMO_FOLDER.rglob("*") if path.is_file()) <= LARGEST


def test_the_built_in_voice_is_the_first_speaker(demo: Callable[..., Model], voices: list[Voice]) -> None:
    assert cosine(demo().builtin_voice(), voices[0]) > 0.99


def test_the_two_speakers_are_apart(voices: list[Voice]) -> None:
    assert cosine(*voices) <= OTHER


@pytest.mark.parametrize("speaker", [0, 1])
@pytest.mark.parametrize("part", ["beginning", "end"])
def test_a_part_of_a_clip_is_of_who_speaks_it(
    demo: Callable[..., Model], voices: list[Voice], speaker: int, part: str
) -> None:
    samples = read_clip(DEMO_FOLDER / VOICES[speaker]).samples
    half = len(samples) // 2
    found = prepared(demo(), samples[:half] if part == "beginning" else samples[half:])
    assert cosine(found, voices[speaker]) >= OWN and cosine(found, voices[1 - speaker]) <= OTHER


@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.more), "int8"])
def test_who_is_cloned_is_heard(demo: Callable[..., Model], voices: list[Voice], precision: str) -> None:
    """By the voice encoder, and by the height of the voice."""
    heights = []
    for speaker, voice in enumerate(voices):
        wave = np.concatenate(words.spoken(demo(precision), voice, LINES[:2], seed=0))
        found = prepared(demo(), wave)
        assert cosine(found, voice) >= OWN and cosine(found, voices[1 - speaker]) <= OTHER
        heights.append(median_pitch(wave))
    assert heights[1] > 1.3 * heights[0]


@pytest.mark.more
def test_exaggeration_widens_the_pitch_and_hurries(demo: Callable[..., Model]) -> None:
    found = [traits.exaggerated(demo(), LINES, how) for how in (0.0, 0.5, 1.0)]
    spreads, paces = ([one[name] for one in found] for name in ("pitch_spread_semitones", "characters_a_second"))
    assert spreads[0] < spreads[1] < spreads[2] and paces[0] < paces[1] < paces[2]


def test_guidance_draws_tokens_that_say_more_of_the_text(demo: Callable[..., Model]) -> None:
    gains = []
    for cfg in (0.0, 1.0):
        chunks = words.said_by(demo(), demo().builtin_voice(), LINES, seed=2, cfg=cfg)
        pairs = zip(LINES, chunks, strict=True)
        gains.append(np.mean([traits.text_gain(demo(), line, torch.tensor(chunk.tokens)) for line, chunk in pairs]))
    assert gains[1] > gains[0] > 0
