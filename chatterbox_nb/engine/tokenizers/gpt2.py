"""The tokenizer of Turbo and Nano: GPT-2's, of bytes, with a token for each tag. It can say any character.

`tokenizer_config.json` and `special_tokens_map.json` of the published repositories are not read: of what they say, only
`<|endoftext|>` is not in the three files that are, and in a text that is no command.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chatterbox_nb import tags
from chatterbox_nb.errors import SourceError
from chatterbox_nb.text import TextRules, normalize_punctuation

_END = "<|endoftext|>"


class Gpt2:
    """What `transformers.AutoTokenizer` gives of the same folder.

    Args:
        vocabulary_path, merges_path, added_path: `vocab.json`, `merges.txt`, `added_tokens.json`.
        vocabulary: the model's text tokens.
        rules: the model's, for its punctuation.
        name: the model's, for warnings.

    Raises:
        SourceError: the files are not a tokenizer of this model.
    """

    def __init__(
        self, vocabulary_path: Path, merges_path: Path, added_path: Path, vocabulary: int, rules: TextRules, name: str
    ) -> None:
        self.rules, self.name = rules, name
        path, problem = vocabulary_path, ""
        try:
            self._tokenizer = _byte_pairs(vocabulary_path, merges_path)
            path = added_path
            added = json.loads(added_path.read_text(encoding="utf-8"))
            self.tags = tuple(tag for tag in sorted(added, key=added.__getitem__) if tag != _END)
            self._tokenizer.add_tokens(list(self.tags))
            wrong = [tag for tag in self.tags if self._tokenizer.token_to_id(tag) != added[tag]]
            if wrong:
                problem = f"{', '.join(wrong)} would not be the tokens that it says"
            elif (size := self._tokenizer.get_vocab_size()) > vocabulary:
                problem = f"with it there are {size} tokens and the model has {vocabulary}"
        except Exception as error:  # the tokenizers library raises plain Exception
            problem = " ".join(str(error).split())
        if problem:
            raise SourceError(f"{path} is not of this model's tokenizer: {problem}. Delete it and load again.")

    def encode(self, text: str, language: str = "en") -> list[int]:
        """Text ids of a chunk; the model has neither start nor stop of text."""
        found: list[int] = self._tokenizer.encode(normalize_punctuation(text, self.rules)).ids
        return found

    def unspeakable(self, text: str, language: str = "en") -> str:
        """Nothing: what has no token of its own is bytes."""
        return ""

    def warnings(self, text: str, language: str = "en") -> list[str]:
        """Words in brackets that are no tags."""
        return tags.problems(text, self.tags, self.name)


def _byte_pairs(vocabulary_path: Path, merges_path: Path) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary, merges = models.BPE.read_file(str(vocabulary_path), str(merges_path))
    if lacking := [byte for byte in pre_tokenizers.ByteLevel.alphabet() if byte not in vocabulary]:
        raise ValueError(f"it lacks {len(lacking)} of the 256 bytes")
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer
