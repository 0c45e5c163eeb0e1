"""The model thread: order, Busy, cancel, errors without frames."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
import torch

from chatterbox_nb.errors import Busy, Cancelled, EngineError, OutOfMemory, TextError, TTSError
from chatterbox_nb.events import CancelToken, Progress
from chatterbox_nb.jobs import Job, ModelThread


@pytest.fixture
def thread() -> Iterator[ModelThread]:
    yield ModelThread(after_failure=lambda: None)


def test_jobs_run_in_the_order_they_were_asked_for_and_one_at_a_time(thread: ModelThread) -> None:
    seen: list[int] = []
    running: list[int] = []

    def work(number: int) -> int:
        running.append(number)
        assert len(running) == 1
        time.sleep(0.005)
        seen.append(number)
        running.remove(number)
        return number

    jobs = [thread.submit("counting", lambda job, number=number: work(number)) for number in range(8)]  # type: ignore[misc]
    assert [job.wait() for job in jobs] == seen == list(range(8))


def test_all_jobs_run_on_one_thread_that_is_not_the_callers(thread: ModelThread) -> None:
    first, second = (thread.submit("looking", lambda job: threading.current_thread()).wait() for _ in range(2))
    assert first is second
    assert first is not threading.current_thread()
    assert first.daemon


def test_inference_mode_is_on_there_and_not_here(thread: ModelThread) -> None:
    assert thread.submit("looking", lambda job: torch.is_inference_mode_enabled()).wait()
    assert not torch.is_inference_mode_enabled()


def test_busy_says_what_is_running() -> None:
    thread = ModelThread(after_failure=lambda: None)
    gate = threading.Event()
    job = thread.submit("speaking", lambda job: gate.wait(10))
    while thread.busy is None:
        time.sleep(0.001)
    with pytest.raises(Busy, match="speaking"):
        thread.submit("more", lambda job: None, wait=False)
    gate.set()
    job.wait()
    assert thread.busy is None
    assert thread.submit("more", lambda job: 5, wait=False).wait() == 5


def test_a_cancelled_job_that_waits_never_starts(thread: ModelThread) -> None:
    gate, ran = threading.Event(), []
    running = thread.submit("speaking", lambda job: gate.wait(10))
    waiting = thread.submit("more", lambda job: ran.append(1))
    waiting.cancel()
    gate.set()
    running.wait()
    with pytest.raises(Cancelled):
        waiting.wait()
    assert not ran


def test_a_callers_token_cancels_its_job(thread: ModelThread) -> None:
    token = CancelToken()

    def work(job: Job[None]) -> None:
        token.cancel()
        job.cancel_token.check()

    with pytest.raises(Cancelled):
        thread.submit("speaking", work, cancel=token).wait()


def test_an_error_of_ours_arrives_as_it_is_and_without_frames(thread: ModelThread) -> None:
    def work(job: Job[None]) -> None:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise TextError("Nothing to say.") from inner

    job = thread.submit("speaking", work)
    while not job.done:
        time.sleep(0.001)
    with pytest.raises(TextError, match=r"^Nothing to say\.$") as caught:
        job.result()
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_bug_becomes_one_line_that_names_the_place_and_keeps_its_traceback_as_text(thread: ModelThread) -> None:
    def work(job: Job[None]) -> None:
        raise ZeroDivisionError("by zero")

    with pytest.raises(EngineError, match=r"Unexpected ZeroDivisionError at test_jobs\.py:\d+: by zero") as caught:
        thread.submit("speaking", work).wait()
    assert "Traceback" in caught.value.details


def test_running_out_of_memory_says_what_to_do(thread: ModelThread) -> None:
    with pytest.raises(OutOfMemory, match="--precision int8"):
        thread.submit("loading", lambda job: torch.empty(1 << 62, dtype=torch.uint8)).wait()


def test_no_tensor_outlives_the_job_that_failed_with_it(thread: ModelThread) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def work(job: Job[None]) -> None:
        tensor = torch.zeros(1000)
        held.append(weakref.ref(tensor))
        raise RuntimeError("with a tensor in the frame")

    job = thread.submit("speaking", work)
    with pytest.raises(EngineError):
        job.wait()
    gc.collect()
    assert held[0]() is None


def test_progress_reaches_the_jobs_observer_and_everyone_who_looks(thread: ModelThread) -> None:
    own: list[Progress] = []
    everyones: list[Progress] = []
    stop = thread.observe(everyones.append)

    def work(job: Job[None]) -> None:
        thread.teller(job)(Progress("tokens", 1))

    job = thread.submit("speaking", work, observer=own.append)
    job.wait()
    assert own == everyones == [Progress("tokens", 1)]
    assert job.latest == Progress("tokens", 1)
    stop()
    thread.submit("speaking", work).wait()
    assert len(everyones) == 1


def test_an_observer_may_submit_work(thread: ModelThread) -> None:
    """Observers are called outside of any lock."""
    more: list[Job[int]] = []

    def work(job: Job[None]) -> None:
        thread.teller(job)(Progress("tokens", 1))

    thread.submit("speaking", work, observer=lambda progress: more.append(thread.submit("more", lambda job: 7))).wait()
    assert more[0].wait() == 7


def test_waiting_ticks_on_the_waiting_thread(thread: ModelThread) -> None:
    gate = threading.Event()
    ticks: list[tuple[Progress | None, threading.Thread]] = []

    def work(job: Job[None]) -> None:
        job.observe(Progress("mel", 3))
        gate.wait(10)

    def tick(progress: Progress | None) -> None:
        ticks.append((progress, threading.current_thread()))
        gate.set()

    thread.submit("speaking", work).wait(tick)
    assert ticks[-1] == (Progress("mel", 3), threading.current_thread())


def test_when_done_is_called_once_also_when_it_is_late(thread: ModelThread) -> None:
    called: list[int] = []
    job = thread.submit("speaking", lambda job: None)
    job.wait()
    job.when_done(lambda: called.append(1))
    assert called == [1]


def test_the_activity_tells_what_runs_what_waits_and_what_was_done(thread: ModelThread) -> None:
    gate = threading.Event()
    first = thread.submit("speaking", lambda job: gate.wait(10), kind="take")
    thread.submit("loading demo", lambda job: None, kind="load")
    while thread.activity().running is not first:
        pass
    activity = thread.activity()
    assert activity.waiting == 1
    assert activity.last("take", "load") is None
    assert first.began is not None
    gate.set()
    thread.submit("more", lambda job: None).wait()
    activity = thread.activity()
    assert activity.running is None
    assert [done.kind for done in activity.done] == ["take", "load", "work"]
    last = activity.last("take")
    assert last is not None
    assert last.began == first.began <= last.ended
    assert (last.failure, last.stopped) == ("", False)


def test_the_activity_remembers_how_a_job_failed(thread: ModelThread) -> None:
    def work(job: Job[None]) -> None:
        raise TTSError("No such thing. Try another.")

    with pytest.raises(TTSError):
        thread.submit("loading", work, kind="load").wait()
    job = thread.submit("speaking", lambda job: job.cancel_token.check(), kind="take", cancel=cancelled())
    with pytest.raises(Cancelled):
        job.wait()
    failed, stopped = thread.activity().done
    assert (failed.failure, failed.stopped) == ("No such thing. Try another.", False)
    assert (stopped.failure, stopped.stopped) == ("Stopped.", True)


def cancelled() -> CancelToken:
    token = CancelToken()
    token.cancel()
    return token


def test_only_the_last_jobs_are_remembered(thread: ModelThread) -> None:
    for _ in range(80):
        job = thread.submit("looking", lambda job: None)
    job.wait()
    assert len(thread.activity().done) == 60


def test_whoever_watches_hears_of_every_step(thread: ModelThread) -> None:
    seen: list[tuple[bool, int, int]] = []

    def watch() -> None:
        activity = thread.activity()
        seen.append((activity.running is not None, activity.waiting, len(activity.done)))

    stop = thread.watch(watch)
    job = thread.submit("speaking", lambda job: thread.teller(job)(Progress("tokens", 1)))
    job.wait()
    thread.submit("another", lambda job: None).wait()
    stop()
    thread.changed()
    assert (True, 0, 0) in seen  # while it ran
    assert (False, 0, 1) in seen  # and when it was done
    assert not thread._watchers
