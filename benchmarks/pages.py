"""What was measured, as a file of `results/`, and the pages of docs/ that are made of it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
Figures = dict[str, Any]


def results_of(name: str) -> Path:
    return ROOT / "benchmarks" / "results" / f"{name}.json"


def page_of(name: str) -> Path:
    return ROOT / "docs" / f"{name}.md"


def committed(path: Path) -> Figures:
    """What a file of results holds."""
    found: Figures = json.loads(path.read_text())
    return found


def keep(path: Path, results: Figures) -> None:
    """Writes a file of results."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def here(command: str = "") -> Figures:
    """When, where and by which command: what every file of results begins with."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": machine(),
        **({"command": command} if command else {}),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def engine() -> str:
    """Tells apart what figures are of: a hash of the engine's and the kernels' source."""
    digest = hashlib.sha256()
    for path in sorted(
        path for room in ("engine", "precision") for path in (ROOT / "chatterbox_nb" / room).rglob("*.py")
    ):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def machine() -> str:
    """The processor, its cores, and the instructions that torch uses of it."""
    import torch

    from chatterbox_nb.precision import device

    return f"{device.processor()}, {torch.backends.cpu.get_cpu_capability()}"


def where(figures: Figures) -> str:
    """`here`, without its date, as a page says it."""
    return f"{figures['machine']}; Python {figures['python']}, torch {figures['torch']}"


def of_which_voice(figures: Figures, here: str) -> str:
    """A line of a page whose figures are of another demo voice than the one that is here; else nothing."""
    if figures.get("voice") == here:
        return ""
    return f"* **Of an earlier demo voice**, of {figures['date']}; the one that is here was not measured so yet.\n"


def head(*cells: str) -> list[str]:
    """The first two lines of a table."""
    return [f"| {' | '.join(cells)} |", "|---" * len(cells) + "|"]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    return "\n".join([*head(*titles), *(f"| {' | '.join(row)} |" for row in rows)])
