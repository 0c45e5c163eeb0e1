"""What observers are told, and how work is stopped."""

from __future__ import annotations

import threading
from dataclasses import FrozenInstanceError

import pytest

from chatterbox_nb import events
from chatterbox_nb.errors import Cancelled
from chatterbox_nb.events import CancelToken, Progress


def test_a_new_token_lets_work_go_on() -> None:
    token = CancelToken()
    token.check()
    assert not token.cancelled


def test_a_cancelled_token_stops_work_each_time_it_is_checked() -> None:
    token = CancelToken()
    token.cancel()
    assert token.cancelled
    for _ in range(2):
        with pytest.raises(Cancelled, match="Stopped"):
            token.check()


def test_cancelling_twice_is_cancelling() -> None:
    token = CancelToken()
    token.cancel()
    token.cancel()
    assert token.cancelled


def test_tokens_are_independent() -> None:
    one, other = CancelToken(), CancelToken()
    one.cancel()
    other.check()


def test_work_on_another_thread_is_stopped() -> None:
    token, working, stopped = CancelToken(), threading.Event(), threading.Event()

    def work() -> None:
        try:
            while True:
                token.check()
                working.set()
        except Cancelled:
            stopped.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert working.wait(30)
    token.cancel()
    assert stopped.wait(30)
    thread.join(30)


def test_progress_cannot_be_changed() -> None:
    progress = Progress("tokens", done=3)
    with pytest.raises(FrozenInstanceError):
        progress.done = 4  # type: ignore[misc]


def test_progress_needs_no_more_than_a_stage() -> None:
    progress = Progress("find")
    assert (progress.done, progress.total, progress.fraction) == (0, None, None), "what nobody knows is None"
    assert (progress.chunk, progress.chunks) == (0, 1)


def test_equal_steps_are_equal() -> None:
    """Whoever draws can tell whether there is anything new to draw."""
    assert Progress("tokens", 3, chunk=1) == Progress("tokens", 3, chunk=1) != Progress("tokens", 3)


def test_no_stage_is_named_twice() -> None:
    stages = (*events.LOAD_STAGES, *events.TAKE_STAGES)
    assert len(set(stages)) == len(stages)


def test_the_observer_that_looks_away_is_an_observer() -> None:
    observer: events.Observer = events.ignore
    observer(Progress("tokens"))
