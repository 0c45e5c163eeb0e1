"""The progress line of a running magic: at most five updates a second, drawn on the thread that waits."""

from __future__ import annotations

import sys
import time
from typing import Any

from chatterbox_nb.events import Progress
from chatterbox_nb.render import progress as drawn

_PATIENCE_SECONDS = 0.2  # between updates; what is done sooner shows no line at all


class ProgressLine:
    """Give `tick` to `Job.wait`, then call `finish` once.

    In a notebook the line is one display that is updated, so that what is saved is its last state. In a terminal it is
    one line that is overwritten.
    """

    def __init__(self, shell: Any, quiet: bool = False) -> None:
        self._notebook = hasattr(shell, "kernel")
        self._quiet = quiet
        self._started = self._drawn = time.perf_counter()
        self._handle: Any = None
        self._shown = False
        self._pace = drawn.Pace()

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self._started

    def tick(self, progress: Progress | None) -> None:
        if self._quiet or time.perf_counter() - self._drawn < _PATIENCE_SECONDS:
            return
        self._drawn = time.perf_counter()
        elapsed, left = self.elapsed, self._pace.left(progress)
        self._draw(drawn.line(progress, elapsed, left), drawn.html(progress, elapsed, left))

    def finish(self, text: str) -> None:
        """Leaves one static line, where there was one."""
        if self._shown:
            self._draw(text, drawn.finished(text))
            if not self._notebook:
                sys.stderr.write("\n")

    def _draw(self, text: str, html: str) -> None:
        if not self._notebook:
            sys.stderr.write(f"\r\x1b[2K{text}")
            sys.stderr.flush()
        elif self._handle is None:
            from IPython.display import display

            self._handle = display({"text/plain": text, "text/html": html}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text, "text/html": html}, raw=True)
        self._shown = True
