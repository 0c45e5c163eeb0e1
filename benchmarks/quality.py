"""What each precision and each row of int8 costs the demo voice: the quality gate.

`make quality` measures all and writes `results/quality.json` and docs/quality.md. `--check` measures again, words only
of each precision with its own kernel, and fails when something on by default costs too much, a planted fault passes, or
a kept figure is not what is measured. `--fine` measures all but words, in minutes, and keeps the words that are there.
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

from benchmarks import (
    bootstrap,
    pages,
    pool,
    quality_full,
    quality_gate,
    quality_sound,
    quality_table,
    quality_worker,
    teacher,
)
from benchmarks.quality_faults import PLANT
from benchmarks.quality_worker import FP32, ROWS, Configuration
from chatterbox_nb.errors import PrecisionError
from chatterbox_nb.precision import device
from chatterbox_nb.precision.choice import choose_kernel

KERNELS = ("fused", "plain", "int8pack", "dynamic")
_HEARD = ("edits", "interval", "set_intervals", "points_interval")  # what is known of words


def configurations() -> list[Configuration]:
    """Whole precisions, int8 with each kernel there is and in each half, each row of int8 alone, planted faults."""
    found = as_loaded()[:3]
    found += [Configuration(f"int8, {kernel}", "int8", kernel) for kernel in KERNELS if _runs_here(kernel)]
    found += [
        Configuration(f"int8, plain, in {compute}", "int8", "plain", compute) for compute in ("float16", "bfloat16")
    ]
    found += [Configuration(f"{row} alone", "int8", row=row) for row in ROWS]
    found += [
        Configuration(f"{name} in {component}", "int8", "plain", fault=name, component=component)
        for name, fault in PLANT.items()
        for component in fault.components
    ]
    return found


def _runs_here(kernel: str) -> bool:
    try:
        choose_kernel("int8", device.facts("cpu"), kernel)
    except PrecisionError:
        return False
    return True


def seeds_of(configuration: Configuration, check: bool) -> Sequence[int]:
    """Precisions as they are loaded here always speak with every seed; where time is short, nothing else speaks."""
    if configuration in as_loaded():
        return quality_gate.SEEDS
    if check:
        return ()
    return quality_gate.SEEDS[:1] if configuration.fault else quality_gate.SEEDS


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


def measure(asked: Sequence[Configuration], check: bool, heard: bool = True) -> dict[str, Any]:
    """Figures of each configuration, fp32 first.

    Args:
        check: with as few takes as will do.
        heard: words too.
    """
    started = time.perf_counter()
    with pool.processes() as workers:
        jobs = _Jobs(workers)
        takes = _start_takes(jobs, asked, check) if heard else {}
        rulers = {one: _start_fine(jobs, one, check) for one in asked}
        edits = {one: [take.result()[0][1] for take in found] for one, found in takes.items()}
        found = {one: {name: ruler.result()[0] for name, ruler in of.items()} for one, of in rulers.items()}
        seconds = {what: round(spent) for what, spent in jobs.seconds.items()}
    return {
        **pages.here(),
        "pocketsphinx": version("pocketsphinx"),
        "voice": quality_worker.voice(),
        "seconds": {**seconds, quality_table.CLOCK: round(time.perf_counter() - started)},
        **counted(),
        "configurations": {
            one.name: {"gated": one.gated}
            | word_figures(edits.get(one, []), edits.get(FP32, []))
            | fine_figures(found[one], found[FP32])
            for one in asked
        },
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


def _start_fine(jobs: _Jobs, one: Configuration, check: bool) -> dict[str, Future[Any]]:
    """The rulers that need no words, as far as they can show anything of a configuration."""
    asked = {
        quality_worker.cross_entropy: one.draws,
        quality_sound.moved: one.sounds and one != FP32,
        quality_sound.likeness: (one.draws or one.sounds) and not (check and one.fault),
        quality_worker.speaker_cosines: one.embeds,
    }
    return {work.__name__: jobs.start(work, one) for work, wanted in asked.items() if wanted}


# What is made of what was measured


def counted() -> dict[str, Any]:
    """How much is said: words and sentences of each set; utterances and takes of the fine rulers."""
    said = quality_worker.sentences()
    sets = dict.fromkeys(sentence.set for sentence in said)
    return {
        "words": {name: sum(len(sentence.words) for sentence in said if sentence.set == name) for name in sets},
        "sentences": {name: sum(sentence.set == name for sentence in said) for name in sets},
        "utterances": len(teacher.heldout()),
        "takes": quality_sound.TAKES,
    }


def word_figures(heard: list[list[int]], reference: list[list[int]]) -> dict[str, Any]:
    """Edits by seed and set, and 95 % intervals of the rates and of their distance to fp32's, in per cent.

    Args:
        heard, reference: edits of each sentence, by seed; the reference's are fp32's.
    """
    if not heard:
        return {}
    sets = np.array([sentence.set for sentence in quality_worker.sentences()])
    edits = np.array(heard)
    mean = edits.mean(0)
    names = list(dict.fromkeys(sets.tolist()))
    return {
        "edits": [{name: int(run[sets == name].sum()) for name in names} for run in edits],
        "interval": interval(mean),
        "set_intervals": {name: interval(mean, sets == name) for name in names},
        "points_interval": interval(mean - np.mean(reference[: len(heard)], axis=0)),
    }


def fine_figures(found: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """What the rulers that need no words gave, beside what they gave for fp32."""
    figures: dict[str, Any] = dict(found.get("moved", {}))
    if "cross_entropy" in found:
        losses = np.array(found["cross_entropy"])
        costs = losses - np.array(reference["cross_entropy"])
        figures["cross_entropy"] = round(float(losses.mean()), 6)
        figures["cost"] = round(float(costs.mean()), 6)
        figures["cost_interval"] = bootstrap.interval(costs, np.ones(len(costs)), 5)
    if "likeness" in found:
        figures["likeness"] = {
            who: {"mean": round(float(np.mean(cosines)), 5), "smallest": min(cosines)}
            for who, cosines in found["likeness"].items()
        }
    if "speaker_cosines" in found:
        figures["cosines"] = found["speaker_cosines"]
    return figures


def interval(edits: np.ndarray[Any, Any], of: np.ndarray[Any, Any] | None = None) -> list[float]:
    """95 % of word error rates over sentences drawn anew; edits a sentence `[n]`, of those sentences or of all."""
    words = np.array([len(sentence.words) for sentence in quality_worker.sentences()])
    chosen = np.ones(len(words), bool) if of is None else of
    return bootstrap.interval(100 * edits[chosen], words[chosen])


def with_kept_words(results: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """Results without words, with those that are kept, and when they were heard."""
    old = kept["configurations"]
    both = {
        name: figures | {key: old[name][key] for key in _HEARD if key in old.get(name, {})}
        for name, figures in results["configurations"].items()
    }
    return {**results, "heard": kept.get("heard", kept["date"]), "configurations": both}


def write(results: dict[str, Any]) -> None:
    pages.keep(quality_gate.RESULTS, results)
    quality_table.rewrite()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="compare with what is kept; write nothing")
    arguments.add_argument("--fine", action="store_true", help="all but words, which are kept")
    arguments.add_argument("--full", action="store_true", help="full-size random weights only")
    arguments.add_argument("--folder", type=Path, default=Path("out/full"), help="those, made if absent: 3.2 GB")
    asked = arguments.parse_args()
    kept = quality_gate.committed() if quality_gate.RESULTS.exists() else {}
    if asked.full:
        write({**kept, "full": quality_full.measure(asked.folder)})
        return
    if asked.fine and kept.get("voice") != quality_worker.voice():
        sys.exit("The words that are kept are of another voice or other sentences: make quality")
    results = measure(configurations(), asked.check, heard=not asked.fine)
    print(json.dumps(results["seconds"]))
    if asked.fine:
        results = with_kept_words(results, kept)
    problems = quality_gate.overlooked(results)
    if not asked.check:
        problems += quality_gate.failures(results)
        write({**results, **({"full": kept["full"]} if "full" in kept else {})})
    elif quality_gate.same_machine(kept, results):
        problems += quality_gate.failures(results) + quality_gate.differences(kept, results)
    else:
        problems += quality_gate.failures(results, by_chance=True)
        problems += quality_gate.differences(kept, results, heard=False)
    print(*problems or ["passed"], sep="\n")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
