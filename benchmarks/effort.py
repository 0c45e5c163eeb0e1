"""What fewer steps of the flow and a shorter reference cost the demo voice, and what they save at full size.

`make effort` measures all and writes `results/effort.json` and docs/effort.md. `--times` measures only the seconds at
full size, and is run when nothing else is. `--resume` goes on where a run was stopped.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import effort_table, effort_worker, pages, pool, quality, quality_worker
from benchmarks.effort_worker import Cell
from benchmarks.quality_gate import SEEDS
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.engine.effort import EFFORTS, defaults

KEPT = Path("out/effort")
STEPS = (10, 8, 6, 5, 4, 3, 2)
SECONDS = (None, 5.0, 3.0, 2.0, 1.0)


def chosen(voice: str) -> dict[str, Cell]:
    """The cell of each effort."""
    spec = catalog.spec("demo")
    found = {name: defaults(name, spec) for name in EFFORTS}
    return {name: Cell(voice, of["cfm_steps"], of.get("voice_seconds")) for name, of in found.items()}


def cells() -> dict[Cell, Sequence[int]]:
    """What is measured, and with which seeds: the grid with one, the efforts with all, both ends, what chance does."""
    one = SEEDS[:1]
    found: dict[Cell, Sequence[int]] = {Cell("long", STEPS[0], other_noise=True): one}
    found |= {Cell("long", steps, seconds): one for steps in STEPS for seconds in SECONDS}
    found |= {Cell("long", STEPS[0], seconds, "first"): one for seconds in SECONDS if seconds is not None}
    for voice in ("long", "builtin"):
        found |= dict.fromkeys(chosen(voice).values(), SEEDS)
    return found


def timed_cells() -> list[tuple[int, float | None]]:
    """The efforts, and each knob of them alone."""
    efforts = [(cell.steps, cell.seconds) for cell in chosen("long").values()]
    best = efforts[0]
    alone = [(steps, best[1]) for steps, _ in efforts] + [(best[0], seconds) for _, seconds in efforts]
    return list(dict.fromkeys(efforts + alone))


def measure(folder: Path) -> dict[str, Any]:
    """Figures of every cell."""
    folder.mkdir(parents=True, exist_ok=True)
    with pool.processes() as workers:
        drawing = [workers.submit(pool.made, folder, f"tokens {seed}", effort_worker.drawn, seed) for seed in SEEDS]
        tokens = [future.result() for future in drawing]
        ready = [
            workers.submit(pool.made, folder, f"best {voice}", effort_worker.keep_best, voice, tokens[0], folder)
            for voice in ("long", "builtin")
        ]
        for future in ready:
            future.result()
        running = {
            cell: [
                workers.submit(
                    pool.made,
                    folder,
                    f"{cell.name}, seed {seed}",
                    effort_worker.measure,
                    cell,
                    seed,
                    tokens[seed],
                    folder,
                )
                for seed in seeds
            ]
            for cell, seeds in cells().items()
        }
        found = {cell: [future.result() for future in futures] for cell, futures in running.items()}
    best = {cell.voice: found[cell] for cell in (chosen("long")["best"], chosen("builtin")["best"])}
    return {
        **pages.here("make effort"),
        "pocketsphinx": version("pocketsphinx"),
        "voice": quality_worker.voice(),
        "sentences": len(quality_worker.sentences()),
        "words": sum(len(sentence.words) for sentence in quality_worker.sentences()),
        "voices": {voice: effort_worker.voice_of(voice).seconds for voice in best},
        "noise_cosine": effort_worker.noise_cosine(),
        "efforts": {voice: {name: cell.name for name, cell in chosen(voice).items()} for voice in best},
        "cells": {cell.name: _figures(runs, best[cell.voice]) | _cell(cell) for cell, runs in found.items()},
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {"voice": cell.voice, "steps": cell.steps, "seconds": cell.seconds}


def _figures(runs: list[dict[str, Any]], best: list[dict[str, Any]]) -> dict[str, Any]:
    """Edits by seed, 95 % intervals of the rate and of its distance to best's over the same seeds, cosines, mel."""
    edits = np.array([run["edits"] for run in runs])
    paired = edits - np.array([run["edits"] for run in best[: len(runs)]])
    return {
        "edits": edits.sum(1).tolist(),
        "best": (edits - paired).sum(1).tolist(),
        "interval": quality.interval(edits.mean(0)),
        "points_interval": quality.interval(paired.mean(0)),
        "cosine": round(float(np.mean(runs[0]["cosines"])), 5),
        "mel": round(runs[0]["mel"], 4),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--times", action="store_true", help="the seconds at full size only; the rest is kept")
    arguments.add_argument("--heard", action="store_true", help="all but those")
    arguments.add_argument("--resume", action="store_true", help="keep what a run that was stopped has measured")
    arguments.add_argument("--folder", type=Path, default=Path("out/full"), help="those weights, made if absent")
    asked = arguments.parse_args()
    results = effort_table.committed() if effort_table.RESULTS.exists() else {}
    if not asked.times:
        if not asked.resume:
            shutil.rmtree(KEPT, ignore_errors=True)
        results = measure(KEPT) | {name: results[name] for name in ("times",) if name in results}
    if not asked.heard:
        command = "python -m benchmarks.effort --times"
        results["times"] = pages.here(command) | effort_worker.times(timed_cells(), asked.folder)
    effort_table.write(results)
    print(*effort_table.failures(results) or ["passed"], sep="\n")


if __name__ == "__main__":
    main()
