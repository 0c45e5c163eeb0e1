"""The tables of README and docs, and `.env.example`, made from `results/cpu.json`, `models.json` and the settings.

`python -m benchmarks.table` rewrites them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import cpu_table, models_table

if TYPE_CHECKING:
    from chatterbox_nb.settings import Setting

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
VRAM_BEGIN, VRAM_END = "<!-- memory: begin -->", "<!-- memory: end -->"
MODELS_BEGIN, MODELS_END = "<!-- models: begin -->", "<!-- models: end -->"
SETTINGS_BEGIN, SETTINGS_END = "<!-- settings: begin -->", "<!-- settings: end -->"


def settings() -> str:
    """A row for each setting."""
    from chatterbox_nb.settings import SETTINGS

    rows = ["| environment, `.env` | `%config`, call | default | range | what |", "|---|---|---|---|---|"]
    for setting in SETTINGS:
        default = f"`{_default(setting)}`" if _default(setting) else ""
        cells = f"`{setting.variable}`", f"`{setting.name}`", default, _range(setting), setting.about
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def env_example() -> str:
    """.env.example, whole: what stands behind a # is the default."""
    from chatterbox_nb.settings import SETTINGS

    lines = [
        "# The settings of chatterbox-nb. Copy this file to .env, in the folder of the notebook or one above it, and",
        "# take the # off what is to change. Over it are the environment, %config ChatterboxNB.name = value, the call.",
        "# Made by `python -m benchmarks.table`.",
    ]
    for setting in SETTINGS:
        span = f" ({_range(setting)})" if _range(setting) else ""
        lines += ["", f"# {setting.about}{span}", f"#{setting.variable}={_default(setting)}"]
    return "\n".join(lines) + "\n"


def _default(setting: Setting) -> str:
    """As it is written in `.env`; empty where there is none."""
    if setting.default is None or setting.kind == "list":
        return ",".join(setting.default or ())
    if setting.kind == "bool":
        return str(setting.default).lower()
    return setting.default.as_posix() if setting.kind == "path" else str(setting.default)


def _range(setting: Setting) -> str:
    if setting.kind == "bool":
        return "true, false"
    if setting.low is None:
        return ("any of " if setting.kind == "list" else "") + ", ".join(setting.choices)
    return f"{_number(setting.low)} to {_number(setting.high)}"


def _number(value: float | None) -> str:
    return "any" if value is None else f"{value:.10g}"


def put(path: Path, begin: str, end: str, made: str) -> None:
    """Replaces what stands between two marks of a document."""
    before, rest = path.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n{made}\n{end}{after}", encoding="utf-8")


def rewrite() -> None:
    """Puts the tables into README and docs/vram.md, and writes docs/measured.md, docs/models.md and .env.example."""
    results = json.loads(cpu_table.RESULTS.read_text())
    put(ROOT / "README.md", BEGIN, END, cpu_table.markdown(results))
    put(ROOT / "README.md", SETTINGS_BEGIN, SETTINGS_END, settings())
    put(ROOT / "docs" / "vram.md", VRAM_BEGIN, VRAM_END, cpu_table.by_component(results))
    models = models_table.results()
    put(ROOT / "README.md", MODELS_BEGIN, MODELS_END, models_table.short(models))
    put(ROOT / "docs" / "vram.md", MODELS_BEGIN, MODELS_END, models_table.memory(models))
    models_table.PAGE.write_text(models_table.page(models), encoding="utf-8")
    (ROOT / "docs" / "measured.md").write_text(cpu_table.measured(results), encoding="utf-8")
    (ROOT / ".env.example").write_text(env_example(), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
