"""What the documents say is what the code does: tables made from it, examples that run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

from benchmarks import table
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.notebook.arguments import PARSERS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def between(begin: str, end: str) -> str:
    return README.split(begin)[1].split(end)[0].strip()


def test_the_settings_table_is_made_from_the_settings() -> None:
    assert between(table.SETTINGS_BEGIN, table.SETTINGS_END) == table.settings()


def test_the_measured_table_is_made_from_the_results() -> None:
    results = json.loads(table.RESULTS.read_text())
    assert between(table.BEGIN, table.END) == table.markdown(results)


def test_the_measured_page_is_made_from_the_results() -> None:
    results = json.loads(table.RESULTS.read_text())
    assert (ROOT / "docs" / "measured.md").read_text(encoding="utf-8") == table.measured(results)


def test_the_rows_of_the_results_add_up() -> None:
    """What each row has in memory is what all of it has: the table leaves nothing out."""
    sides = json.loads(table.RESULTS.read_text())["sides"]
    for side in ("fp32", "int8"):
        rows = sides[side]["rows"]
        assert sum(row["bytes"] for row in rows if row["placement"] == "resident") == sides[side]["tensor_bytes"]
        assert sum(row["shipped_bytes"] for row in rows) == sides[side]["shipped_bytes"]
    computed = sides["package"]["tensor_bytes"] - sides["fp32"]["shipped_bytes"]
    assert 0 <= computed < 10_000  # rotary frequencies, windows: made by the package when it is built, in no file


def test_the_readme_has_its_parts_in_order() -> None:
    assert re.findall(r"^## (.+)$", README, re.MULTILINE) == [
        "Two commands", "The first cell", "Measured", "Colab", "Python", "Settings", "Devices", "Troubleshooting",
    ]  # fmt: skip


def test_the_options_in_the_readme_are_options() -> None:
    known = {option for make in PARSERS.values() for option in make().options()}
    assert set(re.findall(r"\[(--[a-z-]+)", README)) <= known


@pytest.mark.parametrize("name", catalog.names())
def test_every_model_is_in_the_readme(name: str) -> None:
    assert f"`{name}`" in README or f"%tts_load {name}" in README


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (document.parent / link).exists(), f"{document.name}: {link}"


def test_the_rooms_in_the_architecture_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (engine|checkpoint|precision|notebook|render) \| ([^|]+) \|", text, re.MULTILINE)
    assert len(rows) == 5
    for floor, rooms in rows:
        for room in re.findall(r"`([a-z0-9_]+)/?`", rooms):
            folder = ROOT / "chatterbox_nb" / floor
            assert (folder / f"{room}.py").exists() or (folder / room).is_dir(), f"{floor}/{room}"


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert not [cell for cell in notebook.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]
    assert any("assert " in cell.source for cell in notebook.cells if cell.cell_type == "code")
