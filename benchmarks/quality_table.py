"""docs/quality.md, made from `results/quality.json`: `python -m benchmarks.quality_table` rewrites it."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks import pages, quality_faults, quality_sound
from benchmarks import quality_gate as gate
from benchmarks.quality_gate import Figures
from chatterbox_nb.precision.plan import OFF_BY_DEFAULT

PAGE = pages.page_of("quality")
CLOCK = "all, by the clock"


def words(results: Figures, names: list[str]) -> str:
    """Cross-entropy and words of some configurations."""
    sets = list(results["words"])
    head = ["", "cost [95 %]", *sets, "all [95 %]", "each seed", "points over fp32 [95 %]", "passes"]
    return "\n".join([*pages.head(*head), *(_words(results, name, sets) for name in names)])


def _words(results: Figures, name: str, sets: list[str]) -> str:
    figures = results["configurations"][name]
    heard = [""] * (len(sets) + 3)
    if figures.get("edits"):
        total = sum(results["words"].values())
        heard = [
            *(f"{gate.word_error_rate(results, name, of=one):.1f}" for one in sets),
            f"{gate.word_error_rate(results, name):.1f} {_between(figures['interval'], '.1f')}",
            ", ".join(f"{100 * sum(run.values()) / total:.1f}" for run in figures["edits"]),
            f"{gate.points(results, name):+.1f} {_between(figures['points_interval'], '+.1f')}",
        ]
    cost = cost_of(figures) if "cost" in figures else ""
    return f"| {' | '.join([name, cost, *heard, _verdict(results, name)])} |"


def _between(interval: list[float], form: str) -> str:
    low, high = interval
    return f"[{low:{form}}, {high:{form}}]"


def cost_of(figures: Figures) -> str:
    """Cross-entropy over fp32, and its interval; a zero has no sign of its own."""
    found = f"{figures['cost']:+.4f} {_between(figures['cost_interval'], '+.4f')}"
    return found.replace("-0.0000", "+0.0000")


def sound(results: Figures, names: list[str]) -> str:
    """Mels and voices of some configurations."""
    found = results["configurations"]
    other = any("other" in found[name].get("likeness", {}) for name in names)
    head = ["", "mel", "wave", "its own voice: mean", "smallest", *(["the other: mean"] if other else []), "passes"]
    lines = pages.head(*head)
    for name in names:
        cells = [f"{found[name][what]:.4f}" if what in found[name] else "" for what in ("mel", "wave")]
        likeness = found[name].get("likeness", {})
        cells += [f"{likeness['own'][which]:.4f}" if likeness else "" for which in ("mean", "smallest")]
        if other:
            cells.append(f"{likeness['other']['mean']:.4f}" if likeness else "")
        lines.append(f"| {' | '.join([name, *cells, _verdict(results, name)])} |")
    return "\n".join(lines)


def _verdict(results: Figures, name: str) -> str:
    if name == gate.REFERENCE:
        return "is the measure"
    if not gate.excesses(results, name):
        return "yes"
    return "**no**, off" if results["configurations"][name]["gated"] in OFF_BY_DEFAULT else "**no**"


def _rulers(results: Figures) -> str:
    """What each of them is."""
    fp32 = results["configurations"][gate.REFERENCE]
    said = ", ".join(
        f"{results['sentences'][name]} sentences of {name} ({count} words)" for name, count in results["words"].items()
    )
    rulers = {
        "cross-entropy": f"T3: {results['utterances']} utterances, every row of the given speech through the kernel; "
        f"fp32's is {fp32['cross_entropy']:.4f}. Fine and deterministic",
        "mel": f"the flow: mean L1 of the log mels of {quality_sound.UTTERANCES} utterances, of equal speech tokens "
        "and equal noise. Fine and deterministic",
        "wave": "the vocoder: the same of waves made of fp32's mels",
        "words": f"everything, coarsely: {said}, spoken by the engine with {len(gate.SEEDS)} seeds at temperature 0.8 "
        "and recognized by pocketsphinx (en-us) with one grammar a set",
        "voice": f"everything, coarsely: cosines of the embeddings of {results['takes']} takes, by the voice encoder "
        "in fp32, to that of the voice that speaks",
    }
    return "\n".join([*pages.head("ruler", "hears"), *(f"| {name} | {what} |" for name, what in rulers.items())])


def _set_intervals(results: Figures) -> str:
    """fp32's words, a set at a time."""
    intervals = results["configurations"][gate.REFERENCE].get("set_intervals", {})
    return "; ".join(
        f"{name} {gate.word_error_rate(results, gate.REFERENCE, of=name):.1f} %"
        + (f" {_between(intervals[name], '.1f')}" if name in intervals else "")
        for name in results["words"]
    )


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
    drawing = [name for name in groups["rows"] if "likeness" in results["configurations"][name]]
    seeds = len(gate.SEEDS)
    fullsize = full(results["full"]) if "full" in results else "Not measured yet."
    heard = f" Words were heard {results['heard']}." if "heard" in results else ""
    return f"""# Quality

Made by `make quality` from `benchmarks/results/quality.json`; tests hold it to that, hold that everything on by default
passed and every planted fault failed, and that the figures are of the voice that is here.

Measured {results["date"]} on {pages.where(results)}, pocketsphinx {results["pocketsphinx"]}, one thread a
process.{heard} Processor time with all else that ran there: {_seconds(results["seconds"])}.

## The gate

The embedded demo voice speaks, and a precision or a row of int8 is off by default when it

* costs more than {gate.LARGEST_COST} of teacher-forced cross-entropy on utterances that were not trained on, or
* costs more than {gate.LARGEST_POINTS:g} points of word error rate, or
* moves the flow's mel by more than {gate.LARGEST_MEL}, or the vocoder's wave by more than {gate.LARGEST_WAVE}, or
* brings a speaker's embedding below a cosine of {gate.SMALLEST_COSINE} to fp32's, or
* lets the cosine of what is spoken to its voice fall by more than {gate.LARGEST_FALL}, the mean of some takes, or by
  more than {gate.LARGEST_FALL_OF_ONE}, the smallest.

The gate itself fails when it lets a planted fault pass.

{_rulers(results)}

Intervals are over sentences or utterances, drawn anew with replacement; costs and points are paired with fp32's. fp32,
set by set: {_set_intervals(results)}.
fp32 against itself with another seed is what chance does: compare its {seeds}.

| where | what | seeds |
|---|---|---|
| `make quality` | all of this page but full size, rewrites it | {seeds}; planted faults 1 |
| `make quality-check`, in CI | the same, words of each precision with its own kernel only; writes nothing | {seeds} |
| `python -m benchmarks.quality --fine` | all but words, which are kept; rewrites this page | |
| `python -m benchmarks.quality --full` | full size | |
| `pytest tests/test_quality*.py` | this page, fine rulers, recognition of a few sentences, whole and with a fault | 1 |

The check fails as the gate does, and when a figure is not what is kept here: by {gate.NOISE_COST} of cross-entropy,
{gate.NOISE_MEL} of a mel or {gate.NOISE_POINTS:g} points. Another CPU or torch rounds differently, and a token drawn
otherwise is another take: there word error rates are not compared with those kept, and fail the gate only where chance
does not explain them (the 95 % interval of their points is above 0). Over one seed the limit of words is √{seeds} as
wide.

## Precisions

{words(results, groups["precisions"])}

{sound(results, groups["precisions"])}

"in float16", "in bfloat16": T3 and flow compute in it, as int8 does on a GPU.

## Rows of int8, each alone

All other rows stay in float32. Rows of flow and vocoder leave the speech tokens as they are, and those of T3 the mels.

{words(results, drawing)}

{sound(results, drawing)}

## A speaker's embedding

int8 of `voice_encoder.lstm`. {_cosines(results)}

## Planted faults

What the rulers say of int8 with a fault in one component:

* wrong scales: of the wrong axis, in square layers;
* transposed weights: input and output exchanged, in square layers;
* activations per tensor: what linear layers are given is rounded to 8 bits of one range, as wide as an outlier
  {quality_faults.OUTLIER:g} times the largest value would make it;
* int2: weights rounded to -2..1.

{words(results, groups["faults"])}

{sound(results, groups["faults"])}

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
