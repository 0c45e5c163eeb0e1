"""Capitals as English words: initialisms by the names of their letters, acronyms, shouting, Roman numerals.

A word in capitals is read as a word where it is one that is known, where it has four letters or more and could be
English, or where its neighbours shout too. Every other is spelled: "USB" is "you ess bee".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import groupby

from chatterbox_nb.abbreviations import STARTERS, begin, ends_sentence, table

LETTERS = {
    "a": "ay", "b": "bee", "c": "see", "d": "dee", "e": "ee", "f": "eff", "g": "gee", "h": "aitch", "i": "eye",
    "j": "jay", "k": "kay", "l": "ell", "m": "em", "n": "en", "o": "oh", "p": "pee", "q": "cue", "r": "ar", "s": "ess",
    "t": "tee", "u": "you", "v": "vee", "w": "double you", "x": "ex", "y": "why", "z": "zee",
}  # fmt: skip
# Read neither as a word nor by the letters.
_SPOKEN = {
    "OK": "okay", "OKAY": "okay", "JPEG": "jay peg", "JPG": "jay peg", "MPEG": "em peg", "ASCII": "asky",
    "JSON": "jay son", "YAML": "yammel", "SQL": "sequel", "GUI": "gooey", "SCSI": "scuzzy", "IEEE": "eye triple ee",
    "NAACP": "en double ay see pee", "WWI": "world war one", "WWII": "world war two",
}  # fmt: skip
# Short words that are written in capitals to stress them, and short acronyms that are words.
_WORDS = table(
    """
    am an and any are as ask at be big but buy by can cut day did do dog end few for get go got had has have he her
    him his hot how if in is its job just let lot man many may me men much must my new no nor not now of off oh
    old on one only or our out own put red run said say see set she so some stop ten than that the them then
    they this to too top try two up use very want was way we well were what when who why will win with yes yet
    you your aids bios captcha covid dos dram fifa gif laser lan nasa nato opec pin radar ram rom sars scuba sim
    sonar swat unesco unicef wan zip
    """
)
# Spelled although they could be words, also where all around them is in capitals.
_INITIALISMS = table(
    """
    aarp aclu ai aka api asap bbc cia cpu dna eu fbi gpu hiv ibm imho ip irs iq nba nyse os rsvp
    tv ucla uefi uk un url usa usaf usb usda vip
    """
)
_AMBIGUOUS = ("it",)  # a word where its neighbours shout
_ONSETS = table(
    """
    b bl br c ch chr cl cr d dr dw f fl fr g gh gl gn gr h j k kl kn kr l m mn n p ph phr pl pr ps q qu r rh s
    sc sch scr sh shr sk sl sm sn sp spl spr sq st str sw t th thr tr tw v w wh wr x y z
    """
) | {""}
_CODAS = table(
    """
    b bb bs bt c ch ck cks cs ct cts d dd dg ds dth f ff ffs fs ft fts g gg gh ghs ght ghts gn gns gs h k ks l
    lb lc lch ld lds lf lfs lk lks ll lls lm lms lp lps ls lsh lt lth lts ltz lv m mb mbs mm mn mp mps mpt ms n
    nc nch nct nd nds ng ngs ngth nk nks nn ns nst nt nth nths nts p ph phs pp ps pt pts q r rb rbs rc rch rd
    rds rf rfs rg rk rks rl rls rm rms rn rns rp rps rr rs rsh rst rt rth rths rts rv s sc sh sk sks sm sms sp
    ss st sts t tch th ths ts tt tts tz v w wd wk wks wl wls wn wns ws x xt xth xths xts z zz
    """
) | {""}
# After these nouns "A" is no article.
_LETTERED = (
    "plan|vitamin|type|grade|option|team|group|class|section|part|appendix|exhibit|hepatitis|influenza|point|letter|"
    "letters|answer|side|block|building|gate|platform|room|size|row|column|model|series|league|variant|figure"
)
# After these a Roman numeral is a number.
_NUMBERED = (
    "war|part|type|class|section|appendix|group|figure|plate|chapter|act|scene|volume|book|article|title|phase|stage|"
    "level|table|episode|season|round|division|case|unit|schedule|tier|bowl|psalm|sonnet|symphony|sonata|opus|canto|"
    "apollo|vatican|mark|page|number|category|factor"
)
_REIGNING = (
    "Adrian|Albert|Alexander|Alexios|Alfonso|Anne|Benedict|Boniface|Carlos|Catherine|Celestine|Charles|Christian|"
    "Clement|Constantine|Edward|Elizabeth|Eric|Eugene|Felipe|Ferdinand|Francis|Frederick|George|Gregory|Gustav|Haakon|"
    "Harald|Henri|Henry|Honorius|Innocent|Isabella|Ivan|James|John|Joseph|Julius|Justinian|Leo|Leopold|Louis|Margrethe|"
    "Mary|Maximilian|Napoleon|Nicholas|Olav|Otto|Paul|Pedro|Peter|Philip|Pius|Ptolemy|Ramesses|Ramses|Richard|Robert|"
    "Rudolf|Sixtus|Stephen|Theodosius|Urban|Victor|Wilhelm|William|Xerxes"
)
_RULERS = "King|Queen|Pope|Emperor|Empress|Tsar|Czar|Kaiser|Prince|Saint"
_ROMAN = r"(?=[CLXVI])(?P<roman>(?:C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3}))(?![\w])"
_ROMAN_DIGITS = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
_RAISED = "⁰¹²³⁴-⁹₀-₉"


def in_words(text: str) -> str:
    """The text without capitals that stand for letters or numbers: all that are left begin a word."""
    for pattern, read in _READINGS:
        text = pattern.sub(read, text)
    text = _words_in_capitals(text)
    for pattern, read in _LATER_READINGS:
        text = pattern.sub(read, text)
    return text


def spelled(letters: str) -> str:
    """The names of letters, as words."""
    return " ".join(LETTERS[letter] for letter in letters.lower())


def pronounceable(word: str) -> bool:
    """Whether a word in lower case has vowels, and between them only consonants that English puts there."""
    parts = [
        (vowel, "".join(letters))
        for vowel, letters in groupby(re.sub("qu", "q", word), key=lambda letter: letter in "aeiouy")
    ]
    if word[:1] == "y":  # a consonant at the beginning
        if not parts[0][1][1:]:
            return False
        parts = [(False, "y"), (True, parts[0][1][1:]), *parts[1:]]
    if not any(vowel for vowel, _ in parts) or any(vowel and len(run) > 3 for vowel, run in parts):
        return False
    for index, (vowel, run) in enumerate(parts):
        if vowel:
            continue
        begins, ends = index == 0, index == len(parts) - 1
        if begins and (run not in _ONSETS or ends):
            return False
        if ends and run not in _CODAS:
            return False
        if not begins and not ends and not _between_vowels(run):
            return False
    return True


def _between_vowels(run: str) -> bool:
    return any(run[:cut] in _CODAS and run[cut:] in _ONSETS for cut in range(len(run) + 1))


def _plain(word: str) -> bool:
    """Whether a word of capitals is surely a word."""
    stem, apostrophe, _ = re.sub("’", "'", word.lower()).partition("'")
    if stem in _INITIALISMS:
        return False
    return bool(apostrophe) or stem in _WORDS or (len(stem) >= 4 and pronounceable(stem))


def _read(word: str, *, shouted: bool = False) -> str:
    """A word of two capitals or more."""
    lower = word.lower()
    if word in _SPOKEN:
        return _SPOKEN[word]
    if lower in _INITIALISMS:
        return spelled(word)
    if _plain(word) or (shouted and re.search("[aeiouy]", lower)):
        return lower
    return spelled(word)


_CAPITALS = re.compile(r"(?<![\w'’])[A-Z]+(?:['’][A-Z]+)*(?![\w])")
_SAME_RUN = re.compile(r"""[\s,;:"“”()—–\d-]*""")


def _words_in_capitals(text: str) -> str:
    """Reads runs of words that are all capitals: two plain words or more, and at least half of them, are shouting."""
    runs: list[list[re.Match[str]]] = []
    for match in _CAPITALS.finditer(text):
        if runs and _SAME_RUN.fullmatch(text, runs[-1][-1].end(), match.start()):
            runs[-1].append(match)
        else:
            runs.append([match])
    parts, done = [], 0
    for run in runs:
        shouted = _shouted([match[0] for match in run])
        for match in run:
            parts += [text[done : match.start()], _in_run(match, shouted)]
            done = match.end()
    return "".join([*parts, text[done:]])


def _shouted(words: list[str]) -> bool:
    long = [word for word in words if len(word) > 1]
    plain = sum(_plain(word) or word.lower() in _AMBIGUOUS for word in long)
    return plain >= 2 and plain * 2 >= len(long)


def _in_run(match: re.Match[str], shouted: bool) -> str:
    word = match[0]
    if len(word) == 1:
        return word
    stem, mark, suffix = word[:-2], word[-2:-1], word[-1:]
    if mark in ("'", "’") and suffix == "S":
        words = _read(stem, shouted=shouted) + mark + "s" if len(stem) > 1 else word.lower()
    else:
        words = word.lower() if mark in ("'", "’") or "'" in word or "’" in word else _read(word, shouted=shouted)
    return begin(words, match.string, match.start())


def _with_ending(match: re.Match[str]) -> str:
    """ "PCs", "FBI's", "NASA's"."""
    return begin(_read(match["stem"]) + match["ending"], match.string, match.start())


def _dotted(match: re.Match[str]) -> str:
    """ "U.S." and "a.k.a.", with a full stop only where the sentence ends."""
    words = spelled(re.sub("[^A-Za-z]", "", match["letters"])) + (match["ending"] or "")
    ends = match[0].endswith(".") and ends_sentence(match.string, match.end(), name_follows=True)
    return begin(words, match.string, match.start()) + ("." if ends else "")


def _half_of_day(match: re.Match[str]) -> str:
    ends = match[0].endswith(".") and ends_sentence(match.string, match.end())
    return (" " if match["digit"] is not None else "") + spelled(match["half"] + "m") + ("." if ends else "")


def _initial(match: re.Match[str]) -> str:
    return begin(spelled(match["letter"]), match.string, match.start())


def _number_of(roman: str) -> int:
    values = [_ROMAN_DIGITS[digit] for digit in roman]
    return sum(-one if one < next_one else one for one, next_one in zip(values, [*values[1:], 0], strict=True))


def _num2words(number: int, to: str) -> str:
    from num2words import num2words

    return str(num2words(number, to=to)).replace("-", " ")


def _numbered(match: re.Match[str]) -> str:
    return f"{match['lead']}{_num2words(_number_of(match['roman']), 'cardinal')}"


def _reigning(match: re.Match[str]) -> str:
    return f"{match['lead']}the {_num2words(_number_of(match['roman']), 'ordinal')}"


def _with_digits(match: re.Match[str]) -> str:
    """ "A4", "mp3", "B2B", "5G": letters by name, unless they could be a word; "5th" and "80s" are numbers."""
    token = match[0]
    if re.fullmatch(rf"[\d{_RAISED}]+(?:st|nd|rd|th|s)", token):
        return token
    parts = re.findall(rf"[A-Za-z]+|[\d{_RAISED}]+s?(?![A-Za-z])|[\d{_RAISED}]+", token)
    return begin(" ".join(map(_beside_digits, parts)), match.string, match.start())


def _beside_digits(part: str) -> str:
    if not part.isalpha():
        return part
    if part.isupper():
        return _read(part) if len(part) > 1 else spelled(part)
    return part if re.search("[aeiouyAEIOUY]", part) and len(part) > 1 else spelled(part)


def _letter(match: re.Match[str]) -> str:
    return match["lead"] + begin(spelled(match["letter"]), match.string, match.start("letter"))


def _capitalized(words: str) -> str:
    return "|".join(word.capitalize() for word in words.split("|"))


_NOT_LETTERED = "".join(f"(?<!(?i:{noun}) )" for noun in _LETTERED.split("|"))
_NO_STARTER = rf"(?!(?:{'|'.join(sorted(STARTERS))})\b)"
_READINGS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"(?<![\w.])(?P<letters>Ph\.\s?D|PhD)(?P<ending>['’]?s\b)?(?!\w)\.?"), _dotted),
    (re.compile(r"(?P<digit>(?<=\d)\s?)?(?<![A-Za-z.])(?P<half>[ap])\.\s?m\b\.?"), _half_of_day),
    (re.compile(r"(?P<digit>(?<=\d)\s?)(?P<half>[apAP])\.?[mM](?![\w'’])\.?"), _half_of_day),
    (re.compile(r"(?<![\w.])(?P<letters>(?:[A-Z]\.){2,}[A-Z]?(?![\w])|(?:[a-z]\.){2,})(?P<ending>['’]s\b)?"), _dotted),
    (
        re.compile(rf"(?<!\w){_NOT_LETTERED}(?P<letter>[A-HJ-Z])\.(?=\s+(?:[A-Z]\.|{_NO_STARTER}[A-Z][a-z]|[a-z]))"),
        _initial,
    ),
    (re.compile(rf"(?P<lead>\b(?:{_RULERS})\s+[A-Z][a-z]+\s+){_ROMAN}"), _reigning),
    (
        re.compile(rf"(?P<lead>\b(?:{_REIGNING})\s+)(?=[XVI]{{2}}|[VX]|I(?:['’]s|\s+of\b|\s*[,.;:!?)]|\s*$)){_ROMAN}"),
        _reigning,
    ),
    (re.compile(rf"(?P<lead>\b(?i:{_NUMBERED})\s+)(?=[CLXVI]{{2}}|[VX]|I\s*(?:[.,;:!?)]|$)){_ROMAN}"), _numbered),
    (re.compile(rf"(?P<lead>\b(?:{_capitalized(_NUMBERED)})\s+)(?=I\b(?!['’](?!s))){_ROMAN}"), _numbered),
    (
        re.compile(rf"(?P<lead>\b{_NO_STARTER}[A-Z][a-z]+\s+)(?=(?:II|III|IV|VI|VII|VIII|IX|XI|XII|XIII)\b){_ROMAN}"),
        _numbered,
    ),
    (re.compile(rf"(?P<lead>(?<!\w))(?=(?:II|III|VII|VIII)\b){_ROMAN}"), _numbered),
    (re.compile(r"(?<!\w)(?P<letter>[ei])(?=[A-Z][a-z])"), lambda match: LETTERS[match["letter"]] + " "),
    (re.compile(r"(?<=[a-z])(?=[A-Z]{2,}(?![a-z]{2}))|(?<=[A-Z]{2})(?=[A-Z][a-z]{2})"), lambda match: " "),
    (re.compile(r"(?<![\w])(?P<stem>[A-Z]{2,})(?P<ending>['’]?s|['’](?:d|ll|re|ve|ed|ing))(?!\w)"), _with_ending),
    (
        re.compile(rf"(?<![\w$€£])(?<![\d$€£][.,])(?=\w*[A-Za-z])(?=\w*[\d{_RAISED}])[A-Za-z\d{_RAISED}]+(?!\w)"),
        _with_digits,
    ),
)
_LATER_READINGS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(rf"(?P<lead>\b(?i:{_LETTERED}|an)\s+)(?P<letter>A)(?!\w)(?!['’](?!s\b)\w)"), _letter),
    (
        re.compile(
            r"(?P<lead>(?<!\w)(?<!\w['’]))(?P<letter>A)(?=\s*[.,;:!?)]|\s*$|['’]s\b|-|\s+(?:(?:and|or|to)\s+)?[B-Z]\b)"
        ),
        _letter,
    ),
    (re.compile(r"(?P<lead>\b[B-Z]\s+(?:and|or|to)\s+)(?P<letter>A)\b"), _letter),
    (re.compile(r"(?P<lead>(?<!\w)(?<!\w['’]))(?P<letter>[B-HJ-Z])(?!\w)(?!['’](?!s\b)\w)"), _letter),
)
