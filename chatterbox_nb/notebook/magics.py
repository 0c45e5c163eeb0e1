"""`%tts_load`, `%%tts`, `%tts`, `%tts_panel`, `%tts_info`, `%tts_memory`, `%tts_unload`.

Magics draw HTML and never widgets; those of `%tts_panel` are the panels'.
Text arrives as it was written: IPython's own expansion of `$x` and `{x}` is off.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from keyword import iskeyword
from typing import Any

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.display import display

from chatterbox_nb import manager, speech
from chatterbox_nb import text as texts
from chatterbox_nb.errors import ArgumentError, Cancelled
from chatterbox_nb.notebook.arguments import PARSERS
from chatterbox_nb.notebook.progress import ProgressLine
from chatterbox_nb.render import takes
from chatterbox_nb.render.units import seconds, size
from chatterbox_nb.take import Take, file_kind

_SPEAK_OPTIONS = (
    "exaggeration", "cfg_weight", "temperature", "min_p", "top_p", "top_k", "repetition_penalty", "max_chunk",
    "language", "effort", "cfm_steps", "voice_seconds",
)  # fmt: skip


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
        _check_targets(asked)
        if asked.expand:
            text = texts.expand(text, self.shell.user_ns)
        options = {name: value for name in _SPEAK_OPTIONS if (value := getattr(asked, name)) is not None}
        progress = ProgressLine(self.shell, asked.quiet)
        try:
            take = speech.submit(text, asked.voice, asked.seed, **options).wait(progress.tick)
        except Cancelled as stopped:
            progress.finish(str(stopped))
            if stopped.take is not None:
                self._keep(stopped.take, asked)
                if not asked.quiet:
                    display(stopped.take)
            raise
        except BaseException:
            progress.finish("Nothing was spoken.")
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


def _check_targets(asked: argparse.Namespace) -> None:
    """What can be known to fail after minutes of speech fails before them."""
    if asked.out is not None and (not asked.out.isidentifier() or iskeyword(asked.out)):
        raise ArgumentError(f"--out {asked.out} is not the name of a variable.")
    if asked.save is not None:
        file_kind(asked.save)
