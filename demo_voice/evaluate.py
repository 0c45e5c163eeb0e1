"""All that is measured of the packed voice, in two processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import pool
from demo_voice import texts, traits, words
from demo_voice.espeak import RATE
from demo_voice.recipe import SPEAKERS, Recipe


def ceiling(workers: ProcessPoolExecutor, kind: str, said: Sequence[str], times: int) -> list[list[Future[list[int]]]]:
    """The edits of espeak-ng itself: of each speaker, of each time. It speaks in this process, one after the other."""
    return [
        [workers.submit(words.errors, kind, said, words.by_espeak(said, speaker), RATE) for _ in range(times)]
        for speaker in range(len(SPEAKERS))
    ]


def evaluate(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Every measure, in two processes."""
    own, few = str(folder), min(recipe.evaluated, 12)
    sets = {kind: said[: recipe.evaluated] for kind, said in texts.evaluation().items()}
    with pool.processes() as workers:
        jobs: dict[str, Mapping[str, Any]] = {
            kind: {
                "espeak": ceiling(workers, kind, said, recipe.seeds),
                "resynthesis": [workers.submit(words.resynthesis, own, kind, said, speaker) for speaker in (0, 1)],
                "first": [workers.submit(words.takes, own, kind, said, 0, seed) for seed in range(recipe.seeds)],
                "second": [
                    workers.submit(words.takes, own, kind, said, 1, seed) for seed in range(min(2, recipe.seeds))
                ],
            }
            for kind, said in sets.items()
        }
        others = (
            workers.submit(traits.likeness, own, few),
            workers.submit(traits.exaggeration, own, few),
            workers.submit(traits.guidance, own, few * 2),
        )

        def rate(kind: str, runs: Sequence[Future[list[int]]]) -> dict[str, Any]:
            return words.rate_of(kind, sets[kind], [run.result() for run in runs])

        rates = {
            kind: {
                "espeak": [rate(kind, runs) for runs in by_who["espeak"]],
                "resynthesis": [rate(kind, [run]) for run in by_who["resynthesis"]],
                "first": rate(kind, by_who["first"]),
                "second": rate(kind, by_who["second"]),
            }
            for kind, by_who in jobs.items()
        }
        like, exaggerated, guided = (job.result() for job in others)
    return {"words": rates, "likeness": like, "exaggeration": exaggerated, "guidance": guided}
