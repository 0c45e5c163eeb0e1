"""Units and symbols as English words: "5 km/h", "20 °C", "1/2", "R&D", "#1". Numbers stay digits, for `numerals`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from chatterbox_nb.abbreviations import begin, ends_sentence
from chatterbox_nb.capitals import spelled

_UNITS = {
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "µm": "micrometer", "nm": "nanometer",
    "mi": "mile", "yd": "yard", "ft": "foot", "kg": "kilogram", "g": "gram", "mg": "milligram", "µg": "microgram",
    "lb": "pound", "lbs": "pound", "oz": "ounce", "l": "liter", "L": "liter", "ml": "milliliter", "mL": "milliliter",
    "cl": "centiliter", "tbsp": "tablespoon", "tsp": "teaspoon", "gal": "gallon", "qt": "quart",
    "s": "second", "sec": "second", "secs": "second", "ms": "millisecond", "µs": "microsecond", "ns": "nanosecond",
    "min": "minute", "mins": "minute", "h": "hour", "hr": "hour", "hrs": "hour", "yr": "year", "yrs": "year",
    "mph": "mile per hour", "kph": "kilometer per hour", "rpm": "revolution per minute", "fps": "frame per second",
    "bpm": "beat per minute", "B": "byte", "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte",
    "TB": "terabyte", "GiB": "gibibyte", "MiB": "mebibyte", "KiB": "kibibyte", "kbps": "kilobit per second",
    "Mbps": "megabit per second", "Gbps": "gigabit per second", "Gb": "gigabit", "Mb": "megabit", "kbit": "kilobit",
    "Mbit": "megabit", "Gbit": "gigabit", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz",
    "THz": "terahertz", "V": "volt", "kV": "kilovolt", "mV": "millivolt", "mA": "milliampere", "W": "watt",
    "mW": "milliwatt", "kW": "kilowatt", "MW": "megawatt", "GW": "gigawatt", "Wh": "watt hour", "kWh": "kilowatt hour",
    "mAh": "milliampere hour", "dB": "decibel", "Pa": "pascal", "hPa": "hectopascal", "kPa": "kilopascal",
    "kcal": "kilocalorie", "cal": "calorie", "kJ": "kilojoule", "px": "pixel", "°C": "degree celsius",
    "°F": "degree fahrenheit", "℃": "degree celsius", "℉": "degree fahrenheit", "°": "degree",
}  # fmt: skip
_PLURALS = {"foot": "feet", "hertz": "hertz", "kilohertz": "kilohertz", "megahertz": "megahertz",
            "gigahertz": "gigahertz", "terahertz": "terahertz"}  # fmt: skip
_POWERS = {"²": "square ", "³": "cubic "}
# These are something else right behind a digit ("the 80s", "2B"), or read better as letters.
_APART = ("s", "B", "V", "l", "L", "cal", "mi")
# These are units also without a number before them ("in km/h").
_ALONE = (
    "km", "cm", "mm", "kg", "mg", "ml", "mL", "kHz", "MHz", "GHz", "Hz", "kWh", "kB", "mph", "lb", "lbs", "oz", "tsp",
    "tbsp", "°C", "°F",
)  # fmt: skip
_ONE = "a|an|per|each|every|one|half|quarter"  # before a unit in the singular
_MAGNITUDES = {"k": "thousand", "K": "thousand", "m": "million", "M": "million", "b": "billion", "bn": "billion"}
_FRACTIONS = {
    "½": "one half", "⅓": "one third", "⅔": "two thirds", "¼": "one quarter", "¾": "three quarters",
    "⅕": "one fifth", "⅖": "two fifths", "⅗": "three fifths", "⅘": "four fifths", "⅙": "one sixth",
    "⅚": "five sixths", "⅛": "one eighth", "⅜": "three eighths", "⅝": "five eighths", "⅞": "seven eighths",
}  # fmt: skip
_PARTS = ("", "", "half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_SYMBOLS = {
    "&": "and", "+": "plus", "=": "equals", "@": "at", "%": "percent", "×": "times", "÷": "divided by",
    "±": "plus or minus", "≈": "about", "≤": "at most", "≥": "at least", "≠": "is not", "→": "to", "°": "degrees",
    "§": "section", "™": "trademark", "©": "copyright", "®": "registered", "№": "number",
}  # fmt: skip
_DOMAINS = "com|org|net|edu|gov|io|ai|dev|uk|de|eu"


def in_words(text: str) -> str:
    """The text with units and symbols as words."""
    for pattern, read in _READINGS:
        text = pattern.sub(read, text)
    return text


def _many(unit: str) -> str:
    """The plural: of "mile per hour" that of its first word."""
    if unit.startswith("degree"):
        return unit.replace("degree", "degrees")
    first, space, rest = unit.partition(" ")
    if first in ("square", "cubic"):
        return f"{first} {_many(rest)}"
    if rest.startswith("hour"):
        return unit + "s"
    return _PLURALS.get(first, first + ("es" if first.endswith("h") else "s")) + space + rest


def _power(match: re.Match[str]) -> str:
    return _POWERS.get(match["power"] or "", "")


def _per(match: re.Match[str]) -> str:
    return f" per {_UNITS[match['per']]}" if match["per"] else ""


def _unit(match: re.Match[str]) -> str:
    unit, number = _power(match) + _UNITS[match["unit"]], match["number"]
    if match["join"] == "-":
        return f"{number}-{unit}"
    stop = "." if match["dot"] and ends_sentence(match.string, match.end()) else ""
    return f"{number} {unit if number == '1' else _many(unit)}{_per(match)}{stop}"


def _unit_alone(match: re.Match[str]) -> str:
    unit = _power(match) + _UNITS[match["unit"]]
    stop = "." if match["dot"] and ends_sentence(match.string, match.end()) else ""
    return (match["one"] + unit if match["one"] else _many(unit)) + _per(match) + stop


def _inches(match: re.Match[str]) -> str:
    stop = "." if match["dot"] and ends_sentence(match.string, match.end()) else ""
    return f"{match['number']} {'inch' if match['number'] == '1' else 'inches'}{stop}"


def _feet(match: re.Match[str]) -> str:
    feet, inches = match["feet"], match["inches"]
    return f"{feet} {'foot' if feet == '1' else 'feet'} {inches} {'inch' if inches == '1' else 'inches'}"


def _fraction(match: re.Match[str]) -> str:
    """1/2 is one half; 24/7 and 9/11 are two numbers."""
    above, below = int(match["above"]), int(match["below"])
    if not (0 < above < below < len(_PARTS)):
        return f"{match['whole'] or ''}{match['above']} {match['below']}"
    part = _PARTS[below] if above == 1 else {"half": "halves"}.get(_PARTS[below], _PARTS[below] + "s")
    return f"{' and ' if match['whole'] else ''}{match['above']} {part}"


def _sign(match: re.Match[str]) -> str:
    return f"{'' if match['digit'] is None else 'and '}{_FRACTIONS[match['sign']]}"


def _slash(match: re.Match[str]) -> str:
    """In an address it is said; between words it is "or", between capitals nothing."""
    token = match[0]
    if "://" in token or re.search(r"[A-Za-z]\.[A-Za-z]|^[/~.]|/.*/", token):
        return re.sub(r"\s+", " ", token.replace("://", " ").replace("/", " slash ")).strip()
    between = " or " if re.fullmatch(r"[a-z'’-]{2,}/[a-z'’-]{2,}\W*", token) else " "
    return token.replace("/", between)


def _initials(match: re.Match[str]) -> str:
    """ "R&D", "AT&T": letters on both sides, whatever words they would be."""
    return begin(f"{spelled(match[1])} and {spelled(match[2])}", match.string, match.start())


def _spaced(match: re.Match[str], words: str) -> str:
    """The words, kept apart from what touches them."""
    text, start, end = match.string, match.start(), match.end()
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    left = " " if before.isalnum() or before in tuple("+-)%") else ""
    return f"{left}{words}{' ' if after.isalnum() or after in tuple('$€£(') else ''}"


def _apart(words: str | Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    """Reads a match as these words, or as its entry of a table."""
    return lambda match: _spaced(match, words if isinstance(words, str) else words[match[0].strip()[:1]])


def _one_of(words: object) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))  # type: ignore[call-overload]


_NUMBER = r"(?P<number>(?<![\w$€£.,/])\d[\d,]*(?:\.\d+)?|(?<![\w$€£.])\.\d+)"
_AFTER = rf"(?P<power>[²³]?)(?:/(?P<per>{_one_of(_UNITS)}))?(?![\w/°])"
_DOT = r"(?P<dot>\.(?!\w))?"
_READINGS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"µ|μ"), lambda match: "µ"),
    (re.compile(r"°\s(?=[CF]\b)"), lambda match: "°"),
    (re.compile(r"(?:(?<=\d)|(?<=°[CF]))\s?–\s?(?=\d)"), lambda match: " to "),
    (re.compile(r"(?<![\d:])(\d{1,3}):(\d)(?![\d:])"), lambda match: f"{match[1]} to {match[2]}"),
    (re.compile(r"""(?<![\w.])(?P<feet>\d+)['’′]\s?(?P<inches>\d+)(?:["”″]|'')"""), _feet),
    (
        re.compile(rf"(?P<digit>(?<=\d)\s?)?(?P<sign>[{''.join(_FRACTIONS)}])"),
        lambda match: _spaced(match, _sign(match)),
    ),
    (re.compile(r"(?<![\w/.])(\d{1,4})/(\d{1,2})/(\d{2,4})(?![\w/])"), lambda match: " ".join(match.groups())),
    (
        re.compile(r"(?:(?<=\d)(?P<whole>\s))?(?<![\w/.,$])(?P<above>\d{1,2})/(?P<below>\d{1,2})(?![\w/]|\.\d)"),
        _fraction,
    ),
    (
        re.compile(r"(?P<money>[$€£]\s?\d[\d,]*(?:\.\d+)?)\s?(?P<size>[kKmb]|(?<=\d)bn|(?<=\d)M)\b"),
        lambda match: f"{match['money']} {_MAGNITUDES[match['size']]}",
    ),
    (
        re.compile(rf"{_NUMBER}\s?(?P<size>bn|M|(?<=\d\d)[kK])\b"),
        lambda match: f"{match['number']} {_MAGNITUDES[match['size']]}",
    ),
    (
        re.compile(rf"{_NUMBER}\s?in(?:(?P<dot>\.)(?!\w)|(?P<none>(?=\s+(?:long|wide|tall|high|deep|thick|by|x)\b)))"),
        _inches,
    ),
    (re.compile(rf"{_NUMBER}(?P<join>-|\s)(?P<unit>{_one_of(_APART)}){_AFTER}{_DOT}"), _unit),
    (re.compile(rf"{_NUMBER}(?P<join>-|\s?)(?P<unit>{_one_of(set(_UNITS) - set(_APART))}){_AFTER}{_DOT}"), _unit),
    (
        re.compile(rf"(?P<one>\b(?:{_ONE}) )?(?<![\w'’/.°-])(?P<unit>{_one_of(_ALONE)}|k?m(?=[²³])){_AFTER}{_DOT}"),
        _unit_alone,
    ),
    (re.compile(rf"(?<=\d)/(?P<per>{_one_of(_UNITS)})\b"), _per),
    (re.compile(r"(?<=\d)/(?=[a-z]{2,}\b)"), lambda match: " per "),
    (re.compile(r"\bw/o\b"), lambda match: "without"),
    (re.compile(r"\bw/\s?(?=\w)"), lambda match: "with "),
    (re.compile(r"\b[nN]/[aA]\b"), lambda match: "not applicable"),
    (re.compile(r"\band/or\b"), lambda match: "and or"),
    (re.compile(r"(?<!\S)[^\s/]*/\S*[^\s/]\S*"), _slash),
    (re.compile(rf"(?<=\w)\.(?=(?:{_DOMAINS})\b)|(?<=www)\.(?=\w)"), lambda match: " dot "),
    (re.compile(r"(?<=[CFGA])#(?!\w)"), lambda match: " sharp"),
    (re.compile(r"#(?=\s?\d)"), _apart("number")),
    (re.compile(r"#(?=[A-Za-z])"), _apart("hashtag")),
    (re.compile(r"(?<=\d)\s?x\s?(?=\d)"), _apart("by")),
    (re.compile(r"(?<=\d)\s?\*\s?(?=\d)"), _apart("times")),
    (re.compile(r"(?<=\d)x\b"), lambda match: " times"),
    (re.compile(r"(?<=[\w)]) <= (?=[\w(-])"), lambda match: " is at most "),
    (re.compile(r"(?<=[\w)]) >= (?=[\w(-])"), lambda match: " is at least "),
    (re.compile(r"(?<=[\w)]) < (?=[\w(-])"), lambda match: " is less than "),
    (re.compile(r"(?<=[\w)]) > (?=[\w(-])"), lambda match: " is more than "),
    (re.compile(r"={2,}"), _apart("equals")),
    (re.compile(r"&{2,}"), _apart("and")),
    (re.compile(r"(?<!\w)([A-Z]{1,3})&([A-Z]{1,3})(?!\w)"), _initials),
    (re.compile(rf"(?<=\d)\s%|[{re.escape(''.join(_SYMBOLS))}]"), _apart(_SYMBOLS)),
    (re.compile(r"~(?=\s?\d)"), _apart("about")),
    (re.compile(r"(?<=[A-Za-z\d])_+(?=[A-Za-z\d])"), lambda match: " "),
)
