"""Every error this package raises on purpose.

    TTSError
    ├── SettingError        a value out of its range, an unknown choice        (also a ValueError)
    ├── ArgumentError       a magic's line that cannot be read
    ├── TextError           text that cannot be spoken
    ├── VoiceError          a clip or voice that cannot be used
    ├── NotLoaded           there is no model to speak with
    ├── Busy                the model thread has other work
    ├── Cancelled           stopped on request; what was finished is kept in `.take`
    ├── CheckpointError     weights that cannot be used
    │   ├── SourceError     files that are missing, incomplete or unreachable
    │   └── TensorError     tensors that are unknown, missing or misshapen
    ├── PrecisionError      a precision or kernel that this model or device cannot have
    ├── OutOfMemory         not enough memory                                  (also a MemoryError)
    └── EngineError         the model produced something impossible, or a bug

A message says what happened, with the number, and the command that mends it. In a notebook it is shown as
that one line: `_render_traceback_` is IPython's own hook for it (IPython 7.34 to 9), and the cell still
fails for nbval, nbclient and papermill. `UsageError` does not, so it is never raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chatterbox_nb.take import Take


class TTSError(Exception):
    """The root of the tree above."""

    def _render_traceback_(self) -> list[str]:
        return [" ".join(f"{type(self).__name__}: {self}".splitlines())]


class SettingError(TTSError, ValueError):
    pass


class ArgumentError(TTSError):
    pass


class TextError(TTSError):
    pass


class VoiceError(TTSError):
    pass


class NotLoaded(TTSError):
    pass


class Busy(TTSError):
    pass


class Cancelled(TTSError):
    """Stopped on request. `take` holds the chunks that were finished, or is None."""

    def __init__(self, message: str = "Stopped.", take: Take | None = None) -> None:
        super().__init__(message)
        self.take = take


class CheckpointError(TTSError):
    pass


class SourceError(CheckpointError):
    pass


class TensorError(CheckpointError):
    pass


class PrecisionError(TTSError):
    pass


class OutOfMemory(TTSError, MemoryError):
    pass


class EngineError(TTSError):
    """`details` holds the Python traceback as text, for a bug report."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


def nearest(word: str, choices: Iterable[Any]) -> str:
    """` Did you mean X?`, or an empty string when nothing is near."""
    from difflib import get_close_matches

    written = {str(choice).lower(): str(choice) for choice in choices}
    found = get_close_matches(word.lower(), written, n=1, cutoff=0.6)
    return f" Did you mean {written[found[0]]}?" if found else ""


def cure(precision: str, model: str) -> str:
    """What makes room for a model at a precision."""
    if precision == "int8":
        return "Close other programs or notebooks, or %tts_unload first."
    return f"Try %tts_load {model} --precision int8."


def summary(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
