"""What is true at one moment, read from the manager: everything that panels show is drawn from this."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chatterbox_nb import history, library, manager, settings
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.engine.report import LoadReport
from chatterbox_nb.errors import TTSError
from chatterbox_nb.jobs import Activity, Job
from chatterbox_nb.render.panels import WINDOW_SECONDS
from chatterbox_nb.render.progress import Pace
from chatterbox_nb.take import Take
from chatterbox_nb.usage import MemoryReading

if TYPE_CHECKING:
    from chatterbox_nb.engine.model import Model

Samples = tuple[tuple[float, int], ...]  # (seconds since the epoch, bytes)


@dataclass(frozen=True)
class State:
    """The manager's state.

    Args:
        spec, report: of the model that is loaded.
        language: the code of the one it speaks where none is named.
        automatic: its precision was `auto`'s choice.
        left: seconds until the running job is done, where that can be told.
        reading: the newest that was taken.
        samples: what was read while a memory panel was shown.
        time: seconds since the epoch.
    """

    activity: Activity
    spec: ModelSpec | None
    report: LoadReport | None
    language: str | None
    automatic: bool
    takes: tuple[Take, ...]
    voices: tuple[str, ...]
    left: float | None
    reading: MemoryReading
    samples: Samples
    time: float

    def running(self, *kinds: str) -> Job[object] | None:
        """The job that is running, if it is of these kinds."""
        job = self.activity.running
        return job if job is not None and job.kind in kinds else None

    @property
    def busy(self) -> bool:
        """The model has work. A look at what could be loaded is none."""
        job = self.activity.running
        return self.activity.waiting > 0 or (job is not None and job.kind != "look")


class Reader:
    """Reads the state, and remembers what only time tells: how fast a job goes, and the memory of the last minutes."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=WINDOW_SECONDS + 20)
        self._reading: MemoryReading | None = None
        self._job: Job[object] | None = None
        self._pace = Pace()
        self._voices: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def sample(self) -> None:
        """Reads the memory, for the line over time."""
        reading = manager.get().memory()
        used = reading.process if reading.device == "cpu" else reading.allocated or 0
        with self._lock:
            self._samples.append((time.time(), used))
            self._reading = reading

    def __call__(self, changed: bool) -> State:
        """The state.

        Args:
            changed: memory and voices are read again.
        """
        with self._lock:
            return self._state(changed)

    def _state(self, changed: bool) -> State:
        shared = manager.get()
        if changed or self._reading is None:
            self._reading = shared.memory()
            self._voices = _voices()
        activity = shared.activity()
        if activity.running is not self._job:
            self._job, self._pace = activity.running, Pace()
        model = shared.model
        return State(
            activity=activity,
            spec=model.spec if model else None,
            report=model.report if model else None,
            language=_language(model) if model else None,
            automatic=shared.automatic,
            takes=tuple(history.takes),
            voices=self._voices,
            left=self._pace.left(self._job.latest) if self._job else None,
            reading=self._reading,
            samples=tuple(self._samples),
            time=time.time(),
        )


def _voices() -> tuple[str, ...]:
    try:
        return tuple(library.voices.list())
    except (OSError, TTSError):  # a bad VOICE_LIBRARY_DIR is told where a voice is used
        return ()


def _language(model: Model) -> str:
    try:
        return model.language(settings.value_of("language") if len(model.spec.languages) > 1 else None)
    except TTSError:  # a setting that names none of its languages is told where it is used
        return model.language()
