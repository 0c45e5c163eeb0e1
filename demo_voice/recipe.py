"""Every number of the recipe: sizes of the model, of the data and of the training. Time is on two cores of 2025."""

from __future__ import annotations

from dataclasses import dataclass, replace

from chatterbox_nb.checkpoint.spec import FileSpec, ModelSpec, S3GenDims, T3Dims, VoiceRules
from chatterbox_nb.text import TextRules
from demo_voice.espeak import Manner

SEED = 20261126
TOKEN_RATE = 25  # speech tokens a second
DIGITS = 7  # of the codec's 8 ternary digits: 3 ** 7 codes are used, the rest of the tables are one row
USED_CODES = 3**DIGITS

# The two who speak, and who else the encoders learn to tell them from. Names are espeak-ng's.
SPEAKERS = ("en-us", "en-us+f5")
STRANGERS = ("en-us+f4", "en-us+m7", "en-us+croak", "en-us+Annie")
PITCH_RANGES = ((70.0, 150.0), (130.0, 300.0))  # Hz, in which a speaker's fundamental is looked for
NEUTRAL = 0.5  # exaggeration
SECONDS = 8.6  # of the longest utterance


def manner(speaker: int, exaggeration: float) -> Manner:
    """How a speaker says it: exaggeration widens the range of the pitch and hurries a little, as Chatterbox's does."""
    return Manner(
        SPEAKERS[speaker], round(150 * (0.9 + 0.2 * exaggeration)), min(99, round(100 * exaggeration))
    )  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """One training: steps, examples a step and the largest learning rate."""

    steps: int
    batch: int
    rate: float


@dataclass(frozen=True)
class Recipe:
    """What one run makes.

    Args:
        sound_texts: texts spoken by both speakers, kept as audio: codec, vocoder and flow learn from them.
        speech_texts: texts spoken by one, kept as tokens: T3 learns from them.
        clips: clips of each voice that the speaker encoders learn from.
        evaluated: sentences of each kind and seeds of the evaluation.
    """

    name: str
    sound_texts: int
    speech_texts: int
    clips: int
    codec: Fit
    camplus: Fit
    voice_encoder: Fit
    vocoder: Fit
    flow: Fit
    t3: Fit
    evaluated: int
    seeds: int


FULL = Recipe(
    name="full", sound_texts=4_000, speech_texts=60_000, clips=120,
    codec=Fit(2_600, 12, 2e-3), camplus=Fit(400, 16, 3e-3), voice_encoder=Fit(4_000, 36, 3e-3),
    vocoder=Fit(5_500, 8, 1e-2),
    flow=Fit(4_000, 800, 1e-2), t3=Fit(4_200, 32, 1.2e-2),
    evaluated=10_000, seeds=5,
)  # fmt: skip
QUICK = replace(
    FULL, name="quick", sound_texts=60, speech_texts=300, clips=8,
    codec=Fit(40, 4, 2e-3), camplus=Fit(12, 8, 3e-3), voice_encoder=Fit(60, 16, 3e-3),
    vocoder=Fit(20, 2, 1e-2), flow=Fit(30, 200, 1e-2), t3=Fit(60, 8, 1.2e-2),
    evaluated=2, seeds=1,
)  # fmt: skip
RECIPES = {recipe.name: recipe for recipe in (FULL, QUICK)}

SPEC = ModelSpec(
    name="demo",
    title="Demo voice (7 M, trained on espeak-ng)",
    files=(
        FileSpec("t3", "t3_cfg.safetensors"),
        FileSpec("s3gen", "s3gen.safetensors"),
        FileSpec("voice_encoder", "ve.safetensors"),
        FileSpec("tokenizer", "tokenizer.json"),
        FileSpec("voice", "conds.pt"),
    ),
    t3=T3Dims(
        width=192, ffn=384, layers=6, heads=3, text_vocab=48, speech_vocab=6564, text_positions=130,
        speech_positions=260, start_text=1, stop_text=0, prompt_tokens=50, perceiver_queries=8, perceiver_heads=3,
        speaker_width=64, rope_theta=10_000.0,
    ),
    s3gen=S3GenDims(
        tokenizer_mels=80, tokenizer_width=128, tokenizer_heads=2, tokenizer_layers=1,
        encoder_width=96, encoder_heads=2, encoder_ffn=192, encoder_blocks=1, encoder_up_blocks=1,
        estimator_width=96, estimator_heads=2, estimator_head_width=48, estimator_blocks=1, estimator_middle=1,
        vocoder_width=64, f0_width=64, speaker_growth=2, speaker_init=16,
    ),
    voice_encoder_width=32,
    text=TextRules(
        max_chars=120, lowercase=True, plain_characters=True, abbreviations_as_words=True, digits_as_words=True,
        tokens_per_text_token=1.6, budget_per_text_token=4.0, budget_base=40,
    ),
    voice=VoiceRules(min_seconds=0.5, advised_seconds=2.0),
    max_tokens=255,
)  # fmt: skip
