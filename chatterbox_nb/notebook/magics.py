"""`%tts_load`, `%%tts`, `%tts`, `%tts_convert`, `%tts_panel`, `%tts_info`, `%tts_memory`, `%tts_unload`.

Magics draw HTML and never widgets; those of `%tts_panel` are the panels'.
Text arrives as it was written: IPython's own expansion of `$x` and `{x}` is off.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from keyword import iskeyword
from pathlib import Path
from typing import Any

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.display import display

from chatterbox_nb import audio, conversion, manager, speech
from chatterbox_nb import text as texts
from chatterbox_nb.errors import ArgumentError, Cancelled, nearest
from chatterbox_nb.jobs import Job
from chatterbox_nb.notebook.arguments import PARSERS
from chatterbox_nb.notebook.progress import ProgressLine
from chatterbox_nb.render import takes
from chatterbox_nb.render.units import seconds, size
from chatterbox_nb.take import Take, file_kind

_SPEAK_OPTIONS = (
    "exaggeration", "cfg_weight", "temperature", "min_p", "top_p", "top_k", "repetition_penalty", "max_chunk",
    "language", "effort", "cfm_steps", "voice_seconds",
)  # fmt: skip
_CONVERT_OPTIONS = ("effort", "cfm_steps", "voice_seconds")


def _documented(name: str) -> Callable[[Any], Any]:
    """Gives a magic its parser's help as its docstring, which is what `%tts?` shows."""

    def document(function: Any) -> Any:
        function.__doc__ = PARSERS[name]().format_help()
        return function

    return document


@magics_class
class TTSMagics(Magics):
    shell: Any  # IPython's own annotation lets it be None

    @no_var_expand
    @line_magic
    @_documented("%tts_load")
    def tts_load(self, line: str) -> Any:
        asked = self._read("%tts_load", line)
        if asked is None:
            return None
        job = manager.get().load(asked.model, asked.precision, asked.device, asked.source, asked.kernel, asked.int8_off)
        progress = ProgressLine(self.shell)
        try:
            report = job.wait(progress.tick)
        except BaseException:
            progress.finish("Nothing was loaded.")
            raise
        progress.finish(f"Loaded {report.model} in {seconds(progress.elapsed)}.")
        return report

    @no_var_expand
    @cell_magic("tts")
    @_documented("%%tts")
    def tts_cell(self, line: str, cell: str) -> Any:
        asked = self._read("%%tts", line)
        return None if asked is None else self._speak(asked, cell)

    @no_var_expand
    @line_magic("tts")
    @_documented("%tts")
    def tts_line(self, line: str) -> Any:
        asked, text = PARSERS["%tts"]().read_before_text(line)
        if asked.help:
            print(PARSERS["%tts"]().format_help())  # noqa: T201
            return None
        return self._speak(asked, text)

    @no_var_expand
    @line_magic
    @_documented("%tts_convert")
    def tts_convert(self, line: str) -> Any:
        asked = self._read("%tts_convert", line)
        if asked is None:
            return None
        if asked.file is None:
            raise ArgumentError("%tts_convert: name an audio file, or a variable with a Take. See %tts_convert --help")
        clip, options = self._clip(asked.file), _given(asked, _CONVERT_OPTIONS)
        return self._made(asked, lambda: conversion.submit(clip, asked.voice, asked.seed, **options), "converted")

    @no_var_expand
    @line_magic
    @_documented("%tts_info")
    def tts_info(self, line: str) -> Any:
        return None if self._read("%tts_info", line) is None else speech.info()

    @no_var_expand
    @line_magic
    @_documented("%tts_memory")
    def tts_memory(self, line: str) -> Any:
        return None if self._read("%tts_memory", line) is None else speech.memory()

    @no_var_expand
    @line_magic
    @_documented("%tts_panel")
    def tts_panel(self, line: str) -> None:
        asked = self._read("%tts_panel", line)
        if asked is not None:
            from chatterbox_nb.notebook.panels import panel

            display(panel(*asked.parts))

    @no_var_expand
    @line_magic
    @_documented("%tts_unload")
    def tts_unload(self, line: str) -> None:
        if self._read("%tts_unload", line) is None:
            return
        freed = manager.get().unload().wait()
        print(f"Unloaded; {size(freed)} of tensors given back." if freed else "There was no model to unload.")  # noqa: T201

    def _read(self, name: str, line: str) -> argparse.Namespace | None:
        """The options, or None when help was asked for and given."""
        parser = PARSERS[name]()
        asked: argparse.Namespace = parser.read(line)
        if asked.help:
            print(parser.format_help())  # noqa: T201
            return None
        return asked

    def _speak(self, asked: argparse.Namespace, text: str) -> Take | None:
        if asked.expand:
            text = texts.expand(text, self.shell.user_ns)
        options = _given(asked, _SPEAK_OPTIONS)
        return self._made(asked, lambda: speech.submit(text, asked.voice, asked.seed, **options), "spoken")

    def _clip(self, name: str) -> Any:
        """What is to be converted: a file, or else what a variable of that name holds."""
        path, held = Path(name).expanduser(), self.shell.user_ns.get(name)
        if audio.there_is(path):
            return path
        if isinstance(held, (Take, tuple)):
            return held
        if name in self.shell.user_ns:
            raise ArgumentError(
                f"%tts_convert: there is no file {name}, and the variable {name} holds {type(held).__name__}, "
                "not a Take or (samples, sample_rate)."
            )
        held_names = [known for known, value in self.shell.user_ns.items() if isinstance(value, Take)]
        raise ArgumentError(f"%tts_convert: there is no file {name} and no variable {name}.{nearest(name, held_names)}")

    def _made(self, asked: argparse.Namespace, submit: Callable[[], Job[Take]], done: str) -> Take | None:
        """Asks for a take and waits, shows it and keeps it, as the options say.

        Args:
            done: in a word what happens to it: "spoken".
        """
        _check_targets(asked)
        progress = ProgressLine(self.shell, asked.quiet)
        try:
            take = submit().wait(progress.tick)
        except Cancelled as stopped:
            progress.finish(str(stopped))
            if stopped.take is not None:
                self._keep(stopped.take, asked)
                if not asked.quiet:
                    display(stopped.take)
            raise
        except BaseException:
            progress.finish(f"Nothing was {done}.")
            raise
        progress.finish(f"{take.tokens} tokens, {seconds(take.duration)} of audio in {seconds(progress.elapsed)}.")
        self._keep(take, asked)
        if asked.quiet:
            return None
        if asked.play:
            display({"text/plain": repr(take), "text/html": takes.take(take, autoplay=True)}, raw=True)
            return None
        return take

    def _keep(self, take: Take, asked: argparse.Namespace) -> None:
        if asked.out is not None:
            self.shell.user_ns[asked.out] = take
        if asked.save is not None:
            path = take.save(asked.save)
            if not asked.quiet:
                print(f"Saved {path}, {size(path.stat().st_size)}.")  # noqa: T201


def _given(asked: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The options that a line says."""
    return {name: value for name in names if (value := getattr(asked, name)) is not None}


def _check_targets(asked: argparse.Namespace) -> None:
    """What can be known to fail after minutes of speech fails before them."""
    if asked.out is not None and (not asked.out.isidentifier() or iskeyword(asked.out)):
        raise ArgumentError(f"--out {asked.out} is not the name of a variable.")
    if asked.save is not None:
        file_kind(asked.save)
