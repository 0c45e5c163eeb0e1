"""The magics in JupyterLab: what is spoken plays, also in a notebook that is not trusted, and nothing complains."""

from __future__ import annotations

import pytest

from browser.lab import Lab, Notebook, Theme, play

CELLS = ["%load_ext chatterbox_nb", "%tts_load demo --precision int8", "%%tts --seed 7\nHello there."]
LOADED, SPOKEN = 1, 2


@pytest.fixture(scope="module")
def spoken(shared_lab: Lab) -> Notebook:
    """A notebook that loaded and spoke."""
    notebook = shared_lab.open(CELLS)
    for index in range(len(CELLS)):
        notebook.run(index)
    return notebook


def test_what_is_spoken_plays(spoken: Notebook) -> None:
    seconds, reached = play(spoken.output(SPOKEN).locator("audio"))
    assert 0.5 < seconds < 3
    assert 0 < reached <= seconds


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_and_can_be_told_by_everyone(spoken: Notebook, theme: Theme) -> None:
    spoken.set_theme(theme)
    for index, name in {LOADED: "load", SPOKEN: "take"}.items():
        output = spoken.output(index)
        spoken.screenshot(output, f"{name}-{theme}")
        assert spoken.overflowing(output) == []
    assert spoken.axe(".jp-OutputArea-output") == []


def test_nothing_complains(spoken: Notebook) -> None:
    assert spoken.console_errors == []


def test_it_plays_where_it_is_not_trusted(lab: Lab) -> None:
    notebook = lab.open(CELLS)
    for index in range(len(CELLS)):
        notebook.run(index)
    assert notebook.trusted
    notebook.close_and_reopen(untrusted=True)
    assert not notebook.trusted
    _, reached = play(notebook.output(SPOKEN).locator("audio"))
    assert reached > 0
    assert notebook.console_errors == []
