"""The options of the magics: argparse over shlex, with errors that name the nearest option.

IPython's own `magic_arguments` keeps quotes and ends in `UsageError`, which notebook tests cannot see.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
from collections.abc import Iterator
from typing import Any, NoReturn

from chatterbox_nb import settings
from chatterbox_nb.errors import ArgumentError, nearest

PANELS = ("precision", "speak", "takes", "memory")  # as they are opened by name
_WORK = (("--steps", "cfm_steps"), ("--voice-seconds", "voice_seconds"))  # what an effort decides
_ESCAPE = "" if os.name == "nt" else "\\"  # on Windows a backslash is a part of a path


class MagicParser(argparse.ArgumentParser):
    """An ArgumentParser that raises ArgumentError and never exits."""

    def __init__(self, name: str, about: str, usage: str | None = None) -> None:
        super().__init__(
            prog=name,
            description=about,
            usage=usage,
            add_help=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--help", action="store_true", help="show this")

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(f"{self.prog}: {message}. See {self.prog} --help")

    def options(self) -> list[str]:
        """Every option, as it is written."""
        return [option for action in self._actions for option in action.option_strings]

    def action_of(self, option: str) -> argparse.Action | None:
        return self._option_string_actions.get(option)

    def read(self, line: str) -> argparse.Namespace:
        """The options of a line that holds nothing else.

        Raises:
            ArgumentError: an unknown option, a value that is missing or not of its kind, an unclosed quote.
        """
        return self._read([word for word, _ in _words(line, self.prog)])

    def read_before_text(self, line: str) -> tuple[argparse.Namespace, str]:
        """The options at the start of a line, and the text behind them as it was written, quotes and all.

        Raises:
            ArgumentError: as of `read`.
        """
        words: list[str] = []
        rest = line.lstrip()
        waiting = False  # for the value of an option
        while rest.startswith("--") or (rest and waiting):
            word, end = next(_words(rest, self.prog))
            rest = rest[end:].lstrip()
            if word == "--":
                break
            words.append(word)
            action = None if waiting else self.action_of(word)
            waiting = action is not None and action.nargs != 0
        return self._read(words), rest

    def _read(self, words: list[str]) -> argparse.Namespace:
        found, unknown = self.parse_known_args(words)
        if unknown:
            word = unknown[0].split("=")[0]
            raise ArgumentError(f"{self.prog}: {self._why_not(word)} See {self.prog} --help")
        return found

    def _why_not(self, word: str) -> str:
        if word.startswith("-"):
            return f"there is no option '{word}'.{nearest(word, self.options())}"
        if self.prog.startswith("%%"):
            return f"'{word}' is no option; the text goes below this line."
        return f"'{word}' is one word too many."


def _words(text: str, name: str) -> Iterator[tuple[str, int]]:
    """The words of a line as a shell reads them, and where each ends."""
    stream = io.StringIO(text)
    lexer = shlex.shlex(stream, posix=True)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", _ESCAPE
    problem = ""
    try:
        for word in lexer:
            yield word, stream.tell()
    except ValueError as error:
        problem = str(error).lower()
    if problem:
        raise ArgumentError(f"{name}: {problem} in: {text}")


def load_parser() -> MagicParser:
    parser = MagicParser("%tts_load", "Loads a model into this kernel, or switches to it.")
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="demo or english; the setting CHATTERBOX_NB_MODEL if left out"
    )
    parser.add_argument("--precision", metavar="P", help="auto, fp32, fp16, bf16 or int8")
    parser.add_argument("--device", metavar="D", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--source", metavar="DIR_OR_REPO", help="a folder, or a hub repo owner/name")
    parser.add_argument(
        "--kernel", metavar="K", help="what computes T3's step: auto, fused, plain; for int8 also int8pack, dynamic"
    )
    parser.add_argument("--int8-off", metavar="ROWS", help="rows int8 leaves as they are, with commas: flow.linear")
    return parser


def speak_parser(name: str) -> MagicParser:
    what = "Speaks the cell." if name == "%%tts" else "Speaks the line."
    usage = "%%tts [options]\n<text>" if name == "%%tts" else "%tts [options] TEXT"
    parser = MagicParser(name, f"{what} Shows a player and returns the Take.", usage.replace("%", "%%"))
    _add_voice(parser)
    parser.add_argument("--language", metavar="L", help="its code or English name, for models that have several")
    _add_settings(
        parser,
        ("--exaggeration", "exaggeration"),
        ("--cfg", "cfg_weight"),
        ("--temperature", "temperature"),
        ("--min-p", "min_p"),
        ("--top-p", "top_p"),
        ("--top-k", "top_k"),
        ("--repetition-penalty", "repetition_penalty"),
        ("--max-chunk", "max_chunk"),
        *_WORK,
    )
    parser.add_argument("--expand", action="store_true", help="put the values of {names} into the text")
    _add_targets(parser)
    return parser


def convert_parser() -> MagicParser:
    what = "Says what a clip says in another voice. Shows a player and returns the Take."
    parser = MagicParser("%tts_convert", what)
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="an audio file, or a variable with a Take or (samples, sample_rate)"
    )
    _add_voice(parser)
    _add_settings(parser, *_WORK)
    _add_targets(parser)
    return parser


def _add_voice(parser: MagicParser) -> None:
    parser.add_argument("--voice", metavar="V", help="a name of the library, or an audio file")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed sounds the same")


def _add_settings(parser: MagicParser, *options: tuple[str, str]) -> None:
    """An effort, and options that are settings, each with its range."""
    parser.add_argument("--effort", metavar="E", help=f"best, balanced or fast: {settings.BY_NAME['effort'].about}")
    for option, setting in options:
        row = settings.BY_NAME[setting]
        kind = int if row.kind == "int" else float
        about = row.about.replace("%", "%%")
        parser.add_argument(option, dest=setting, type=kind, metavar="X", help=f"{about} ({row.low:g} to {row.high:g})")


def _add_targets(parser: MagicParser) -> None:
    """Where a take goes."""
    parser.add_argument("--out", metavar="NAME", help="keep the Take in this variable")
    parser.add_argument("--save", metavar="FILE", help="write a .wav, .flac, .mp3 or .ogg")
    parser.add_argument("--play", action="store_true", help="start playing at once; return nothing, use --out")
    parser.add_argument("--quiet", action="store_true", help="show and return nothing; use --out or --save")


def panel_parser() -> MagicParser:
    parser = MagicParser("%tts_panel", "Opens a panel: load, speak, listen, and see the memory.")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="precision, speak, takes, memory; all of them if left out"
    )
    return parser


def bare_parser(name: str, about: str) -> MagicParser:
    """A magic without options."""
    return MagicParser(name, about)


PARSERS: dict[str, Any] = {
    "%tts_load": load_parser,
    "%%tts": lambda: speak_parser("%%tts"),
    "%tts": lambda: speak_parser("%tts"),
    "%tts_convert": convert_parser,
    "%tts_panel": panel_parser,
    "%tts_info": lambda: bare_parser("%tts_info", "Says what is loaded."),
    "%tts_memory": lambda: bare_parser("%tts_memory", "Reads the memory, in bytes that were counted."),
    "%tts_unload": lambda: bare_parser("%tts_unload", "Drops the model and gives its memory back."),
}
