"""docs/streaming.md, made from `results/streaming.json`: `python -m benchmarks.streaming_table` rewrites it."""

from __future__ import annotations

import statistics

from benchmarks import pages, quality_worker
from benchmarks.pages import Figures
from benchmarks.quality_gate import LARGEST_MEL, LARGEST_POINTS

RESULTS, PAGE = pages.results_of("streaming"), pages.page_of("streaming")
LARGEST_OVER = 0.02  # of joins, beyond what 1 % of places inside a take are beyond
SMALLEST_MARK = 0.8
LOOKS = {
    "step": ("step across the join", "amplitude"),
    "bend": ("sharpest bend near it, over those around", "×"),
    "flux": ("change of log10 spectrum, 10 ms to 10 ms", ""),
}


def committed() -> Figures:
    return pages.committed(RESULTS)


def error_rate(results: Figures, way: int) -> float:
    """Word error rate in per cent: 0 in one piece, 1 in segments."""
    edits = [seed[way] for seed in results["edits"]]
    return 100 * float(sum(edits)) / (len(edits) * results["words"])


def failures(results: Figures) -> list[str]:
    """What is too much, a line each."""
    found = []
    if not (results["same_tokens"] and results["same_length"]):
        found.append("tokens or lengths differ")
    if (lost := error_rate(results, 1) - error_rate(results, 0)) > LARGEST_POINTS:
        found.append(f"segments add {lost:.1f} points of word errors; {LARGEST_POINTS:g} are allowed")
    if (mel := results["mel"]["segments"]) > LARGEST_MEL:
        found.append(f"segments are {mel:.3f} of mel from one piece; {LARGEST_MEL:g} are allowed")
    for name, look in results["looks"].items():
        if look["over"] > LARGEST_OVER:
            found.append(
                f"{100 * look['over']:.1f} % of joins have a {name} as 1 % inside; {100 * LARGEST_OVER:g} % may"
            )
    if (least := min(results["marks"])) < SMALLEST_MARK:
        found.append(f"a segment has {least:.2f} of the mark; {SMALLEST_MARK:g} is asked for")
    return found


def _seeds(results: Figures) -> str:
    count = len(results["edits"])
    return f"{count} seeds" if count > 1 else "one seed"


def table(results: Figures) -> str:
    """Each measure of a join, held against takes in one piece."""
    head = (
        "", "at a join: median", "largest", "same place, in one piece", "anywhere: median", "99 %", "joins beyond that",
    )  # fmt: skip
    lines = pages.head(*head)
    for name, (title, unit) in LOOKS.items():
        look = results["looks"][name]
        cells = [f"{look[part]:.3f}" for part in ("joins", "largest", "unjoined", "inside", "limit")]
        named = f"{title}, {unit}" if unit else title
        lines.append(f"| {named} | {' | '.join(cells)} | {100 * look['over']:.1f} % |")
    return "\n".join(lines)


def page(results: Figures) -> str:
    """docs/streaming.md, whole."""
    low, high = results["points_interval"]
    once, streamed = (error_rate(results, way) for way in (0, 1))
    verdict = f"**Not passed**: {'; '.join(found)}." if (found := failures(results)) else "It passes."
    first = statistics.fmean(take[0] for take in results["segments"])
    count = statistics.fmean(map(len, results["segments"]))
    earlier = pages.of_which_voice(results, quality_worker.voice())
    return f"""# Streaming inside a chunk

Made by `{results["command"]}` from `benchmarks/results/streaming.json`; a test holds it to that.

`tts.stream(text, segments=True)` gives the sound of a chunk while its tokens are still coming. The flow runs again
over all tokens so far, from the same noise, and where two runs meet they are blended. Tokens and length are those of a
take in one piece, and every segment carries the watermark.

| | in one piece | in segments |
|---|---|---|
| word errors, % | {once:.1f} | {streamed:.1f} ({streamed - once:+.1f} [{low:+.1f}, {high:+.1f}]) |
| mel in speech, L1 to one piece | 0 | {results["mel"]["segments"]:.3f} |
| the same, six steps instead of ten | {results["mel"]["6 steps"]:.3f} | |
| the same, other noise | {results["mel"]["other noise"]:.3f} | |
| first sound, seconds of speech | all of a chunk | {first:.2f} |
| frames that the flow makes | 1 | {results["work"]:.1f} |
| the mark, least of {len(results["marks"])} segments | | {min(results["marks"]):.2f} |

## Joins

{table(results)}

{results["joins"]} joins, and {results["places"]} places in speech all through the takes in one piece. A bend is
the second difference of the samples, which a click raises for a moment. So do the pulses of a voice: no one measure
sees every click, and a test holds that the three together see one of a tenth of full scale nearly anywhere.

The gate: the same tokens, at most {LARGEST_POINTS:g} points of word errors, a mel no farther than {LARGEST_MEL:g}, a
mark of at least {SMALLEST_MARK:g}, and at most {100 * LARGEST_OVER:g} % of joins beyond what 1 % of places are beyond,
by each measure. {verdict}

## How

Measured {results["date"]} on {pages.where(results)}, pocketsphinx {results["pocketsphinx"]}.

{earlier}* The demo voice at fp32 says the gate's {results.get("sentences", 70)} sentences ({results["words"]} words)
  with {_seeds(results)},
  in one piece and in {count:.1f} segments on average; the same recognizer hears both. The interval is of 95 %, over
  sentences.
* Frames count what the flow goes over, the voice's reference included: with a longer one each run costs more.
* Marks and mels are of 20 sentences and one seed: marks of segments of half a second and more, mels of frames within
  30 dB of the loudest.
* The demo is a small, robotic voice; joins of the English model have not been measured.
"""


def write(results: Figures) -> None:
    pages.keep(RESULTS, results)
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    PAGE.write_text(page(committed()), encoding="utf-8")
