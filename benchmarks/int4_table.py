"""docs/int4.md, made from `results/int4.json`: `python -m benchmarks.int4_table` rewrites it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from benchmarks import int4_weights, pages, quality_table
from benchmarks import quality_gate as gate
from benchmarks.quality_gate import Figures
from chatterbox_nb.precision.plan import PRECISIONS

RESULTS = pages.results_of("int4")
PAGE = pages.page_of("int4")
NOT_INT4 = ("fp32", int4_weights.INT8.name)  # what stands beside it


def committed() -> dict[str, Any]:
    return pages.committed(RESULTS)


def passing(results: Figures) -> list[str]:
    """Choices with int4 that pass the quality gate."""
    return [name for name in results["configurations"] if name not in NOT_INT4 and not gate.excesses(results, name)]


def _roundings(results: Figures) -> str:
    lines = pages.head("T3's layers, all int4", "cost [95 %]", "of their int8 bytes", "within the limit")
    for name, of in results["roundings"].items():
        part = of["bytes"] / _int8_bytes(results)
        lines.append(
            f"| {name} | {quality_table.cost_of(of)} | {100 * part:.0f} % | {_yes(of['cost'] <= gate.LARGEST_COST)} |"
        )
    return "\n".join(lines)


def _int8_bytes(results: Figures) -> int:
    """Of T3's layers in the demo voice."""
    return int(results["layers_int8_bytes"])


def _yes(passes: bool) -> str:
    return "yes" if passes else "**no**"


def _chosen(results: Figures) -> str:
    lines = pages.head("rounding", "int4, of the weights", "bytes of T3's layers", "of those, still int8", "of int8's")
    for name, of in results["chosen"].items():
        part = of["bytes"] / _int8_bytes(results)
        lines.append(
            f"| {name} | {100 * of['part']:.0f} % | {of['bytes']:,} | {of['at_int8']:,} | {100 * part:.0f} % |"
        )
    return "\n".join(lines)


def _kinds(results: Figures) -> str:
    """What a matrix of each kind costs alone, the mean and the worst of the layers, and how many were taken."""
    names = list(results["chosen"])
    lines = pages.head("matrix", *(f"{name}: mean, worst, taken" for name in names))
    kinds: dict[str, dict[str, list[tuple[float, bool]]]] = defaultdict(lambda: defaultdict(list))
    for name, of in results["chosen"].items():
        for piece, cost in of["alone"].items():
            kinds[piece.partition(" ")[2]][name].append((cost, piece in of["names"]))
    for kind, found in kinds.items():
        cells = []
        for name in names:
            costs, taken = zip(*found[name], strict=True)
            cells.append(f"{sum(costs) / len(costs):+.4f}, {max(costs):+.4f}, {sum(taken)} of {len(taken)}")
        lines.append(f"| {' | '.join([kind, *cells])} |")
    return "\n".join(lines)


def _weights(results: Figures) -> str:
    model = results["model"]
    lines = pages.head(model["title"], "T3", "all in memory", "of what the package loads")
    for name, of in model["choices"].items():
        part = f" ({100 * of['part']:.0f} %)" if "part" in of else ""
        lines.append(
            f"| {name}{part} | {of['t3'] / 1e6:,.0f} MB | {of['all'] / 1e6:,.0f} MB "
            f"| {100 * of['all'] / model['shipped']:.1f} % |"
        )
    return "\n".join(lines)


def _verdict(results: Figures) -> str:
    found = passing(results)
    offered = "int4 is among the precisions" if "int4" in PRECISIONS else "int4 is not offered to people"
    if not found:
        return f"No choice with int4 passes the gate, so {offered}."
    names = "; ".join(found)
    return f"Of the choices below these pass the gate: {names}. Still {offered}: no kernel multiplies it yet."


def page(results: Figures) -> str:
    """docs/int4.md, whole."""
    names = list(results["configurations"])
    failed = "\n".join(f"* {line}." for name in names for line in gate.excesses(results, name))
    return f"""# int4, an experiment

Made by `make int4` from `benchmarks/results/int4.json`; a test holds it to that.

**{_verdict(results)}** Whatever fails the gate of [quality.md](quality.md) is not to be offered.

Measured {results["date"]} on {pages.where(results)}, pocketsphinx {results["pocketsphinx"]}; {results["seconds"]} s by
the clock.

## How

* Weights are rounded to four bits, symmetric, a group of inputs of one output row having one float16 scale, and put
  back as numbers into the demo voice at int8 (kernel `plain`): there is no int4 kernel, and nothing here says how fast
  it would be. What is not int4 stays int8.
* "Clipped": of {int4_weights.SCALES} scales a group takes that of the least squared error, and its largest weights may
  be cut off. Otherwise the largest weight is 7, and the rest rounded to nearest.
* Cost is of cross-entropy over fp32, as in quality.md, of {results["utterances"]} utterances; {gate.LARGEST_COST} is
  the limit.
* A tiny voice is evidence of two kinds. It is harder than the real model: a small network has no weights to spare, and
  usually bears rounding worse. And it is easier: its sums are short and its layers few, where errors of the real model
  add up over thirty. Random weights of the true size move their hidden states by .53 of their length at int4 in groups
  of 32, where int8 moves them by .05. So neither a failure nor a pass here settles it for the real weights, which were
  never here: int4 needs the gate's pass on them too before anybody is offered it.

## All of T3's linear layers

{_roundings(results)}

## Some of them

What each matrix costs alone, over int8; then the cheapest for a byte that it saves are taken, while all together with
int8's own cost stay within {gate.LARGEST_COST}. Chosen and judged on the same utterances.

{_kinds(results)}

{_chosen(results)}

## What the gate says

{quality_table.words(results, names)}

{quality_table.sound(results, names)}

{failed or "Nothing is too much."}

## What the real model would weigh

Reckoned from its shapes, measured on nothing. "As much of T3": the part of the weights that the demo's T3 can have in
int4. Embeddings, head and convolutions stay int8.

{_weights(results)}
"""


def rewrite() -> None:
    PAGE.write_text(page(committed()), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
