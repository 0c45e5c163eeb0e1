"""The multilingual models' tokenizer: a token for the language, then letters in lower case, taken apart from marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

from chatterbox_nb.engine.tokenizers.cangjie import Cangjie
from chatterbox_nb.engine.tokenizers.graphemes import English
from chatterbox_nb.engine.tokenizers.readers import HELP, Reader
from chatterbox_nb.text import TextRules, normalize_punctuation


class Multilingual(English):
    """What the package's `MTLTokenizer` gives, for text it can say.

    Args:
        languages: codes, each of which has a token `[xx]`.
        cangjie: the checkpoint's table, for Chinese.

    Other args and errors: as of `English`.
    """

    def __init__(
        self, path: Path, vocabulary: int, languages: Sequence[str], cangjie: Cangjie, rules: TextRules, name: str
    ) -> None:
        super().__init__(path, vocabulary, rules, name, [f"[{code}]" for code in languages])
        self._cangjie = cangjie
        self._readers = {code: Reader(HELP[code]) for code in languages if code in HELP}

    def encode(self, text: str, language: str = "en") -> list[int]:
        """Text ids of a chunk, without start and stop; the package's, for text it can say."""
        plain = self._plain(normalize_punctuation(text, self.rules))
        read = f"[{language}]" + self._read(plain, language)
        return [token for token in self._ids(read) if token != self._unknown]

    def warnings(self, text: str, language: str = "en") -> list[str]:
        """Tags, which it has not, and what the text's language lacks here to be read as it should."""
        found = super().warnings(text, language)
        if (reader := self._readers.get(language)) and text.strip():
            problem = reader.problem(self._plain(normalize_punctuation(text, self.rules)))
            found += [problem] if problem else []
        return found

    def _plain(self, text: str) -> str:
        return self._without_commands(normalize("NFKD", text.lower()))

    def _read(self, plain: str, language: str, spelling: bool = False) -> str:
        """The text as its language is read; `spelling` leaves out what only puts marks to it."""
        reader = self._readers.get(language)
        if reader and (reader.help.spells or not spelling):
            plain = reader(plain)
        if language == "zh":
            return self._cangjie(plain)
        if language == "ja":
            return normalize("NFKD", plain)
        return plain.strip() if language == "ko" else plain

    def _cannot_say(self, character: str, language: str) -> bool:
        read = self._read(self._plain(character), language, spelling=True)
        return not read.strip() or self._unknown in self._ids(read)
