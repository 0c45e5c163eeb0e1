"""What an observer is told while the model works, and how work is stopped.

Knows nothing of notebooks, threads or models. Observers are called on the model thread, once per event;
whoever draws decides how often to draw.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from chatterbox_nb.errors import Cancelled

# The stages of a load and of a take, in the order they happen.
LOAD_STAGES = ("import", "find", "download", "check", "build", "weights", "cache", "encoders", "watermarker", "compile")
TAKE_STAGES = ("voice", "tokens", "mel", "wave", "watermark")


@dataclass(frozen=True)
class Progress:
    """One step of work.

    Args:
        stage: one of `LOAD_STAGES` or `TAKE_STAGES`.
        done: units finished: bytes of a download or of weights, speech tokens, flow steps.
        total: units in all, or None where nobody can know (speech ends when the model says so).
        chunk: index of the text chunk being spoken, from 0.
        chunks: text chunks in this take.
        audio_seconds: seconds of audio that these units and the chunks before them amount to.
        fraction: the part of the whole job that is done, from 0 to 1, where it can be told.
        detail: a file name, a component, a word on what is being done.
    """

    stage: str
    done: int = 0
    total: int | None = None
    chunk: int = 0
    chunks: int = 1
    audio_seconds: float = 0.0
    fraction: float | None = None
    detail: str = ""


Observer = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """The observer that looks away."""


class CancelToken:
    """A request to stop, asked for on one thread and honoured on another."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises Cancelled once `cancel` was called."""
        if self._event.is_set():
            raise Cancelled
