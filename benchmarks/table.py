"""The tables of README and docs/measured.md, made from `results/cpu.json` and the settings.

`python -m benchmarks.table` rewrites them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "cpu.json"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
SETTINGS_BEGIN, SETTINGS_END = "<!-- settings: begin -->", "<!-- settings: end -->"
_NAMES = {
    "package": "chatterbox-tts, fp32",
    "fp32": "ours, fp32",
    "int8": "ours, int8",
    "int8-dynamic": "ours, int8, kernel `dynamic`",
}


def line(figures: dict[str, Any]) -> str:
    """One run, for the log."""
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in figures["seconds"].items())
    return f"load {figures['load_seconds']:.1f} s, {figures['tokens']} tokens, {stages}"


def markdown(results: dict[str, Any]) -> str:
    """The table, with its method below it."""
    package = results["sides"]["package"]
    rows = [
        "| | weights in memory | growth | load peak | load | T3 tokens/s | 4 s of audio: mel | wave | watermark |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for side, figures in results["sides"].items():
        rate, seconds = figures["tokens_per_second"], figures["seconds"]
        faster = "" if side == "package" else f" ({rate / package['tokens_per_second']:.1f} ×)"
        part = figures["tensor_bytes"] / package["tensor_bytes"]
        weights = f"{figures['tensor_bytes'] / 1e9:.2f} GB" + ("" if side == "package" else f" ({100 * part:.1f} %)")
        rows.append(
            f"| {_NAMES[side]} | {weights} | {figures['load_growth_bytes'] / 1e9:.2f} GB "
            f"| {figures['load_peak_bytes'] / 1e9:.2f} GB | {figures['load_seconds']:.1f} s | {rate:.1f}{faster} "
            f"| {seconds['mel']:.1f} s | {seconds['wave']:.2f} s | {seconds['watermark']:.2f} s |"
        )
    return "\n".join([*rows, "", _ratios(results["sides"]["int8"]), "", _method(results)])


def _ratios(int8: dict[str, Any]) -> str:
    def against(name: str) -> str:
        return f"{100 * int8['tensor_bytes'] / int8[name]:.1f} %"

    return (
        f"The three ratios of int8, by counted bytes: {against('shipped_bytes')} of what the package loads in fp32 "
        f"({int8['shipped_bytes'] / 1e9:.2f} GB), {against('own_fp32_bytes')} of our own fp32 in the same placement "
        f"({int8['own_fp32_bytes'] / 1e9:.2f} GB), {against('own_fp16_bytes')} of our own fp16 "
        f"({int8['own_fp16_bytes'] / 1e9:.2f} GB, by arithmetic)."
    )


def _method(results: dict[str, Any]) -> str:
    where = f"{results['machine']}; Python {results['python']}, torch {results['torch']}, {results['threads']} threads"
    return (
        f"Measured {results['date']} by `{results['command']}` on {where}; random weights of the English model's true "
        "size, the same files and text for all; each in a process of its own, in turn, medians of "
        f"{results['rounds']} runs. Growth and peak are resident memory over the imports. A GB is 10⁹ bytes."
    )


def by_row(results: dict[str, Any]) -> str:
    """The bytes in memory of each row of the plan, at fp32 and int8."""
    fp32, int8 = results["sides"]["fp32"], results["sides"]["int8"]
    lines = [
        "| component | kind | tensors | package, fp32 | ours, fp32 | ours, int8 | stored as |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, small in zip(fp32["rows"], int8["rows"], strict=True):
        where = small["storage"] if small["placement"] == "resident" else small["placement"]
        lines.append(
            f"| {row['component']} | {row['kind']} | {row['tensors']} | {row['shipped_bytes']:,} | {_resident(row):,} "
            f"| {_resident(small):,} | {where} |"
        )
    totals = (
        sum(row["shipped_bytes"] for row in fp32["rows"]),
        sum(map(_resident, fp32["rows"])),
        sum(map(_resident, int8["rows"])),
    )
    lines.append(f"| all | | | {' | '.join(f'{total:,}' for total in totals)} | |")
    return "\n".join(lines)


def _resident(row: dict[str, Any]) -> int:
    return int(row["bytes"]) if row["placement"] == "resident" else 0


def stages(results: dict[str, Any]) -> str:
    """Seconds a stage, with the spread of the token rate over the runs."""
    names = list(results["sides"]["package"]["seconds"])
    lines = [
        f"| | {' | '.join(f'{name}, s' for name in names)} | tokens/s: median (low, high) | peak, load and take |",
        "|---" * (len(names) + 3) + "|",
    ]
    for side, figures in results["sides"].items():
        low, high = figures["tokens_per_second_spread"]
        seconds = " | ".join(f"{figures['seconds'][name]:.2f}" for name in names)
        lines.append(
            f"| {_NAMES[side]} | {seconds} | {figures['tokens_per_second']:.1f} ({low:.1f}, {high:.1f}) "
            f"| {figures['peak_growth_bytes'] / 1e9:.2f} GB |"
        )
    return "\n".join(lines)


def measured(results: dict[str, Any]) -> str:
    """docs/measured.md, whole."""
    return f"""# Measured

Made by `python -m benchmarks.table` from `benchmarks/results/cpu.json`; a test holds it to that.

{markdown(results)}

## Seconds a stage

{results["sides"]["fp32"]["tokens"]} speech tokens of one text, sampled with guidance (two rows), then mel,
wave and watermark of what was sampled; "tokens" includes the prefill.

{stages(results)}

## Bytes in memory by row of the plan

Tensors are those the package loads. In fp32, too, ours has fewer bytes: the three encoders that read a clip are in
memory only while a voice is prepared, and what inference does not use is dropped.

{by_row(results)}
"""


def settings() -> str:
    """A row for each setting."""
    from chatterbox_nb.settings import SETTINGS

    rows = ["| environment | in a call | default | range | what |", "|---|---|---|---|---|"]
    for setting in SETTINGS:
        default = "" if setting.default is None else f"`{setting.default}`"
        span = ", ".join(setting.choices)
        if setting.low is not None:
            span = f"{setting.low:g} to {setting.high:g}"
        rows.append(f"| `{setting.variable}` | `{setting.name}` | {default} | {span} | {setting.about} |")
    return "\n".join(rows)


def rewrite() -> None:
    """Puts both tables into the README, and writes docs/measured.md."""
    results = json.loads(RESULTS.read_text())
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    for begin, end, made in ((BEGIN, END, markdown(results)), (SETTINGS_BEGIN, SETTINGS_END, settings())):
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}\n{made}\n{end}{after}"
    readme.write_text(text, encoding="utf-8")
    (ROOT / "docs" / "measured.md").write_text(measured(results), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
