"""Machines that `notebooks/verify.ipynb` was run on: `python -m benchmarks.verified [FILE.json ...]`.

Puts the files into `benchmarks/results/verified/` and makes the README's table of what is there.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.table import ROOT, put

FOLDER = ROOT / "benchmarks" / "results" / "verified"
README = ROOT / "README.md"
BEGIN, END = "<!-- verified: begin -->", "<!-- verified: end -->"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def table(folder: Path = FOLDER) -> str:
    """A row for each file of a folder, the newest first."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("verified-*.json"))]
    if not results:
        return "Machines verified by `notebooks/verify.ipynb`: none yet."
    lines = [
        f"| machine | model | fp32 against the package | {' | '.join(PRECISIONS)} |",
        "|---" * (3 + len(PRECISIONS)) + "|",
    ]
    for found in sorted(results, key=lambda found: found["date"], reverse=True):
        cells = [_cell(found["precisions"][precision]) for precision in PRECISIONS]
        versions = f"torch {found['versions']['torch']}, {found['date']}"
        lines.append(
            f"| {found['title']} (`{found['device']}`), {versions} | `{found['model']}` | {_oracle(found['oracle'])} "
            f"| {' | '.join(cells)} |"
        )
    method = (
        "By `notebooks/verify.ipynb`; a precision's cell is its weights in memory, the real-time factor of the second "
        "of two takes, and the highest memory, of the device on a GPU and of the process on a CPU. A GB is 10⁹ bytes."
    )
    return "\n".join([*lines, "", method])


def _cell(figures: dict[str, Any]) -> str:
    if "failure" in figures:
        return f"failed: {figures['failure']}".replace("|", "\\|")
    factor, peak = figures["takes"][-1]["real_time_factor"], figures["memory"]["peak"]
    parts = [f"{figures['bytes'] / 1e9:.3g} GB", "no sound" if factor is None else f"× {factor:.2f}"]
    return ", ".join([*parts, f"peak {peak / 1e9:.2f} GB"] if peak else parts)


def _oracle(oracle: dict[str, Any]) -> str:
    if "failure" in oracle:
        return f"not compared: {oracle['failure']}".replace("|", "\\|")
    return (
        f"{oracle['equal_tokens']} of {oracle['tokens']} tokens equal, mel {oracle['mel_distance']:.1e}, "
        f"wave {oracle['wave_distance']:.1e}"
    )


def add(path: Path, folder: Path = FOLDER) -> Path:
    """Puts a file of the notebook's into the folder."""
    problem = ""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        absent = {"title", "device", "date", "model", "versions", "precisions", "oracle"} - set(found)
        problem = f"it has no {', '.join(sorted(absent))}" if absent else ""
    except (OSError, ValueError, TypeError) as error:
        problem = str(error)
    if problem or not path.name.startswith("verified-"):
        why = f": {problem}" if problem else ""
        raise SystemExit(f"{path} is no verified-<device>-<date>.json of notebooks/verify.ipynb{why}.")
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(path, folder))


def rewrite() -> None:
    """Puts the table into the README."""
    put(README, BEGIN, END, table())


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(add(Path(name)).relative_to(ROOT))
    rewrite()
