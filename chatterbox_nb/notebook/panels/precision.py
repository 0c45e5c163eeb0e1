"""The Precision panel: what could be loaded and what it would take; load, switch, unload; what is loaded, measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from chatterbox_nb import choices, manager, settings
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.choices import Outlook
from chatterbox_nb.errors import TTSError
from chatterbox_nb.jobs import Job
from chatterbox_nb.notebook.panels import widgets
from chatterbox_nb.notebook.panels.part import Part, Whole
from chatterbox_nb.notebook.panels.state import State
from chatterbox_nb.render import panels as drawn

_KINDS = ("load", "unload", "look")


class Precision(Part):
    name = "precision"
    title = "Precision"
    every_seconds = 30.0  # the memory that is free may be another

    def __init__(self, panel: Whole) -> None:
        super().__init__(panel)
        model, precision, device = _settings()
        self.model = widgets.dropdown("Model", catalog.names(), model)
        self.device = widgets.dropdown("Device", ["auto", *({device} - {"auto"})], device)
        self.precision = widgets.dropdown("Precision", settings.PRECISIONS, precision)
        self.source = widgets.text("Source", "the model's own; a folder, or owner/name on the hub")
        self.kernel = widgets.dropdown("Kernel", settings.KERNELS, "auto")
        self.load = widgets.button("Load", self.settled(self._load), "Load this model at this precision", main=True)
        self.unload = widgets.button("Unload", self.guarded(self._unload), "Give the model's memory back")
        self.stop = widgets.button("Stop", self.stops("load"), "Stop loading")
        self.choices = widgets.html(drawn.hint("Looking for devices; the first time imports PyTorch."))
        self.loaded = widgets.html()
        self.widget = self.card(
            self.model,
            self.device,
            self.precision,
            self.choices,
            widgets.folded("More", self.source, self.kernel),
            widgets.row(self.load, self.unload, self.stop),
            below=[self.loaded],
        )
        self.read_from(self.model, self.device, self.precision, self.source, self.kernel)
        for field in (self.model, self.device, self.precision, self.source):
            field.observe(lambda change: self.panel.wake(), "value")
        self._looking: Job[Outlook] | None = None
        self._looked_at: tuple[Any, ...] = ()  # what the outlook is of
        self._looked = 0.0
        self._outlook: Outlook | None = None
        self._followed: object = None  # the load that the fields were set to

    def _load(self) -> None:
        manager.get().load(
            self.model.value,
            self.precision.value,
            self.device.value,
            self.source.value.strip() or None,
            self.kernel.value,
        )

    def _unload(self) -> None:
        manager.get().unload()

    def draw(self, state: State) -> None:
        self._follow(state)
        self._look(state)
        report = state.report
        loading = state.running("load") is not None
        self.load.description = "Switch" if report else "Load"
        self.load.disabled = state.busy
        self.unload.disabled = state.busy or report is None
        self.stop.disabled = not loading
        self.show_progress(state, *_KINDS)
        self.show_outcome(state, "load", "unload")
        if self._outlook is not None:
            widgets.offer(self.device, ["auto", *self._outlook.devices])
            here = report if report and report.model == self._outlook.model else None
            at = here.plan.precision if here and here.plan.device == self._outlook.device else ""
            self.choices.value = drawn.choices(self._outlook, self.precision.value, at)
        self.loaded.value = drawn.loaded(report) if report else drawn.hint("No model is loaded.")

    def _follow(self, state: State) -> None:
        """Sets the fields to what was loaded, by whomever, once."""
        report = state.report
        if report is not None and report is not self._followed:
            if report.model in self.model.options:
                self.model.value = report.model
            self.precision.value = "auto" if state.automatic else report.plan.precision
        self._followed = report

    def _look(self, state: State) -> None:
        """Keeps the outlook true: of what is picked, and of the memory that is free now."""
        if self._looking is not None:
            if not self._looking.done:
                return
            self._see(self._looking.result)
            self._looking = None
        asked = self.model.value, self.device.value, self.source.value.strip() or None
        done = state.activity.last("load", "unload")
        stale = time.time() - self._looked > self.every_seconds - 1 or (done is not None and done.ended > self._looked)
        if asked == self._looked_at and not stale:
            return
        if not choices.known(asked[0], asked[2]):
            if asked != self._looked_at:
                self._looking = manager.get().look(*asked)
        elif asked != self._looked_at or not state.busy:
            self._see(lambda: manager.get().outlook(*asked))
        self._looked_at, self._looked = asked, time.time()

    def _see(self, outlook: Callable[[], Outlook]) -> None:
        """Takes an outlook over, or says why there is none."""
        try:
            self._outlook = outlook()
        except TTSError as error:
            self._outlook = None
            self.choices.value = drawn.notice(str(error), "error")


def _settings() -> tuple[str, str, str]:
    """The model, precision and device that the settings ask for; a bad setting is told when it is used."""
    try:
        model = catalog.spec(settings.value_of("model")).name
        return model, settings.precision_asked()[0], settings.value_of("device")
    except TTSError:
        return "demo", "auto", "auto"
