"""The text tokenizer: 48 characters, one token each, everything in lower case."""

from __future__ import annotations

import json
from pathlib import Path

SPECIAL = ("[STOP]", "[START]", "[UNK]", "[SPACE]", "[PAD]")
CHARACTERS = "abcdefghijklmnopqrstuvwxyz.,!?'-\"0123456789"


def write(folder: Path) -> str:
    """Writes `tokenizer.json` as the `tokenizers` library reads it; its path."""
    ids = {token: number for number, token in enumerate((*SPECIAL, *CHARACTERS))}
    added = [
        {
            "id": ids[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token in SPECIAL
    ]
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "[UNK]"},
    }
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(data))
    return str(path)
