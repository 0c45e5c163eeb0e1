"""Tokenizer files for synthetic checkpoints: of each kind, in the published format, with what real sentences need.

The vocabularies are made up but for the special tokens, tags and languages; the Cangjie codes are real ones.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.languages import LANGUAGES
from chatterbox_nb.tags import TAGS

PAIRS = [
    "th", "he", "in", "er", "an", "re", "on", "at", "en", "nd", "ti", "es", "or", "te", "of", "ed", "is", "it", "al",
    "ar", "st", "to", "nt", "ng", "se", "ha", "as", "ou", "io", "le", "ve", "co", "me", "de", "hi", "ri", "ro", "ic",
    "ne", "ea", "ra", "ce", "li", "ch", "ll", "be", "ma", "si", "om", "ur",
]  # fmt: skip
_LETTERS = "abcdefghijklmnopqrstuvwxyz.,!?'-\"0123456789"
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_END = "<|endoftext|>"
# Of the multilingual models' scripts, taken apart as NFKD does: the first and the last character of each range.
_SCRIPTS = (
    ("\u0300", "\u0345"),  # marks
    ("α", "ω"),
    ("а", "я"),
    ("א", "ת"),
    ("ء", "ي"),
    ("\u064b", "\u0652"),  # Arabic vowels
    ("ँ", "्"),
    ("।", "॥"),
    ("ぁ", "ゖ"),
    ("\u3099", "\u309a"),  # the marks of が and ぱ
    ("ァ", "ー"),
    ("\u1100", "\u1112"),  # jamo
    ("\u1161", "\u1175"),
    ("\u11a8", "\u11c2"),
)
_MORE = "ßæøłđıðþœ؟،؛·¿¡«»、。，？！;:()ˈ"
_KEYS = "abcdefghijklmnopqrstuvwxyz0123456789."  # of Cangjie
# Common characters; the last two share a code.
_CANGJIE = {
    "你": "onf", "好": "vnd", "我": "hqi", "是": "amyo", "的": "hapi", "不": "mf", "一": "m", "人": "o", "大": "k",
    "中": "l", "国": "wmgi", "國": "wirm", "天": "mk", "上": "ym", "下": "my", "小": "nc", "日": "a", "月": "b",
    "水": "e", "火": "f", "木": "d", "山": "u", "口": "r", "手": "q", "心": "p", "女": "v", "子": "nd", "田": "w",
    "金": "c", "土": "g", "竹": "h", "戈": "i", "十": "j", "弓": "n", "尸": "s", "廿": "t", "卜": "y", "世": "pt",
    "界": "woll", "今": "oin", "明": "ab", "生": "hqm", "王": "mg", "玉": "mgi", "林": "dd", "森": "ddd", "早": "aj",
    "旱": "amj", "曱": "wl", "由": "lw", "申": "lwl", "甲": "wl",
}  # fmt: skip


def write(spec: ModelSpec, folder: Path) -> None:
    """Writes the tokenizer files of a spec into a folder."""
    for role, content in _FILES[spec.tokenizer](spec).items():
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (folder / spec.file(role).name).write_text(text, encoding="utf-8")
    if spec.tokenizer == "gpt2":  # which the package reads its own by; we need none of it
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))


def _english(spec: ModelSpec) -> dict[str, Any]:
    special, free = _special(spec)
    vocabulary = _numbered([*_LETTERS, *_CAPITALS, *PAIRS], free)
    return {"tokenizer": _library_file(special, vocabulary)}


def _multilingual(spec: ModelSpec) -> dict[str, Any]:
    special, free = _special(spec)
    special |= _numbered((f"[{code}]" for code in LANGUAGES), free)
    special |= _numbered((f"[cj_{key}]" for key in _KEYS), free)
    scripts = [chr(code) for first, last in _SCRIPTS for code in range(ord(first), ord(last) + 1)]
    letters = [letter for letter in [*_MORE, *scripts] if unicodedata.normalize("NFKD", letter) == letter]
    vocabulary = _numbered(dict.fromkeys([*_LETTERS, *letters, *PAIRS]), free)
    table = [f"{character}\t{code}" for character, code in _CANGJIE.items()]
    return {"tokenizer": _library_file(special, vocabulary), "cangjie": table}


def _gpt2(spec: ModelSpec) -> dict[str, Any]:
    """Bytes, pairs, the end of a text and the tags, which are the last; what is between is filled up."""
    from tokenizers.pre_tokenizers import ByteLevel

    merges = [*PAIRS, *(f"Ġ{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    end = spec.t3.text_vocab - len(TAGS) - 1
    tokens = [*sorted(ByteLevel.alphabet()), *merges]
    vocabulary = dict(zip([*tokens, *(f"unused{index}" for index in range(len(tokens), end))], range(end), strict=True))
    return {
        "tokenizer": vocabulary | {_END: end},
        "merges": "\n".join(["#version: 0.2", *(f"{pair[0]} {pair[1]}" for pair in merges)]) + "\n",
        "added_tokens": {tag: index for index, tag in enumerate(TAGS, end + 1)},
    }


_FILES = {"english": _english, "multilingual": _multilingual, "gpt2": _gpt2}


def _special(spec: ModelSpec) -> tuple[dict[str, int], Iterable[int]]:
    """The special tokens at the spec's ids, and an iterator over the ids that are free."""
    dims = spec.t3
    special = {"[STOP]": dims.stop_text, "[START]": dims.start_text}
    free = iter([index for index in range(dims.text_vocab) if index not in special.values()])
    return special | _numbered(("[UNK]", "[SPACE]"), free), free


def _numbered(tokens: Iterable[str], free: Iterable[int]) -> dict[str, int]:
    """Tokens with the next free ids, as many as there is room for."""
    numbers = iter(free)
    return {token: number for token in tokens if (number := next(numbers, None)) is not None}


def _library_file(special: Mapping[str, int], vocabulary: Mapping[str, int]) -> dict[str, Any]:
    """A byte-pair tokenizer as the `tokenizers` library reads it."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": index, "content": token, **plain, "special": True}
        for token, index in sorted(special.items(), key=lambda entry: entry[1])
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFKD"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "[UNK]",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {**special, **vocabulary},
            "merges": [f"{pair[0]} {pair[1]}" for pair in PAIRS if pair in vocabulary],
        },
    }
