"""The languages that models speak, as data: their names, and what differs in how much of one is spoken in one go.

Knows nothing of models; which languages one has, its spec says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from chatterbox_nb.errors import SettingError, nearest
from chatterbox_nb.text import TextRules


@dataclass(frozen=True)
class Language:
    """A language, beside English.

    Args:
        name: in English.
        chars: characters that take as long to say as one of English.
        tokens: speech tokens for a text token, as a part of English's.
        joiner: what stands between two sentences.
    """

    name: str
    chars: float = 1.0
    tokens: float = 1.0
    joiner: str = " "


# A chunk ends at 1,000 speech tokens, 40 s, in any case, and should end long before. So where a character says more,
# a chunk has fewer. A Chinese character is a syllable and a Japanese one a mora or two, of which 5.2 and 7.8 are said
# in a second (Pellegrino, Coupé and Marsico 2011): 98 characters are 19 and at the most 25 s. Korean writes a syllable
# as one character, but spaces too; Arabic, Hebrew and Hindi leave most short vowels unwritten.
# Cangjie writes a Chinese character as some five text tokens, and jamo a Korean syllable as two or three.
LANGUAGES: Mapping[str, Language] = {
    "ar": Language("Arabic", chars=0.75),
    "da": Language("Danish"),
    "de": Language("German"),
    "el": Language("Greek"),
    "en": Language("English"),
    "es": Language("Spanish"),
    "fi": Language("Finnish"),
    "fr": Language("French"),
    "he": Language("Hebrew", chars=0.75),
    "hi": Language("Hindi", chars=0.75),
    "it": Language("Italian"),
    "ja": Language("Japanese", chars=0.35, joiner=""),
    "ko": Language("Korean", chars=0.5, tokens=0.5),
    "ms": Language("Malay"),
    "nl": Language("Dutch"),
    "no": Language("Norwegian"),
    "pl": Language("Polish"),
    "pt": Language("Portuguese"),
    "ru": Language("Russian"),
    "sv": Language("Swedish"),
    "sw": Language("Swahili"),
    "tr": Language("Turkish"),
    "zh": Language("Chinese", chars=0.35, tokens=0.3, joiner=""),
}
# Other codes and names of these.
_ALSO = {"cmn": "zh", "mandarin": "zh", "nb": "no", "nn": "no", "iw": "he"}


def find(said: str, spoken: Sequence[str], model: str) -> str:
    """The code of a language that a model speaks.

    Args:
        said: a code ("fr"), one with a region ("pt-br", "zh_CN"), or the English name.
        spoken: the model's codes.
        model: its name, for the message.

    Raises:
        SettingError: it speaks another; the message lists those there are.
    """
    by_name = {name_of(code).lower(): code for code in spoken}
    word = said.strip().lower().replace("_", "-")
    for candidate in (word, word.split("-")[0]):
        code = _ALSO.get(candidate, by_name.get(candidate, candidate))
        if code in spoken:
            return code
    listed = ", ".join(f"{code} ({name_of(code)})" for code in spoken)
    near = nearest(said, [*spoken, *map(name_of, spoken)])
    raise SettingError(f"{model} does not speak '{said}'; it speaks {listed}.{near}")


def name_of(code: str) -> str:
    """A language's English name; of one that is not in the table, its code."""
    return LANGUAGES[code].name if code in LANGUAGES else code


def rules_of(rules: TextRules, language: str) -> TextRules:
    """A model's text rules for one of its languages."""
    row = LANGUAGES.get(language, Language(language))
    return replace(
        rules,
        language=language,
        max_chars=round(rules.max_chars * row.chars),
        joiner=row.joiner,
        tokens_per_text_token=rules.tokens_per_text_token * row.tokens,
        budget_per_text_token=rules.budget_per_text_token * row.tokens,
    )
