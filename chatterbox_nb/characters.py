"""Letters and marks as the nearest of `a-z . , ! ? ' - "`, for a model that has few characters.

What has no near one (other scripts, emoji) stays, so that the tokenizer can say that it was skipped.
"""

from __future__ import annotations

import re
import unicodedata

_NEAREST = str.maketrans(
    {
        "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L",
        "đ": "d", "Đ": "D", "ð": "th", "Ð": "Th", "þ": "th", "Þ": "Th", "ı": "i", "ħ": "h", "Ħ": "H", "ŋ": "ng",
        "«": '"', "»": '"', "„": '"', "‟": '"', "‹": "'", "›": "'", "‚": "'", "‛": "'", "`": "'", "´": "'", "ʼ": "'",
        "º": "°", "¿": "", "¡": "", "‐": "-", "‑": "-", "‒": "–", "―": "—", "\u00ad": "", "\u200b": "", "\ufeff": "",
    }
)  # fmt: skip
_MARKS = re.compile("(?<=[A-Za-z])[\u0300-\u036f]+")
_OPENING = re.compile(r"\s*[(\[{]+\s*")
_CLOSING = re.compile(r"\s*[)\]}]+(?P<next>\s*[.,;:!?)]|\s*$)?")


def fold(text: str) -> str:
    """The text with Latin letters without accents, and quotes and hyphens of one kind each."""
    if text.isascii():
        return text
    opened = "".join(map(_decomposed, text.translate(_NEAREST)))
    return unicodedata.normalize("NFC", _MARKS.sub("", opened))  # other scripts are put together again


def _decomposed(character: str) -> str:
    """A letter as base and marks; what is no letter, such as ½ or ℃, is left for other rules."""
    if unicodedata.decomposition(character).startswith("<circle>"):  # ①
        return f" {unicodedata.normalize('NFKD', character)} "
    letter = unicodedata.category(character)[0] == "L" or unicodedata.category(character) in ("Mn", "Nl")
    return unicodedata.normalize("NFKD", character) if letter else character


def without_brackets(text: str) -> str:
    """Brackets as commas, where none of the punctuation around them does already: an aside between two pauses."""
    text = _OPENING.sub(_opened, text.replace("(s)", "s"))
    return _CLOSING.sub(_closed, text)


def _opened(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - 1) : match.start()]
    return match[0][:1].strip("([{") if not before else " " if before in tuple(".,;:!?\"'“‘-—–([{") else ", "


def _closed(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - 1) : match.start()]
    return match["next"] if match["next"] is not None else "" if before in tuple(".,;:!?") or not before else ","
