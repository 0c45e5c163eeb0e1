"""What is said: sentences by pattern, words at random, words that are none. All in lower case and without a digit.

`words.txt` holds the 15,500 likeliest English words of the CMU dictionary (BSD), cleaned of rude and cruel ones.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from num2words import num2words

from benchmarks.recognition import ADJECTIVES, DIGITS, NOUNS, VERBS

LONGEST = 120  # characters of a chunk
_FOLDER = Path(__file__).parent
LETTERS = (
    "ay bee see dee ee eff gee aitch eye jay kay ell em en oh pee cue ar ess tee you vee double-you ex why zee"
).split()
SHORTENED = (
    "i'm don't can't it's you're we're that's isn't didn't won't they're i'll let's what's there's he's she's we'll "
    "couldn't wouldn't i've you've doesn't wasn't"
).split()
_TEMPLATES = (
    "the {a} {n} {v} the {a} {n}", "a {a} {n} {v} a {a} {n}", "my {a} {n} {v} your {a} {n}",
    "turn on the {a} {n}", "turn off the {a} {n}", "open the {a} {n}", "close the {a} {n}",
    "please stop the {a} {n}", "please play the {a} {n}",
)  # fmt: skip
_SENTENCES = (
    "hello, i am a {n}", "good morning, how are you today?", "this is a {a} {n} that speaks",
    "the {a} {n} runs over the {a} {n}", "what time is it?", "it is {d} {d} in the {n}",
    "welcome to the {w}, my friend!", "please turn off the {n}, and close the {n}", "i would like some {n} and {w}",
    "can you open the {n} for me?", "the weather is {a} today, but tomorrow it will be {a}",
    "we have {c} {w} and {c} {w}", "she said that the {w} was very {a}", "{w} and {w} are {w}",
    "do you like the {a} {w}?", "thank you very much for the {w}!", "my name is {w}, what is your name?",
    "there are {c} people in the {w}", "the quick brown {n} jumps over the lazy {n}", "one, two, three, {d}, {d}",
    "are you {a} or {w}?", "he went to the {w} to buy {w}", "i think it is {w}", "no, that is not my {w}",
    "yes, i can hear you now", "they were {w} when the {w} came to the {w}", "you should {w} your {w} before the {w}",
    "in the {w} of the {w} there was a {a} {w}", "if it is {w}, we will {w} it {w}", "the {w} has {c} {w}",
    "i want to {w} with you at the {w}", "where did you {w} the {w}?", "it was the {w} who {w} the {w}",
    "from the {w} to the {w} it takes {c} minutes", "nobody knows why the {w} is so {w}",
    "because of the {w}, most of them {w} at home", "his {w} had never been as {w} as her {w}",
    "on {w} we {w} the {w}, and then we go to the {w}", "let me {w} this for you", "what is the {w} of a {w}?",
)  # fmt: skip


@cache
def held_out() -> tuple[str, ...]:
    """The words that are never trained on: 118, of 4 to 9 letters."""
    words = [word for word in _all_words()[1_500:9_000] if 4 <= len(word) <= 9]
    fixed = {word for text in (*_TEMPLATES, *_SENTENCES) for word in text.split()} | {*NOUNS, *ADJECTIVES, *LETTERS}
    drawn = random.Random(118).sample([word for word in words if word not in fixed], 118)
    return tuple(sorted(drawn))


@cache
def _all_words() -> tuple[str, ...]:
    return tuple((_FOLDER / "words.txt").read_text().split())


def _is_held_out(word: str) -> bool:
    """Whether it is one of them, or one with an ending."""
    return any(word[:length] in _held_out_set() for length in range(4, len(word) + 1))


@cache
def _held_out_set() -> frozenset[str]:
    return frozenset(held_out())


@cache
def words() -> tuple[str, ...]:
    """The words that are trained on, the likeliest first."""
    return tuple(word for word in _all_words() if not _is_held_out(word))


@cache
def _followers() -> Mapping[str, Sequence[str]]:
    """Of each three letters what follows them in a word, as often as it does."""
    found = defaultdict(list)
    for word in words():
        spelled = f"^^^{word}$"
        for index in range(3, len(spelled)):
            found[spelled[index - 3 : index]].append(spelled[index])
    return found


def invented(random_: random.Random) -> str:
    """A word that is none, spelled as words are: espeak-ng reads it by rule, and the rules are to be learned."""
    while True:
        word = "^^^"
        while not word.endswith("$") and len(word) < 14:
            word += random_.choice(_followers()[word[-3:]])
        word = word.strip("^$")
        if 3 <= len(word) <= 10 and not _is_held_out(word):
            return word


def _word(random_: random.Random) -> str:
    kind = random_.random()
    if kind < 0.22:
        return invented(random_)
    if kind < 0.27:
        return random_.choice(SHORTENED)
    likelier = 1.0 if kind < 0.7 else 2.5
    return words()[int(len(words()) * random_.random() ** likelier)]


def _filled(template: str, random_: random.Random) -> str:
    draw = {
        "{n}": lambda: random_.choice(NOUNS),
        "{a}": lambda: random_.choice(ADJECTIVES),
        "{v}": lambda: random_.choice(VERBS),
        "{d}": lambda: random_.choice(DIGITS),
        "{c}": lambda: number(random_),
        "{w}": lambda: _word(random_),
    }
    parts = template.split("{")
    return parts[0] + "".join(draw["{" + part[:2]]() + part[2:] for part in parts[1:])


def number(random_: random.Random) -> str:
    """A number in words, as the text rules write it."""
    value = int(10 ** random_.uniform(0, 4.5))
    return num2words(value).replace("-", " ").replace(",", "")


def _any_words(random_: random.Random, most: int) -> str:
    count = random_.randint(1, most)
    said = [_word(random_) + ("," if random_.random() < 0.1 and index < count - 1 else "") for index in range(count)]
    return " ".join(said)


def sentence(random_: random.Random) -> str:
    """One utterance of the training."""
    kind = random_.random()
    if kind < 0.15:
        text = _filled(random_.choice(_TEMPLATES), random_)
    elif kind < 0.22:
        text = " ".join(random_.choice(DIGITS) for _ in range(random_.randint(2, 6)))
    elif kind < 0.25:
        text = " ".join(random_.choice(LETTERS) for _ in range(random_.randint(1, 5)))
        text += random_.choice(("", " " + _word(random_)))
    elif kind < 0.28:
        text = number(random_) + random_.choice(("", " " + _word(random_)))
    elif kind < 0.5:
        text = _filled(random_.choice(_SENTENCES), random_)
    elif kind < 0.6:
        text = _filled(random_.choice(_SENTENCES), random_).rstrip("?!") + random_.choice((", ", ", and ", ", but "))
        text += _filled(random_.choice(_SENTENCES), random_)
    else:
        text = _any_words(random_, random_.choice((4, 6, 9, 14)))
    return _ended(text, random_)


def _ended(text: str, random_: random.Random) -> str:
    return text if text[-1] in ".?!" else text + random_.choices(".?!", (0.7, 0.15, 0.15))[0]


def training(count: int, seed: int) -> list[str]:
    """So many different utterances; the same seed gives the same."""
    random_, found, forbidden = random.Random(seed), dict.fromkeys(()), _evaluated()
    while len(found) < count:
        text = sentence(random_)
        if len(text) <= LONGEST and text not in forbidden:
            found[text] = None
    return list(found)


@cache
def _evaluated() -> frozenset[str]:
    return frozenset(text.lower() for texts in evaluation().values() for text in texts)


@cache
def evaluation() -> Mapping[str, tuple[str, ...]]:
    """What the voice is judged by; none of it is trained on: templates, digits, unseen words, natural sentences."""
    random_ = random.Random(99)
    commands = _TEMPLATES[3:7]
    templates: dict[str, None] = {}
    while len(templates) < 50:
        template = _TEMPLATES[0] if random_.random() < 0.6 else random_.choice(commands)
        templates[_filled(template, random_).capitalize() + "."] = None
    digits = [" ".join(random_.choice(DIGITS) for _ in range(4)).capitalize() + "." for _ in range(20)]
    unseen = list(held_out())
    random_.shuffle(unseen)
    unseen += unseen[:2]
    triples = [" ".join(unseen[index : index + 3]).capitalize() + "." for index in range(0, 120, 3)]
    natural = json.loads((_FOLDER / "natural.json").read_text())
    return {"template": tuple(templates), "digits": tuple(digits), "unseen": tuple(triples), "natural": tuple(natural)}


def batches_by_length(lengths: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
    """Batches of texts of one length each, in a random order, for ever: T3's forward knows no padding."""
    random_ = random.Random(seed)
    by_length = defaultdict(list)
    for index, length in enumerate(lengths):
        by_length[length].append(index)
    while True:
        found = []
        for members in by_length.values():
            random_.shuffle(members)
            found += [members[start : start + size] for start in range(0, len(members), size)]
        random_.shuffle(found)
        yield from found
