"""The models that can be loaded, as data: a ModelSpec each. A new model is a new row of `CATALOG`.

A folder may carry its own spec as `config.json`; that is how the embedded `demo` voice is described.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from chatterbox_nb.errors import CheckpointError, SourceError, nearest
from chatterbox_nb.text import TextRules

DEMO_FOLDER = Path(__file__).parent.parent / "demo"
SPEC_FILE = "config.json"
SPEC_FORMAT = 1
_NEEDED_ROLES = ("t3", "s3gen", "voice_encoder", "tokenizer")


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's frequency scaling (`rope_type="llama3"` in transformers)."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192


@dataclass(frozen=True)
class T3Dims:
    """Text to speech tokens: a Llama with its own embeddings, heads and conditioning."""

    width: int = 1024
    ffn: int = 4096
    layers: int = 30
    heads: int = 16
    text_vocab: int = 704
    speech_vocab: int = 8194
    text_positions: int = 2050
    speech_positions: int = 4100
    start_text: int = 255
    stop_text: int = 0
    start_speech: int = 6561
    stop_speech: int = 6562
    prompt_tokens: int = 150  # of a reference clip, read by the perceiver
    perceiver_queries: int = 32
    perceiver_heads: int = 4
    speaker_width: int = 256
    norm_eps: float = 1e-5
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling = RopeScaling()

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def layer_parameters(self) -> int:
        """Of its layers' matrices, all of which are read at each token."""
        return self.layers * self.width * (4 * self.width + 3 * self.ffn)


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


@dataclass(frozen=True)
class VoiceRules:
    """What a reference clip must be. The package reads 6 s for T3, 10 s for S3Gen, all of it for the voice encoder."""

    min_seconds: float = 1.0
    advised_seconds: float = 5.0
    t3_seconds: float = 6.0
    s3gen_seconds: float = 10.0


@dataclass(frozen=True)
class FileSpec:
    """A file of a checkpoint: role (t3, s3gen, voice_encoder, tokenizer, voice), name and, if known, size in bytes."""

    role: str
    name: str
    bytes: int | None = None


@dataclass(frozen=True)
class ModelSpec:
    """Everything this package knows about a model before its weights are read.

    Args:
        unused: names of tensors that inference never reads; they are not loaded.
        optional: names that a file may lack because they are computed.
        max_tokens: speech tokens after which a chunk ends in any case; 25 are a second.
    """

    name: str
    title: str
    files: tuple[FileSpec, ...]
    repo: str | None = None
    licence: str = "mit"
    languages: tuple[str, ...] = ("en",)
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

    def file(self, role: str) -> FileSpec:
        return next(file for file in self.files if file.role == role)

    def to_json(self) -> str:
        return json.dumps({"chatterbox_nb": SPEC_FORMAT, **dataclasses.asdict(self)}, indent=1)


ENGLISH = ModelSpec(
    name="english",
    title="Chatterbox (English, 0.8 B)",
    repo="ResembleAI/chatterbox",
    files=(
        FileSpec("t3", "t3_cfg.safetensors", 2_129_653_744),
        FileSpec("s3gen", "s3gen.safetensors", 1_056_484_620),
        FileSpec("voice_encoder", "ve.safetensors", 5_695_784),
        FileSpec("tokenizer", "tokenizer.json", 25_470),
        FileSpec("voice", "conds.pt", 107_374),
    ),
)

CATALOG: Mapping[str, ModelSpec] = {"english": ENGLISH}
ALIASES: Mapping[str, str] = {"chatterbox": "english", "en": "english"}


def names() -> tuple[str, ...]:
    """The models that can be named."""
    return (*CATALOG, "demo")


def spec(name: str) -> ModelSpec:
    """The spec of a model.

    Raises:
        CheckpointError: no such model; the message lists those there are.
    """
    name = ALIASES.get(name.lower(), name.lower())
    if name == "demo":
        return _demo()
    if name not in CATALOG:
        raise CheckpointError(f"There is no model '{name}'; there are {', '.join(names())}.{nearest(name, names())}")
    return CATALOG[name]


@cache
def _demo() -> ModelSpec:
    return read_spec(DEMO_FOLDER)


def read_spec(folder: Path) -> ModelSpec:
    """The spec that a folder carries in its `config.json`.

    Raises:
        SourceError: it is not JSON, not a spec, of a later format, or names no file for a part that is needed.
    """
    path, problem = folder / SPEC_FILE, ""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.pop("chatterbox_nb", None) != SPEC_FORMAT:
            problem = f"its 'chatterbox_nb' is not {SPEC_FORMAT}"
        else:
            spec: ModelSpec = _build(ModelSpec, data)
            lacking = [role for role in _NEEDED_ROLES if role not in [file.role for file in spec.files]]
            if not lacking:
                return spec
            problem = f"it names no file for {', '.join(lacking)}"
    except (OSError, TypeError, ValueError, AttributeError) as error:
        problem = str(error)
    raise SourceError(
        f"{path} is not a model spec this version reads: {problem}. "
        "Update chatterbox-nb, or delete the file and name the model."
    )


def carries_spec(folder: Path) -> bool:
    """Whether a folder has a spec of its own, and not some other config.json."""
    try:
        data = json.loads((folder / SPEC_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and "chatterbox_nb" in data


def _build(kind: type, data: Any) -> Any:
    """A frozen dataclass, with its nested ones, from plain JSON. Unknown keys are a TypeError."""
    hints = get_type_hints(kind)
    values = {}
    for key, value in data.items():
        hint = hints.get(key)
        if dataclasses.is_dataclass(hint):
            value = _build(hint, value)  # type: ignore[arg-type]
        elif key == "files":
            value = tuple(_build(FileSpec, entry) for entry in value)
        elif isinstance(value, list):
            value = tuple(value)
        values[key] = value
    return kind(**values)
