"""Full-size report on a CPU: `make bench`, or `python -m benchmarks.cpu [--rounds N] [--folder FULL]`.

Writes a random checkpoint of the English model's true size, then runs the package and ours in turn, each in a process
of its own, and writes the medians to `benchmarks/results/cpu.json`. `benchmarks/table.py` puts them into the README.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from benchmarks import table
from chatterbox_nb.checkpoint import synthetic
from chatterbox_nb.precision import device

SIDES = ("package", "fp32", "fp16", "bf16", "int8-first", "int8-kept", "int8-dynamic")
_MEDIANS = ("load_seconds", "load_growth_bytes", "load_peak_bytes", "peak_growth_bytes")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3, help="runs of each side, in turn")
    arguments.add_argument("--folder", type=Path, default=Path("out/full"), help="the checkpoint, made if absent")
    asked = arguments.parse_args()
    print(f"3.2 GB of random weights in {asked.folder}, written if they are not there", flush=True)
    synthetic.kept_full(asked.folder)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for round_ in range(asked.rounds):
        for side in SIDES:
            figures = _run(side, asked.folder)
            runs[side].append(figures)
            print(f"round {round_ + 1}, {side}: {table.line(figures)}", flush=True)
    results = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": "make bench",
        "machine": machine(),
        "python": platform.python_version(),
        "torch": runs["fp32"][0]["torch"],
        "threads": runs["fp32"][0]["threads"],
        "rounds": asked.rounds,
        "sides": {side: median(found) for side, found in runs.items()},
    }
    table.RESULTS.parent.mkdir(exist_ok=True)
    table.RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(table.markdown(results))


def _run(side: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker", side, str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One side's figures: medians of what varies, the spread of the token rate, the rest as it is."""
    first = dict(runs[0])
    for name in _MEDIANS:
        first[name] = statistics.median(run[name] for run in runs)
    first["seconds"] = {stage: statistics.median(run["seconds"][stage] for run in runs) for stage in first["seconds"]}
    rates = [run["tokens"] / run["seconds"]["tokens"] for run in runs]
    first["tokens_per_second"] = statistics.median(rates)
    first["tokens_per_second_spread"] = [min(rates), max(rates)]
    return first


def machine() -> str:
    """The processor, its cores, and the instructions that torch uses of it."""
    return f"{device.processor()}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    main()
