"""The Memory panel: what is used, by whom, over the last minutes, and what to do when it runs low."""

from __future__ import annotations

from typing import Any

from chatterbox_nb.notebook.panels import widgets
from chatterbox_nb.notebook.panels.part import Part, Whole
from chatterbox_nb.notebook.panels.state import State
from chatterbox_nb.render import panels as drawn

_LINE_SECONDS = 5.0  # after which the line over time is drawn again though no figure is another


class Memory(Part):
    name = "memory"
    title = "Memory"
    every_seconds = 0.0

    def __init__(self, panel: Whole) -> None:
        super().__init__(panel)
        self.figures = widgets.html()  # in one piece: every piece is a message of its own
        self._table = ""
        self._drawn: tuple[float, Any] = (0.0, None)  # when, and what had happened by then
        self._components: tuple[Any, str] = (None, drawn.components(None))
        self.widget = self.card(self.figures)

    def draw(self, state: State) -> None:
        table, happened = drawn.memory(state.reading), (state.report, state.activity.done[-1:])
        if (table, happened) == (self._table, self._drawn[1]) and state.time - self._drawn[0] < _LINE_SECONDS:
            return  # nothing to see but that time has passed
        self._table, self._drawn = table, (state.time, happened)
        if self._components[0] is not state.report:
            self._components = state.report, drawn.components(state.report)
        self.figures.value = (
            drawn.low_memory(state.reading, state.report)
            + drawn.sparkline(state.samples, state.activity.done, state.time)
            + table
            + self._components[1]
        )
