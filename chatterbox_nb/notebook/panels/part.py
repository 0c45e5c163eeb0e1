"""What the panels have in common: a card with a title, a place for what happened, and how they follow what is true."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from chatterbox_nb import manager
from chatterbox_nb.errors import TTSError
from chatterbox_nb.notebook.panels import widgets
from chatterbox_nb.notebook.panels.settle import Settle
from chatterbox_nb.notebook.panels.state import State
from chatterbox_nb.render import panels as drawn
from chatterbox_nb.render import progress


class Whole(Protocol):
    """What a part knows of the panel it is in."""

    def wake(self) -> None:
        """Has everything drawn again."""

    def seen(self) -> bool:
        """Whether a page shows it."""

    def cell_runs(self) -> bool:
        """Whether the kernel is running a cell, so that what a page sends may have to wait."""


class Part:
    """One panel. `draw` is called on the drawing thread alone; what a person does arrives on the kernel's threads.

    Args:
        panel: what it is a part of.
    """

    name = ""
    title = ""
    every_seconds = 60.0  # after which it is drawn again though nothing happened
    widget: Any

    def __init__(self, panel: Whole) -> None:
        self.panel = panel
        self.notice = widgets.html()
        self.status = widgets.html()
        self.drawn = 0.0  # when it was drawn last
        self._settle: Settle | None = None
        self._told = time.time()  # what failed before is not told

    def card(self, *controls: Any, below: Sequence[Any] = ()) -> Any:
        """The panel's outer box: what a person sets, what goes on and what went wrong, what came of it."""
        inner = [widgets.html(drawn.heading(self.title)), *controls, self.status, self.notice, *below]
        return widgets.column(inner, "cbnb-card", f"cbnb-{self.name}")

    def draw(self, state: State) -> None:
        """Shows what is true now. Only what differs from what is shown is sent."""
        raise NotImplementedError

    def read_from(self, *fields: Any) -> None:
        """Names the fields that actions read; see `settled`."""
        self._settle = Settle(fields, self.panel.seen)

    def close(self) -> None:
        """Lets go of what is no widget of the card."""
        if self._settle is not None:
            self._settle.close()

    def tell(self, text: str, kind: str = "error") -> None:
        """Leaves a notice where the person looks; an empty text takes it away."""
        self.notice.value = drawn.notice(text, kind)

    def fail(self, error: Exception) -> None:
        """Tells of a bug, with the place of it."""
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        self.tell(f"Unexpected {type(error).__name__} at {place}: {error}. This is a bug.")

    def guarded(self, action: Callable[[], object]) -> Callable[..., None]:
        """A callback that never raises and never prints: what went wrong stands in the panel."""

        def callback(*_: Any) -> None:
            self.tell("")
            try:
                action()
            except TTSError as error:
                self.tell(str(error))
            except Exception as error:
                self.fail(error)
            self.panel.wake()

        return callback

    def settled(self, action: Callable[[], object]) -> Callable[..., None]:
        """The same for an action that reads fields: once all that was typed in them has arrived."""
        act = self.guarded(action)

        def callback(*_: Any) -> None:
            assert self._settle is not None
            self._settle.then(act)

        return callback

    def stops(self, kind: str) -> Callable[..., None]:
        """A callback that stops the running job, if it is of this kind."""

        def stop() -> None:
            job = manager.get().activity().running
            if job is not None and job.kind == kind:
                job.cancel()

        return self.guarded(stop)

    def wait_no_longer(self) -> None:
        """Does what waits for a page that does not answer."""
        if self._settle is not None:
            self._settle.give_up(self.panel.cell_runs())

    def refresh(self, state: State) -> None:
        """Draws it now."""
        self.drawn = time.monotonic()
        self.draw(state)

    def show_outcome(self, state: State, *kinds: str) -> None:
        """Tells of the last job of these kinds, when it failed and that was not told yet."""
        done = state.activity.last(*kinds)
        if done is not None and done.ended > self._told:
            self._told = done.ended
            self.tell(done.failure, "done" if done.stopped else "error")

    def show_progress(self, state: State, *kinds: str) -> None:
        """Draws the progress of a job of these kinds; of others it says that the model is busy."""
        job = state.activity.running
        if job is None or (job.kind == "look" and job.kind not in kinds):
            self.status.value = drawn.hint("Waiting for the model.") if state.activity.waiting else ""
            return
        elapsed = state.time - (job.began or state.time)
        if job.kind in kinds:
            line = progress.html(job.latest, elapsed, state.left)
        else:
            line = drawn.hint(f"The model is {job.label}.")
        if state.activity.waiting:
            line += drawn.hint(f"{state.activity.waiting} more waiting.")
        self.status.value = f'<div role="status">{line}</div>'
