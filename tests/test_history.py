"""The takes of this kernel: kept, bounded, forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from conftest import OTHER_SENTENCE, SENTENCE

import chatterbox_nb as tts
from chatterbox_nb import history, manager
from chatterbox_nb.errors import SettingError
from chatterbox_nb.history import TakeHistory
from chatterbox_nb.take import Take


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    tts.takes.clear()
    yield
    tts.takes.clear()


@pytest.fixture(scope="module")
def take() -> Take:
    manager.get().load("demo", "int8").wait()
    return tts.speak(OTHER_SENTENCE, seed=1)


def seconds(take: Take, count: float) -> Take:
    """The take, as if it were that long; untouched memory takes none."""
    return replace(take, samples=np.zeros(int(count * take.sample_rate), np.float32))


def test_what_was_spoken_is_kept_the_newest_first(loaded: manager.Manager) -> None:
    first = tts.speak(SENTENCE, seed=1)
    second = tts.speak(OTHER_SENTENCE, seed=2)
    assert list(tts.takes) == [second, first]
    assert tts.takes[0] is second
    assert len(tts.takes) == 2
    assert repr(tts.takes).startswith("TakeHistory(2 takes, ")


def test_what_was_finished_of_a_take_that_was_stopped_is_kept(loaded: manager.Manager) -> None:
    token = tts.CancelToken()
    with pytest.raises(tts.TTSError):
        tts.submit(
            f"{SENTENCE}\n\n{OTHER_SENTENCE}", seed=1, cancel=token, on_chunk=lambda piece: token.cancel()
        ).wait()
    (kept,) = tts.takes
    assert kept.finish == "cancelled"
    assert [chunk.text for chunk in kept.chunks] == [SENTENCE.lower()]


def test_a_stream_is_kept_as_one_take(loaded: manager.Manager) -> None:
    pieces = list(tts.stream(f"{SENTENCE}\n\n{OTHER_SENTENCE}", seed=1))
    assert len(pieces) == 2
    (kept,) = tts.takes
    assert [chunk.text for chunk in kept.chunks] == [SENTENCE.lower(), OTHER_SENTENCE.lower()]


def test_only_so_many_are_kept(take: Take) -> None:
    kept = TakeHistory()
    for seed in range(5):
        kept.add(replace(take, request=replace(take.request, seed=seed)), most=3)
    assert [one.request.seed for one in kept] == [4, 3, 2]


def test_long_takes_are_bounded_by_their_bytes_and_the_newest_stays(take: Take) -> None:
    kept = TakeHistory()
    ten_minutes = seconds(take, 600)
    for _ in range(6):
        kept.add(ten_minutes, most=20)
    assert sum(one.samples.nbytes for one in kept) <= history._KEPT_BYTES < 7 * ten_minutes.samples.nbytes
    assert len(kept) == 3
    hours = seconds(take, 3600)
    kept.add(hours, most=20)
    assert list(kept) == [hours]


def test_none_are_kept_when_the_setting_says_so(loaded: manager.Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAKES_KEPT", "0")
    tts.speak(OTHER_SENTENCE, seed=1)
    assert not len(tts.takes)


def test_a_bad_setting_is_refused_before_any_work(loaded: manager.Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAKES_KEPT", "many")
    with pytest.raises(SettingError, match="TAKES_KEPT='many' must be a whole number"):
        tts.submit(OTHER_SENTENCE, seed=1)


def test_a_take_can_be_forgotten_and_whoever_watches_hears_of_it(take: Take) -> None:
    tts.takes.add(take, most=20)
    heard: list[int] = []
    stop = manager.get().watch(lambda: heard.append(len(tts.takes)))
    try:
        tts.takes.remove(take)
        tts.takes.remove(take)
    finally:
        stop()
    assert heard == [0, 0]
