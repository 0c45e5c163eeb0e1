"""What the figures of quality mean: costs against fp32, word error rates, mels, voices, and which of them are too much.

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
LARGEST_POINTS = 2.0  # of word error rate over all sets, the mean over SEEDS
LARGEST_MEL = 0.05  # L1 of the log mels that the flow makes, and of an effort's and of segments'; they spread by 2.6
LARGEST_WAVE = 0.08  # L1 of the log mels of the waves that the vocoder makes; other noise of its own moves them more
SMALLEST_COSINE = 0.999  # of a speaker's embedding to fp32's
LARGEST_FALL = 0.02  # of the cosine of takes to their voice below fp32's, the mean of them
LARGEST_FALL_OF_ONE = 0.05  # and the smallest of them
# What two CPUs may differ by: they round differently, and a token drawn otherwise is another take.
NOISE_COST, NOISE_POINTS, NOISE_MEL = 0.003, 1.5, 0.01

Figures = Mapping[str, Any]


def committed() -> dict[str, Any]:
    return pages.committed(RESULTS)


def word_error_rate(results: Figures, name: str, seeds: int | None = None, of: str = "") -> float:
    """In per cent, over the first so many seeds of a configuration, of one set of sentences or of all."""
    words = results["words"]
    edits = results["configurations"][name]["edits"][:seeds]
    sets = (of,) if of else tuple(words)
    return 100 * sum(run[one] for run in edits for one in sets) / (len(edits) * sum(words[one] for one in sets))


def points(results: Figures, name: str) -> float:
    """What a configuration adds to fp32's word error rate over the same seeds."""
    seeds = len(results["configurations"][name]["edits"])
    return word_error_rate(results, name) - word_error_rate(results, REFERENCE, seeds)


def cost(results: Figures, name: str) -> float:
    """What a configuration adds to fp32's cross-entropy, the mean over utterances."""
    return float(results["configurations"][name]["cost"])


def falls(results: Figures, name: str) -> dict[str, float]:
    """How far the cosine of takes to their voice falls below fp32's: their mean, and the smallest."""
    own, fp32 = (results["configurations"][one]["likeness"]["own"] for one in (name, REFERENCE))
    return {which: fp32[which] - own[which] for which in ("mean", "smallest")}


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
    if "cost" in figures and cost(results, name) > LARGEST_COST:
        found.append(f"{name} costs {cost(results, name):.4f} of cross-entropy; {LARGEST_COST} is allowed")
    lost = points(results, name) if figures.get("edits") else 0.0
    if by_chance and lost and figures["points_interval"][0] <= 0:
        lost = 0.0
    if lost > (limit := allowed(LARGEST_POINTS, len(figures.get("edits") or SEEDS))):
        found.append(f"{name} adds {points(results, name):.1f} points of word error rate; {limit:.1f} are allowed")
    for what, limit in (("mel", LARGEST_MEL), ("wave", LARGEST_WAVE)):
        if (distance := figures.get(what, 0.0)) > limit:
            found.append(f"{name} moves the {what} by {distance:.4f}; {limit} is allowed")
    if (cosine := min(figures.get("cosines", [1.0]))) < SMALLEST_COSINE:
        found.append(f"{name} moves a speaker's embedding to a cosine of {cosine:.5f}; {SMALLEST_COSINE} is allowed")
    if "likeness" in figures:
        limits = {"mean": LARGEST_FALL, "smallest": LARGEST_FALL_OF_ONE}
        found += [
            f"{name} lets the {which} cosine of takes to their voice fall by {fall:.4f}; {limits[which]} is allowed"
            for which, fall in falls(results, name).items()
            if fall > limits[which]
        ]
    return found


def failures(results: Figures, by_chance: bool = False) -> list[str]:
    """What is on by default and should not be."""
    return [
        line
        for name, figures in results["configurations"].items()
        if figures["gated"] not in ("", *plan.OFF_BY_DEFAULT)
        for line in excesses(results, name, by_chance)
    ]


def overlooked(results: Figures) -> list[str]:
    """Planted faults that pass: a gate that lets one through guards nothing."""
    return [
        f"{name} passes the gate, and is a fault"
        for name, figures in results["configurations"].items()
        if not figures["gated"] and not excesses(results, name)
    ]


def differences(kept: Figures, measured: Figures, heard: bool = True) -> list[str]:
    """Where what was measured now is not what is kept, beyond noise: of what runs on this machine and is no fault.

    Args:
        heard: word error rates too, which on another CPU are those of other takes.
    """
    if kept.get("voice") != measured["voice"]:
        return [f"{RESULTS.name} is of another voice or other sentences: make quality"]
    found = []
    for name, figures in measured["configurations"].items():
        if not figures["gated"]:
            continue
        if name not in kept["configurations"]:
            found.append(f"{name} is not in {RESULTS.name}: make quality")
            continue
        old = kept["configurations"][name]
        for what, noise in (("cross_entropy", NOISE_COST), ("mel", NOISE_MEL), ("wave", NOISE_MEL)):
            if what in figures and abs(figures[what] - old[what]) > noise:
                found.append(f"{name}: {what} is {figures[what]:.4f}, kept {old[what]:.4f}")
        if not heard or not figures.get("edits"):
            continue
        seeds = len(figures["edits"])
        now, then = word_error_rate(measured, name), word_error_rate(kept, name, seeds)
        if abs(now - then) > allowed(NOISE_POINTS, seeds):
            found.append(f"{name}: word error rate is {now:.1f} %, kept {then:.1f} %, over {seeds} seeds")
    return found
