"""An ear that is a program: pocketsphinx, and the word errors of what it understood.

Its acoustic model never heard the demo voice. The quality gate gives it a grammar, which says what words may come, so
that what is counted is how they sound and not how likely they are. Natural sentences have none: they are heard with
its own language model, which is harder for it, and for the gate too hard.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from chatterbox_nb.audio import Samples, resample

INSTALLED = find_spec("pocketsphinx") is not None
RATE = 16_000
_BEFORE, _AFTER = RATE // 5, RATE * 3 // 10  # silence around what is heard
_HISS = 2e-4  # silence is never exactly zero: log energies of zeros are far from anything the acoustic model knows

# Words of which the voice's corpus makes sentences by template; `demo_voice.texts` speaks the same.
ADJECTIVES = (
    "red green blue yellow white black brown orange small happy sad fast slow warm cold quick lazy new old good great "
    "big long young little early strong hard"
).split()
NOUNS = (
    "dog cat bird fish horse fox door window lamp light kitchen chair table house garden street river mountain water "
    "bread milk tea coffee music voice model test child man woman school book city country morning evening summer "
    "winter spring"
).split()
VERBS = "likes sees wants knows needs finds takes makes".split()
DIGITS = "zero one two three four five six seven eight nine".split()


def _any_of(words: Iterable[str]) -> str:
    return f"( {' | '.join(words)} )"


_THING = f"the {_any_of(ADJECTIVES)} {_any_of(NOUNS)}"
GRAMMARS = {
    "template": f"{_THING} {_any_of(VERBS)} {_THING} | ( turn on | turn off | open | close ) {_THING}",
    "digits": " ".join([_any_of(DIGITS)] * 4),
}


def slots(words: Iterable[str], count: int) -> str:
    """The grammar of so many words in a row, each of them any of those given."""
    return " ".join([_any_of(sorted(set(words)))] * count)


def heard(samples: Samples, sample_rate: int, grammar: str) -> list[str]:
    """The words of a grammar that the samples sound most like; none where no path through it fits.

    Args:
        grammar: a name in GRAMMARS, or a grammar itself, as `slots` makes it.
    """
    return _understood(_decoder(GRAMMARS.get(grammar, grammar)), samples, sample_rate)


def heard_openly(samples: Samples, sample_rate: int) -> list[str]:
    """The words that the samples sound most like by pocketsphinx's own model of English, without any grammar."""
    return _understood(_decoder(None), samples, sample_rate)


@cache
def _decoder(grammar: str | None) -> Any:
    """What hears a grammar, or English where there is none."""
    from pocketsphinx import Config, Decoder, get_model_path

    models = Path(get_model_path()) / "en-us"
    language = str(models / "en-us.lm.bin") if grammar is None else None
    words = str(models / "cmudict-en-us.dict")
    decoder = Decoder(Config(hmm=str(models / "en-us"), dict=words, lm=language, loglevel="FATAL"))
    if grammar is not None:
        decoder.add_jsgf_string("said", f"#JSGF V1.0; grammar said; public <said> = {grammar};")
        decoder.activate_search("said")
    return decoder


def _understood(decoder: Any, samples: Samples, sample_rate: int) -> list[str]:
    hiss = np.random.default_rng(0)
    padded = np.pad(resample(samples, sample_rate, RATE), (_BEFORE, _AFTER))
    padded = padded + _HISS * hiss.standard_normal(len(padded), dtype=np.float32)
    decoder.start_utt()
    decoder.process_raw((padded.clip(-1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    best = decoder.hyp()
    return best.hypstr.split() if best else []


def edits(said: list[str], understood: list[str]) -> int:
    """Words put in, left out or exchanged, at the least, to make the one of the other (Levenshtein)."""
    row = list(range(len(understood) + 1))
    for i, word in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(understood, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]
