"""Whether somebody sees a panel: it has views, and the page they are on answers.

Views are counted by the page, which tells when one is taken away; a page that is closed tells nothing. So it is asked
for a sign of life now and then. A kernel that runs a cell hears no answer; then the page counts as there.
"""

from __future__ import annotations

import time
import weakref
from typing import Any

from chatterbox_nb.notebook.panels import widgets

_ASK_EVERY_SECONDS = 15.0
_LOST_AFTER_SECONDS = 45.0


class Cells:
    """Knows whether the kernel is running a cell."""

    def __init__(self, shell: Any) -> None:
        self.running = True  # the one that asks
        self.ended = 0.0
        shell.events.register("pre_run_cell", self._begin)
        shell.events.register("post_run_cell", self._end)

    def _begin(self, *_: Any) -> None:
        self.running = True

    def _end(self, *_: Any) -> None:
        self.running, self.ended = False, time.monotonic()


_cells: weakref.WeakKeyDictionary[Any, Cells] = weakref.WeakKeyDictionary()


def _cells_of_this_kernel() -> Cells | None:
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return None
    if shell not in _cells:
        _cells[shell] = Cells(shell)
    return _cells[shell]


class Presence:
    """Whether somebody sees the panel whose outermost box this is."""

    def __init__(self, root: widgets.Root) -> None:
        self._root = root
        self._cells = _cells_of_this_kernel()
        self._asked = self._answered = 0
        self._asked_at = time.monotonic()
        self._ask, self.close = widgets.echo(self._answer)

    def _answer(self, number: int) -> None:
        self._answered = number

    def here(self) -> None:
        """A page has shown that it is there."""
        self._answered = self._asked

    @property
    def cell_runs(self) -> bool:
        """Whether the kernel is running a cell."""
        return self._cells is not None and self._cells.running

    @property
    def shown(self) -> bool:
        return bool(self._root._view_count) and not self._lost

    @property
    def _lost(self) -> bool:
        if self._answered >= self._asked or self.cell_runs:
            return False
        since = max(self._asked_at, self._cells.ended if self._cells else 0.0)
        return time.monotonic() - since > _LOST_AFTER_SECONDS

    def ask(self) -> None:
        """Asks the page for a sign of life, if the last one is answered and not new."""
        if self._answered >= self._asked and time.monotonic() - self._asked_at > _ASK_EVERY_SECONDS:
            self._asked, self._asked_at = self._asked + 1, time.monotonic()
            self._ask(self._asked)
