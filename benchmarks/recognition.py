"""An ear that is a program: pocketsphinx with grammars as narrow as the demo voice's training, and its word errors.

Its acoustic model never heard the demo voice. A grammar says which words may come, so that what is counted is how they
sound and not how likely they are.
"""

from __future__ import annotations

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

_ADJECTIVES = """
    red green blue yellow white black brown orange small happy sad fast slow warm cold quick lazy new old good great
    big long young little early strong hard
"""
_NOUNS = """
    dog cat bird fish horse fox door window lamp light kitchen chair table house garden street river mountain water
    bread milk tea coffee music voice model test child man woman school book city country morning evening summer winter
    spring
"""
_VERBS = "likes sees wants knows needs finds takes makes"
_DIGITS = "zero one two three four five six seven eight nine"


def _any_of(words: str) -> str:
    return f"( {' | '.join(words.split())} )"


_THING = f"the {_any_of(_ADJECTIVES)} {_any_of(_NOUNS)}"
GRAMMARS = {
    "template": f"{_THING} {_any_of(_VERBS)} {_THING} | ( turn on | turn off | open | close ) {_THING}",
    "digits": " ".join([_any_of(_DIGITS)] * 4),
}


@cache
def _decoder(grammar: str) -> Any:
    from pocketsphinx import Config, Decoder, get_model_path

    models = Path(get_model_path()) / "en-us"
    config = Config(hmm=str(models / "en-us"), dict=str(models / "cmudict-en-us.dict"), lm=None, loglevel="FATAL")
    decoder = Decoder(config)
    decoder.add_jsgf_string(grammar, f"#JSGF V1.0; grammar {grammar}; public <said> = {GRAMMARS[grammar]};")
    decoder.activate_search(grammar)
    return decoder


def heard(samples: Samples, sample_rate: int, grammar: str) -> list[str]:
    """The words of a grammar that the samples sound most like; none where no path through it fits."""
    hiss = np.random.default_rng(0)
    padded = np.pad(resample(samples, sample_rate, RATE), (_BEFORE, _AFTER))
    padded = padded + _HISS * hiss.standard_normal(len(padded), dtype=np.float32)
    decoder = _decoder(grammar)
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
