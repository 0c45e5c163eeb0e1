"""The Takes panel: what this kernel has spoken, the newest first: listen, say it again, save, delete."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chatterbox_nb import audio, conversion, history, speech
from chatterbox_nb.notebook.panels import widgets
from chatterbox_nb.notebook.panels.part import Part, Whole
from chatterbox_nb.notebook.panels.state import State
from chatterbox_nb.render import panels as drawn
from chatterbox_nb.render.units import size
from chatterbox_nb.take import ConversionRequest, Request, SpeechRequest, Take

_EMPTY = "Nothing has been spoken yet. Takes of magics and of tts.speak come here too; in Python they are tts.takes."


class Takes(Part):
    """
    Args:
        edit: puts a request into the form of the panel beside it, where there is one.
    """

    name = "takes"
    title = "Takes"

    def __init__(self, panel: Whole, edit: Callable[[SpeechRequest], None] | None = None) -> None:
        super().__init__(panel)
        self.edit = edit
        self.format = widgets.dropdown("Save as", list(audio.FORMATS), "wav")
        self.folder = widgets.text("in folder", "where the notebook is", "takes")
        self.list = widgets.column([])
        self.empty = widgets.html(drawn.hint(_EMPTY))
        self.save_as = widgets.row(self.format, self.folder)
        for field in (self.format, self.folder):
            field.add_class("cbnb-wide")
        self.widget = self.card(self.save_as, below=(self.empty, self.list))
        self.read_from(self.format, self.folder)
        self._rows: list[_TakeRow] = []

    def draw(self, state: State) -> None:
        if [id(row.take) for row in self._rows] != [id(take) for take in state.takes]:
            there = {id(row.take): row for row in self._rows}
            rows = [there.pop(id(take)) if id(take) in there else _TakeRow(take, self) for take in state.takes]
            self._rows = rows
            self.list.children = [row.widget for row in rows]
            for gone in there.values():
                widgets.close_all(gone.widget)
        widgets.show(self.empty, not state.takes)
        widgets.show(self.save_as, bool(state.takes))
        if self.edit is None:  # no panel beside it tells what goes on
            self.show_progress(state, "take")
            self.show_outcome(state, "take")
        for row in self._rows:
            row.again.disabled = state.busy or state.report is None

    def save(self, take: Take) -> None:
        """Writes a take into the folder, under a name that nothing there has."""
        folder = Path(self.folder.value.strip() or ".").expanduser()
        words = re.sub(r"[^a-z0-9]+", "-", take.text.lower()).strip("-")[:40].strip("-") or "take"
        stem, count = f"{words}-{take.request.seed}", 1
        path = folder / f"{stem}.{self.format.value}"
        while path.exists():
            count += 1
            path = folder / f"{stem}-{count}.{self.format.value}"
        written = take.save(path)
        self.tell(f"Saved {written}, {size(written.stat().st_size)}.", "done")


def _again(request: Request) -> None:
    if isinstance(request, ConversionRequest):
        conversion.submit(request)
    elif isinstance(request, SpeechRequest):
        speech.submit(request)


class _TakeRow:
    """A take with what can be done with it."""

    def __init__(self, take: Take, part: Takes) -> None:
        self.take = take
        self.again = widgets.button(
            "Again", part.guarded(lambda: _again(take.request)), "Say the same again, with the same seed"
        )
        buttons: list[Any] = [self.again]
        request, edit = take.request, part.edit
        if edit is not None and isinstance(request, SpeechRequest):
            buttons.append(widgets.button("Edit", part.guarded(lambda: edit(request)), "Put it into the Speak panel"))
        buttons += [
            widgets.button("Save", part.settled(lambda: part.save(take)), "Write it to a file"),
            widgets.button("Delete", part.guarded(lambda: history.takes.remove(take)), "Forget this take"),
        ]
        self.widget = widgets.column([widgets.html(drawn.take(take)), widgets.row(*buttons)], "cbnb-take-row")
