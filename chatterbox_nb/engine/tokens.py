"""Text to a model's own text ids: the interface, and which tokenizer a model has."""

from __future__ import annotations

from typing import Protocol

from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.engine.tokenizers.cangjie import Cangjie
from chatterbox_nb.engine.tokenizers.gpt2 import Gpt2
from chatterbox_nb.engine.tokenizers.graphemes import English
from chatterbox_nb.engine.tokenizers.multilingual import Multilingual


class TextTokenizer(Protocol):
    """A model's tokenizer.

    Args:
        tags: words in brackets that it has a token for.
    """

    tags: tuple[str, ...]

    def encode(self, text: str, language: str) -> list[int]:
        """Text ids of a chunk, without the model's start and stop; the package's, for text it can say."""

    def unspeakable(self, text: str, language: str) -> str:
        """The characters of a text that the model has no token for, each once, in order."""

    def warnings(self, text: str, language: str) -> list[str]:
        """What the listener of a text should know, besides the characters that were skipped."""


def tokenizer_of(spec: ModelSpec, files: Files) -> TextTokenizer:
    """The tokenizer of a model.

    Raises:
        SourceError: a file is not of this model's tokenizer.
    """
    path, vocabulary, rules, name = files.path("tokenizer"), spec.t3.text_vocab, spec.text, spec.name
    if spec.tokenizer == "gpt2":
        return Gpt2(path, files.path("merges"), files.path("added_tokens"), vocabulary, rules, name)
    if spec.tokenizer == "multilingual":
        return Multilingual(path, vocabulary, spec.languages, Cangjie(files.path("cangjie")), rules, name)
    return English(path, vocabulary, rules, name)
