"""Text to a model's own text tokens, and what it cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chatterbox_nb.checkpoint.reference import import_package
from chatterbox_nb.errors import SourceError
from chatterbox_nb.text import normalize_punctuation


class TextTokenizer:
    """The package's English tokenizer; characters outside its vocabulary are skipped, never fed as unknown.

    Raises:
        SourceError: the file is not a tokenizer of this model.
    """

    def __init__(self, path: Path, vocabulary: int) -> None:
        import_package()
        from chatterbox.models.tokenizers import EnTokenizer

        problem = ""
        try:
            self._tokenizer: Any = EnTokenizer(str(path))
            if (size := self._tokenizer.tokenizer.get_vocab_size()) > vocabulary:
                problem = f"it has {size} tokens and the model {vocabulary}"
        except Exception as error:  # the tokenizers library raises plain Exception
            problem = str(error) or "it lacks [START] and [STOP]"
        if problem:
            raise SourceError(f"{path} is not this model's tokenizer: {problem}. Delete it and load again.")
        inner = self._tokenizer.tokenizer
        self._unknown = inner.token_to_id("[UNK]")
        self._special = [token.content for token in inner.get_added_tokens_decoder().values()]

    def encode(self, text: str) -> list[int]:
        """Text ids of a chunk, without start and stop; the package's, for text it can say."""
        text = normalize_punctuation(text)
        while found := next((token for token in self._special if token in text), None):
            text = text.replace(found, found.strip("[]"))  # "[STOP]" in a text is a word, not a command
        return [token for token in self._tokenizer.encode(text) if token != self._unknown]

    def unspeakable(self, text: str) -> str:
        """The characters of a text that the model has no token for, each once, in order."""
        distinct = dict.fromkeys("".join(normalize_punctuation(text).split())) if text.strip() else {}
        return "".join(character for character in distinct if self._unknown in self._tokenizer.encode(character))
