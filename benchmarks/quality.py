"""What each precision and each row of int8 costs the demo voice: the quality gate.

`make quality` measures all and writes `results/quality.json` and docs/quality.md. `--check` measures again, rows with
one seed, and fails when something on by default costs too much or a kept figure is not what is measured.
`--full` adds full-size random weights, which have no gate.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import pages, pool, quality_full, quality_gate, quality_table, quality_worker, recognition
from benchmarks.quality_faults import PLANT
from benchmarks.quality_worker import FP32, Configuration
from chatterbox_nb.errors import PrecisionError
from chatterbox_nb.precision import device
from chatterbox_nb.precision.plan import choose_kernel, int8_rows

KERNELS = ("fused", "plain", "int8pack", "dynamic")
_RESAMPLES = 10_000


def configurations(check: bool = False) -> list[Configuration]:
    """Whole precisions, int8 with each kernel there is and in each half, each row of int8 alone, planted faults."""
    found = as_loaded()[:3]
    found += [Configuration(f"int8, {kernel}", "int8", kernel) for kernel in KERNELS if _runs_here(kernel)]
    found += [
        Configuration(f"int8, plain, in {compute}", "int8", "plain", compute) for compute in ("float16", "bfloat16")
    ]
    found += [Configuration(f"{row} alone", "int8", row=row) for row in int8_rows()]
    if not check:
        found += [
            Configuration(f"{fault} in {component}", "int8", "plain", fault=fault, component=component)
            for fault in PLANT
            for component in ("t3", "flow", "vocoder")
        ]
    return found


def _runs_here(kernel: str) -> bool:
    try:
        choose_kernel("int8", device.facts("cpu"), kernel)
    except PrecisionError:
        return False
    return True


def seeds_of(configuration: Configuration, check: bool) -> Sequence[int]:
    """Precisions as they are loaded here always speak with every seed; the rest with one where time is short."""
    if configuration.fault:
        return quality_gate.SEEDS[:1]
    return quality_gate.SEEDS if not check or configuration in as_loaded() else quality_gate.SEEDS[:1]


def as_loaded() -> list[Configuration]:
    """Each precision with the kernel that it gets on this machine."""
    kernel, _ = choose_kernel("int8", device.facts("cpu"))
    return [
        FP32,
        *(Configuration(name, name) for name in ("fp16", "bf16")),
        Configuration(f"int8, {kernel}", "int8", kernel),
    ]


class _Jobs:
    """Functions of `quality_worker` in processes of their own; says what is done, and adds up the seconds."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool
        self.seconds: dict[str, float] = {}

    def start(self, work: Callable[..., Any], configuration: Configuration, *rest: Any) -> Future[Any]:
        future = self._pool.submit(_timed, work, configuration, *rest)
        future.add_done_callback(lambda done: self._tell(work.__name__, configuration.name, done))
        return future

    def _tell(self, what: str, name: str, done: Future[Any]) -> None:
        if not done.cancelled() and done.exception() is None:
            seconds = done.result()[1]
            self.seconds[what] = self.seconds.get(what, 0.0) + seconds
            print(f"{name}: {what} in {seconds:.0f} s", flush=True)


def _timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What it gives, and its seconds on a processor: the clock would also count what others do."""
    started = time.process_time()
    return work(*arguments), time.process_time() - started


def measure(asked: Sequence[Configuration], check: bool) -> dict[str, Any]:
    """Figures of each configuration, fp32 first."""
    started = time.perf_counter()
    with pool.processes() as workers:
        jobs = _Jobs(workers)
        takes = _start_takes(jobs, asked, check)
        losses = {one: jobs.start(quality_worker.cross_entropy, one) for one in asked if one.draws}
        cosines = {one: jobs.start(quality_worker.speaker_cosines, one) for one in asked if one.embeds}
        heard = {one: [take.result()[0][1] for take in found] for one, found in takes.items()}
        figures = {}
        for one in asked:
            figures[one.name] = _edits(heard.get(one, []), heard[FP32]) | {"gated": one.gated}
            if one in takes:
                figures[one.name]["cross_entropy"] = losses[one if one in losses else FP32].result()[0]
            if one in cosines:
                figures[one.name]["cosines"] = cosines[one].result()[0]
        seconds = {what: round(spent) for what, spent in jobs.seconds.items()}
    return {
        **pages.here(),
        "pocketsphinx": version("pocketsphinx"),
        "seconds": {**seconds, quality_table.CLOCK: round(time.perf_counter() - started)},
        "words": _words(),
        "configurations": figures,
    }


def _start_takes(jobs: _Jobs, asked: Sequence[Configuration], check: bool) -> dict[Configuration, list[Future[Any]]]:
    """Takes of each configuration that speaks, by seed: fp32's first, as rows need only make what differs from them."""
    whole = {
        one: [jobs.start(quality_worker.takes, one, seed) for seed in seeds_of(one, check)]
        for one in asked
        if not one.row
    }
    references = [take.result()[0] for take in whole[FP32]]
    rows = {
        one: [jobs.start(quality_worker.takes, one, seed, references[seed]) for seed in seeds_of(one, check)]
        for one in asked
        if one.row and (one.draws or one.sounds)
    }
    return whole | rows


def _words() -> dict[str, int]:
    """Words of all sentences, by grammar."""
    counted = dict.fromkeys(recognition.GRAMMARS, 0)
    for sentence in quality_worker.sentences():
        counted[sentence.grammar] += len(sentence.words)
    return counted


def _edits(heard: list[list[int]], reference: list[list[int]]) -> dict[str, Any]:
    """Sums by seed and grammar, and 95 % intervals of the rate and of its distance to fp32's, both in per cent."""
    if not heard:
        return {}
    runs = []
    for run in heard:
        runs.append(dict.fromkeys(recognition.GRAMMARS, 0))
        for sentence, edits in zip(quality_worker.sentences(), run, strict=True):
            runs[-1][sentence.grammar] += edits
    mean = np.mean(heard, axis=0)
    return {
        "edits": runs,
        "interval": interval(mean),
        "points_interval": interval(mean - np.mean(reference[: len(heard)], axis=0)),
    }


def interval(edits: np.ndarray[Any, Any]) -> list[float]:
    """95 % of word error rates over sentences drawn anew with replacement (bootstrap); edits a sentence `[n]`."""
    words = np.array([len(sentence.words) for sentence in quality_worker.sentences()])
    drawn = np.random.default_rng(0).integers(0, len(words), (_RESAMPLES, len(words)))
    rates = 100 * edits[drawn].sum(1) / words[drawn].sum(1)
    return [round(float(bound), 2) for bound in np.percentile(rates, [2.5, 97.5])]


def write(results: dict[str, Any]) -> None:
    pages.keep(quality_gate.RESULTS, results)
    quality_table.rewrite()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="compare with what is kept; write nothing")
    arguments.add_argument("--full", action="store_true", help="full-size random weights only")
    arguments.add_argument("--folder", type=Path, default=Path("out/full"), help="those, made if absent: 3.2 GB")
    asked = arguments.parse_args()
    kept = quality_gate.committed() if quality_gate.RESULTS.exists() else {}
    if asked.full:
        write({**kept, "full": quality_full.measure(asked.folder)})
        return
    results = measure(configurations(asked.check), asked.check)
    print(json.dumps(results["seconds"]))
    problems = quality_gate.failures(results)
    if asked.check and quality_gate.same_machine(kept, results):
        problems += quality_gate.differences(kept, results)
    elif asked.check:
        problems = quality_gate.failures(results, by_chance=True) + quality_gate.differences(kept, results, heard=False)
    else:
        write({**results, **({"full": kept["full"]} if "full" in kept else {})})
    print(*problems or ["passed"], sep="\n")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
