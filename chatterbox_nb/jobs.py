"""The model thread: jobs in the order they were asked for, one at a time.

CUDA graphs, thread pools and random state then have one owner. `submit` gives a Job; a caller waits for it, or asks for
`Busy` instead of waiting. Observers are called on this thread, outside of any lock.
"""

from __future__ import annotations

import queue
import re
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from chatterbox_nb import usage
from chatterbox_nb.errors import Busy, Cancelled, EngineError, OutOfMemory, TTSError
from chatterbox_nb.events import CancelToken, Observer, Progress

T = TypeVar("T")
_WAIT_SLICE_SECONDS = 0.1
_REMEMBERED = 60  # jobs that are done, for whoever shows what happened
# What a job is, for whoever shows it. A look is at what could be loaded.
KINDS = ("load", "unload", "take", "voice", "look", "work")


@dataclass(eq=False)
class Job(Generic[T]):
    """Work on the model thread: wait for its `result`, `cancel` it, look at its `latest` progress.

    `device`, `needs` and `cure` are what an error tells when memory runs out: where, how many bytes the work needs at
    the least, and what to try. The work sets them as it comes to know them. `kind` is one of `KINDS`; `began` is in
    seconds since the epoch, once it runs.
    """

    label: str
    work: Callable[[Job[T]], T]
    observer: Observer | None = None
    cancel_token: CancelToken = field(default_factory=CancelToken)
    kind: str = "work"
    on_progress: Callable[[], None] | None = None
    began: float | None = None
    latest: Progress | None = None
    device: str = "cpu"
    needs: int | None = None
    cure: str = "Try %tts_load --precision int8, or close other notebooks."
    _future: Future[T] = field(default_factory=Future)

    def observe(self, progress: Progress) -> None:
        """The observer that the work calls."""
        self.latest = progress
        if self.on_progress is not None:
            self.on_progress()
        if self.observer is not None:
            self.observer(progress)

    def cancel(self) -> None:
        """Asks it to stop; it does so within a token or a flow step."""
        self.cancel_token.cancel()

    @property
    def done(self) -> bool:
        return self._future.done()

    def when_done(self, callback: Callable[[], None]) -> None:
        """Calls back once it is done, or at once if it is."""
        self._future.add_done_callback(lambda future: callback())

    def result(self, timeout: float | None = None) -> T:
        """What the work returned, or its error. Raises `StillRunning` after `timeout` seconds."""
        return self._future.result(timeout)

    def wait(self, on_tick: Callable[[Progress | None], None] = lambda progress: None) -> T:
        """Waits in short slices. An interrupt cancels the work, waits for it to stop, and shows as its Cancelled.

        Args:
            on_tick: told the latest progress, on the waiting thread, about ten times a second.
        """
        while True:
            try:
                with suppress(StillRunning):
                    return self.result(_WAIT_SLICE_SECONDS)
                on_tick(self.latest)
            except KeyboardInterrupt:
                self.cancel()


@dataclass(frozen=True)
class Done:
    """A job that ended.

    Args:
        began, ended: seconds since the epoch.
        failure: what went wrong, in its error's words; empty when nothing did.
        stopped: it was stopped on request.
    """

    kind: str
    label: str
    began: float
    ended: float
    failure: str = ""
    stopped: bool = False


@dataclass(frozen=True)
class Activity:
    """What the model thread is doing, how many jobs wait behind it, and what it did, the newest last."""

    running: Job[Any] | None
    waiting: int
    done: tuple[Done, ...]

    def last(self, *kinds: str) -> Done | None:
        """The last job of these kinds that ended."""
        return next((done for done in reversed(self.done) if done.kind in kinds), None)


class ModelThread:
    """Runs jobs. `after_failure` is called when one failed, to give memory back."""

    def __init__(self, after_failure: Callable[[], None]) -> None:
        self._jobs: queue.SimpleQueue[Job[Any]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._running: Job[Any] | None = None
        self._waiting = 0
        self._observers: list[Observer] = []
        self._watchers: list[Callable[[], None]] = []
        self._done: deque[Done] = deque(maxlen=_REMEMBERED)
        self._after_failure = after_failure

    def submit(
        self,
        label: str,
        work: Callable[[Job[T]], T],
        observer: Observer | None = None,
        cancel: CancelToken | None = None,
        wait: bool = True,
        kind: str = "work",
    ) -> Job[T]:
        """Puts work on the model thread.

        Args:
            label: what it is, for people: "speaking".
            kind: one of `KINDS`.
            work: called there with its Job.
            observer: told of its progress.
            cancel: a token of the caller's.
            wait: False raises Busy when there is other work.

        Raises:
            Busy: other work is running or waiting.
        """
        job = Job(label, work, observer, cancel or CancelToken(), kind, self.changed)
        with self._lock:
            if not wait and (self._running is not None or self._waiting):
                running = self._running.label if self._running else "other work"
                raise Busy(
                    f"The model is {running}, and {self._waiting} more wait. Stop it, or try again when it is done."
                )
            self._waiting += 1
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._serve, name="chatterbox-nb model", daemon=True)
                self._thread.start()
        self._jobs.put(job)
        self.changed()
        return job

    @property
    def busy(self) -> str | None:
        """What the model thread is doing, or None."""
        running = self._running
        return running.label if running else None

    def activity(self) -> Activity:
        """What it is doing, at this moment."""
        with self._lock:
            return Activity(self._running, self._waiting, tuple(self._done))

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Calls a watcher whenever something is other than it was: a job asked for, begun, further on or done, a model
        loaded, a take or a voice kept. On the thread that changed it, so it must return at once. Returns what stops it.
        """
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def changed(self) -> None:
        """Tells everyone who watches."""
        for watcher in tuple(self._watchers):
            watcher()

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Tells an observer of all work, and of every load and unload as it ends. Returns what stops that."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer) if observer in self._observers else None

    def _serve(self) -> None:
        while True:
            job = self._jobs.get()
            with self._lock:
                self._waiting -= 1
                self._running = job
                job.began = time.time()
            self.changed()
            self._run(job)
            del job

    def _run(self, job: Job[Any]) -> None:
        outcome: Any = None
        failure: BaseException | None = None
        try:
            job.cancel_token.check()
            if "torch" not in sys.modules:
                job.observe(Progress("import", detail="PyTorch"))
            import torch

            with torch.inference_mode():
                outcome = job.work(job)
        except BaseException as error:
            failure = in_one_line(error, job)
        # Outside of the handler: a failure raised in it would keep the frames, and so the tensors, of what failed.
        told, stopped = str(failure) if failure is not None else "", isinstance(failure, Cancelled)
        with self._lock:
            self._running = None
            self._done.append(Done(job.kind, job.label, job.began or 0.0, time.time(), told, stopped))
        if failure is None:
            job._future.set_result(outcome)
        else:
            self._after_failure()
            job._future.set_exception(failure)
        self.changed()

    def teller(self, job: Job[Any]) -> Observer:
        """The observer that work reports to: its job's own, and everyone who observes the manager."""

        def observe(progress: Progress) -> None:
            job.observe(progress)
            for observer in tuple(self._observers):
                observer(progress)

        return observe


def in_one_line(error: BaseException, job: Job[Any]) -> BaseException:
    """The error a caller is to see: ours as it is, others as one that says what to do. Without frames."""
    if isinstance(error, TTSError):
        kept: BaseException = error
    elif _out_of_memory(error):
        kept = OutOfMemory(_told(error, job))
    else:
        details = "".join(traceback.format_exception(error))
        where = traceback.extract_tb(error.__traceback__)[-1] if error.__traceback__ else None
        place = f" at {Path(where.filename).name}:{where.lineno}" if where else ""
        kept = EngineError(
            f"Unexpected {type(error).__name__}{place}: {error}. This is a bug; the error's .details tells where.",
            details,
        )
    kept.__traceback__ = kept.__cause__ = kept.__context__ = None
    return kept


def _out_of_memory(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (
            isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "out of memory" in str(error))
        )
    )


_ASKED = re.compile(r"allocate (\d+(?:\.\d*)?) ?(bytes|[KMGT]i?B)", re.IGNORECASE)
_UNITS = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def _told(error: BaseException, job: Job[Any]) -> str:
    """What memory ran out for: where, needed and free bytes, and what to try."""
    stage = f", {job.latest.stage}" if job.latest else ""
    needed = [f"{job.label} needs at least {job.needs / 1e9:.3g} GB"] if job.needs else []
    if found := _ASKED.search(str(error)):
        asked = float(found[1]) * _UNITS[found[2][0].lower()]
        needed.append(f"{asked / 1e9:.3g} GB more were asked for")
    free = usage.read(job.device).allocatable
    known = f"{free / 1e9:.3g} GB is free" if free is not None else "how much is free is not known"
    return f"Out of memory on {job.device} ({job.label}{stage}): {'; '.join([*needed, known])}. {job.cure}"
