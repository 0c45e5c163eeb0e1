"""docs/quality.md, made from `results/quality.json`: `python -m benchmarks.quality_table` rewrites it."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks import pages
from benchmarks import quality_gate as gate
from benchmarks.quality_gate import Figures
from chatterbox_nb.precision.plan import OFF_BY_DEFAULT

PAGE = pages.page_of("quality")
CLOCK = "all, by the clock"
_ONE_SEED = "other kernels, dtypes and rows alone"
_HEAD = "cross-entropy | cost | template | digits | both [95 %] | each seed | edits | points over fp32 [95 %] | passes"


def line(results: Figures, name: str) -> str:
    """One configuration."""
    figures = results["configurations"][name]
    cells = [name]
    if "cross_entropy" in figures:
        cells += [f"{figures['cross_entropy']:.4f}", f"{gate.cost(results, name):+.4f}"]
    else:
        cells += ["", ""]
    cells += _heard(results, name, figures) if figures.get("edits") else [""] * 6
    return f"| {' | '.join([*cells, _verdict(results, name, figures)])} |"


def _heard(results: Figures, name: str, figures: Figures) -> list[str]:
    words, runs = results["words"], figures["edits"]
    total = sum(words.values())
    low, high = figures["interval"]
    worse_low, worse_high = figures["points_interval"]
    return [
        f"{gate.word_error_rate(results, name, of='template'):.1f}",
        f"{gate.word_error_rate(results, name, of='digits'):.1f}",
        f"{gate.word_error_rate(results, name):.1f} [{low:.1f}, {high:.1f}]",
        ", ".join(f"{100 * sum(run.values()) / total:.1f}" for run in runs),
        f"{sum(sum(run.values()) for run in runs)} of {total * len(runs)}",
        f"{gate.points(results, name):+.1f} [{worse_low:+.1f}, {worse_high:+.1f}]",
    ]


def _verdict(results: Figures, name: str, figures: Figures) -> str:
    if name == gate.REFERENCE:
        return "is the measure"
    if not gate.excesses(results, name):
        return "yes"
    return "**no**, off" if figures["gated"] in OFF_BY_DEFAULT else "**no**"


def table(results: Figures, names: list[str]) -> str:
    rule = "|---" * (len(_HEAD.split("|")) + 1) + "|"
    return "\n".join([f"| | {_HEAD} |", rule, *(line(results, name) for name in names)])


def full(figures: Figures) -> str:
    """Full-size random weights, and where and when."""
    lines = ["| | hidden states, relative L2 | logits, KL | same likeliest token |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {side['hidden']:.2e} | {side['divergence']:.2e} | {100 * side['agreement']:.1f} % |"
        for name, side in figures["sides"].items()
    ]
    how = f"{figures['positions']} positions of random tokens; {figures['date']} on {pages.where(figures)}."
    return "\n".join([*lines, "", how])


def _cosines(results: Figures) -> str:
    found = [
        f"{name} {min(figures['cosines']):.6f}"
        for name, figures in results["configurations"].items()
        if "cosines" in figures
    ]
    clips = max((len(figures.get("cosines", ())) for figures in results["configurations"].values()), default=0)
    return f"Smallest cosine to fp32's over {clips} clips: {', '.join(found)}." if found else "Not measured yet."


def page(results: Figures) -> str:
    """docs/quality.md, whole."""
    groups: dict[str, list[str]] = {"precisions": [], "rows": [], "faults": []}
    for name, figures in results["configurations"].items():
        kind = "faults" if not figures["gated"] else "rows" if "." in figures["gated"] else "precisions"
        groups[kind].append(name)
    groups["rows"] = [name for name in groups["rows"] if "cross_entropy" in results["configurations"][name]]
    words, seeds = results["words"], len(gate.SEEDS)
    fullsize = full(results["full"]) if "full" in results else "Not measured yet."
    return f"""# Quality

Made by `make quality` from `benchmarks/results/quality.json`; a test holds it to that, and holds that everything on by
default passed.

Measured {results["date"]} on {pages.where(results)}, pocketsphinx {results["pocketsphinx"]}, one thread a process.
Processor time with all else that ran there: {_seconds(results["seconds"])}.

## The gate

The embedded demo voice speaks, and a precision or a row of int8 is off by default when it costs

* more than {gate.LARGEST_COST} of teacher-forced cross-entropy on 120 utterances that were not trained on, or
* more than {gate.LARGEST_POINTS:g} points of word error rate, or
* brings a speaker's embedding below a cosine of {gate.SMALLEST_COSINE} to fp32's.

Cross-entropy is the fine ruler, deterministic, and sees T3 only; every row of the given speech goes through the kernel.
Word error rate is the coarse one and hears everything: 50 template sentences ({words["template"]} words) and 20
readings of four digits ({words["digits"]} words), spoken by the engine with {seeds} seeds at temperature 0.8 and
recognized by pocketsphinx (en-us) with one grammar each. Intervals are over sentences, drawn anew with replacement.
fp32 against itself with another seed is what chance does: compare its three.

| where | what | seeds |
|---|---|---|
| `make quality` | all of this page but full size, rewrites it | {seeds}; planted faults 1 |
| `make quality-check`, in CI | the same without planted faults, writes nothing | {seeds}; {_ONE_SEED} 1 |
| `python -m benchmarks.quality --full` | full size | |
| `pytest tests/test_quality_gate.py` | this page, and recognition of a few sentences, whole and with a fault | 1 |

The check fails as the gate does, and when a figure is not what is kept here: by {gate.NOISE_COST} of cross-entropy or
{gate.NOISE_POINTS:g} points. Over one seed its limits are √{seeds} as wide. Another CPU or torch rounds differently,
and a token drawn otherwise is another take: there word error rates are not compared with those kept, and fail the gate
only where chance does not explain them (the 95 % interval of their points is above 0).

## Precisions

{table(results, groups["precisions"])}

"in float16", "in bfloat16": T3 and flow compute in it, as int8 does on a GPU.

## Rows of int8, each alone

All other rows stay in float32. Rows of flow and vocoder leave the speech tokens as they are.

{table(results, groups["rows"])}

## A speaker's embedding

int8 of `voice_encoder.lstm`. {_cosines(results)} The demo's voice encoder is untrained.

## Planted faults

What the rulers say of int8 with a fault in the square layers of one component: scales of the wrong axis, or input and
output exchanged. Words outlive the first in flow and vocoder: there the finer ruler is the distance of mels in
`tests/test_quality.py`, which fails on it.

{table(results, groups["faults"])}

## Full size

Random weights of the English model's size under teacher forcing, against our fp32. No gate.

{fullsize}
"""


def _seconds(spent: Mapping[str, int]) -> str:
    parts = ", ".join(f"{what.replace('_', ' ')} {seconds} s" for what, seconds in spent.items() if what != CLOCK)
    return f"{parts}; by the clock, two processes, {spent[CLOCK]} s"


def rewrite() -> None:
    PAGE.write_text(page(gate.committed()), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
