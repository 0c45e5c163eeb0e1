"""The tables of what `make bench` measured, from `results/cpu.json`: for README, docs/measured.md and docs/vram.md."""

from __future__ import annotations

from typing import Any

from benchmarks import pages
from benchmarks.pages import Figures

RESULTS = pages.results_of("cpu")
_NAMES = {
    "package": "chatterbox-tts, fp32",
    "fp32": "ours, fp32",
    "fp16": "ours, fp16",
    "bf16": "ours, bf16",
    "int8-first": "ours, int8, first load",
    "int8": "ours, int8",
    "int8-dynamic": "ours, int8, kernel `dynamic`",
}
_STAGES = {"prefill": "first token", "decode": "tokens", "mel": "mel", "wave": "wave", "watermark": "watermark"}
_PATHS = {
    "load_seconds": ("load", "s", 1),
    "load_growth_bytes": ("process, after the load", "GB", 2),
    "load_peak_bytes": ("process, most while loading", "GB", 2),
    "peak_growth_bytes": ("process, most over load and take", "GB", 2),
    "tokens_per_second": ("tokens/s", "", 1),
    **{f"seconds.{stage}": (name, "s", 2) for stage, name in _STAGES.items()},
    "total_seconds": ("total", "s", 1),
    "real_time_factor": ("real-time factor", "", 2),
    "voice.read": ("voice: encoders read", "s", 2),
    "voice.prepare": ("voice: prepared", "s", 2),
    "voice.total": ("voice, in all", "s", 2),
    "efforts.balanced.mel": ("balanced: mel", "s", 2),
    "efforts.balanced.total_seconds": ("balanced: total", "s", 1),
    "efforts.fast.mel": ("fast: mel", "s", 2),
    "efforts.fast.total_seconds": ("fast: total", "s", 1),
    "together.one_tokens_per_second": ("one chunk: tokens/s", "", 1),
    "together.all_tokens_per_second": ("chunks side by side: tokens/s", "", 1),
    "together.ratio": ("of those, times one chunk", "×", 2),
    "together.most_tokens_per_second": ("twice as many: tokens/s", "", 1),
    "together.most_ratio": ("of those, times one chunk", "×", 2),
    "streaming.first_seconds": ("streamed: first segment", "s", 1),
    "streaming.last_seconds": ("streamed: last segment", "s", 1),
}


def line(figures: Figures) -> str:
    """One run, for the log."""
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in figures.get("seconds", {}).items())
    return f"load {figures['load_seconds']:.1f} s" + (f", {figures['tokens']} tokens, {stages}" if stages else "")


def floor_line(floor: Figures) -> str:
    """What the machine can do at the most."""
    return (
        f"{floor['gigabytes_per_second']:.1f} GB/s read from memory; multiplied, {floor['fp32_gflops']:.0f} GFLOP/s "
        f"in fp32, {floor['bf16_gflops']:.0f} in bf16, {floor['int8_gops']:.0f} GOP/s in int8"
    )


def _table(*rows: list[str]) -> str:
    """The first row is the head."""
    return pages.table(rows[0], rows[1:])


def _took(sides: Figures) -> dict[str, Figures]:
    """The sides that made a take."""
    return {side: figures for side, figures in sides.items() if "seconds" in figures}


def _audio(results: Figures) -> str:
    return f"{results['sides']['package']['audio_seconds']:.3g} s"


def markdown(results: Figures) -> str:
    """README's table, with its method below it."""
    sides = results["sides"]
    package, small = sides["package"], sides["int8"]
    audio = _audio(results)

    def times(side: str, whole: float, mine: float, shown: str) -> str:
        return shown if side == "package" else f"{shown} ({whole / mine:.1f} ×)"

    def ends(side: str, figures: Figures) -> list[str]:
        total = figures["total_seconds"]
        return [
            times(side, package["total_seconds"], total, f"{total:.1f} s"),
            f"{figures['real_time_factor']:.2f}",
        ]

    head = ["", "weights in memory", "load", "tokens/s", "first token", f"{audio} of audio: mel", "wave", "total"]
    rows = [[*head, "real-time factor"]]
    for side, figures in sides.items():
        part = figures["tensor_bytes"] / package["tensor_bytes"]
        weights = f"{figures['tensor_bytes'] / 1e9:.2f} GB" + ("" if side == "package" else f" ({100 * part:.1f} %)")
        row = [_NAMES[side], weights, f"{figures['load_seconds']:.1f} s"]
        if "seconds" in figures:
            rate, seconds = figures["tokens_per_second"], figures["seconds"]
            row += [
                times(side, rate, package["tokens_per_second"], f"{rate:.1f}"),
                f"{seconds['prefill']:.2f} s",
                times(side, package["seconds"]["mel"], seconds["mel"], f"{seconds['mel']:.1f} s"),
                f"{seconds['wave']:.2f} s",
                *ends(side, figures),
            ]
        rows.append(row + [""] * (9 - len(row)))
        if side == "int8":
            for effort, found in figures["efforts"].items():
                mel = times(side, package["seconds"]["mel"], found["mel"], f"{found['mel']:.1f} s")
                name = f"{_NAMES[side]}, `--effort {effort}`"
                rows.append([name, "", "", "", "", mel, "", *ends(side, found)])
    return "\n\n".join([_table(*rows), _more(small, audio), _ratios(sides), _method(results)])


def _more(small: Figures, audio: str) -> str:
    together, streaming = small["together"], small["streaming"]
    return (
        f"{together['lines']} chunks decoded side by side at int8: {together['all_tokens_per_second']:.1f} tokens/s, "
        f"{together['ratio']:.1f} × one chunk's {together['one_tokens_per_second']:.1f}; {together['most_lines']}: "
        f"{together['most_ratio']:.1f} ×. One chunk of {audio} streamed "
        f"at `{streaming['effort']}`: the first {streaming['first_audio_seconds']:.1f} s sound after "
        f"{streaming['first_seconds']:.1f} s and the last after {streaming['last_seconds']:.1f} s; unstreamed, all do "
        f"after {streaming['whole_seconds']:.1f} s."
    )


def _ratios(sides: Figures) -> str:
    small = sides["int8"]["tensor_bytes"]

    def against(whole: float) -> str:
        return f"{100 * small / whole:.1f} %"

    package, fp32, fp16 = (float(sides[side]["tensor_bytes"]) for side in ("package", "fp32", "fp16"))
    return (
        f"The three ratios of int8, by counted bytes: {against(package)} of what the package loads in fp32 "
        f"({package / 1e9:.2f} GB), {against(fp32)} of our own fp32 in the same placement ({fp32 / 1e9:.2f} GB), "
        f"{against(fp16)} of our own fp16 ({fp16 / 1e9:.2f} GB)."
    )


def _method(results: Figures) -> str:
    where = f"{results['machine']}; Python {results['python']}, torch {results['torch']}, {results['threads']} threads"
    package, ours, rounds = results["sides"]["package"], results["sides"]["int8"], results["rounds"]
    once = [_NAMES[side].removeprefix("ours, ") for side, figures in results["sides"].items() if figures["rounds"] == 1]
    less = f" ({' and '.join(once)}: one)" if rounds > 1 and once else ""
    return (
        f"Measured {results['date']} by `{results['command']}` on {where}; random weights of the English model's true "
        f"size, the same files, text and voice ({ours['reference_seconds']:g} s) for all, {package['tokens']} speech "
        f"tokens with guidance (two rows), {ours['cfm_steps']} steps of the flow; each in a process of its own, in "
        f"turn, warmed up, medians of {rounds} runs{less}. × is times as fast as the package; total "
        "is from text to marked samples, and the real-time factor is seconds of that for a second of audio. This "
        f"machine at the most: {floor_line(results['floor'])}. A GB is 10⁹ bytes."
    )


def stages(results: Figures) -> str:
    """Seconds a stage, and its part of the whole."""
    rows = [["", *(f"{name}, s" for name in _STAGES.values()), "total, s"]]
    for side, figures in _took(results["sides"]).items():
        total = figures["total_seconds"]
        cells = [
            f"{seconds:.2f} ({100 * seconds / total:.0f} %)"
            for seconds in (figures["seconds"][stage] for stage in _STAGES)
        ]
        rows.append([_NAMES[side], *cells, f"{total:.1f}"])
    return _table(*rows)


def floor(results: Figures) -> str:
    """A token of each side beside the least that it can take: its weights read once."""
    rows = [["", "tokens/s", "ms a token", "read for each", "takes at the least", "of what it takes"]]
    for side, figures in _took(results["sides"]).items():
        size, taken = figures["token_bytes"], figures["milliseconds_a_token"]
        least = size / results["floor"]["gigabytes_per_second"] / 1e6
        rows.append(
            [
                _NAMES[side], f"{figures['tokens_per_second']:.1f}", f"{taken:.1f}", f"{size / 1e6:,.1f} MB",
                f"{least:.1f} ms", f"{100 * least / taken:.0f} %",
            ]
        )  # fmt: skip
    return _table(*rows)


def spreads(results: Figures) -> str:
    """Every figure that varies: median, lowest and highest of a side's runs."""
    sides = results["sides"]
    rows = [["", *(f"{_NAMES[side]} ({figures['rounds']})" for side, figures in sides.items())]]
    for path, (name, unit, digits) in _PATHS.items():
        cells = [_spread(figures, path, unit, digits) for figures in sides.values()]
        if any(cells):
            rows.append([name + (f", {unit}" if unit else ""), *cells])
    return _table(*rows)


def _spread(figures: Figures, path: str, unit: str, digits: int) -> str:
    value: Any = figures
    for key in path.split("."):
        if key not in value:
            return ""
        value = value[key]
    scale = 1e9 if unit == "GB" else 1
    found = f"{value / scale:.{digits}f}"
    if path in figures["spread"]:
        low, high = figures["spread"][path]
        found += f" ({low / scale:.{digits}f} to {high / scale:.{digits}f})"
    return found


def voices(results: Figures) -> str:
    """What a clip takes to become a voice."""
    sides = results["sides"]
    package, ours = sides["package"]["voice"], sides["int8"]["voice"]
    return (
        f"A clip of {results['clip_seconds']:g} s becomes a voice in {package['total']:.1f} s by the package, which "
        f"has its encoders in memory, and in {ours['total']:.1f} s by ours at int8: {ours['read']:.1f} s to "
        f"read them from disk, {ours['prepare']:.1f} s of work."
    )


_WHOLE = {
    "weights in memory": "tensor_bytes",
    "process, after the load": "load_growth_bytes",
    "process, most while loading": "load_peak_bytes",
    "process, most over load and take": "peak_growth_bytes",
}
_BY_ROW = ("fp32", "fp16", "int8")


def by_row(results: Figures) -> str:
    """The bytes in memory of each row of the plan, at fp32, fp16 and int8."""
    found = [results["sides"][side]["rows"] for side in _BY_ROW]
    head = ["component", "kind", "tensors", "package, fp32", "ours, fp32", "ours, fp16", "ours, int8"]
    lines = [[*head, "stored as, at int8"]]
    for rows in zip(*found, strict=True):
        row, small = rows[0], rows[-1]
        where = small["storage"] if small["placement"] == "resident" else small["placement"]
        sizes = [f"{size:,}" for size in (row["shipped_bytes"], *map(_resident, rows))]
        lines.append([row["component"], row["kind"], str(row["tensors"]), *sizes, where])
    totals = [sum(row["shipped_bytes"] for row in found[0]), *(sum(map(_resident, rows)) for rows in found)]
    lines.append(["all", "", "", *(f"{total:,}" for total in totals), ""])
    return _table(*lines)


def by_component(results: Figures) -> str:
    """The bytes in memory of each component, and the memory of the whole, by precision: docs/vram.md's table."""
    sides = ("fp32", "fp16", "bf16", "int8")
    rows = [["", *sides]]
    for component in ("t3", "flow", "vocoder"):
        sizes = [
            sum(_resident(row) for row in results["sides"][side]["rows"] if row["component"] == component)
            for side in sides
        ]
        rows.append([component, *(f"{size / 1e6:,.1f} MB" for size in sizes)])
    for name, key in _WHOLE.items():
        rows.append([name, *(f"{results['sides'][side][key] / 1e9:.2f} GB" for side in sides)])
    return _table(*rows)


def _resident(row: Figures) -> int:
    return int(row["bytes"]) if row["placement"] == "resident" else 0


def measured(results: Figures) -> str:
    """docs/measured.md, whole."""
    tokens, limits = results["sides"]["package"]["tokens"], results["floor"]
    rows, width, out = limits["multiplied"]
    return f"""# Measured

Made by `python -m benchmarks.table` from `benchmarks/results/cpu.json`; a test holds it to that.

{markdown(results)}

## Seconds a stage

{tokens} speech tokens of one text, then mel, wave and watermark of them, each with its part of the whole. The first
token's time is that of the voice and the text in T3; the mel's is that of the flow over what is spoken and the voice's
reference.

{stages(results)}

{voices(results)}

## A token, and the machine's floor

A token has to read T3's layers and its head once, as they are stored, for both rows of guidance. This machine at the
most: {floor_line(limits)}. Medians of {limits["runs"]}: torch's sum over {limits["read_bytes"] / 1e9:g} GB in huge
pages; {rows} rows times a matrix of {width} × {out}.

{floor(results)}

## Every figure that varies

Median (lowest to highest); how many runs stands behind the name. Process memory is resident memory over the imports.

{spreads(results)}

## Bytes in memory by row of the plan

Tensors are those the package loads. In fp32, too, ours has fewer bytes: the three encoders that read a clip are in
memory only while a voice is prepared, and what inference does not use is dropped.

{by_row(results)}
"""
