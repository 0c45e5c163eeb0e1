"""The thread that draws: what changed, at most eight times a second, and memory once a second while it is shown.

The model thread only says that something changed, so that speech never waits for a page; the kernel's thread is often
busy with a cell. A panel that nobody sees is not drawn, and the thread ends with the last panel.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING

from chatterbox_nb import manager
from chatterbox_nb.notebook.panels.state import Reader, State

if TYPE_CHECKING:
    from chatterbox_nb.notebook.panels.board import Board

_BETWEEN_DRAWS_SECONDS = 0.12
_TICK_SECONDS = 1.0
_UNSEEN_SECONDS = 5.0  # between looks for panels that were closed or collected


class Pump:
    """Draws the open panels of this kernel."""

    def __init__(self) -> None:
        self._boards: weakref.WeakSet[Board] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._read = Reader()
        self.sampled = 0  # readings of the memory
        self._ticked = 0.0  # when the last second began
        self._pause = 0.0

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def boards(self) -> list[Board]:
        """The open panels."""
        with self._lock:
            return list(self._boards)

    def add(self, board: Board) -> None:
        """Draws a panel from now on, until it is closed or collected."""
        with self._lock:
            self._boards.add(board)
            if not self.running:
                self._thread = threading.Thread(target=self._serve, name="chatterbox-nb panels", daemon=True)
                self._thread.start()
        self.wake()

    def remove(self, board: Board) -> None:
        with self._lock:
            self._boards.discard(board)
        self.wake()

    def wake(self) -> None:
        """Something changed."""
        self._wake.set()

    def state(self) -> State:
        """What is true now."""
        return self._read(changed=True)

    def _serve(self) -> None:
        forget = manager.get().watch(self.wake)
        try:
            while self._still_needed():
                changed = self._wake.wait(self._pause)
                self._wake.clear()
                tick = time.monotonic() - self._ticked >= _TICK_SECONDS - 0.02
                if tick:
                    self._ticked = time.monotonic()
                self._pause = self._draw(changed, tick)
                if changed:
                    time.sleep(_BETWEEN_DRAWS_SECONDS)
        finally:
            forget()

    def _still_needed(self) -> bool:
        with self._lock:
            if not len(self._boards):
                self._thread = None
            return self._thread is threading.current_thread()

    def _draw(self, changed: bool, tick: bool) -> float:
        """Draws what is to be drawn, and says for how many seconds nothing else will be, unless something changes."""
        boards = self.boards()
        ticking = any(board.ticks for board in boards)
        try:
            if tick and ticking:
                self._read.sample()
                self.sampled += 1
            state = self._read(changed)
        except Exception as error:
            for board in boards:
                board.fail(error)
            return _UNSEEN_SECONDS
        for board in boards:
            board.draw(state, changed, tick)
        if not ticking and not state.busy:
            return _UNSEEN_SECONDS
        return max(0.0, self._ticked + _TICK_SECONDS - time.monotonic())


_PUMP = Pump()


def get() -> Pump:
    """The drawing thread of this kernel."""
    return _PUMP
