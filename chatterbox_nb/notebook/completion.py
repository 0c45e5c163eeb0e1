"""Tab completion of the magics: options, and the values of those that have a few."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chatterbox_nb import settings
from chatterbox_nb.notebook.arguments import PARSERS


def _devices() -> list[str]:
    import sys

    if "torch" not in sys.modules:  # importing it takes seconds; a Tab must not
        return ["auto", "cpu", "cuda", "mps"]
    from chatterbox_nb.precision.device import available

    return ["auto", *available()]


def _models() -> list[str]:
    from chatterbox_nb.checkpoint import catalog

    return list(catalog.names())


def _voices() -> list[str]:
    from chatterbox_nb.library import voices

    return ["builtin", *voices]


_VALUES: dict[str, Callable[[], list[str]]] = {
    "--precision": lambda: list(settings.PRECISIONS),
    "--kernel": lambda: list(settings.KERNELS),
    "--device": _devices,
    "--voice": _voices,
}


def complete(line: str) -> list[str]:
    """What may follow a line that begins with one of the magics; the line is as far as the cursor."""
    words = line.split()
    if not words or words[0] not in PARSERS:
        return []
    parser = PARSERS[words[0]]()
    current = "" if line[-1:].isspace() else words[-1]
    before = words[1:] if current == "" else words[1:-1]
    if before and before[-1] in _VALUES:
        return _starting(current, _VALUES[before[-1]]())
    if before and (action := parser.action_of(before[-1])) is not None and action.nargs != 0:
        return []  # a value only the user knows
    found = _starting(current, [option for option in parser.options() if option not in before])
    if words[0] == "%tts_load" and not any(not word.startswith("--") for word in before[:1]):
        found += _starting(current, _models())
    return found


def _starting(prefix: str, choices: list[str]) -> list[str]:
    return [choice for choice in choices if choice.startswith(prefix)]


def register(shell: Any) -> None:
    """Tells a shell's completer. IPython keeps one function for each key, so this may be called again."""

    def completer(_: Any, event: Any) -> list[str]:
        return complete(event.text_until_cursor.split("\n")[-1])

    for name in PARSERS:
        shell.set_hook("complete_command", completer, str_key=name)
