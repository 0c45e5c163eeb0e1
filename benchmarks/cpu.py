"""Full-size report on a CPU: `make bench`, or `python -m benchmarks.cpu [--rounds N] [--folder FULL]`.

Writes a random checkpoint of the English model's true size, then runs the package and ours in turn, each in a process
of its own, and writes the medians to `benchmarks/results/cpu.json`. `benchmarks/table.py` puts them into the documents.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import cpu_table, pages, worker
from chatterbox_nb.checkpoint import synthetic

SIDES = ("package", "fp32", "bf16", "int8", "int8-dynamic")
ONCE = ("fp16", "int8-first")  # for memory and load; the second before int8, for which it writes the form on disk
VOICED = ("package", "int8")
LONGEST_VOICE = 6.0  # seconds that a voice may take to be prepared in every round, and not in the first alone
ORDER = ("package", "fp32", "fp16", "bf16", "int8-first", "int8", "int8-dynamic")
_FIXED = ("tokens", "tensor_bytes", "token_bytes", "threads")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5, help="runs of each side, in turn")
    arguments.add_argument("--tokens", type=int, default=worker.TOKENS, help="speech tokens of a take")
    arguments.add_argument("--folder", type=Path, default=Path("out/full"), help="the checkpoint, made if absent")
    asked = arguments.parse_args()
    print(f"3.2 GB of random weights in {asked.folder}, written if they are not there", flush=True)
    synthetic.kept_full(asked.folder)
    floor = run("floor")
    print(f"floor: {cpu_table.floor_line(floor)}", flush=True)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in ORDER}
    for round_ in range(asked.rounds):
        for side in ORDER:
            if round_ and side in ONCE:
                continue
            started = time.perf_counter()
            voiced = ["--voice"] if side in VOICED and _affordable(runs[side]) else []
            figures = run("worker", side, str(asked.folder), "--tokens", str(asked.tokens), *voiced)
            if figures.get("tokens", asked.tokens) != asked.tokens:
                raise SystemExit(f"{side} ended by itself after {figures['tokens']} tokens; the text is too short")
            runs[side].append(figures)
            spent = time.perf_counter() - started
            print(f"round {round_ + 1}, {side}: {cpu_table.line(figures)} ({spent:.0f} s in all)", flush=True)
    command = "make bench" if sys.argv[1:] == [] else f"python -m benchmarks.cpu {' '.join(sys.argv[1:])}"
    results = {
        **pages.here(command),
        "torch": runs["fp32"][0]["torch"],
        "threads": runs["fp32"][0]["threads"],
        "rounds": asked.rounds,
        "clip_seconds": worker.CLIP_SECONDS,
        "floor": floor,
        "sides": {side: {"rounds": len(found), **merged(found)} for side, found in runs.items()},
    }
    pages.keep(cpu_table.RESULTS, results)
    print(cpu_table.markdown(results))


def _affordable(runs: Sequence[dict[str, Any]]) -> bool:
    """Whether a voice is prepared in the next round."""
    return not runs or ("voice" in runs[0] and runs[0]["voice"]["total"] <= LONGEST_VOICE)


def run(module: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join([module, *arguments])} failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def merged(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One side's figures: the median of every number, in `spread` the lowest and highest of each that varies.

    `spread` is by path: `seconds.mel`. What is no number is as in the first run, and so is what only some runs have.
    """
    spread: dict[str, list[float]] = {}
    return {**_merged(runs, "", spread), "spread": spread}


def _merged(runs: Sequence[dict[str, Any]], path: str, spread: dict[str, list[float]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, first in runs[0].items():
        values = [run[name] for run in runs if name in run]
        if isinstance(first, dict):
            found[name] = _merged(values, f"{path}{name}.", spread)
        elif isinstance(first, int | float) and min(values) != max(values):
            assert name not in _FIXED, f"{path}{name} differs between runs: {values}"
            found[name] = statistics.median(values)
            spread[f"{path}{name}"] = [min(values), max(values)]
        else:
            found[name] = first
    return found


if __name__ == "__main__":
    main()
