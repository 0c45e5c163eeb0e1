"""What runs notebooks without a person sees our failures, and does not see any where there is none."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import pytest

os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # kernels inherit it

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from saved import KERNEL, Found, notebook

# Each is a mistake that people make, the name of its error and what its one line says.
FAILURES = {
    "%tts Are you there?": ("NotLoaded", "No model is loaded. Load one first: %tts_load demo"),
    "%%tts --sede 7\nHello there.": ("ArgumentError", "there is no option '--sede'. Did you mean --seed?"),
    "%%tts": ("NotLoaded", "No model is loaded."),
    "%tts_load demo --precision int7": ("SettingError", "precision=int7 is not a precision"),
}

pytestmark = pytest.mark.xdist_group("notebook runners")  # they share a notebook that took long to run


def good() -> Any:
    """Uses the magics, and asks nothing of a model."""
    return notebook("%tts_memory", "%tts --help", "%%tts?", "1 + 1")


def written(content: Any, folder: Path) -> Path:
    path = folder / "notebook.ipynb"
    nbformat.write(content, path)
    return path


def test_nbclient_sees_every_failure() -> None:
    """One kernel goes on through all of them."""
    cells = notebook(*FAILURES)
    NotebookClient(cells, kernel_name=KERNEL, allow_errors=True, timeout=120).execute()
    for cell, (source, (name, says)) in zip(cells.cells[1:], FAILURES.items(), strict=True):
        errors = [output for output in cell.outputs if output.output_type == "error"]
        assert [error.ename for error in errors] == [name], source
        assert says in errors[0].evalue
        assert len(errors[0].traceback) == 1
        assert "\n" not in errors[0].traceback[0]


def test_nbclient_stops_at_a_failure_and_shows_its_line() -> None:
    source, (name, says) = next(iter(FAILURES.items()))
    cells = notebook(source, "reached = True")
    with pytest.raises(CellExecutionError) as found:
        NotebookClient(cells, kernel_name=KERNEL, timeout=120).execute()
    assert found.value.ename == name
    assert says in found.value.evalue
    assert f"{name}: {says}" in str(found.value)
    assert cells.cells[2].execution_count is None


def test_papermill_sees_a_failure(tmp_path: Path) -> None:
    import papermill

    source, (name, says) = next(iter(FAILURES.items()))
    path = written(notebook(source), tmp_path)
    with pytest.raises(PapermillExecutionError) as found:
        papermill.execute_notebook(path, tmp_path / "out.ipynb", kernel_name=KERNEL, progress_bar=False)
    assert found.value.ename == name
    assert says in found.value.evalue


def test_papermill_passes_a_good_notebook(tmp_path: Path) -> None:
    import papermill

    path = written(good(), tmp_path)
    done = papermill.execute_notebook(path, tmp_path / "out.ipynb", kernel_name=KERNEL, progress_bar=False)
    assert all(output.output_type != "error" for cell in done.cells for output in cell.get("outputs", []))


def nbval(path: Path) -> subprocess.CompletedProcess[str]:
    """`pytest --nbval-lax` as a project of its own runs it."""
    (path.parent / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", "--nbval-lax", path.name]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=300)


def test_nbval_sees_a_failure(tmp_path: Path) -> None:
    source, (name, says) = next(iter(FAILURES.items()))
    done = nbval(written(notebook(source), tmp_path))
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert f"{name}: {says}" in done.stdout


@pytest.mark.more  # as every notebook of ours is run by `make test`
def test_nbval_passes_a_good_notebook(tmp_path: Path) -> None:
    path = written(good(), tmp_path)
    done = nbval(path)
    assert done.returncode == 0, done.stdout
    assert f"{len(good().cells)} passed" in done.stdout


@pytest.fixture(scope="module")
def spoken(ran: Any) -> Any:
    """A notebook that loads and speaks, as it is after a run of all its cells."""
    cells = deepcopy(ran)
    del cells.cells[1], cells.cells[-1]  # the panel, and the wait for its picture
    return cells


def test_nbclient_passes_a_notebook_that_speaks(spoken: Any) -> None:
    _, load, cell, line = spoken.cells
    (report,) = (output for output in load.outputs if output.output_type == "execute_result")
    assert "at int8 on cpu" in report.data["text/plain"]
    (take,) = (output for output in cell.outputs if output.output_type == "execute_result")
    assert take.data["text/plain"].startswith("Take: ")
    assert "<audio controls" in take.data["text/html"]
    assert not any(output.output_type == "execute_result" for output in line.outputs)


def test_what_is_saved_of_progress_is_its_last_state(spoken: Any) -> None:
    """nbclient keeps a display that was updated as it was in the end, as JupyterLab does."""
    lines = [
        output.data["text/plain"]
        for cell in spoken.cells
        for output in cell.outputs
        if output.output_type == "display_data" and "<audio" not in output.data["text/html"]
    ]
    assert any(re.fullmatch(r"Loaded demo in .*\.", line) for line in lines)
    for line in lines:
        assert re.fullmatch(r"Loaded demo in .*\.|\d+ tokens, .* of audio in .*\.", line)


def test_nothing_else_is_printed(spoken: Any) -> None:
    """No warning, no log line, no bar of the package's."""
    streams = [output for cell in spoken.cells for output in cell.outputs if output.output_type == "stream"]
    assert not streams


def test_nbconvert_makes_a_page_that_plays(spoken: Any) -> None:
    page, _ = HTMLExporter().from_notebook_node(spoken)
    found = Found(page)
    assert ["autoplay" in player for player in found.players] == [False, True]
    for player in found.players:
        assert "controls" in player
        kind, data = (player["src"] or "").split(",")
        assert kind == "data:audio/mpeg;base64"
        assert len(base64.b64decode(data, validate=True)) > 1000
    assert len(found.pictures) == 2
    assert all((picture["alt"] or "").startswith("Waveform of ") for picture in found.pictures)


def test_a_sanitized_page_keeps_the_caption_and_runs_nothing(spoken: Any) -> None:
    """nbconvert's sanitizer drops every picture and player, also IPython's own; what is told in words stays."""
    page, _ = HTMLExporter(sanitize_html=True).from_notebook_node(spoken)
    assert "demo int8 · voice builtin · seed 7" in page
    found = Found(page)
    assert not found.players
    assert not found.pictures
