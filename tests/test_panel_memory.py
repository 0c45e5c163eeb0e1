"""Who sees a panel: memory is read once a second while somebody does, and nothing goes on when nobody is left."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from dataclasses import replace
from typing import Any

import ipywidgets
import pytest
from conftest import OTHER_SENTENCE
from panels import Opened, opened, until, words
from shells import Kernel

import chatterbox_nb as tts
from chatterbox_nb import manager, usage
from chatterbox_nb.jobs import Done
from chatterbox_nb.notebook.panels import presence, pump
from chatterbox_nb.render import panels as drawn

pytestmark = pytest.mark.usefixtures("loaded", "nothing_open")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four ticks a second, so that less time shows that there are none."""
    monkeypatch.setattr(pump, "_TICK_SECONDS", 0.25)


def readings(seconds: float) -> int:
    """How many readings of the memory are taken in that time."""
    before = pump.get().sampled
    time.sleep(seconds)
    return pump.get().sampled - before


@pytest.fixture
def shown(kernel: Kernel) -> Opened:
    """A memory panel that a page shows."""
    panel = opened(kernel, "memory")
    panel.seen()
    until(lambda: panel.memory.figures.value)
    return panel


def test_it_ticks_once_a_second_while_it_is_shown(shown: Opened) -> None:
    assert 3 <= readings(4.5) <= 5


@pytest.mark.usefixtures("quick")
def test_it_does_not_tick_before_it_is_shown_and_shows_a_first_reading(kernel: Kernel) -> None:
    panel = opened(kernel, "memory")
    until(lambda: "this process" in words(panel.memory.figures))
    assert readings(0.6) == 0


@pytest.mark.usefixtures("quick")
def test_panels_without_memory_do_not_tick(kernel: Kernel) -> None:
    opened(kernel, "speak").seen()
    assert readings(0.6) == 0


@pytest.mark.usefixtures("quick")
def test_it_stops_when_its_output_is_cleared_and_goes_on_when_it_is_shown_again(shown: Opened) -> None:
    shown.seen(0)
    assert readings(0.6) <= 1
    assert readings(0.6) == 0
    stood = shown.memory.figures.value
    tts.speak(OTHER_SENTENCE, seed=1)
    time.sleep(0.5)
    assert shown.memory.figures.value == stood  # nobody sees it
    shown.seen(1)
    until(lambda: shown.memory.figures.value != stood, 3)
    assert readings(1.0) >= 2


@pytest.mark.usefixtures("quick")
def test_it_stops_when_it_is_closed_and_the_thread_ends_with_the_last_panel(kernel: Kernel, shown: Opened) -> None:
    other = opened(kernel, "takes")
    shown.board.close()
    assert readings(0.6) <= 1
    assert pump.get().running
    other.board.close()
    until(lambda: not pump.get().running, 10)
    assert not manager.get()._watchers


def test_closing_leaves_no_widget_behind(kernel: Kernel) -> None:
    registry = _registry()
    before = len(registry)
    panel = opened(kernel)
    tts.speak(OTHER_SENTENCE, seed=1)
    until(lambda: panel.takes.list.children)
    assert len(registry) > before + 50
    panel.board.close()
    assert len(registry) == before


def _comms() -> Any:
    """What keeps the channels of widgets; with ipykernel before 6.18 nothing does in a kernel without a page."""
    try:
        import comm
    except ImportError:
        return None
    return comm.get_comm_manager()


class Forgiving(dict[str, Any]):
    """Comms of which some are gone already."""

    def pop(self, key: str, default: Any = None) -> Any:
        return super().pop(key, default)


def _registry() -> Any:
    module = sys.modules["ipywidgets.widgets.widget"]
    return module._instances if hasattr(module, "_instances") else ipywidgets.Widget.widgets


@pytest.mark.usefixtures("quick")
def test_it_stops_when_it_is_collected(kernel: Kernel) -> None:
    """ipywidgets keeps every widget, unless it is told to hold them weakly; so nothing of ours may keep them."""
    registry = _registry()
    kept = dict(registry)
    kernel.ok("import chatterbox_nb as tts\npanel = tts.panel('memory')")
    board = kernel["panel"]._board
    board.root._view_count = 1
    time.sleep(0.5)
    gone = weakref.ref(board)
    for key in set(registry) - set(kept):
        del registry[key]
    comms = _comms()
    if comms is not None:
        comms.comms = Forgiving({key: one for key, one in comms.comms.items() if key in kept})
    del board
    kernel.ok("del panel")
    until(lambda: gc.collect() >= 0 and gone() is None, 10)
    if comms is not None:
        comms.comms = dict(comms.comms)
    until(lambda: not pump.get().running, 10)


@pytest.mark.usefixtures("quick")
def test_a_page_that_does_not_answer_any_more_is_not_sent_anything(
    shown: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is closed tells nothing; its messages would pile up in the server."""
    monkeypatch.setattr(presence, "_ASK_EVERY_SECONDS", 0.3)
    monkeypatch.setattr(presence, "_LOST_AFTER_SECONDS", 0.5)
    until(lambda: not shown.board.ticks, 10)
    assert readings(0.6) == 0
    shown.board.root.get_state()  # a page that is opened asks for everything
    assert shown.board.root._view_count == 0
    shown.seen(1)
    assert shown.board.ticks


@pytest.mark.usefixtures("quick")
def test_a_page_that_answers_is_there(shown: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_ASK_EVERY_SECONDS", 0.3)
    monkeypatch.setattr(presence, "_LOST_AFTER_SECONDS", 1.0)
    asked = shown.board.presence
    for _ in range(20):
        asked._answer(asked._asked)
        time.sleep(0.1)
        assert shown.board.ticks


@pytest.mark.usefixtures("quick")
def test_a_kernel_that_runs_a_cell_hears_no_answer_and_goes_on(
    kernel: Kernel, shown: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "_ASK_EVERY_SECONDS", 0.3)
    monkeypatch.setattr(presence, "_LOST_AFTER_SECONDS", 1.0)
    kernel.ok("import time; time.sleep(2); ticked = panel._board.ticks")
    assert kernel["ticked"]


def test_panels_whose_cells_were_run_again_are_closed_but_for_the_last(kernel: Kernel) -> None:
    for _ in range(6):
        kernel.ok("%tts_panel takes")
        newest = max(pump.get().boards(), key=lambda board: board.opened)
        newest.root._view_count = 1
        newest.root._view_count = 0
    kernel.ok("%tts_panel takes")
    assert len(pump.get().boards()) == 4


def test_one_that_somebody_holds_is_not_closed(kernel: Kernel) -> None:
    kernel.ok("import chatterbox_nb as tts\nheld = tts.panel('takes')")
    kernel["held"]._board.root._view_count = 1
    kernel["held"]._board.root._view_count = 0
    for _ in range(6):
        kernel.ok("%tts_panel takes")
        newest = max(pump.get().boards(), key=lambda board: board.opened)
        newest.root._view_count = 1
        newest.root._view_count = 0
    assert not kernel["held"]._board.closed


# What it shows


def test_low_memory_names_the_cure() -> None:
    reading = usage.MemoryReading("cpu", 10**9, 10**8, None, None, 15_500_000_000, 16_000_000_000)
    report = manager.get().loaded().report
    told = drawn.low_memory(reading, report)
    assert "500 MB of 16.0 GB is free on cpu. Close other programs or notebooks, or %tts_unload first." in told
    at_fp32 = replace(report, plan=replace(report.plan, precision="fp32"))
    assert "Try %tts_load demo --precision int8." in drawn.low_memory(reading, at_fp32)
    assert "Close other programs or notebooks." in drawn.low_memory(reading, None)
    assert drawn.low_memory(replace(reading, device_used=10**9), report) == ""
    assert drawn.low_memory(replace(reading, device_total=None), report) == ""


def test_a_reading_of_a_gpu_tells_what_its_allocator_holds_and_what_others_use() -> None:
    reading = usage.MemoryReading("cuda:0", 2 * 10**9, 10**9, 3 * 10**9, 4 * 10**9, 9 * 10**9, 16 * 10**9)
    rows = dict(drawn.memory_rows(reading))
    assert rows == {
        "allocated by tensors": 10**9,
        "reserved": 3 * 10**9,
        "peak": 4 * 10**9,
        "other processes, contexts": 6 * 10**9,
        "free": 7 * 10**9,
        "in all": 16 * 10**9,
        "process, on the CPU": 2 * 10**9,
    }


def test_the_line_marks_loads_and_takes_and_breaks_where_nothing_was_read() -> None:
    now = 10_000.0
    line = drawn.sparkline(
        [(now - 400, 1), (now - 100, 10**9), (now - 99, 2 * 10**9), (now - 10, 10**9), (now - 9, 10**9)],
        [
            Done("load", "loading", now - 500, now - 99.5),
            Done("take", "speaking", now - 60, now - 50),
            Done("voice", "preparing", now - 60, now - 50),
            Done("load", "loading", now - 500, now - 400),
        ],
        now,
    )
    assert line.count("<polyline") == 2
    assert line.count('<line class="cbnb-load" x1="80.5"') == line.count('<line class="cbnb-take" x1="130.0"') == 1
    assert line.count("<line ") == 2
    assert "3 minutes: now 1.00 GB" in line
    assert "0 to 2.16 GB" in line
    assert drawn.sparkline([], [], now) == ""
