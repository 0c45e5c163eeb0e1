"""What is clicked is done after what was typed, whatever order the two arrive in."""

from __future__ import annotations

import time

import ipywidgets
import pytest
from conftest import OTHER_SENTENCE
from panels import opened, until
from shells import Kernel

import chatterbox_nb as tts
from chatterbox_nb import manager
from chatterbox_nb.notebook.panels import settle
from chatterbox_nb.notebook.panels.settle import Settle


@pytest.fixture
def fields(kernel: Kernel) -> list[ipywidgets.Text]:
    return [ipywidgets.Text(), ipywidgets.Text()]


def page_answers(settled: Settle, field: ipywidgets.Text, text: str) -> None:
    """What a page sends of a field: what was typed, and behind it the number it was sent."""
    field.value = text
    field._view_count = settled._bell.value


def test_an_action_waits_for_every_field(fields: list[ipywidgets.Text]) -> None:
    settled = Settle(fields, seen=lambda: True)
    found: list[list[str]] = []
    settled.then(lambda: found.append([field.value for field in fields]))
    assert not found
    page_answers(settled, fields[1], "behind the click")
    assert not found
    page_answers(settled, fields[0], "too")
    assert found == [["too", "behind the click"]]
    page_answers(settled, fields[0], "again")
    assert len(found) == 1


def test_an_older_answer_does_not_count(fields: list[ipywidgets.Text]) -> None:
    settled = Settle(fields[:1], seen=lambda: True)
    found: list[str] = []
    settled.then(lambda: found.append("first"))
    page_answers(settled, fields[0], "one")
    settled.then(lambda: found.append("second"))
    fields[0]._view_count += 1  # the page counts a view there
    assert found == ["first"]
    page_answers(settled, fields[0], "two")
    assert found == ["first", "second"]


def test_without_a_page_there_is_nothing_to_wait_for(fields: list[ipywidgets.Text]) -> None:
    found: list[int] = []
    Settle(fields, seen=lambda: False).then(lambda: found.append(1))
    assert found == [1]


def test_a_page_that_answers_nothing_is_not_waited_for_unless_a_cell_runs(
    fields: list[ipywidgets.Text], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "_PATIENCE_SECONDS", 0.2)
    settled = Settle(fields, seen=lambda: True)
    found: list[int] = []
    settled.then(lambda: found.append(1))
    settled.give_up(busy=False)
    assert not found
    time.sleep(0.3)
    settled.give_up(busy=True)
    assert not found
    settled.give_up(busy=False)
    settled.give_up(busy=False)
    assert found == [1]


def test_a_panel_whose_page_answers_nothing_still_speaks(
    kernel: Kernel, loaded: manager.Manager, nothing_open: None
) -> None:
    speak = opened(kernel, "speak", "memory")
    speak.seen()
    speak.speak.text.value = OTHER_SENTENCE
    speak.speak.speak.click()
    time.sleep(0.5)
    assert not len(tts.takes)
    until(lambda: len(tts.takes) == 1, 20)
