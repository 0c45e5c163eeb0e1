"""The models that can be loaded, as data: a ModelSpec each. A new model is a new row of `CATALOG`.

A folder may carry its own spec as `config.json`; that is how the embedded `demo` voice is described.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from chatterbox_nb.checkpoint import plain
from chatterbox_nb.errors import CheckpointError, SourceError, nearest
from chatterbox_nb.languages import LANGUAGES
from chatterbox_nb.text import TextRules

DEMO_FOLDER = Path(__file__).parent.parent / "demo"
SPEC_FILE = "config.json"
SPEC_FORMAT = 1
_NEEDED_ROLES = ("t3", "s3gen", "voice_encoder", "tokenizer")
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
    ignores: tuple[str, ...] = ("top_k",)
    closing_tokens: tuple[int, ...] = ()
    cropped_tokens: int = 0

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

_GPT2 = T3Dims(
    backbone="gpt2",
    width=1024,
    ffn=4096,
    layers=24,
    heads=16,
    text_vocab=50276,
    speech_vocab=6563,
    text_positions=0,
    speech_positions=0,
    positions=8196,
    prompt_tokens=375,
    perceiver_queries=0,
    perceiver_heads=0,
    emotion=False,
)
_SILENCE = 4299  # a speech token

TURBO = ModelSpec(
    name="turbo",
    title="Chatterbox Turbo (English, 0.7 B)",
    repo="ResembleAI/chatterbox-turbo",
    files=(
        FileSpec("t3", "t3_turbo_v1.safetensors", 1_915_480_052),
        FileSpec("s3gen", "s3gen_meanflow.safetensors", 1_064_875_036),
        FileSpec("voice_encoder", "ve.safetensors", 5_695_784),
        FileSpec("tokenizer", "vocab.json", 999_186),
        FileSpec("merges", "merges.txt", 456_318),
        FileSpec("added_tokens", "added_tokens.json", 418),
        FileSpec("voice", "conds.pt", 169_454),
    ),
    t3=_GPT2,
    s3gen=S3GenDims(meanflow=True, cfm_steps=2),
    tokenizer="gpt2",
    text=TextRules(kept_punctuation=("...", " - ", ";")),
    voice=VoiceRules(min_seconds=5.0, advised_seconds=5.0, t3_seconds=15.0, loudness=-27.0),
    defaults={"cfg_weight": 0.0, "exaggeration": 0.0, "min_p": 0.0, "top_p": 0.95, "top_k": 1000},
    unused=("text_head.weight", "tfmr.wte.weight", "similarity_weight", "similarity_bias"),
    optional=(),
    on_host=("text_emb.weight",),
    ignores=("exaggeration", "cfg_weight", "min_p"),
    closing_tokens=(_SILENCE,) * 3,
)

NANO = replace(
    TURBO,
    name="nano",
    title="Chatterbox Nano (English, 0.4 B)",
    repo="ResembleAI/chatterbox-nano",
    files=(FileSpec("t3", "t3_nano_v1.safetensors"), *TURBO.files[1:]),
    t3=replace(_GPT2, width=768, ffn=3072, layers=12, heads=12),
)

MULTILINGUAL_V2 = replace(
    ENGLISH,
    name="multilingual-v2",
    title="Chatterbox Multilingual V2 (23 languages, 0.8 B)",
    files=(
        FileSpec("t3", "t3_mtl23ls_v2.safetensors"),
        *(file for file in ENGLISH.files if file.role in ("s3gen", "voice_encoder")),
        FileSpec("tokenizer", "grapheme_mtl_merged_expanded_v1.json"),
        FileSpec("cangjie", "Cangjie5_TC.json"),
        ENGLISH.file("voice"),
    ),
    languages=tuple(LANGUAGES),
    tokenizer="multilingual",
    t3=T3Dims(text_vocab=2454),
    text=TextRules(sentence_enders=".!?-,、，。？！"),
    defaults={"repetition_penalty": 2.0},
)

MULTILINGUAL_V3 = replace(
    MULTILINGUAL_V2,
    name="multilingual-v3",
    title="Chatterbox Multilingual V3 (23 languages, 0.8 B)",
    files=(FileSpec("t3", "t3_mtl23ls_v3.safetensors"), *MULTILINGUAL_V2.files[1:]),
    defaults={"repetition_penalty": 1.2},
    cropped_tokens=1,
)


def _pack(name: str, title: str, language: str, region: str = "") -> ModelSpec:
    """A model of one language; what it shares with the multilingual one is in that one's repository."""
    region = region or name
    own = {"t3": f"t3_{region.replace('-', '_')}.safetensors", "s3gen": "s3gen_v3.safetensors"}
    shared = MULTILINGUAL_V3.file
    return replace(
        MULTILINGUAL_V3,
        name=name,
        title=f"Chatterbox Multilingual V3 ({title}, 0.8 B)",
        repo=f"ResembleAI/Chatterbox-Multilingual-{region}",
        files=(
            *(FileSpec(role, file) for role, file in own.items()),
            shared("tokenizer"),
            *(replace(shared(role), repo=ENGLISH.repo) for role in ("voice_encoder", "cangjie", "voice")),
        ),
        languages=(language,),
        text=replace(MULTILINGUAL_V3.text, language=language),
    )


PACKS = (
    _pack("zh-cmn", "Mandarin Chinese", "zh"),
    _pack("es-mx", "Latin American Spanish", "es", region="es-mx-latam"),
    _pack("es-es", "European Spanish", "es"),
    _pack("pt-br", "Brazilian Portuguese", "pt"),
    _pack("pt-pt", "European Portuguese", "pt"),
    _pack("hi", "Hindi", "hi"),
)

CATALOG: Mapping[str, ModelSpec] = {
    spec.name: spec for spec in (ENGLISH, TURBO, NANO, MULTILINGUAL_V2, MULTILINGUAL_V3, *PACKS)
}
ALIASES: Mapping[str, str] = {
    "chatterbox": "english",
    "en": "english",
    "chatterbox-turbo": "turbo",
    "chatterbox-nano": "nano",
    "multilingual": "multilingual-v3",
    "es-mx-latam": "es-mx",
}


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
    path = folder / SPEC_FILE
    spec, problem = plain.read(path, ModelSpec, "chatterbox_nb", SPEC_FORMAT)
    if spec is not None:
        needed = (*_NEEDED_ROLES, *TOKENIZERS.get(spec.tokenizer, ()))
        lacking = [role for role in needed if role not in [file.role for file in spec.files]]
        if not lacking and spec.tokenizer in TOKENIZERS:
            return spec
        unknown = f"there is no tokenizer '{spec.tokenizer}'"
        problem = f"it names no file for {', '.join(lacking)}" if lacking else unknown
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
