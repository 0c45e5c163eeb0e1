"""What the figures of quality mean: word error rates, costs against fp32, and which of them are too much.

Pure functions of what `results/quality.json` holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from benchmarks import pages
from chatterbox_nb.precision import plan

RESULTS = pages.results_of("quality")
REFERENCE = "fp32"
SEEDS = (0, 1, 2)
LARGEST_COST = 0.01  # of cross-entropy
LARGEST_POINTS = 2.0  # of word error rate, the mean over SEEDS
SMALLEST_COSINE = 0.999  # of a speaker's embedding
# What two CPUs may differ by: they round differently, and a token drawn otherwise is another take.
NOISE_COST, NOISE_POINTS = 0.003, 1.5

Figures = Mapping[str, Any]


def committed() -> dict[str, Any]:
    return pages.committed(RESULTS)


def word_error_rate(results: Figures, name: str, seeds: int | None = None, of: str = "both") -> float:
    """In per cent, over the first so many seeds of a configuration."""
    words = results["words"]
    edits = results["configurations"][name]["edits"][:seeds]
    kinds = ("template", "digits") if of == "both" else (of,)
    return 100 * sum(run[kind] for run in edits for kind in kinds) / (len(edits) * sum(words[kind] for kind in kinds))


def points(results: Figures, name: str) -> float:
    """What a configuration adds to fp32's word error rate over the same seeds."""
    seeds = len(results["configurations"][name]["edits"])
    return word_error_rate(results, name) - word_error_rate(results, REFERENCE, seeds)


def cost(results: Figures, name: str) -> float:
    """What a configuration adds to fp32's cross-entropy."""
    configurations = results["configurations"]
    return float(configurations[name]["cross_entropy"] - configurations[REFERENCE]["cross_entropy"])


def allowed(limit: float, seeds: int) -> float:
    """A limit that is meant for all SEEDS, over fewer: the mean of fewer varies more."""
    return limit * math.sqrt(len(SEEDS) / seeds)


def same_machine(kept: Figures, measured: Figures) -> bool:
    """Whether figures must be equal: a kind of CPU and a torch round as they did. Elsewhere takes are other takes."""
    return all(kept[name] == measured[name] for name in ("machine", "torch"))


def excesses(results: Figures, name: str, by_chance: bool = False) -> list[str]:
    """What of a configuration is too much, a line each; none when it passes.

    Args:
        by_chance: words lost count only beyond what chance does, by the 95 % interval.
    """
    figures, found = results["configurations"][name], []
    if "cross_entropy" in figures and cost(results, name) > LARGEST_COST:
        found.append(f"{name} costs {cost(results, name):.4f} of cross-entropy; {LARGEST_COST} is allowed")
    lost = points(results, name) if figures.get("edits") else 0.0
    if by_chance and lost and figures["points_interval"][0] <= 0:
        lost = 0.0
    if lost > (limit := allowed(LARGEST_POINTS, len(figures.get("edits") or SEEDS))):
        found.append(f"{name} adds {points(results, name):.1f} points of word error rate; {limit:.1f} are allowed")
    if (cosine := min(figures.get("cosines", [1.0]))) < SMALLEST_COSINE:
        found.append(f"{name} moves a speaker's embedding to a cosine of {cosine:.5f}; {SMALLEST_COSINE} is allowed")
    return found


def failures(results: Figures, by_chance: bool = False) -> list[str]:
    """What is on by default and should not be."""
    return [
        line
        for name, figures in results["configurations"].items()
        if figures["gated"] not in ("", *plan.OFF_BY_DEFAULT)
        for line in excesses(results, name, by_chance)
    ]


def differences(kept: Figures, measured: Figures, heard: bool = True) -> list[str]:
    """Where what was measured now is not what is kept, beyond noise. What this machine cannot run is left out.

    Args:
        heard: word error rates too, which on another CPU are those of other takes.
    """
    found = []
    for name, figures in measured["configurations"].items():
        if name not in kept["configurations"]:
            found.append(f"{name} is not in {RESULTS.name}: make quality")
            continue
        old = kept["configurations"][name]
        if "cross_entropy" in figures and abs(figures["cross_entropy"] - old["cross_entropy"]) > NOISE_COST:
            found.append(f"{name}: cross-entropy is {figures['cross_entropy']:.4f}, kept {old['cross_entropy']:.4f}")
        if not heard or not figures.get("edits"):
            continue
        seeds = len(figures["edits"])
        now, then = word_error_rate(measured, name), word_error_rate(kept, name, seeds)
        if abs(now - then) > allowed(NOISE_POINTS, seeds):
            found.append(f"{name}: word error rate is {now:.1f} %, kept {then:.1f} %, over {seeds} seeds")
    return found
