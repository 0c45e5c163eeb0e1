"""What it costs the sound that a chunk comes in segments: the demo voice, each take in segments and in one piece.

`make streaming` measures all and writes `results/streaming.json` and docs/streaming.md.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import pages, pool, quality, quality_worker, streaming_table, streaming_worker
from benchmarks.quality_gate import SEEDS

KEPT = Path("out/streaming")
PARTS = 14  # of the sentences, each kept when it is done


def measure(folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Figures of every sentence with every seed."""
    folder.mkdir(parents=True, exist_ok=True)
    with pool.processes() as workers:
        futures = {
            seed: [
                workers.submit(
                    pool.made, folder, f"seed {seed}, part {part}", streaming_worker.measure, seed, part, PARTS
                )
                for part in range(PARTS)
            ]
            for seed in seeds
        }
        runs = {
            seed: sorted((one for future in found for one in future.result()), key=lambda one: one["index"])
            for seed, found in futures.items()
        }
    return summed(runs)


def summed(runs: dict[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the results keep of takes by seed."""
    takes = [take for found in runs.values() for take in found]
    edits = np.array([[take["edits"] for take in found] for found in runs.values()])  # [seed, sentence, way]
    inside = np.array([look for take in takes for look in take["inside"]])
    joins = np.array([look for take in takes for look in take["joins"]])
    unjoined = np.array([look for take in takes for look in take["unjoined"]])
    closely = [take for take in runs[0] if "mel" in take]
    seconds = np.array([take["seconds"] for take in takes]).sum(0)
    return {
        "voice": quality_worker.voice(),
        "sentences": len(quality_worker.sentences()),
        "words": sum(len(sentence.words) for sentence in quality_worker.sentences()),
        "takes": len(takes),
        "edits": edits.sum(1).tolist(),
        "points_interval": quality.interval((edits[:, :, 1] - edits[:, :, 0]).mean(0)),
        "same_tokens": all(take["same_tokens"] for take in takes),
        "same_length": all(take["same_length"] for take in takes),
        "segments": [take["segments"] for take in runs[0]],
        "work": round(float(np.mean([take["work"] for take in takes])), 2),
        "seconds": [round(float(way), 1) for way in seconds],
        "marks": sorted(mark for take in closely for mark in take["marks"]),
        "mel": {name: round(float(np.mean([take["mel"][name] for take in closely])), 4) for name in closely[0]["mel"]},
        "joins": len(joins),
        "places": len(inside),
        "looks": {name: _look(*(of[:, at] for of in (joins, unjoined, inside))) for at, name in enumerate(_LOOKS)},
    }


_LOOKS = ("step", "bend", "flux")


def _look(joins: Any, unjoined: Any, inside: Any) -> dict[str, float]:
    limit = np.percentile(inside, 99)
    found = {
        "joins": np.median(joins),
        "largest": joins.max(),
        "unjoined": np.median(unjoined),
        "inside": np.median(inside),
        "limit": limit,
        "over": np.mean(joins > limit),
        "unjoined_over": np.mean(unjoined > limit),
    }
    return {name: round(float(value), 5) for name, value in found.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=len(SEEDS), help="how many")
    arguments.add_argument("--resume", action="store_true", help="keep what a run that was stopped has measured")
    asked = arguments.parse_args()
    if not asked.resume:
        shutil.rmtree(KEPT, ignore_errors=True)
    results = {
        **pages.here("make streaming"),
        "pocketsphinx": version("pocketsphinx"),
        **measure(KEPT, SEEDS[: asked.seeds]),
    }
    streaming_table.write(results)
    print(*streaming_table.failures(results) or ["passed"], sep="\n")


if __name__ == "__main__":
    main()
