"""The panels in JupyterLab, as a person uses them: load, speak, hear, stop, switch, upload, reload, restart."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import OTHER_SENTENCE, SENTENCE
from playwright.sync_api import Locator, expect

from browser.lab import Lab, Notebook, Theme, play

CELLS = [
    "%load_ext chatterbox_nb\nimport chatterbox_nb as tts",
    "%tts_panel",
    "tts.panel('precision', 'memory')",
    "import time\ntime.sleep(4)",
    "from chatterbox_nb.notebook.panels import pump\nprint('readings:', pump.get().sampled)",
]
PANEL, OTHER, SLEEP, READINGS = 1, 2, 3, 4
LONG = " ".join([SENTENCE, OTHER_SENTENCE] * 20)
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"  # those of the README
# axe: what ipywidgets itself leaves without a name, in every version: the handle of a slider.
AXE_MAY_SAY = ('aria-input-field-name (serious): ARIA input fields must have an accessible name: <div class="noUi-',)
WITHIN = 30_000  # milliseconds


class Panel:
    """One panel on a page."""

    def __init__(self, notebook: Notebook, cell: int = PANEL) -> None:
        self.notebook = notebook
        self.box = notebook.output(cell).locator(".cbnb")

    def part(self, name: str) -> Locator:
        return self.box.locator(f".cbnb-{name}.cbnb-card")

    def button(self, part: str, name: str) -> Locator:
        return self.part(part).get_by_role("button", name=name, exact=True)

    def load(self, precision: str) -> None:
        self.part("precision").get_by_label("Precision").select_option(precision)
        self.part("precision").get_by_role("button", name=re.compile("^(Load|Switch)$")).click()
        expect(self.part("precision").locator(".cbnb-strong")).to_contain_text(f"at {precision} on", timeout=WITHIN)

    def write(self, text: str) -> None:
        field = self.part("speak").get_by_label("Text")
        field.fill("")
        field.press_sequentially(text)

    def speak(self, text: str) -> None:
        takes = self.takes.count()
        self.write(text)
        self.button("speak", "Speak").click()
        expect(self.takes).to_have_count(takes + 1, timeout=WITHIN)
        expect(self.button("speak", "Speak")).to_be_enabled()

    @property
    def takes(self) -> Locator:
        return self.box.locator(".cbnb-take-row")


def opened(lab: Lab, width: int = 1400) -> Panel:
    """A panel in a new notebook, when it has looked at what could be loaded."""
    notebook = lab.open(CELLS, width)
    notebook.run(0)
    notebook.run(PANEL)
    panel = Panel(notebook)
    expect(panel.part("precision")).to_contain_text("auto is int8", timeout=60_000)
    return panel


@pytest.fixture(scope="module")
def panel(shared_lab: Lab) -> Panel:
    """A panel with a model and a take; each of them by its buttons."""
    panel = opened(shared_lab)
    panel.load("int8")
    panel.speak(SENTENCE)
    return panel


def test_the_choices_are_there_before_anything_is_loaded(lab: Lab) -> None:
    panel = opened(lab)
    notebook = panel.notebook
    rows = panel.part("precision").locator("tbody tr")
    expect(rows).to_have_count(4, timeout=60_000)
    expect(panel.part("precision")).to_contain_text("No model is loaded.")
    expect(panel.button("speak", "Speak")).to_be_disabled()
    notebook.screenshot(panel.box, "panel-before-a-load")
    panel.part("precision").get_by_label("Model").select_option("english")
    expect(panel.part("precision")).to_contain_text("2.66 GB")
    assert notebook.console_errors == []


def test_what_was_spoken_is_heard(panel: Panel) -> None:
    audio = panel.takes.first.locator("audio")
    seconds, reached = play(audio)
    assert 1 < seconds < 6
    assert 0 < reached <= seconds
    expect(panel.takes.first).to_contain_text("real-time factor")


def test_it_played_by_itself_when_it_was_ready(panel: Panel) -> None:
    """In a player that is not seen: the one of the take must not start again when the page is opened anew."""
    audio = panel.part("speak").locator("audio[autoplay]")
    expect(audio).to_have_count(1)
    panel.notebook.page.wait_for_function("audio => audio.currentTime > 0", arg=audio.element_handle())


def test_it_can_be_stopped_in_the_middle(panel: Panel) -> None:
    takes = panel.takes.count()
    panel.write(LONG)
    panel.button("speak", "Speak").click()
    expect(panel.part("speak")).to_contain_text(re.compile(r"chunk [2-9] of"), timeout=WITHIN)
    panel.notebook.screenshot(panel.box, "panel-speaking")
    panel.button("speak", "Stop").click()
    expect(panel.part("speak").locator(".cbnb-done")).to_contain_text("Stopped.", timeout=5_000)
    expect(panel.takes).to_have_count(takes + 1)
    expect(panel.button("speak", "Speak")).to_be_enabled()
    expect(panel.button("speak", "Stop")).to_be_disabled()


def test_it_switches_and_another_panel_agrees(panel: Panel) -> None:
    panel.notebook.run(OTHER)
    other = Panel(panel.notebook, OTHER)
    expect(other.part("precision").locator(".cbnb-strong")).to_contain_text("at int8 on")
    panel.load("bf16")
    expect(other.part("precision").locator(".cbnb-strong")).to_contain_text("at bf16 on")
    expect(other.part("memory")).to_contain_text("demo at bf16")
    other.load("int8")
    expect(panel.part("precision").locator(".cbnb-strong")).to_contain_text("at int8 on")
    expect(panel.part("precision").get_by_label("Precision")).to_have_value("int8")


def readings(notebook: Notebook) -> int:
    notebook.run(READINGS)
    (count,) = re.findall(r"readings: (\d+)", notebook.output(READINGS).inner_text())
    return int(count)


def points(panel: Panel) -> Any:
    return panel.part("memory").locator("polyline").last.get_attribute("points")


def test_memory_ticks_while_it_is_shown_and_stops_when_it_is_cleared(lab: Lab) -> None:
    notebook = lab.open(CELLS)
    notebook.run(0)
    notebook.run(OTHER)
    panel = Panel(notebook, OTHER)
    expect(panel.part("memory").locator("polyline")).to_be_visible(timeout=60_000)
    before, drawn = readings(notebook), points(panel)
    notebook.run(SLEEP)
    assert 3 <= readings(notebook) - before <= 6
    assert points(panel) != drawn
    notebook.clear(OTHER)
    expect(panel.box).to_have_count(0)
    notebook.page.wait_for_timeout(1200)  # a reading that was under way
    before = readings(notebook)
    notebook.run(SLEEP)
    assert readings(notebook) == before
    assert notebook.console_errors == []


def test_a_click_while_a_cell_runs_is_done_at_the_latest_after_it(panel: Panel) -> None:
    takes = panel.takes.count()
    panel.write(OTHER_SENTENCE)
    panel.notebook.run_nowait(SLEEP)
    panel.button("speak", "Speak").click()
    panel.notebook.wait(SLEEP)
    expect(panel.takes).to_have_count(takes + 1, timeout=WITHIN)


def test_an_uploaded_clip_becomes_a_voice(panel: Panel, tmp_path: Path) -> None:
    clip = tmp_path / "a friend.wav"
    times = np.arange(3 * 24_000) / 24_000
    soundfile.write(clip, 0.3 * np.sin(2 * np.pi * 200 * times) * (1 + np.sin(2 * np.pi * 3 * times)), 24_000)
    for name in ("a friend", "a friend 2"):  # the same file can be sent again
        with panel.notebook.page.expect_file_chooser() as chooser:
            panel.part("speak").get_by_role("button", name="Upload").click()
        chooser.value.set_files(clip)
        expect(panel.part("speak")).to_contain_text(f"Kept as voice {name}.")
        expect(panel.part("speak").get_by_label("Voice")).to_have_value(name)
    panel.speak(OTHER_SENTENCE)
    expect(panel.takes.first).to_contain_text("voice a friend 2")
    panel.part("speak").get_by_label("Voice").select_option("builtin")


def test_it_can_be_used_with_the_keyboard_alone(panel: Panel) -> None:
    takes, page = panel.takes.count(), panel.notebook.page
    panel.write(SENTENCE)
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent || document.activeElement.tagName"))
        if reached[-1] == "Advanced":
            page.keyboard.press("Enter")
            expect(panel.part("speak").get_by_label("Min p")).to_be_visible()
        if reached[-1] == "Speak":
            break
    assert reached[-1] == "Speak", reached
    page.keyboard.press("Enter")
    expect(panel.takes).to_have_count(takes + 1, timeout=WITHIN)
    panel.part("speak").get_by_role("button", name="Advanced").click()
    expect(panel.part("speak").get_by_label("Min p")).to_be_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [600, 900, 1400])
def test_it_fits_and_everyone_can_use_it(panel: Panel, width: int, theme: Theme) -> None:
    notebook = panel.notebook
    notebook.set_theme(theme)
    notebook.set_width(width)
    expect(panel.button("speak", "Speak")).to_be_enabled()
    notebook.screenshot(panel.box, f"panel-{width}-{theme}")
    assert notebook.overflowing(panel.box, may_scroll=".cbnb-text", ellipsis=True) == []
    found = [told for told in notebook.axe(".cbnb") if not told.startswith(AXE_MAY_SAY)]
    assert found == []


def test_nothing_complained(panel: Panel) -> None:
    assert panel.notebook.console_errors == []


def test_the_pictures_of_the_readme(lab: Lab) -> None:
    """Made again by `make pictures`; otherwise only looked for."""
    panel = opened(lab)
    notebook = panel.notebook
    panel.load("int8")
    panel.part("speak").get_by_label("Seed").fill("7")
    panel.speak(SENTENCE)
    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        made = notebook.screenshot(panel.box, f"readme-{theme}")
        kept = PICTURES / f"panel-{theme}.png"
        if os.environ.get("CHATTERBOX_NB_PICTURES"):
            PICTURES.mkdir(parents=True, exist_ok=True)
            shutil.copy(made, kept)
        assert kept.is_file()


# The page and the kernel


@pytest.fixture
def spoken(lab: Lab) -> Panel:
    """A panel of one's own with a take."""
    panel = opened(lab, width=900)
    panel.load("int8")
    panel.speak(SENTENCE)
    panel.notebook.wait_until_pictured(PANEL, SENTENCE)
    return panel


def test_a_page_that_is_loaded_again_shows_the_truth_and_plays_nothing(spoken: Panel) -> None:
    notebook = spoken.notebook
    notebook.save()
    notebook.reload()
    expect(spoken.takes).to_have_count(1, timeout=WITHIN)
    expect(spoken.box).to_be_visible()
    expect(spoken.part("precision").locator(".cbnb-strong")).to_contain_text("at int8 on")
    expect(notebook.output(PANEL).get_by_text("Chatterbox panel:")).to_be_hidden()
    expect(spoken.part("speak").locator("audio")).to_have_count(0)
    drawn = points(spoken)
    notebook.page.wait_for_function(
        "before => [...document.querySelectorAll('.cbnb-memory polyline')].pop().getAttribute('points') !== before",
        arg=drawn,
    )
    spoken.speak(OTHER_SENTENCE)
    assert notebook.console_errors == []


def test_after_a_restart_the_saved_takes_play_and_no_model_is_missed(spoken: Panel) -> None:
    notebook = spoken.notebook
    notebook.restart_kernel()
    notebook.save()
    notebook.reload()
    still = notebook.output(PANEL)
    expect(still.get_by_text(re.compile("^Chatterbox panel: Demo voice"))).to_be_visible(timeout=WITHIN)
    notebook.page.wait_for_function("() => document.body.innerText.includes('Chatterbox panel:')")
    gone = still.get_by_text("model not found")
    expect(gone).to_have_count(1, timeout=WITHIN)  # JupyterLab writes it, in words of its own
    expect(gone).to_be_hidden()
    _, reached = play(still.locator("audio").first)
    assert reached > 0
    notebook.screenshot(still, "panel-after-a-restart")
    assert all("widget model not found" in told for told in notebook.console_errors)  # JupyterLab's
    notebook.run(0)
    notebook.run(PANEL)
    expect(Panel(notebook).box).to_be_visible()


def test_what_somebody_else_opens_plays_and_says_nothing_of_widgets(spoken: Panel) -> None:
    notebook = spoken.notebook
    notebook.close_and_reopen(untrusted=True)
    assert not notebook.trusted
    still = notebook.output(PANEL)
    expect(still.get_by_text(re.compile("^Chatterbox panel: Demo voice"))).to_be_visible(timeout=WITHIN)
    _, reached = play(still.locator("audio").first)
    assert reached > 0
    for technical in ("model not found", "VBox", "Root("):
        expect(still.get_by_text(technical)).to_have_count(0)
    notebook.screenshot(still, "panel-not-trusted")
    assert notebook.console_errors == []
