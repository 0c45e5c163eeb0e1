"""What is known of a model before its weights are read, as data: its sizes, its files, its rules.

Knows nothing of which models there are; those are in `catalog.py`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from chatterbox_nb.text import TextRules

SPEC_FORMAT = 1
# Kinds of tokenizers, and the files that each has besides its own.
TOKENIZERS: Mapping[str, tuple[str, ...]] = {
    "english": (),
    "multilingual": ("cangjie",),
    "gpt2": ("merges", "added_tokens"),
}


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's frequency scaling (`rope_type="llama3"` in transformers)."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192


@dataclass(frozen=True)
class T3Dims:
    """Text to speech tokens: a Llama or a GPT-2 with its own embeddings, heads and conditioning.

    Args:
        backbone: "llama" or "gpt2".
        text_positions, speech_positions: a Llama's tables of positions.
        positions: a GPT-2's one table, of conditionals, text and speech together; 0 where there is none.
        prompt_tokens: of a reference clip, that T3 reads.
        perceiver_queries: what a perceiver makes of those; 0 where T3 reads them as they are.
        emotion: whether exaggeration is a part of the conditionals.
    """

    backbone: str = "llama"
    width: int = 1024
    ffn: int = 4096
    layers: int = 30
    heads: int = 16
    text_vocab: int = 704
    speech_vocab: int = 8194
    text_positions: int = 2050
    speech_positions: int = 4100
    positions: int = 0
    start_text: int = 255
    stop_text: int = 0
    start_speech: int = 6561
    stop_speech: int = 6562
    prompt_tokens: int = 150
    perceiver_queries: int = 32
    perceiver_heads: int = 4
    emotion: bool = True
    speaker_width: int = 256
    norm_eps: float = 1e-5
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling = RopeScaling()

    @property
    def gpt2(self) -> bool:
        return self.backbone == "gpt2"

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def prefix_length(self) -> int:
        """Positions of the conditionals: the speaker, the prompt, the emotion."""
        return 1 + (self.perceiver_queries or self.prompt_tokens) + self.emotion

    @property
    def begins(self) -> int:
        """How often begin-of-speech is fed."""
        return 1 if self.gpt2 else 2

    @property
    def layer_parameters(self) -> int:
        """Of its layers' matrices, all of which are read at each token."""
        return self.layers * self.width * (4 * self.width + (2 if self.gpt2 else 3) * self.ffn)


@dataclass(frozen=True)
class S3GenDims:
    """Speech tokens to audio, and a reference clip to tokens and a speaker vector."""

    codes: int = 6561  # speech tokens that stand for sound
    tokenizer_mels: int = 128
    tokenizer_width: int = 1280
    tokenizer_heads: int = 20
    tokenizer_layers: int = 6
    encoder_width: int = 512
    encoder_heads: int = 8
    encoder_ffn: int = 2048
    encoder_blocks: int = 6
    encoder_up_blocks: int = 4
    estimator_width: int = 256
    estimator_heads: int = 8
    estimator_head_width: int = 64
    estimator_blocks: int = 4
    estimator_middle: int = 12
    vocoder_width: int = 512
    f0_width: int = 512
    speaker_growth: int = 32
    speaker_init: int = 128
    cfm_steps: int = 10
    meanflow: bool = False  # distilled: few steps, each told where it ends, and no guidance


@dataclass(frozen=True)
class VoiceRules:
    """What a reference clip must be. The package reads 6 s for T3, 10 s for S3Gen, all of it for the voice encoder.

    Args:
        loudness: that a clip is brought to before it is read, in LUFS; None leaves it as it is.
    """

    min_seconds: float = 1.0
    advised_seconds: float = 5.0
    t3_seconds: float = 6.0
    s3gen_seconds: float = 10.0
    loudness: float | None = None


@dataclass(frozen=True)
class FileSpec:
    """A file of a checkpoint.

    Args:
        role: t3, s3gen, voice_encoder, tokenizer, voice; of a GPT-2's tokenizer also merges and added_tokens, of a
            multilingual one cangjie.
        bytes: its size, if known.
        repo: of the hub, where it is not the model's own.
    """

    role: str
    name: str
    bytes: int | None = None
    repo: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called, the best first: the package publishes the same weights as `.pt`."""
        stem, dot, kind = self.name.rpartition(".")
        return (self.name, f"{stem}.pt") if dot and kind == "safetensors" else (self.name,)


@dataclass(frozen=True)
class ModelSpec:
    """Everything this package knows about a model before its weights are read.

    Args:
        languages: codes; the one that is spoken where none is named is the text rules'.
        tokenizer: which kind, of `TOKENIZERS`.
        unused: names of tensors that inference never reads; they are not loaded.
        optional: names that a file may lack because they are computed.
        on_host: of a model on a GPU, tables that stay in the CPU's memory: they are read once a text.
        max_tokens: speech tokens after which a chunk ends in any case; 25 are a second.
        defaults: the model's own, of options of a take.
        ignores: options of a take that nothing comes of.
        closing_tokens: speech tokens that follow a chunk's own.
        cropped_tokens: of a chunk's end, whose sound is noise and is left out.
    """

    name: str
    title: str
    files: tuple[FileSpec, ...]
    repo: str | None = None
    licence: str = "mit"
    languages: tuple[str, ...] = ("en",)
    tokenizer: str = "english"
    t3: T3Dims = T3Dims()
    s3gen: S3GenDims = S3GenDims()
    voice_encoder_width: int = 256
    text: TextRules = field(default_factory=TextRules)
    voice: VoiceRules = VoiceRules()
    max_tokens: int = 1000
    sample_rate: int = 24_000
    defaults: Mapping[str, float] = field(default_factory=dict)
    unused: tuple[str, ...] = (
        "text_head.weight",
        "tfmr.embed_tokens.weight",
        "similarity_weight",
        "similarity_bias",
    )
    optional: tuple[str, ...] = ("tokenizer._mel_filters", "tokenizer.window")
    on_host: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    closing_tokens: tuple[int, ...] = ()
    cropped_tokens: int = 0

    def file(self, role: str) -> FileSpec:
        return next(file for file in self.files if file.role == role)

    def to_json(self) -> str:
        return json.dumps({"chatterbox_nb": SPEC_FORMAT, **dataclasses.asdict(self)}, indent=1)
