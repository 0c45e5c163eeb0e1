"""docs/effort.md, made from `results/effort.json`: `python -m benchmarks.effort_table` rewrites it. And the gate."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import pages, quality_gate, quality_worker
from benchmarks.pages import Figures
from benchmarks.quality_gate import LARGEST_MEL, LARGEST_POINTS

RESULTS, PAGE = pages.results_of("effort"), pages.page_of("effort")
SMALLEST_PART = 0.95  # of best's speaker cosine
GATED = ("balanced",)


def committed() -> Figures:
    return pages.committed(RESULTS)


def error_rate(results: Figures, figures: Figures, of: str = "edits") -> float:
    """Word error rate in per cent over a cell's seeds; of `best`, best's over the same ones."""
    return 100 * float(sum(figures[of])) / (len(figures[of]) * results["words"])


def points(results: Figures, figures: Figures) -> float:
    """What a cell adds to best's word error rate: same sentences, same speech tokens, same seeds."""
    return error_rate(results, figures) - error_rate(results, figures, "best")


def cell(results: Figures, effort: str, voice: str) -> Figures:
    """The figures of an effort with a voice."""
    name: str = results["efforts"][voice][effort]
    figures: Figures = results["cells"][name]
    return figures


def cosine_part(results: Figures, effort: str, voice: str) -> float:
    """An effort's cosine of takes to the voice, as a part of best's."""
    return float(cell(results, effort, voice)["cosine"] / cell(results, "best", voice)["cosine"])


def failures(results: Figures) -> list[str]:
    """What of a gated effort is too much, a line each."""
    found = []
    for effort in GATED:
        for voice in results["voices"]:
            if (lost := points(results, cell(results, effort, voice))) > LARGEST_POINTS:
                found.append(f"{effort} adds {lost:.1f} points of word errors, {voice}; {LARGEST_POINTS:g} are allowed")
            if (part := cosine_part(results, effort, voice)) < SMALLEST_PART:
                found.append(f"{effort} has {part:.3f} of best's cosine, {voice}; {SMALLEST_PART:g} are asked for")
            if (mel := cell(results, effort, voice)["mel"]) > LARGEST_MEL:
                found.append(f"{effort} is {mel:.3f} of mel from best, {voice}; {LARGEST_MEL:g} are allowed")
    return found


def _seconds(seconds: float | None, whole: float) -> str:
    return f"all, {whole:g} s" if seconds is None or seconds >= whole else f"{seconds:g} s"


def flow_seconds(results: Figures, steps: int, seconds: float | None) -> float:
    """The median at full size."""
    cells = results["times"]["cells"]
    run: list[float] = next(one["flow"] for one in cells if (one["steps"], one["seconds"]) == (steps, seconds))
    return run[len(run) // 2]


def efforts(results: Figures) -> str:
    """What each effort is, saves and costs."""
    head = (
        "effort", "`cfm_steps`", "`voice_seconds`", "flow at full size", "word errors, %", "points over best [95 %]",
        "points, with 2 s of reference", "cosine, of best's", "mel, L1 to best's",
    )  # fmt: skip
    lines = pages.head(*head)
    best = cell(results, "best", "long")
    for effort in results["efforts"]["long"]:
        own = cell(results, effort, "long")
        low, high = own["points_interval"]
        lines.append(
            f"| {effort} | {own['steps']} | {_seconds(own['seconds'], results['voices']['long'])} "
            f"| {_time(results, own, best)} | {error_rate(results, own):.1f} "
            f"| {points(results, own):+.1f} [{low:+.1f}, {high:+.1f}] "
            f"| {points(results, cell(results, effort, 'builtin')):+.1f} "
            f"| {cosine_part(results, effort, 'long'):.3f} | {own['mel']:.2f} |"
        )
    return "\n".join(lines)


def _time(results: Figures, own: Figures, best: Figures) -> str:
    if "times" not in results:
        return "not measured yet"
    now, then = (flow_seconds(results, one["steps"], one["seconds"]) for one in (own, best))
    return f"{now:.2f} s" + ("" if own is best else f" ({then / now:.1f} ×)")


def grid(results: Figures, shown: Callable[[Figures], str]) -> str:
    """A figure of every cell of the grid: steps down, seconds across."""
    found = [one for name, one in results["cells"].items() if _in_grid(name)]
    across = list(dict.fromkeys(one["seconds"] for one in found))
    whole = results["voices"]["long"]
    lines = [f"| steps | {' | '.join(_seconds(seconds, whole) for seconds in across)} |", "|---" * 6 + "|"]
    for steps in dict.fromkeys(one["steps"] for one in found):
        row = {one["seconds"]: shown(one) for one in found if one["steps"] == steps}
        lines.append(f"| {steps} | {' | '.join(row.get(seconds, '') for seconds in across)} |")
    return "\n".join(lines)


def _in_grid(name: str) -> bool:
    return name.startswith("long") and "first" not in name and "other noise" not in name


def ends(results: Figures) -> str:
    """The last seconds of the reference beside the first."""
    lines = pages.head("kept", "word errors, %: last", "first", "mel: last", "first")
    for name, first in results["cells"].items():
        if ", first " in name:
            last = results["cells"][name.replace(", first ", ", last ")]
            lines.append(
                f"| {first['seconds']:g} s | {_one_seed(results, last):.1f} | {_one_seed(results, first):.1f} "
                f"| {last['mel']:.3f} | {first['mel']:.3f} |"
            )
    return "\n".join(lines)


def _one_seed(results: Figures, figures: Figures) -> float:
    return 100 * float(figures["edits"][0]) / results["words"]


def times(results: Figures) -> str:
    """Seconds of the flow at full size, and how they were measured."""
    if "times" not in results:
        return "Not measured yet."
    found = results["times"]
    best = found["cells"][0]
    lines = ["| steps | reference | flow, s: median (low, high) | |", "|---|---|---|---|"]
    for one in found["cells"]:
        median = flow_seconds(results, one["steps"], one["seconds"])
        faster = flow_seconds(results, best["steps"], best["seconds"]) / median
        much = _seconds(one["seconds"], found["voice_seconds"])
        low, high = one["flow"][0], one["flow"][-1]
        lines.append(f"| {one['steps']} | {much} | {median:.2f} ({low:.2f}, {high:.2f}) | {faster:.1f} × |")
    how = (
        f"{found['audio_seconds']} s of speech, random weights of the English model's size at {found['precision']} "
        f"(kernel `{found['kernel']}`), {found['rounds']} rounds; {found['date']} on "
        f"{pages.where(found)}, {found['threads']} threads, by `{found['command']}`."
    )
    return "\n".join([*lines, "", how])


def page(results: Figures) -> str:
    """docs/effort.md, whole."""
    int8 = quality_gate.committed()["configurations"]["int8, fused"]["mel"]
    chance = next(figures for name, figures in results["cells"].items() if "other noise" in name)
    verdict = f"**Not passed**: {'; '.join(found)}." if (found := failures(results)) else "It passes."
    earlier = pages.of_which_voice(results, quality_worker.voice())
    return f"""# Effort

Made by `{results["command"]}` from `benchmarks/results/effort.json`; a test holds it to that.

The flow makes the mel in Euler steps (`cfm_steps`), each over the voice's reference (`voice_seconds`) and the speech
together: fewer steps and less of the reference are less work. `effort` sets both: `tts.speak(text, effort="fast")`,
`%%tts --effort fast`, `CHATTERBOX_NB_EFFORT=fast`. T3 is as it was.

{efforts(results)}

The gate, for balanced and both lengths of reference: at most {LARGEST_POINTS:g} points of word errors over best, at
least {SMALLEST_PART:g} of its cosine, and a mel that is no farther than {LARGEST_MEL:g}. {verdict} fast has no gate.

## How

Measured {results["date"]} on {pages.where(results)}, pocketsphinx {results["pocketsphinx"]}.

{earlier}* The demo voice at fp32 says the gate's {results.get("sentences", 70)} sentences ({results["words"]} words),
  and the same recognizer
  hears them. T3's tokens are drawn once a sentence and seed; every cell makes mel and wave of the same tokens from the
  same noise. Efforts have three seeds, the rest one.
* The demo's own reference has {results["voices"]["builtin"]:.1f} s, where the package reads 10 s of a clip. So all
  figures but those of one column are of the demo voice with {results["voices"]["long"]:g} s of its own speech:
  held-out tokens, and the mels that the flow makes of them.
* Mel is the mean L1 of log mels to best's, and the finest ruler here: words outlive much. int8 alone moves the demo's
  mel by {int8:.2f} ([quality.md](quality.md)).
* Cosine is of the voice encoder's embedding of takes to the voice's own, as a part of best's. White noise has one of
  {results["noise_cosine"]:.5f}: where that is near 1, it says nothing of likeness.
* Started from other noise, best is {chance["mel"]:.2f} of mel from itself, and {points(results, chance):+.1f} points of
  word errors: that is what chance does. Fewer steps land nearer to best's own mel than that.
* The demo is a small, robotic voice. What less of a reference costs the likeness of a person's voice with the English
  model has not been measured.

## Every cell

Word errors in per cent, one seed:

{grid(results, lambda one: f"{_one_seed(results, one):.1f}")}

Mel, L1 to best's:

{grid(results, lambda one: f"{one['mel']:.3f}")}

## Which end of the reference

{ends(results)}

`voice_seconds` keeps the last: speech goes on from there.

## Seconds at full size

{times(results)}
"""


def write(results: Figures) -> None:
    pages.keep(RESULTS, results)
    rewrite()


def rewrite() -> None:
    PAGE.write_text(page(committed()), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
