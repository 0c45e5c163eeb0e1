"""The models that can be loaded, as data: a ModelSpec each. A new model is a new row of `CATALOG`.

A folder may carry its own spec as `config.json`; that is how the embedded `demo` voice is described.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from chatterbox_nb.checkpoint import plain
from chatterbox_nb.checkpoint.spec import SPEC_FORMAT, TOKENIZERS, FileSpec, ModelSpec, S3GenDims, T3Dims, VoiceRules
from chatterbox_nb.errors import CheckpointError, SourceError, nearest
from chatterbox_nb.languages import LANGUAGES
from chatterbox_nb.text import TextRules

DEMO_FOLDER = Path(__file__).parent.parent / "demo"
SPEC_FILE = "config.json"
_NEEDED_ROLES = ("t3", "s3gen", "voice_encoder", "tokenizer")

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
