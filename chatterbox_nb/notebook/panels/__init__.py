"""Panels: precision, speech, takes and memory as widgets. The only room that imports ipywidgets.

What they show is the manager's state (`state`), drawn by one thread (`pump`); what a person does becomes a job of the
model thread. So a magic updates every open panel, and two panels agree.
"""

from __future__ import annotations

import weakref

from chatterbox_nb.notebook.panels import pump
from chatterbox_nb.notebook.panels.board import Board

_UNSEEN_KEPT = 3


class Panel:
    """Widgets to load, speak and listen with; shown by being the last thing in a cell, or by `display`.

    Args:
        names: "precision", "speak", "takes", "memory"; none are all of them.

    Raises:
        ArgumentError: there is no such panel.
    """

    def __init__(self, *names: str) -> None:
        self._board = Board(names)
        self._board.owner = weakref.ref(self)
        _forget_unseen()

    @property
    def widget(self) -> object:
        """The ipywidgets box, to be put into a layout of one's own."""
        return self._board.root

    def close(self) -> None:
        """Takes the panel away, from every place it is shown at."""
        self._board.close()

    def __repr__(self) -> str:
        return f"Panel({', '.join(self._board.names)}{', closed' if self._board.closed else ''})"

    def _ipython_display_(self) -> None:
        self._board.show()


def panel(*names: str) -> Panel:
    """Opens a panel.

    Args:
        names: "precision", "speak", "takes", "memory"; none are all of them, laid out together.

    Raises:
        ArgumentError: there is no such panel.
    """
    return Panel(*names)


def _forget_unseen() -> None:
    """Closes panels that were shown and whose cell was run again or cleared; the last few stay, to be shown again."""
    unseen = [board for board in pump.get().boards() if board.was_left]
    for board in sorted(unseen, key=lambda board: board.left_at or 0.0)[:-_UNSEEN_KEPT]:
        board.close()


__all__ = ["Panel", "panel"]
