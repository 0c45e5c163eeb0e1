"""The English models' tokenizer, and what the multilingual one shares with it: letters and frequent pairs of them.

A character outside the vocabulary is skipped, never fed as unknown; nothing that a text contains is a command.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chatterbox_nb import tags
from chatterbox_nb.errors import SourceError
from chatterbox_nb.text import TextRules, normalize_punctuation

_PLAIN = TextRules()


class English:
    """What the package's `EnTokenizer` gives, for text it can say.

    Args:
        path: a file of the `tokenizers` library.
        vocabulary: the model's text tokens; the file may have fewer.
        rules: the model's, for its punctuation.
        name: the model's, for warnings.
        needed: tokens besides start and stop that the file must have.

    Raises:
        SourceError: the file is not a tokenizer of this model.
    """

    tags: tuple[str, ...] = ()

    def __init__(
        self, path: Path, vocabulary: int, rules: TextRules = _PLAIN, name: str = "english", needed: Sequence[str] = ()
    ) -> None:
        from tokenizers import Tokenizer

        problem = ""
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(path))
            if (size := self._tokenizer.get_vocab_size()) > vocabulary:
                problem = f"it has {size} tokens and the model {vocabulary}"
            elif lacking := [token for token in ("[START]", "[STOP]", *needed) if not self._has(token)]:
                problem = f"it lacks {' and '.join(lacking)}"
        except Exception as error:  # the tokenizers library raises plain Exception
            problem = str(error)
        if problem:
            raise SourceError(f"{path} is not this model's tokenizer: {problem}. Delete it and load again.")
        self.rules, self.name = rules, name
        self._unknown = self._tokenizer.token_to_id("[UNK]")
        self._special = [token.content for token in self._tokenizer.get_added_tokens_decoder().values()]

    def encode(self, text: str, language: str = "en") -> list[int]:
        """Text ids of a chunk, without start and stop; the package's, for text it can say."""
        text = self._without_commands(normalize_punctuation(text, self.rules))
        return [token for token in self._ids(text) if token != self._unknown]

    def unspeakable(self, text: str, language: str = "en") -> str:
        """The characters of a text that the model has no token for, each once, in order."""
        distinct = dict.fromkeys("".join(normalize_punctuation(text, self.rules).split())) if text.strip() else {}
        return "".join(character for character in distinct if self._cannot_say(character, language))

    def warnings(self, text: str, language: str = "en") -> list[str]:
        """What the listener of a text should know, besides the characters that were skipped."""
        return tags.problems(text, self.tags, self.name)

    def _has(self, token: str) -> bool:
        return self._tokenizer.token_to_id(token) is not None

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer.encode(text.replace(" ", "[SPACE]")).ids
        return found

    def _cannot_say(self, character: str, language: str) -> bool:
        return self._unknown in self._ids(character)

    def _without_commands(self, text: str) -> str:
        while found := next((token for token in self._special if token in text), None):
            text = text.replace(found, found.strip("[]"))  # "[STOP]" in a text is a word, not a command
        return text
