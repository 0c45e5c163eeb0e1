"""What a saved notebook shows of a panel: a picture in HTML that needs no kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import OTHER_SENTENCE, SENTENCE
from nbconvert import HTMLExporter
from panels import until
from saved import Found
from shells import Kernel

import chatterbox_nb as tts
from chatterbox_nb import manager
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.notebook.panels import pump
from chatterbox_nb.render import panels as drawn
from chatterbox_nb.render import style
from chatterbox_nb.take import Take

pytestmark = [pytest.mark.xdist_group("notebook runners"), pytest.mark.usefixtures("nothing_open")]


@pytest.fixture
def take(loaded: manager.Manager) -> Take:
    return tts.speak(OTHER_SENTENCE, seed=1)


def test_it_is_brought_up_to_date_when_a_model_is_loaded_and_when_something_is_spoken(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.get().unload().wait()
    kernel.ok("%tts_panel")
    (board,) = pump.get().boards()
    assert board._still is not None
    shown: list[str] = []
    monkeypatch.setattr(board._still, "update", lambda bundle, raw: shown.append(bundle["text/html"]))
    tts.load("demo", "int8")
    until(lambda: len(shown) == 1)
    assert f"{catalog.spec('demo').title} at int8 on cpu" in shown[0]
    tts.speak(SENTENCE, seed=1)
    until(lambda: len(shown) == 2)
    assert SENTENCE in shown[1]
    assert "<audio controls" in shown[1]
    tts.takes.clear()
    until(lambda: len(shown) == 3)
    assert "<audio" not in shown[2]


def test_a_panel_without_takes_saves_none(kernel: Kernel, take: Take) -> None:
    (picture, _) = kernel.ok("%tts_panel memory").displays
    assert "<audio" not in picture["text/html"]
    displays = kernel.ok("%tts_panel speak").displays  # the other panel's picture may be drawn anew meanwhile
    assert [shown for shown in displays if "<audio" in shown.get("text/html", "")]


def test_it_holds_the_newest_takes_and_no_more_sound_than_a_notebook_should(
    take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = manager.get().memory()
    takes = [replace(take, request=replace(take.request, seed=seed)) for seed in range(5)]
    few = drawn.still("x", None, reading, takes)
    assert [f"seed {seed}" in few for seed in range(5)] == [True, True, True, False, False]
    assert drawn._STILL_BYTES <= 3_000_000
    monkeypatch.setattr(drawn, "_STILL_BYTES", 300_000)
    noise = np.random.default_rng(1).normal(0, 0.1, 24_000 * 60).astype(np.float32)
    long = replace(take, samples=noise)
    assert len(long.mp3) > 300_000
    assert drawn.still("x", None, reading, [take, long, take]).count("<audio") == 1
    assert "press" not in drawn.still("x", None, reading, [])


def test_the_live_panel_hides_it(take: Take) -> None:
    picture = drawn.still("1a2b", None, manager.get().memory(), [take])
    assert f'<div class="{style.still_class("1a2b")}"><style>' in picture
    assert f"body:has(.{style.live_class('1a2b')}) .{style.still_class('1a2b')}" in picture


def test_a_notebook_that_is_run_without_a_page_saves_the_picture_as_it_was_in_the_end(ran: Any) -> None:
    picture, view = ran.cells[1].outputs
    assert "Are you there?" in picture.data["text/html"]
    assert "<audio controls" in picture.data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in view.data
    assert not [output for cell in ran.cells for output in cell.outputs if output.output_type == "stream"]


def test_its_page_can_be_read_without_a_kernel_and_without_a_network(ran: Any) -> None:
    page, _ = HTMLExporter().from_notebook_node(ran)
    assert "Chatterbox panel: Demo voice" in page
    assert len(Found(page).players) == 4  # two in the panel's picture, and the cells' own
    assert "Root(" not in page
