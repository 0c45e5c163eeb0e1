"""Tab completion of the magics: options, and the values of those that have a few."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from chatterbox_nb import audio, settings
from chatterbox_nb.notebook.arguments import PANELS, PARSERS


def _devices() -> list[str]:
    if "torch" not in sys.modules:  # importing it takes seconds; a Tab must not
        return ["auto", "cpu", "cuda", "mps"]
    from chatterbox_nb.precision.device import available

    return ["auto", *available()]


def _models() -> list[str]:
    from chatterbox_nb.checkpoint import catalog

    return list(catalog.names())


def _voices() -> list[str]:
    from chatterbox_nb.library import voices

    return ["builtin", *(shlex.quote(name) for name in voices)]


def _languages() -> list[str]:
    from chatterbox_nb.languages import LANGUAGES

    return list(LANGUAGES)


def _clips(begun: str) -> list[str]:
    """Folders and audio files whose path begins so."""
    folder, _, _ = begun.rpartition("/")
    start = folder + "/" if "/" in begun else ""
    there: list[Path] = []
    with suppress(OSError):  # a folder that is not there, or may not be listed
        there = sorted(Path(start or ".").expanduser().iterdir())
    names = [start + path.name for path in there if path.is_dir() or path.suffix.lower().lstrip(".") in audio.FORMATS]
    return [shlex.quote(name) if " " in name else name for name in names]


_VALUES: dict[str, Callable[[], list[str]]] = {
    "--precision": lambda: list(settings.PRECISIONS),
    "--int8-off": lambda: list(settings.INT8_ROWS),
    "--kernel": lambda: list(settings.KERNELS),
    "--effort": lambda: list(settings.EFFORTS),
    "--device": _devices,
    "--voice": _voices,
    "--language": _languages,
}


def complete(line: str) -> list[str]:
    """What may follow a line that begins with one of the magics; the line is as far as the cursor."""
    words = line.split()
    if not words or words[0] not in PARSERS:
        return []
    name, before = words[0], words[1:]
    if not before and not line[-1].isspace():
        return []  # it may go on to be the name of another
    current = before.pop() if before and not line[-1].isspace() else ""
    parser = PARSERS[name]()
    waiting = ""  # the option whose value comes next
    free = []
    for word in before:
        action = parser.action_of(word)
        if waiting:
            waiting = ""
        elif action is not None and action.nargs != 0:
            waiting = word
        elif not word.startswith("--") or word == "--":
            free.append(word)
    if waiting:
        return _starting(current, _VALUES[waiting]()) if waiting in _VALUES else []
    if free and name == "%tts":
        return []  # the text has begun
    words_first = _models() if name == "%tts_load" and not free else []
    if name == "%tts_convert" and not free:
        words_first = _clips(current)
    if name == "%tts_panel":
        words_first = [part for part in PANELS if part not in free]
    return _starting(current, [*words_first, *(option for option in parser.options() if option not in before)])


def _starting(prefix: str, choices: list[str]) -> list[str]:
    return [choice for choice in choices if choice.startswith(prefix)]


def register(shell: Any) -> None:
    """Tells a shell's completer."""
    unregister(shell)
    try:
        from IPython.core.completer import SimpleCompletion, context_matcher
    except ImportError:  # before IPython 8.6; there ours stand beside Jedi's
        _register_hooks(shell)
        return

    @context_matcher(identifier=__name__)
    def match(context: Any) -> Any:
        found = _starting(context.token, complete(context.text_until_cursor))
        return {"completions": [SimpleCompletion(text=word) for word in found], "suppress": True, "ordered": True}

    shell.Completer.custom_matchers.append(match)


def _register_hooks(shell: Any) -> None:
    def completer(_: Any, event: Any) -> list[str]:
        return complete(event.text_until_cursor.split("\n")[-1])

    for name in PARSERS:
        shell.set_hook("complete_command", completer, str_key=name)


def unregister(shell: Any) -> None:
    matchers = shell.Completer.custom_matchers
    matchers[:] = [matcher for matcher in matchers if getattr(matcher, "matcher_identifier", "") != __name__]
    # IPython has no way to take a hook away, and would keep every one it was ever told of.
    if "complete_command" in shell.strdispatchers:
        for name in PARSERS:
            shell.strdispatchers["complete_command"].strs.pop(name, None)
