"""What the browser tests rely on: a JupyterLab apart from the person's own, and checks that do find faults."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Locator

from browser import chromium
from browser.lab import Lab, Notebook

IMPORTS = "import ipywidgets as w; from IPython.display import HTML"
FITS = "w.HBox([w.Button(description='Speak'), w.IntSlider(description='Seed')])"
SCROLLS = 'w.HTML(\'<div style="width:200px;overflow:auto"><div style="width:900px">long</div></div>\')'
# Cells that show what does not fit, by a word that they show.
TOO_WIDE = {
    "wide": "HTML('<div style=\"width:2000px\">wide</div>')",
    "stiff": "w.HBox([w.Button(description='stiff', layout=w.Layout(flex='0 0 400px'))] * 3)",
    "outside": "w.HTML('<div style=\"margin-left:-300px;width:90px\">outside</div>')",
    "hidden": "w.HTML('<div style=\"width:60px;overflow:hidden;white-space:nowrap\">hidden, for the most part</div>')",
}
NAMELESS = "HTML('<button></button>')"
COMPLAINTS = {
    "console.error('planted')": "console",
    "fetch('/planted')": "console",
    "setTimeout(() => { throw new Error('planted') })": "pageerror",
}


@pytest.fixture(scope="module")
def shown(shared_lab: Lab) -> Notebook:
    """A notebook with everything that does not fit, what does, and a button without a name."""
    return opened(shared_lab, IMPORTS, *TOO_WIDE.values(), FITS, SCROLLS, NAMELESS)


def output_of(notebook: Notebook, cell: str) -> Locator:
    """What that cell of `shown` shows."""
    return notebook.output(1 + [*TOO_WIDE.values(), FITS, SCROLLS, NAMELESS].index(cell))


def opened(lab: Lab, *cells: str) -> Notebook:
    """A notebook whose cells have run."""
    notebook = lab.open(list(cells))
    for index in range(len(cells)):
        notebook.run(index)
    return notebook


def test_the_kernel_is_this_python_away_from_home(lab: Lab) -> None:
    notebook = opened(lab, "import os, sys; print(sys.executable, os.path.expanduser('~'), sep='\\n')")
    executable, home = notebook.output(0).locator("pre").inner_text().split()
    assert executable == sys.executable
    assert home == str(lab.server.notebooks.parent / "home")
    assert home != os.environ["HOME"]


def test_a_cell_that_fails_fails_the_test_unless_that_is_expected(lab: Lab) -> None:
    notebook = lab.open(["1 / 0", "1"])
    with pytest.raises(AssertionError, match="ZeroDivisionError: division by zero"):
        notebook.run(0)
    notebook.run(0, fails=True)
    with pytest.raises(AssertionError, match="cell 1 did not fail"):
        notebook.run(1, fails=True)


def test_a_cell_is_interrupted_and_a_kernel_restarted(lab: Lab) -> None:
    notebook = lab.open(["seen = 1; print('begun')\nwhile True: pass", "seen"])
    notebook.run_nowait(0)
    notebook.output(0).get_by_text("begun").wait_for()
    notebook.interrupt()
    notebook.wait(0)
    assert "KeyboardInterrupt" in notebook.errors(0)[0]
    notebook.run(1)
    notebook.restart_kernel()
    notebook.run(1, fails=True)
    assert notebook.console_errors == []


def test_what_a_click_does_in_the_kernel_is_waited_for(lab: Lab) -> None:
    slow = "import time, pathlib; b.on_click(lambda _: (time.sleep(1), pathlib.Path('clicked').touch()))"
    notebook = opened(lab, IMPORTS, f"b = w.Button(description='Press'); {slow}; b")
    notebook.output(1).get_by_role("button").click()
    assert not (lab.server.notebooks / "clicked").exists()
    notebook.wait_until_idle()
    assert (lab.server.notebooks / "clicked").exists()


def test_a_reload_keeps_the_kernel_and_a_reopened_notebook_has_a_new_one(lab: Lab) -> None:
    notebook = opened(lab, "seen = 1", "seen += 1; seen")
    notebook.save()
    notebook.reload()
    notebook.output(1).get_by_text("2", exact=True).wait_for()
    notebook.run(1)
    assert notebook.saved().cells[1].outputs[0].data["text/plain"] == "2"
    notebook.output(1).get_by_text("3", exact=True).wait_for()
    notebook.close_and_reopen()
    assert notebook.saved().cells[1].outputs[0].data["text/plain"] == "3"
    assert notebook.trusted
    notebook.run(1, fails=True)
    assert notebook.console_errors == []


def test_a_notebook_that_is_not_trusted_runs_no_script(lab: Lab) -> None:
    notebook = opened(lab, IMPORTS, "HTML('<p onclick=\"0\">said</p>')")
    assert notebook.output(1).locator("[onclick]").count() == 1
    notebook.close_and_reopen(untrusted=True)
    assert not notebook.trusted
    notebook.output(1).get_by_text("said").wait_for()
    assert notebook.output(1).locator("[onclick]").count() == 0


@pytest.mark.parametrize("word", TOO_WIDE)
def test_what_does_not_fit_is_found(shown: Notebook, word: str) -> None:
    output = output_of(shown, TOO_WIDE[word])
    output.get_by_text(word).first.wait_for()
    assert any(word in found for found in shown.overflowing(output))


def test_what_fits_is_left_alone_until_the_window_is_narrow(shown: Notebook) -> None:
    output = output_of(shown, FITS)
    output.get_by_role("button").wait_for()
    assert shown.overflowing(output) == []
    shown.set_width(300)
    assert any("Speak" in found for found in shown.overflowing(output))
    shown.set_width(900)


def test_what_scrolls_on_purpose_is_left_alone(shown: Notebook) -> None:
    output = output_of(shown, SCROLLS)
    output.get_by_text("long").wait_for()
    assert shown.overflowing(output) == []


@pytest.mark.parametrize("script", COMPLAINTS)
def test_what_the_browser_complains_of_is_heard(shown: Notebook, script: str) -> None:
    assert shown.console_errors == []
    with shown.page.expect_event(COMPLAINTS[script]):
        shown.page.evaluate(script)
    assert ["planted" in error for error in shown.console_errors] == [True]
    shown.console_errors.clear()


def test_what_a_screen_reader_cannot_tell_is_found(shown: Notebook) -> None:
    found = shown.axe(".jp-OutputArea-output:has(> button)")
    assert [rule.split()[0] for rule in found] == ["button-name"]


def test_without_a_browser_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(chromium.NoChromium, match="apt-get install chromium"):
        chromium.path()
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    with pytest.raises(chromium.NoChromium, match="CHROMIUM=/nowhere/chromium is not a program"):
        chromium.path()
