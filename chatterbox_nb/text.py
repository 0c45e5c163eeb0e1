"""Text before it becomes tokens: sentence chunks, a model's text rules, strict `{name}` expansion.

Knows nothing of tokenizers or models; what a model needs of its text is data, `TextRules`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chatterbox_nb import abbreviations, capitals, characters, numerals, symbols
from chatterbox_nb.errors import TextError, nearest


@dataclass(frozen=True)
class TextRules:
    """What a model needs of its text.

    Args:
        language: ISO 639-1 code, for sentence boundaries.
        max_chars: longest chunk, in characters after the rules were applied.
        lowercase: speak everything in lower case.
        plain_characters: fold accents (café, cafe) and write brackets as commas, for a model with few characters.
        abbreviations_as_words: write English abbreviations, units, symbols and capitals out ("Dr.", "5 kg", "USB").
        digits_as_words: write numbers out in English, for an English model that never saw a digit.
        kept_punctuation: of what `normalize_punctuation` replaces, what stays as it is.
        sentence_enders: a chunk ends in one of these, or a full stop is put there.
        joiner: what stands between two sentences of a chunk.
        tags: words in brackets that the model speaks as a sound; never cut.
        sentence_pause: seconds of silence between two chunks of one paragraph.
        paragraph_pause: seconds of silence between two paragraphs.
        tokens_per_text_token: speech tokens that one text token usually takes, for estimates of time left.
        budget_per_text_token: speech tokens allowed for each text token before a take counts as run away.
        budget_base: speech tokens allowed on top of that.
    """

    language: str = "en"
    max_chars: int = 280
    lowercase: bool = False
    plain_characters: bool = False
    abbreviations_as_words: bool = False
    digits_as_words: bool = False
    kept_punctuation: tuple[str, ...] = ()
    sentence_enders: str = ".!?-,"
    joiner: str = " "
    tags: tuple[str, ...] = ()
    sentence_pause: float = 0.15
    paragraph_pause: float = 0.5
    tokens_per_text_token: float = 3.0
    budget_per_text_token: float = 10.0
    budget_base: int = 100

    def budget(self, text_tokens: int) -> int:
        """Speech tokens that a chunk of this many text tokens may take."""
        return int(self.budget_base + self.budget_per_text_token * text_tokens)


@dataclass(frozen=True)
class Chunk:
    """A piece of text spoken in one go, and the seconds of silence after it."""

    text: str
    pause_seconds: float


_CLAUSE_END = re.compile(r"(?<=[,;:—–])\s+|(?<=[、，；：])(?!$)")
_PARAGRAPH_END = re.compile(r"\n\s*\n")
_SURROGATE = re.compile("[\ud800-\udfff]")

# What the package's own `punc_norm` replaces, in its order.
_PUNCTUATION = (
    ("...", ", "), ("…", ", "), (":", ","), (" - ", ", "), (";", ", "), ("—", "-"), ("–", "-"), (" ,", ","),
    ("“", '"'), ("”", '"'), ("‘", "'"), ("’", "'"),
)  # fmt: skip


def chunks(text: str, rules: TextRules, max_chars: int | None = None) -> list[Chunk]:
    """Cuts text at sentence ends into pieces of at most `max_chars` characters.

    Args:
        text: any text; blank lines separate paragraphs, single line breaks are spaces.
        rules: the model's text rules.
        max_chars: a smaller or larger limit than the rules'.

    Raises:
        TextError: there is nothing to speak, half a character, or the limit is below 10 characters.
    """
    limit = rules.max_chars if max_chars is None else max_chars
    if limit < 10:
        raise TextError(f"A chunk of {limit} characters is too short to speak; the smallest is 10.")
    if half := _SURROGATE.search(text):
        raise TextError(
            f"Character {half.start() + 1} of the text is half of one (U+{ord(half[0]):04X}): "
            "it was read in the wrong encoding. Open the file with encoding='utf-8'."
        )
    found: list[Chunk] = []
    for paragraph in _PARAGRAPH_END.split(text):
        pieces = [piece for piece in _pack(_sentences(paragraph, rules), limit, rules) if _speakable(piece)]
        found += [Chunk(piece, rules.sentence_pause) for piece in pieces]
        if pieces:
            found[-1] = Chunk(found[-1].text, rules.paragraph_pause)
    if not found:
        if text.strip():
            raise TextError(f"Nothing in '{_in_short(text)}' can be spoken: there is no letter and no digit.")
        raise TextError("There is no text to speak. Write it after the options, or below the %%tts line.")
    found[-1] = Chunk(found[-1].text, 0.0)
    return found


def _sentences(paragraph: str, rules: TextRules) -> Iterator[str]:
    import sentencex

    for sentence in sentencex.segment(rules.language, _written_out(" ".join(paragraph.split()), rules)):
        spoken = _in_words(sentence.strip(), rules)
        if _speakable(spoken):
            yield spoken


def _speakable(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _in_short(text: str) -> str:
    """The beginning of a text, for a message of one line."""
    text = " ".join(text.split())
    return text if len(text) <= 40 else text[:39] + "…"


def _pack(sentences: Iterator[str], limit: int, rules: TextRules, joiner: str | None = None) -> Iterator[str]:
    """Joins short sentences and cuts long ones, so that each piece has at most `limit` characters."""
    joiner = rules.joiner if joiner is None else joiner
    held = ""
    for sentence in sentences:
        for piece in _cut(sentence, limit, rules):
            if held and len(held) + len(joiner) + len(piece) > limit:
                yield held
                held = piece
            else:
                held = f"{held}{joiner}{piece}" if held else piece
    if held:
        yield held


def _cut(sentence: str, limit: int, rules: TextRules) -> Iterator[str]:
    """A sentence that is too long is cut after clauses, then between words, then anywhere but in a tag."""
    if len(sentence) <= limit:
        yield sentence
        return
    clauses = _CLAUSE_END.split(sentence)
    if len(clauses) > 1:
        yield from _pack(iter(clauses), limit, rules)
        return
    whole = "|".join(map(re.escape, rules.tags)) + "|" * bool(rules.tags)
    words = re.findall(rf"(?:{whole}\S)+", sentence)
    if len(words) > 1:
        yield from _pack(iter(words), limit, rules, joiner=" ")
        return
    piece = ""
    for unit in re.findall(rf"{whole}.", sentence, re.DOTALL):
        if piece and len(piece) + len(unit) > limit:
            yield piece
            piece = ""
        piece += unit
    yield piece


def apply_rules(text: str, rules: TextRules) -> str:
    """The model's own rules, each where they ask for it, in this order.

    1. `characters.fold`: letters and quotes as the nearest plain ones, so that what follows knows them.
    2. `symbols`: units while their numbers are digits ("5 ft." before "Ft. Worth"), then signs ("R&D", "C++").
    3. `abbreviations`: their full stops go, but for those that end a sentence.
    4. `capitals`: initialisms, shouting and Roman numerals; before sentences, for the full stops of "U.S.".
    5. `characters.without_brackets`. `chunks` looks for sentence ends here, where a full stop is one.
    6. `numerals`: what digits are left.
    7. Lower case, which only now nobody needs.
    """
    return _in_words(_written_out(text, rules), rules)


def _written_out(text: str, rules: TextRules) -> str:
    """The rules that come before sentences are told apart."""
    if rules.plain_characters:
        text = characters.fold(text)
    if rules.abbreviations_as_words:
        text = capitals.in_words(abbreviations.in_words(symbols.in_words(text)))
    return characters.without_brackets(text) if rules.plain_characters else text


def _in_words(text: str, rules: TextRules) -> str:
    """The rules that come after."""
    if rules.digits_as_words:
        text = numerals.in_words(text)
    return text.lower() if rules.lowercase else text


_PLAIN = TextRules()


def normalize_punctuation(text: str, rules: TextRules = _PLAIN) -> str:
    """What the package does to text before it is tokenized (`punc_norm`), for text that is not empty."""
    if text[0].islower():
        text = text[0].upper() + text[1:]
    text = " ".join(text.split())
    for old, new in _PUNCTUATION:
        if old not in rules.kept_punctuation:
            text = text.replace(old, new)
    text = text.rstrip(" ")
    return text if text.endswith(tuple(rules.sentence_enders)) else text + "."


_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def expand(text: str, names: Mapping[str, Any]) -> str:
    """Replaces `{name}` by the value of that name; `{{` and `}}` are braces. Nothing is evaluated.

    Raises:
        TextError: the name is unknown, or a brace has no partner.
    """

    def value(match: re.Match[str]) -> str:
        whole, name = match[0], match[1]
        if whole in ("{{", "}}"):
            return whole[0]
        if name is None:
            raise TextError(f"A single '{whole}' in the text. Write '{whole * 2}' to speak around it.")
        name = name.strip()
        if not name:
            raise TextError("An empty pair of braces in the text. Write '{{}}' to speak around it.")
        if name not in names:
            raise TextError(f"There is no variable '{_in_short(name)}' to put into the text.{nearest(name, names)}")
        return str(names[name])

    return _BRACES.sub(value, text)
