"""Numbers as English words, for a model that never saw a digit: money, times, years, ordinals, versions, decimals.

The words of a single number are num2words'; here is how the digits of a text are told apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import partial

# Longer sequences of digits are read one by one: nobody says "one quintillion".
_LONGEST_NUMBER = 12
_YEARS = range(1100, 2100)
# Singular and plural of a currency and of its hundredth.
_CURRENCY = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
}
_MAGNITUDE = {"k": "thousand", "M": "million", "B": "billion", "bn": "billion"}
_FOREIGN_DIGIT = re.compile(r"[^\D0-9]")  # digits of other scripts, and none of ours
_RAISED = "[⁰¹²³⁴-⁹₀-₉]+"  # and lowered
_NUMERAL = r"(?P<numeral>(?<!\d)(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)"


def in_words(text: str) -> str:
    """The text with every digit, of whatever script, as words."""
    text = _FOREIGN_DIGIT.sub(lambda match: str(unicodedata.digit(match[0])), text)
    for pattern, read in _READINGS:
        text = pattern.sub(partial(_in_words, read), text)
    return text


def _in_words(read: Callable[[re.Match[str]], str], match: re.Match[str]) -> str:
    """The words, kept apart from letters on either side: "x2y" is "x two y"."""
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    return f"{' ' if before.isalnum() else ''}{read(match)}{' ' if after.isalpha() else ''}"


def _time(match: re.Match[str]) -> str:
    minutes = match["minutes"]
    if minutes == "00":
        return f"{_cardinal(match['hours'])} o'clock"
    return f"{_cardinal(match['hours'])} {'oh ' if minutes[0] == '0' else ''}{_cardinal(minutes.lstrip('0'))}"


def _money(match: re.Match[str]) -> str:
    one, many, cent, cents = _CURRENCY[match["sign"]]
    numeral, magnitude = match["numeral"], match.groupdict().get("magnitude")
    units, _, hundredths = numeral.replace(",", "").partition(".")
    if magnitude:
        return f"{_decimal(numeral)} {_MAGNITUDE.get(magnitude, magnitude)} {many}"
    if len(hundredths) not in (0, 2):
        return f"{_decimal(numeral)} {many}"
    parts = []
    if units.strip("0") or not hundredths.strip("0"):
        parts.append(f"{_cardinal(units or '0')} {one if units.lstrip('0') == '1' else many}")
    if hundredths.strip("0"):
        parts.append(f"{_cardinal(hundredths.lstrip('0'))} {cent if hundredths == '01' else cents}")
    return " and ".join(parts)


def _version(match: re.Match[str]) -> str:
    return " point ".join(_cardinal(part) for part in match[0].split("."))


def _number(match: re.Match[str]) -> str:
    numeral = match["numeral"] or "".join(str(unicodedata.digit(digit)) for digit in match["raised"])
    ending = match["ending"]
    if match["percent"]:
        return f"{_decimal(numeral)} percent"
    whole = numeral.replace(",", "")
    if not ending:
        return _year(numeral) or _decimal(numeral)
    if "." in whole or len(whole) > _LONGEST_NUMBER:
        return f"{_decimal(numeral)} {ending}"
    if ending == "s":
        words = _year(numeral) or _decimal(numeral)
        return words[:-1] + "ies" if words.endswith("y") else words + ("es" if words.endswith("x") else "s")
    return _num2words(int(whole), "ordinal")


def _year(numeral: str) -> str:
    """1990 is "nineteen ninety", as a year and as good as that for a number; 1,990 is not."""
    year = len(numeral) == 4 and numeral.isdecimal() and int(numeral) in _YEARS
    return _num2words(int(numeral), "year") if year else ""


def _decimal(numeral: str) -> str:
    whole, point, decimals = numeral.replace(",", "").partition(".")
    words = ([_cardinal(whole)] if whole else []) + (["point"] if point else [])
    return " ".join(words + [_cardinal(digit) for digit in decimals])


def _cardinal(digits: str) -> str:
    if len(digits) > _LONGEST_NUMBER or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(_num2words(int(digit)) for digit in digits)
    return _num2words(int(digits))


def _num2words(number: int, to: str = "cardinal") -> str:
    from num2words import num2words

    return str(num2words(number, to=to)).replace("-", " ").replace(",", "")


# How the digits of a text are read, one pattern after the other; the last leaves no digit.
_READINGS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"(?<![^\s(])[-−](?=[$€£]?\s?\.?\d)"), lambda match: "minus "),
    (re.compile(r"(?<![\d:])(?P<hours>\d{1,2}):(?P<minutes>[0-5]\d)(?![\d:])"), _time),
    (
        re.compile(
            rf"(?P<sign>[$€£])\s?{_NUMERAL}"
            r"(?:\s?(?P<magnitude>(?:thousand|million|billion|trillion)\b|(?<=\d)(?:k|M|B|bn)\b))?"
        ),
        _money,
    ),
    (re.compile(rf"(?<!\d\.){_NUMERAL}\s?(?P<sign>[$€£])"), _money),
    (re.compile(r"(?<!\d)\d+(?:\.\d+){2,}"), _version),
    (re.compile(rf"(?:{_NUMERAL}|(?P<raised>{_RAISED}))(?:(?P<ending>st|nd|rd|th|s)\b|\s?(?P<percent>%))?"), _number),
)
