"""What the documents say is what the code does: tables made from it, examples that run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

from benchmarks import classroom_table, cpu_table, gpu_table, models_table, panels, table
from chatterbox_nb import settings
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.notebook.arguments import PARSERS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def between(begin: str, end: str) -> str:
    return README.split(begin)[1].split(end)[0].strip()


def test_the_settings_table_is_made_from_the_settings() -> None:
    assert between(table.SETTINGS_BEGIN, table.SETTINGS_END) == table.settings()


def test_the_example_of_a_dotenv_file_is_made_from_the_settings() -> None:
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == table.env_example()


def test_the_example_with_every_line_taken_in_says_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting in settings.SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.delenv("PYTHON_DOTENV_DISABLED")
    monkeypatch.chdir(tmp_path)
    before = {setting.name: settings.value_of(setting.name) for setting in settings.SETTINGS}
    taken_in = re.sub(r"^#(?=[A-Z])", "", table.env_example(), flags=re.MULTILINE)
    (tmp_path / ".env").write_text(taken_in, encoding="utf-8")
    said = settings.sources()
    assert {name: value for name, (value, _) in said.items()} == before
    given = {setting.name for setting in settings.SETTINGS if setting.default not in (None, ())}
    assert {name for name, (_, source) in said.items() if source == ".env"} == given


def test_the_measured_table_is_made_from_the_results() -> None:
    results = json.loads(cpu_table.RESULTS.read_text())
    assert between(table.BEGIN, table.END) == cpu_table.markdown(results)


def test_the_measured_page_is_made_from_the_results() -> None:
    results = json.loads(cpu_table.RESULTS.read_text())
    assert (ROOT / "docs" / "measured.md").read_text(encoding="utf-8") == cpu_table.measured(results)


def test_the_tables_and_the_page_of_all_models_are_made_from_the_results() -> None:
    results = models_table.results()
    assert between(table.MODELS_BEGIN, table.MODELS_END) == models_table.short(results)
    assert models_table.PAGE.read_text(encoding="utf-8") == models_table.page(results)
    guide = (ROOT / "docs" / "vram.md").read_text(encoding="utf-8")
    assert guide.split(table.MODELS_BEGIN)[1].split(table.MODELS_END)[0].strip() == models_table.memory(results)


def test_turbo_and_nano_at_int8_meet_their_targets_by_counted_bytes() -> None:
    results = models_table.results()
    small = {name: results[name]["sides"]["int8"]["tensor_bytes"] for name in ("turbo", "nano")}
    assert small["turbo"] <= 620_000_000
    assert small["nano"] <= 470_000_000


def test_what_panels_cost_is_made_from_the_results() -> None:
    results = json.loads(panels.RESULTS.read_text())
    assert between(panels.BEGIN, panels.END) == panels.line(results)
    assert max(results["tick_ms"]) < 10  # of a second: 1 % of a core


def test_the_gpu_page_says_what_failed_and_what_was_not_asked_for() -> None:
    results = json.loads(gpu_table.RESULTS.read_text())
    failure = {"failure": "RuntimeError: nothing left"}
    results["precisions"]["english"]["fp32"] = results["kernels"]["turbo"] = results["oracles"] = failure
    results["precisions"]["nano"]["int8"] = results["packages"]["turbo"] = failure
    del results["packages"]["english"]
    page = gpu_table.markdown(results)
    assert "| ours, fp32 | RuntimeError: nothing left |" in page
    assert "| nano: ours, int8 | RuntimeError: nothing left |" in page
    assert "numbers\n\nNot measured: RuntimeError: nothing left" in page
    assert "| english: qkv" in page
    del results["kernels"], results["precisions"]["english"]["int8"]
    assert gpu_table.markdown(results).count("Not measured: not asked for") == 4


def test_the_gpu_page_is_made_from_the_results() -> None:
    results = json.loads(gpu_table.RESULTS.read_text())
    assert gpu_table.PAGE.read_text(encoding="utf-8") == gpu_table.markdown(results)
    assert between(gpu_table.BEGIN, gpu_table.END) == gpu_table.paragraph(results)
    assert "failure" not in json.dumps(results)


def test_the_classroom_page_is_made_from_the_results_and_its_target_is_met() -> None:
    results = classroom_table.committed()
    assert classroom_table.PAGE.read_text(encoding="utf-8") == classroom_table.page(results)
    assert classroom_table.failures(results) == []


def test_the_memory_guides_table_is_made_from_the_results() -> None:
    text = (ROOT / "docs" / "vram.md").read_text(encoding="utf-8")
    made = text.split(table.VRAM_BEGIN)[1].split(table.VRAM_END)[0].strip()
    assert made == cpu_table.by_component(json.loads(cpu_table.RESULTS.read_text()))


def test_int8_meets_its_targets_by_counted_bytes() -> None:
    """75 % less than what the package loads in fp32 and than our own, half of our fp16: and how much nearer."""
    sides = json.loads(cpu_table.RESULTS.read_text())["sides"]
    small = sides["int8"]["tensor_bytes"]
    assert small <= 0.21 * sides["package"]["tensor_bytes"]
    assert small <= 0.255 * sides["fp32"]["tensor_bytes"]
    assert small <= 0.495 * sides["fp16"]["tensor_bytes"]


def test_the_rows_of_the_results_add_up() -> None:
    """What each row has in memory is what all of it has: the table leaves nothing out."""
    sides = json.loads(cpu_table.RESULTS.read_text())["sides"]
    for side in ("fp32", "fp16", "bf16", "int8-first", "int8", "int8-dynamic"):
        rows = sides[side]["rows"]
        assert sum(row["bytes"] for row in rows if row["placement"] == "resident") == sides[side]["tensor_bytes"]
        assert sum(row["shipped_bytes"] for row in rows) == sides[side]["shipped_bytes"]
    computed = sides["package"]["tensor_bytes"] - sides["fp32"]["shipped_bytes"]
    assert 0 <= computed < 10_000  # rotary frequencies, windows: made by the package when it is built, in no file


def test_the_readme_has_its_parts_in_order() -> None:
    assert re.findall(r"^## (.+)$", README, re.MULTILINE) == [
        "Two commands", "The first cell", "Models", "Panels", "Measured", "Colab", "Python", "Settings", "Devices",
        "Troubleshooting",
    ]  # fmt: skip


def test_the_options_in_the_readme_are_options() -> None:
    known = {option for make in PARSERS.values() for option in make().options()}
    assert set(re.findall(r"\[(--[a-z0-9-]+)", README)) <= known


@pytest.mark.parametrize("name", catalog.names())
def test_every_model_is_in_the_readme(name: str) -> None:
    assert f"`{name}`" in README or f"%tts_load {name}" in README


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
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
