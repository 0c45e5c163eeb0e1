"""What the tests of panels share: a panel opened in a kernel, and waiting for what its threads do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shells import Kernel

import chatterbox_nb as tts
from chatterbox_nb import manager
from chatterbox_nb.notebook.panels import pump
from chatterbox_nb.notebook.panels.board import Board


def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Waits for something that another thread does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.02)


def words(html: Any) -> str:
    """What a person reads in an HTML widget."""
    return " ".join(re.sub(r"<[^>]*>", " ", html.value).replace("&#x27;", "'").split())


@dataclass
class Opened:
    """A panel in a kernel, by its parts."""

    board: Board

    def __getattr__(self, name: str) -> Any:
        return next(part for part in self.board.parts if part.name == name)

    def seen(self, views: int = 1) -> None:
        """As if a page showed it that many times."""
        self.board.root._view_count = views


def opened(kernel: Kernel, *names: str) -> Opened:
    """Opens a panel and waits until it was drawn and has looked at what could be loaded."""
    kernel.ok(f"import chatterbox_nb as tts\npanel = tts.panel(*{names!r})")
    found = Opened(kernel["panel"]._board)
    if "precision" in found.board.names:
        until(lambda: "<table" in found.precision.choices.value, 90)
    return found


def spoken(count: int = 1) -> None:
    """Waits until that many takes are there, and the model has nothing to do."""

    def done() -> bool:
        activity = manager.get().activity()
        return len(tts.takes) == count and activity.running is None and not activity.waiting

    until(done)


def buttons(panel: Opened, row: int = 0) -> dict[str, Any]:
    """What can be done with a take, the newest by itself."""
    return {button.description: button for button in panel.takes.list.children[row].children[1].children}


def close_all() -> None:
    for board in pump.get().boards():
        board.close()
