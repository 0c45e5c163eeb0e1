"""Notebooks as they are saved by what runs them without a person and without a page."""

from __future__ import annotations

import os
from html.parser import HTMLParser
from typing import Any

import nbformat

os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # kernels inherit it

from nbclient import NotebookClient

KERNEL = "python3"
PICTURED = """
import time
from chatterbox_nb.notebook.panels import pump
(board,) = pump.get().boards()
while not (board._pictured and board._pictured[1]):
    time.sleep(0.1)
time.sleep(0.5)  # sent, and read by whoever runs this
"""


def notebook(*cells: str) -> Any:
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in ("%load_ext chatterbox_nb", *cells)],
        metadata={"kernelspec": {"name": KERNEL, "display_name": "Python 3", "language": "python"}},
    )


def with_a_panel() -> Any:
    """Shows a panel, loads and speaks, and ends when the panel's picture is of that."""
    cells = notebook(
        "%tts_panel",
        "%tts_load demo --precision int8",
        "%%tts --seed 7\nAre you there?",
        "%tts --seed 8 --play Hello.",
        PICTURED,
    )
    NotebookClient(cells, kernel_name=KERNEL, timeout=300).execute()
    return cells


class Found(HTMLParser):
    """The pictures and players of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.pictures: list[dict[str, str | None]] = []
        self.players: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag == "audio":
            self.players.append(dict(attrs))
