"""Waits until what a person has typed has arrived, before what they clicked is done.

What is typed is sent when the field is left, by the click on the button. Each widget has a channel of its own, and with
JupyterLab 4.6 and ipykernel 7 channels are served by different threads: the click may come before the text. A number is
therefore sent to the page, which sets it on every field, and each field sends it back behind its own text.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets

from chatterbox_nb.notebook.panels.widgets import close_all

_STEP = 1000  # between numbers; a page adds and takes away a few, for it counts its views there
_PATIENCE_SECONDS = 1.5  # with a page that answers nothing at all
_TRAIT = "_view_count"  # a number that every widget has in ipywidgets 7 and 8, and fields have no use for


class Settle:
    """Calls an action once every field has sent what it has.

    Args:
        fields: the widgets that a person types or picks in.
        seen: whether a page shows them; without one there is nothing to wait for.
    """

    def __init__(self, fields: Iterable[Any], seen: Callable[[], bool]) -> None:
        self._fields = list(fields)
        self._seen = seen
        self._bell = ipywidgets.IntText()
        self._links = [ipywidgets.jsdlink((self._bell, "value"), (field, _TRAIT)) for field in self._fields]
        for field in self._fields:
            field.observe(self._came_back, _TRAIT)
        self._lock = threading.Lock()
        self._action: Callable[[], None] | None = None
        self._rung = 0.0

    def then(self, action: Callable[[], None]) -> None:
        """Calls the action when all has arrived, on the thread that it arrived on; at once where no page shows them."""
        if not self._seen():
            action()
            return
        with self._lock:
            self._action, self._rung = action, time.monotonic()
        self._bell.value += _STEP

    def _came_back(self, _: Any) -> None:
        if all(getattr(field, _TRAIT) == self._bell.value for field in self._fields):
            self._act()

    def give_up(self, busy: bool) -> None:
        """Acts without what has not arrived, where a page answers nothing and no cell keeps the answers waiting."""
        if self._action is not None and not busy and time.monotonic() - self._rung > _PATIENCE_SECONDS:
            self._act()

    def _act(self) -> None:
        with self._lock:
            action, self._action = self._action, None
        if action is not None:
            action()

    def close(self) -> None:
        for widget in (*self._links, self._bell):
            close_all(widget)
