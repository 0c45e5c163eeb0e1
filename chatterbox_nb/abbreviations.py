"""Abbreviations as English words: titles, streets, firms, Latin, months, weekdays.

"Dr. Smith" is one sentence afterwards. A full stop stays where the abbreviation ends its sentence too;
`ends_sentence` guesses that from what follows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def table(words: str) -> frozenset[str]:
    """The words of a text, for tables that are read across."""
    return frozenset(words.split())


# Before a name; the full stop may be missing ("Dr Smith").
_TITLES = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "st": "saint", "mt": "mount",
    "ft": "fort", "gen": "general", "col": "colonel", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant",
    "maj": "major", "rev": "reverend", "gov": "governor", "sen": "senator", "rep": "representative",
    "pres": "president", "hon": "honorable", "supt": "superintendent", "cmdr": "commander",
}  # fmt: skip
# These stand without a full stop only as what they are in these texts.
_BARE_TITLES = ("mr", "mrs", "ms", "dr", "prof", "st", "mt", "sgt", "capt", "lt")
# After a name.
_TAILS = {
    "jr": "junior", "sr": "senior", "esq": "esquire", "inc": "incorporated", "ltd": "limited", "co": "company",
    "corp": "corporation", "bros": "brothers", "dept": "department", "ave": "avenue", "blvd": "boulevard", "rd": "road",
    "ln": "lane", "hwy": "highway", "sq": "square", "univ": "university", "apt": "apartment", "assn": "association",
    "govt": "government",
}  # fmt: skip
_STREETS = {"st": "Street", "dr": "Drive"}
_LOWER_TAILS = ("jr", "sr", "inc", "ltd", "corp", "dept", "govt", "blvd")
_BARE_TAILS = ("jr", "sr", "inc", "ltd", "corp", "blvd", "dept", "rd", "hwy", "govt")
# Anywhere, in lower case or not.
_WORDS = {
    "etc": "et cetera", "vs": "versus", "approx": "approximately", "e.g": "for example", "i.e": "that is",
    "cf": "compare", "viz": "namely", "ca": "circa", "incl": "including", "excl": "excluding", "misc": "miscellaneous",
    "tel": "telephone", "et al": "et al",
}  # fmt: skip
_BARE_WORDS = ("etc", "vs", "approx")
# Before a number.
_COUNTED = {
    "no": "number", "nos": "numbers", "vol": "volume", "ch": "chapter", "fig": "figure", "figs": "figures",
    "sec": "section", "p": "page", "pp": "pages", "ext": "extension", "eq": "equation", "min": "minimum",
    "max": "maximum", "rm": "room", "mk": "mark",
}  # fmt: skip
_MONTHS = {
    "jan": "january", "feb": "february", "mar": "march", "apr": "april", "jun": "june", "jul": "july", "aug": "august",
    "sep": "september", "sept": "september", "oct": "october", "nov": "november", "dec": "december",
}  # fmt: skip
_DAYS = {
    "mon": "monday", "tue": "tuesday", "tues": "tuesday", "wed": "wednesday", "thu": "thursday", "thur": "thursday",
    "thurs": "thursday", "fri": "friday", "sat": "saturday", "sun": "sunday",
}  # fmt: skip
_DATES = {**_MONTHS, **_DAYS}
# What stands before a date: "in Jan.", "on Sun.", but not "under the Sun."
_BEFORE_DATES = (
    "in|on|since|until|till|last|next|by|from|to|of|early|late|mid|this|every|each|before|after|during|through|and|or"
)
# Capitalised words that begin a sentence more often than they go on with a name: "in the U.S. He", not "U.S. Army".
STARTERS = table(
    """
    A After All Although An And Another Are As At Because Before Both But By Can Could Did Do Does Each Every Everyone
    Few For From Had Has Have He Her Here His How However I If In Is It Its Later Let Many Maybe Meanwhile Most My Next
    No Nobody Not Now On Once Or Our Perhaps Please She Should Since So Some Someone Soon Still That The Their Then
    There These They This Those Though Today Tomorrow Until Was We Were What When Where Which While Who Why Will With
    Without Would Yes Yesterday Yet You Your
    """
)
_DATE_WORDS = frozenset(word.capitalize() for word in (*_DATES, *_DATES.values()))
_END = re.compile(r"""["'”’)\]]*(?:\s*$|\s+["'“‘(\[]*(?P<next>[^\W\d_][\w'’]*))""")


def ends_sentence(text: str, position: int, *, name_follows: bool = False) -> bool:
    """Whether a sentence ends at the full stop before this position: nothing follows, or a word that begins one.

    Args:
        name_follows: a name may follow, as after "U.S.": only words like "The" and "He" begin a sentence then.
    """
    found = _END.match(text[position : position + 60])
    if not found:
        return False
    following = found["next"]
    if following is None or following in STARTERS:
        return True
    if name_follows or following in _DATE_WORDS or (following.isupper() and len(following) > 1):
        return False
    return following[0].isupper()


def begin(words: str, text: str, position: int) -> str:
    """The words, with a capital where they begin a sentence, so that it is still seen to begin there."""
    before = text[max(0, position - 8) : position].rstrip(" \n\t\"'“‘([")
    first = not before if position <= 8 else False
    return words[:1].upper() + words[1:] if first or before[-1:] in tuple(".!?…") else words


def in_words(text: str) -> str:
    """The text with its abbreviations as words, in the case they were written in."""
    for pattern, read in _READINGS:
        text = pattern.sub(read, text)
    return text


def _as_written(written: str, words: str) -> str:
    if written.isupper() and len(written) > 1:
        return words.upper()
    return words.capitalize() if written[0].isupper() else words


def _stop(match: re.Match[str], *, name_follows: bool = False) -> str:
    """The full stop of an abbreviation, if it ends the sentence too."""
    dotted = match[0].endswith(".")
    return "." if dotted and ends_sentence(match.string, match.end(), name_follows=name_follows) else ""


def _title(match: re.Match[str]) -> str:
    return _as_written(match["short"], _TITLES[match["short"].lower()])


def _street(match: re.Match[str]) -> str:
    return match["lead"] + _STREETS[match["short"].lower()] + _stop(match, name_follows=True)


def _tail(match: re.Match[str]) -> str:
    return _as_written(match["short"], _TAILS[match["short"].lower()]) + _stop(match, name_follows=True)


def _word(match: re.Match[str]) -> str:
    short = match["short"].lower()
    return _as_written(match["short"], _WORDS[short]) + (_stop(match) if short in ("etc", "et al") else "")


def _counted(match: re.Match[str]) -> str:
    return _as_written(match["short"], _COUNTED[match["short"].lower()])


def _date(match: re.Match[str]) -> str:
    return match["lead"] + _DATES[match["short"].lower()].capitalize() + _stop(match)


def _days(match: re.Match[str]) -> str:
    return f"{_DAYS[match['first'].lower()].capitalize()} to {_DAYS[match['last'].lower()].capitalize()}"


def _one_of(forms: Iterable[str]) -> str:
    return "(?P<short>" + "|".join(map(re.escape, sorted(forms, key=len, reverse=True))) + ")"


def _capitalized(words: Iterable[str]) -> str:
    return _one_of(word.capitalize() for word in words)


def _in_capitals_or_so(words: Iterable[str]) -> str:
    words = tuple(words)
    return _one_of([word.capitalize() for word in words] + [word.upper() for word in words])


_EACH_DAY = "|".join(day.capitalize() for day in _DAYS)
_START = r"(?<![\w.])"
_NAME = r"(?=\s+[\"'“‘]?[A-Z])"
_NO_NAME = rf"(?!\s+(?!(?:{'|'.join(sorted(STARTERS))})\b)[A-Z])"
_READINGS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(rf"(?P<lead>\b\d+ (?:[A-Z][a-z]+ ){{1,3}}|\d(?:st|nd|rd|th) ){_capitalized(_STREETS)}\b\.?"), _street),
    (re.compile(rf"(?P<lead>\b[A-Z][a-z]+ )(?P<short>St)(?:\.|(?![.\w])){_NO_NAME}"), _street),
    (re.compile(rf"{_START}{_in_capitals_or_so(_TITLES)}\.{_NAME}"), _title),
    (re.compile(rf"{_START}{_capitalized(_BARE_TITLES)}{_NAME}"), _title),
    (re.compile(rf"{_START}{_in_capitals_or_so(_TAILS)}\."), _tail),
    (re.compile(rf"{_START}{_one_of(_LOWER_TAILS)}\."), _tail),
    (re.compile(rf"{_START}{_capitalized(_BARE_TAILS)}\b(?!['’])"), _tail),
    (re.compile(rf"{_START}(?i:{_one_of(_WORDS)})\."), _word),
    (re.compile(rf"{_START}(?i:{_one_of(_BARE_WORDS)})\b(?!['’])"), _word),
    (re.compile(rf"{_START}(?P<short>min|max)\.(?=\s+[a-z\d])"), _counted),
    (re.compile(rf"{_START}(?i:{_one_of(_COUNTED)})\.(?=\s?\d|\s[IVX]+\b)"), _counted),
    (re.compile(rf"\b(?P<first>{_EACH_DAY})\.?\s?[-–]\s?(?P<last>{_EACH_DAY})\b"), _days),
    (re.compile(rf"(?P<lead>\b(?i:{_BEFORE_DATES}) ){_in_capitals_or_so(_DATES)}\."), _date),
    (re.compile(rf"(?P<lead>{_START}){_in_capitals_or_so(_DATES)}\.(?=\s?\d|\s+[a-z]|\s*[,;–-])"), _date),
    (re.compile(rf"(?P<lead>\b\d+ ){_capitalized(_MONTHS)}\b\.?"), _date),
    (re.compile(rf"(?P<lead>{_START}){_capitalized(_MONTHS)}(?=\s\d)"), _date),
)
