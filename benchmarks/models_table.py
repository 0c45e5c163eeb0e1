"""The tables of `results/models.json`: every model beside the English one, for README and docs."""

from __future__ import annotations

import json
from typing import Any

from benchmarks import pages
from benchmarks.pages import Figures

RESULTS, PAGE = pages.results_of("models"), pages.page_of("models")
_NAMES = {
    "package": "chatterbox-tts, fp32",
    "fp32": "ours, fp32",
    "fp16": "ours, fp16",
    "bf16": "ours, bf16",
    "int8": "ours, int8",
}
_PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def results() -> Figures:
    found: Figures = json.loads(RESULTS.read_text())
    return found


def short(measured: Figures) -> str:
    """README's table: the package and int8 of each model."""
    head = ["", "weights in memory", "tokens/s", "mel", "wave", "total", "real-time factor"]
    rows = [row for name, model in measured.items() for row in _speeds(name, model["sides"], ("package", "int8"))]
    return "\n\n".join([pages.table(head, rows), method(measured)])


def every(measured: Figures) -> str:
    """All sides that made a take, and the memory of their processes."""
    head = ["", "weights in memory", "tokens/s", "mel", "wave", "total", "real-time factor"]
    rows = [row for name, model in measured.items() for row in _speeds(name, model["sides"], tuple(_NAMES))]
    more = [
        [
            f"{name}: {_NAMES[side]}",
            f"{figures['load_seconds']:.1f} s",
            *(f"{figures[key] / 1e9:.2f} GB" for key in ("load_growth_bytes", "load_peak_bytes", "peak_growth_bytes")),
        ]
        for name, model in measured.items()
        for side, figures in model["sides"].items()
        if side in _NAMES
    ]
    memory = ["", "load", "process, after the load", "most while loading", "most over load and take"]
    return "\n\n".join([pages.table(head, rows), pages.table(memory, more), _again(measured)])


def _again(measured: Figures) -> str:
    """What a second take with the same voice saves, where its prefix is kept."""
    sides = {name: model["sides"]["int8"] for name, model in measured.items() if model["rows"] == 1}
    each = (
        f"{name} {side['prefix_seconds']:.2f} s "
        f"(factor {(side['total_seconds'] - side['prefix_seconds']) / side['audio_seconds']:.2f})"
        for name, side in sides.items()
    )
    return (
        "A GPT-2 reads the voice's 375 speech tokens before a text. They are kept for the next take, which starts so "
        f"much earlier if the same voice speaks, at int8: {', '.join(each)}. The tables have takes that read them."
    )


def _speeds(name: str, sides: Figures, shown: tuple[str, ...]) -> list[list[str]]:
    package = sides["package"]
    rows = []
    for side in shown:
        figures = sides[side]
        seconds, size = figures["seconds"], figures["tensor_bytes"]
        part = "" if side == "package" else f" ({100 * size / package['tensor_bytes']:.1f} %)"

        def times(mine: float, theirs: float, text: str, side: str = side) -> str:
            return text if side == "package" else f"{text} ({theirs / mine:.1f} ×)"

        rows.append(
            [
                f"{name}: {_NAMES[side]}",
                f"{size / 1e9:.2f} GB{part}",
                times(
                    package["tokens_per_second"], figures["tokens_per_second"], f"{figures['tokens_per_second']:.1f}"
                ),
                times(seconds["mel"], package["seconds"]["mel"], f"{seconds['mel']:.2f} s"),
                f"{seconds['wave']:.2f} s",
                times(figures["total_seconds"], package["total_seconds"], f"{figures['total_seconds']:.1f} s"),
                f"{figures['real_time_factor']:.2f}",
            ]
        )
    return rows


def method(measured: Figures) -> str:
    first: Any = next(iter(measured.values()))
    dates: dict[str, set[str]] = {}
    for model in measured.values():
        dates.setdefault(model["command"], set()).add(model["date"])
    when = ", ".join(f"{' and '.join(sorted(days))} by `{command}`" for command, days in dates.items())
    tokens = first["sides"]["package"]["tokens"]
    guided = [name for name, model in measured.items() if model["rows"] == 2]
    steps = ", ".join(f"{name} {model['sides']['int8']['cfm_steps']}" for name, model in measured.items())
    return (
        f"Measured {when} on {first['machine']}; Python {first['python']}, torch {first['torch']}, "
        f"{first['threads']} threads; random weights of each model's true size, the same files and text for both, "
        f"{tokens} speech tokens ({' and '.join(guided)} with guidance, two rows), steps of the flow: {steps}; each in "
        "a process of its own, in turn, warmed up, medians of "
        f"{first['rounds']} runs (fp32 and the halves: one). × is times as fast as the package; total is from text to "
        "marked samples, the real-time factor seconds of that for a second of audio. Language packs have "
        "multilingual's size."
    )


def memory(measured: Figures) -> str:
    """Weights in memory by model and precision, and int8 against each denominator."""
    rows = []
    for name, model in measured.items():
        sides = model["sides"]
        size = {side: sides[side]["tensor_bytes"] for side in ("package", *_PRECISIONS)}
        rows.append(
            [
                name,
                *(f"{size[side] / 1e9:.2f} GB" for side in ("package", "fp32", "fp16", "bf16")),
                f"{size['int8'] / 1e6:,.0f} MB",
                *(f"{100 * size['int8'] / size[side]:.1f} %" for side in ("package", "fp32", "fp16")),
            ]
        )
    head = ["", "the package, fp32", *(f"ours, {precision}" for precision in _PRECISIONS)]
    return pages.table([*head, "int8 of the package", "of our fp32", "of our fp16"], rows)


def page(measured: Figures) -> str:
    """docs/models.md, whole."""
    return f"""# Every model, measured

Made by `make bench` from `benchmarks/results/models.json`; a test holds it to that. The English model has a page of
its own, [measured.md](measured.md).

{method(measured)}

## Weights in memory

By counted bytes of the tensors that stay in memory.

{memory(measured)}

## Speed, and the memory of the process

{every(measured)}
"""
