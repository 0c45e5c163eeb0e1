"""A panel as it is opened: some parts in one box, with the picture of it that a saved notebook shows."""

from __future__ import annotations

import secrets
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

from IPython.display import DisplayHandle, display

from chatterbox_nb.errors import ArgumentError, nearest
from chatterbox_nb.notebook.arguments import PANELS
from chatterbox_nb.notebook.panels import pump, widgets
from chatterbox_nb.notebook.panels.memory import Memory
from chatterbox_nb.notebook.panels.part import Part
from chatterbox_nb.notebook.panels.precision import Precision
from chatterbox_nb.notebook.panels.presence import Presence
from chatterbox_nb.notebook.panels.speak import Speak
from chatterbox_nb.notebook.panels.state import State
from chatterbox_nb.notebook.panels.takes import Takes
from chatterbox_nb.render import panels as drawn
from chatterbox_nb.render import style
from chatterbox_nb.take import Take

_SIDES = (("precision", "memory"), ("speak", "takes"))
_VIEW = "application/vnd.jupyter.widget-view+json"


class Board:
    """The widgets of one panel. Shown in a notebook it stays true until it is closed.

    Args:
        names: of its parts, out of `PANELS`; none are all of them.

    Raises:
        ArgumentError: there is no such part.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        for name in names:
            if name not in PANELS:
                have = ", ".join(PANELS)
                raise ArgumentError(f"There is no panel '{name}'; there are {have}.{nearest(name, PANELS)}")
        self.names = tuple(name for name in PANELS if name in (names or PANELS))
        self.id = secrets.token_hex(4)
        self.parts = self._make()
        self.root = widgets.Root([widgets.html(style.SHEET), self._layout()], self._page_opened)
        for name in ("cbnb", style.live_class(self.id)):
            self.root.add_class(name)
        self.root.observe(lambda change: self._views_changed(), "_view_count")
        self.presence = Presence(self.root)
        self.closed = False
        self.owner: weakref.ref[Any] | None = None  # the Panel that a person holds
        self.opened = time.monotonic()
        self.left_at: float | None = None  # when its last view went
        self._was_shown = False
        self._stale = True  # something changed since it was drawn
        self._still: DisplayHandle | None = None
        self._pictured: tuple[Any, ...] = ()
        self._drawing = threading.Lock()
        pump.get().add(self)

    def _make(self) -> list[Part]:
        made: dict[str, Part] = {}
        if "precision" in self.names:
            made["precision"] = Precision(self)
        if "speak" in self.names:
            made["speak"] = Speak(self, player="takes" not in self.names)
        if "takes" in self.names:
            speak = made.get("speak")
            made["takes"] = Takes(self, speak.fill if isinstance(speak, Speak) else None)
        if "memory" in self.names:
            made["memory"] = Memory(self)
        return [made[name] for name in self.names]

    def _layout(self) -> Any:
        """Two sides, next to each other where there is room: what is loaded and what it takes; what is said."""
        sides = [[part for part in self.parts if part.name in side] for side in _SIDES]
        boxes = [widgets.column([part.widget for part in side], "cbnb-side") for side in sides if side]
        return widgets.column(boxes, "cbnb-parts")

    def wake(self) -> None:
        pump.get().wake()

    def seen(self) -> bool:
        return self.presence.shown

    def cell_runs(self) -> bool:
        return self.presence.cell_runs

    @property
    def ticks(self) -> bool:
        """Whether it wants a reading of the memory every second: it has a memory panel, and somebody sees it."""
        return not self.closed and "memory" in self.names and self.presence.shown

    @property
    def was_left(self) -> bool:
        """It was shown, is not any more, and nobody holds it to show it again."""
        return self.left_at is not None and (self.owner is None or self.owner() is None)

    def _views_changed(self) -> None:
        shown = bool(self.root._view_count)
        self._was_shown = self._was_shown or shown
        self.left_at = None if shown else time.monotonic()
        self.presence.here()
        self.wake()

    def _page_opened(self) -> None:
        self.presence.here()
        self.wake()

    def draw(self, state: State, changed: bool, tick: bool) -> None:
        """Shows what is true now. On the drawing thread; what goes wrong here stands in the panel.

        One that was shown and is not any more waits until it is shown again. One that was never shown is drawn when
        something changed: whoever runs a notebook without a page saves what it shows.
        """
        with self._drawing:
            if self.closed:
                return
            self._stale = self._stale or changed
            shown = self.presence.shown
            if not (shown and (tick or self._stale)) and not (self._stale and not self._was_shown):
                return
            everything = self._stale or state.busy
            self._stale = False
            if tick and shown:
                self.presence.ask()
            for part in self.parts:
                part.wait_no_longer()
                if not everything and time.monotonic() - part.drawn < part.every_seconds:
                    continue
                try:
                    part.refresh(state)
                except Exception as error:
                    part.fail(error)
            try:
                self._picture(state)
            except Exception as error:
                self.fail(error)

    def fail(self, error: Exception) -> None:
        """Tells of what went wrong outside of its parts."""
        self.parts[0].fail(error)

    def _picture(self, state: State) -> None:
        """Brings what a saved notebook shows up to date, where there is another model or other takes."""
        shows = state.report, self._kept(state)
        if self._still is not None and not state.busy and shows != self._pictured:
            self._still.update(self._bundle(state), raw=True)
            self._pictured = shows

    def _kept(self, state: State) -> tuple[Take, ...]:
        """The takes that a saved notebook may hold: none of a panel that shows none."""
        return state.takes if "takes" in self.names or "speak" in self.names else ()

    def _bundle(self, state: State) -> dict[str, str]:
        still = drawn.still(self.id, state.report, state.reading, self._kept(state))
        return {"text/plain": f"Chatterbox panel: {', '.join(self.names)}", "text/html": still}

    def show(self) -> None:
        """Displays it in the cell that runs: a picture for the saved notebook, and the live panel, which hides it."""
        if self.closed:
            closed = "This panel is closed. Open another: tts.panel(), or %tts_panel"
            display({"text/plain": closed, "text/html": drawn.hint(closed)}, raw=True)
            return
        state = pump.get().state()
        self._pictured = ()
        self._still = display(self._bundle(state), raw=True, display_id=True)
        view = {"version_major": 2, "version_minor": 0, "model_id": self.root.model_id}
        display({_VIEW: view, "text/plain": "", "text/html": ""}, raw=True)

    def close(self) -> None:
        """Takes it away and lets go of everything it holds."""
        with self._drawing:
            if self.closed:
                return
            self.closed = True
        pump.get().remove(self)
        self.presence.close()
        for part in self.parts:
            part.close()
        widgets.close_all(self.root)
