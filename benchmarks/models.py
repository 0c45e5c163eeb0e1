"""Every model at full size on a CPU: `make bench`, or `python -m benchmarks.models [--rounds N] [--models NAMES]`.

For each, random weights of its true size are written once; then the package and ours run in turn, each in a process of
its own, as `benchmarks.cpu` has it for the English model. Medians go to `benchmarks/results/models.json`, from there
into README, docs/measured.md and docs/vram.md. A model that was measured before and is not named keeps its figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import cpu, cpu_table, models_table, pages, table, worker
from chatterbox_nb.checkpoint import catalog, synthetic

# Language packs are of multilingual's size, and so is its second version.
MODELS = ("multilingual-v3", "turbo", "nano")
SIDES = ("package", "fp32", "fp16", "bf16", "int8-first", "int8")
ONCE = ("fp32", "fp16", "bf16", "int8-first")  # for memory, and for how they compare


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3, help="runs of the package and of int8, in turn")
    arguments.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    arguments.add_argument("--folder", type=Path, default=Path("out/models"), help="checkpoints, made if absent")
    asked = arguments.parse_args()
    results = json.loads(models_table.RESULTS.read_text()) if models_table.RESULTS.exists() else {}
    for name in asked.models:
        results[name] = measure(name, asked.folder / name, asked.rounds)
        pages.keep(models_table.RESULTS, {known: results[known] for known in MODELS if known in results})
    table.rewrite()


def measure(name: str, folder: Path, rounds: int) -> dict[str, Any]:
    """The medians of one model."""
    spec = catalog.spec(name)
    synthetic.kept_full(folder, spec)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for round_ in range(rounds):
        for side in SIDES:
            if round_ and side in ONCE:
                continue
            started = time.perf_counter()
            figures = cpu.run("worker", side, str(folder), "--model", name)
            if figures.get("tokens", worker.TOKENS) != worker.TOKENS:
                raise SystemExit(f"{side} of {name} ended by itself after {figures['tokens']} tokens")
            runs[side].append(figures)
            spent = time.perf_counter() - started
            print(f"{name}, round {round_ + 1}, {side}: {cpu_table.line(figures)} ({spent:.0f} s in all)", flush=True)
    command = "make bench" if sys.argv[1:] == [] else f"python -m benchmarks.models {' '.join(sys.argv[1:])}"
    return {
        **pages.here(command),
        "torch": runs["int8"][0]["torch"],
        "threads": runs["int8"][0]["threads"],
        "rounds": rounds,
        "title": spec.title,
        "rows": 1 if spec.t3.gpt2 else 2,
        "sides": {side: {"rounds": len(found), **cpu.merged(found)} for side, found in runs.items()},
    }


if __name__ == "__main__":
    main()
