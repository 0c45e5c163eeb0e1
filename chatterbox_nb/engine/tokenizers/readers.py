"""What a language's text needs before its letters are looked up, and the packages that do it.

They are those that the package calls, called as it does. What is not installed or does not work is not done, and a
reader says why: nothing is fetched from here.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from chatterbox_nb.errors import summary

Reading = Callable[[str], str]
_SEGMENTATION = "spacy_ontonotes"


@dataclass(frozen=True)
class Help:
    """A package that reads a language.

    Args:
        name: of the package.
        module: that is imported.
        install: what pip is told.
        without: what is missed where it is not done.
        make: of the module, what reads a text.
        spells: whether characters become others, and not only get marks.
    """

    name: str
    module: str
    install: str
    without: str
    make: Callable[[Any], Reading]
    spells: bool = True


class NotHere(Exception):
    """Something that a package needs and would fetch; says how."""


class Reader:
    """One language's help, made when it is first needed."""

    def __init__(self, help: Help) -> None:
        self.help = help
        self._read: Reading | None = None
        self._problem = ""
        self.kept = lru_cache(maxsize=256)(self._kept)  # a chunk is read for its ids, a take for its warnings

    def __call__(self, text: str) -> str:
        """The text as it is read; as it is where that does not work."""
        read: str = self.kept(text)[0]
        return read

    def problem(self, text: str) -> str:
        """Why this text is not read as it should be, for a take's warnings; empty where it is."""
        reason: str = self.kept(text)[1]
        return f"{self.help.without}: {reason}" if reason else ""

    def _kept(self, text: str) -> tuple[str, str]:
        if self._read is None and not self._problem:
            self._read, self._problem = _made(self.help)
        if self._read is None:
            return text, self._problem
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._read(text), ""
        except Exception as error:  # as the package does
            return text, f"{self.help.name} failed ({summary(error)})."


def _made(help: Help) -> tuple[Reading | None, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return help.make(importlib.import_module(help.module)), ""
    except ImportError:
        return None, f"{help.name} is not installed. %pip install {help.install}"
    except NotHere as missing:
        return None, str(missing)
    except Exception as error:  # the same as the package says of it
        return None, f"{help.name} does not work here ({summary(error)})."


def _japanese(module: Any) -> Reading:
    kakasi = module.kakasi()
    return lambda text: "".join(_hiragana(piece) for piece in kakasi.convert(text))


def _hiragana(piece: Mapping[str, str]) -> str:
    """A word with kanji as it is said, others as they are; a は or へ at its start stands apart, as in the package."""
    if not any("一" <= character <= "鿿" for character in piece["orig"]):
        return piece["orig"]
    return " " * piece["hira"].startswith(("は", "へ")) + piece["hira"]


def segmentation_is_here() -> bool:
    """Whether spacy_pkuseg is installed and its model was fetched; it looks for the archive, and reads the folder."""
    if importlib.util.find_spec("spacy_pkuseg") is None:
        return False
    config = importlib.import_module("spacy_pkuseg.config").config
    folder, archive = Path(config.pkuseg_home), Path(config.model_urls[_SEGMENTATION]).name
    return (folder / archive).exists() and (folder / _SEGMENTATION).is_dir()


def _chinese(module: Any) -> Reading:
    """It would fetch its model when it is made; it is used where that was done."""
    if not segmentation_is_here():
        raise NotHere(
            "spacy_pkuseg's model is not on this machine. To fetch it: "
            "!python -c 'import spacy_pkuseg; spacy_pkuseg.pkuseg()'"
        )
    segmenter = module.pkuseg()
    return lambda text: " ".join(segmenter.cut(text))


def _hebrew(module: Any) -> Reading:
    reading: Reading = module.Dicta().add_diacritics
    return reading


def _russian(module: Any) -> Reading:
    reading: Reading = module.RussianTextStresser().stress_text
    return reading


HELP: Mapping[str, Help] = {
    "ja": Help("pykakasi", "pykakasi", "pykakasi", "Kanji are not read as they are said", _japanese),
    "zh": Help("spacy_pkuseg", "spacy_pkuseg", "spacy-pkuseg", "Chinese is not cut into words", _chinese),
    "he": Help("dicta_onnx", "dicta_onnx", "dicta-onnx", "Hebrew is read without vowel points", _hebrew, spells=False),
    "ru": Help(
        "russian_text_stresser",
        "russian_text_stresser.text_stresser",
        "git+https://github.com/Vuizur/add-stress-to-epub",
        "Russian is read without stress marks",
        _russian,
        spells=False,
    ),
}
