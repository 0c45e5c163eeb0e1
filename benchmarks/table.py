"""The tables of README and docs/measured.md, and `.env.example`, made from `results/cpu.json` and the settings.

`python -m benchmarks.table` rewrites them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatterbox_nb.settings import Setting

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "cpu.json"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
VRAM_BEGIN, VRAM_END = "<!-- memory: begin -->", "<!-- memory: end -->"
SETTINGS_BEGIN, SETTINGS_END = "<!-- settings: begin -->", "<!-- settings: end -->"
_NAMES = {
    "package": "chatterbox-tts, fp32",
    "fp32": "ours, fp32",
    "fp16": "ours, fp16",
    "bf16": "ours, bf16",
    "int8-first": "ours, int8, first load",
    "int8-kept": "ours, int8, kept on disk",
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
    return "\n".join([*rows, "", _ratios(results["sides"]), "", _method(results)])


def _ratios(sides: dict[str, Any]) -> str:
    small = sides["int8-kept"]["tensor_bytes"]

    def against(whole: float) -> str:
        return f"{100 * small / whole:.1f} %"

    package, fp32, fp16 = (float(sides[side]["tensor_bytes"]) for side in ("package", "fp32", "fp16"))
    return (
        f"The three ratios of int8, by counted bytes: {against(package)} of what the package loads in fp32 "
        f"({package / 1e9:.2f} GB), {against(fp32)} of our own fp32 in the same placement ({fp32 / 1e9:.2f} GB), "
        f"{against(fp16)} of our own fp16 ({fp16 / 1e9:.2f} GB)."
    )


def _method(results: dict[str, Any]) -> str:
    where = f"{results['machine']}; Python {results['python']}, torch {results['torch']}, {results['threads']} threads"
    return (
        f"Measured {results['date']} by `{results['command']}` on {where}; random weights of the English model's true "
        "size, the same files and text for all; each in a process of its own, in turn, medians of "
        f"{results['rounds']} runs. Growth and peak are resident memory over the imports. A GB is 10⁹ bytes."
    )


_WHOLE = {
    "weights in memory": "tensor_bytes",
    "process, after the load": "load_growth_bytes",
    "process, most while loading": "load_peak_bytes",
    "process, most over load and take": "peak_growth_bytes",
}
_BY_ROW = ("fp32", "fp16", "int8-kept")


def by_row(results: dict[str, Any]) -> str:
    """The bytes in memory of each row of the plan, at fp32, fp16 and int8."""
    found = [results["sides"][side]["rows"] for side in _BY_ROW]
    lines = [
        "| component | kind | tensors | package, fp32 | ours, fp32 | ours, fp16 | ours, int8 | stored as, at int8 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rows in zip(*found, strict=True):
        row, small = rows[0], rows[-1]
        where = small["storage"] if small["placement"] == "resident" else small["placement"]
        sizes = " | ".join(f"{_resident(each):,}" for each in rows)
        lines.append(
            f"| {row['component']} | {row['kind']} | {row['tensors']} | {row['shipped_bytes']:,} | {sizes} | {where} |"
        )
    totals = [sum(row["shipped_bytes"] for row in found[0]), *(sum(map(_resident, rows)) for rows in found)]
    lines.append(f"| all | | | {' | '.join(f'{total:,}' for total in totals)} | |")
    return "\n".join(lines)


def by_component(results: dict[str, Any]) -> str:
    """The bytes in memory of each component, and the memory of the whole, by precision: docs/vram.md's table."""
    sides = ("fp32", "fp16", "bf16", "int8-kept")
    lines = ["| | fp32 | fp16 | bf16 | int8 |", "|---|---|---|---|---|"]
    for component in ("t3", "flow", "vocoder"):
        sizes = [
            sum(_resident(row) for row in results["sides"][side]["rows"] if row["component"] == component)
            for side in sides
        ]
        lines.append(f"| {component} | {' | '.join(f'{size / 1e6:,.1f} MB' for size in sizes)} |")
    for name, key in _WHOLE.items():
        sizes = [results["sides"][side][key] for side in sides]
        lines.append(f"| {name} | {' | '.join(f'{size / 1e9:.2f} GB' for size in sizes)} |")
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

    rows = ["| environment, `.env` | `%config`, call | default | range | what |", "|---|---|---|---|---|"]
    for setting in SETTINGS:
        default = f"`{_default(setting)}`" if _default(setting) else ""
        cells = f"`{setting.variable}`", f"`{setting.name}`", default, _range(setting), setting.about
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def env_example() -> str:
    """.env.example, whole: what stands behind a # is the default."""
    from chatterbox_nb.settings import SETTINGS

    lines = [
        "# The settings of chatterbox-nb. Copy this file to .env, in the folder of the notebook or one above it, and",
        "# take the # off what is to change. Over it are the environment, %config ChatterboxNB.name = value, the call.",
        "# Made by `python -m benchmarks.table`.",
    ]
    for setting in SETTINGS:
        span = f" ({_range(setting)})" if _range(setting) else ""
        lines += ["", f"# {setting.about}{span}", f"#{setting.variable}={_default(setting)}"]
    return "\n".join(lines) + "\n"


def _default(setting: Setting) -> str:
    """As it is written in `.env`; empty where there is none."""
    if setting.default is None or setting.kind == "list":
        return ",".join(setting.default or ())
    if setting.kind == "bool":
        return str(setting.default).lower()
    return setting.default.as_posix() if setting.kind == "path" else str(setting.default)


def _range(setting: Setting) -> str:
    if setting.kind == "bool":
        return "true, false"
    if setting.low is None:
        return ("any of " if setting.kind == "list" else "") + ", ".join(setting.choices)
    return f"{_number(setting.low)} to {_number(setting.high)}"


def _number(value: float | None) -> str:
    return "any" if value is None else f"{value:.10g}"


def put(path: Path, begin: str, end: str, made: str) -> None:
    """Replaces what stands between two marks of a document."""
    before, rest = path.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n{made}\n{end}{after}", encoding="utf-8")


def rewrite() -> None:
    """Puts the tables into README and docs/vram.md, and writes docs/measured.md and .env.example."""
    results = json.loads(RESULTS.read_text())
    put(ROOT / "README.md", BEGIN, END, markdown(results))
    put(ROOT / "README.md", SETTINGS_BEGIN, SETTINGS_END, settings())
    put(ROOT / "docs" / "vram.md", VRAM_BEGIN, VRAM_END, by_component(results))
    (ROOT / "docs" / "measured.md").write_text(measured(results), encoding="utf-8")
    (ROOT / ".env.example").write_text(env_example(), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
