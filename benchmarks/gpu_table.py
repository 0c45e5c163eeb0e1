"""docs/gpu.md, from `results/gpu.json`: `python -m benchmarks.gpu_table`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import pages, table
from benchmarks.pages import Figures

RESULTS, PAGE = pages.results_of("gpu"), pages.page_of("gpu")
BEGIN, END = "<!-- gpu: begin -->", "<!-- gpu: end -->"
# What has changed in the engine since, as a list; whoever measures again empties it.
SINCE = """
* A load on a CPU that emulates float16 or bfloat16 says so. What runs on a GPU is as it was.
"""
_TITLE = """# On a GPU

Made by `make gpu` from `benchmarks/results/gpu.json`; a test holds it to that. Random weights of each model's true
size: speed and memory do not depend on what they say."""
_STAGES = ("tokens", "mel", "wave", "watermark")
# What was aimed at on an H200, and whether more of it is better.
TARGETS: tuple[tuple[str, Callable[[Figures], float], float, str, bool], ...] = (
    ("a token at position 500, int8", lambda r: _step(r, "int8", 1, 2, 500), 0.8, "ms", False),
    ("a token at position 500, bf16", lambda r: _step(r, "bf16", 1, 2, 500), 1.0, "ms", False),
    ("int8 kernel, of the copy bandwidth, best matrix", lambda r: _best_part(r, "int8"), 0.7, "", True),
    ("the same, bf16", lambda r: _best_part(r, "bfloat16"), 0.7, "", True),
    (
        "allocated after load, int8",
        lambda r: r["precisions"]["english"]["int8"]["allocated_bytes"] / 1e9,
        0.70,
        "GB",
        False,
    ),
    ("load peak over that, int8", lambda r: _over(r["precisions"]["english"]["int8"]) / 1e6, 60, "MB", False),
    (
        "peak over a take, int8",
        lambda r: r["precisions"]["english"]["int8"]["takes"]["single"]["peak_allocated_bytes"] / 1e9,
        1.1,
        "GB",
        False,
    ),
    ("real-time factor, one chunk, int8", lambda r: _factor(r, "int8", "single"), 0.05, "", False),
    ("real-time factor, chunks side by side, int8", lambda r: _factor(r, "int8", "batched"), 0.01, "", False),
)


def _step(results: Figures, precision: str, lines: int, rows: int, position: int) -> float:
    for step in results["precisions"]["english"][precision]["steps"]:
        if (step["lines"], step["rows"], step["position"]) == (lines, rows * lines, position):
            return float(step["milliseconds"])
    raise KeyError(f"{precision} at {position} was not measured")


def _best_part(results: Figures, storage: str) -> float:
    return max(
        kernel["weight_bytes_per_second"] / results["copy_bytes_per_second"]
        for kernel in results["kernels"]["english"]
        if kernel["storage"] == storage and kernel["activations"] == 2
    )


def _over(figures: Figures) -> float:
    return float(figures["load_peak_bytes"] - figures["allocated_bytes"])


def _factor(results: Figures, precision: str, take: str) -> float:
    return float(results["precisions"]["english"][precision]["takes"][take]["real_time_factor"])


def told(found: Any) -> str:
    """What the log says of a part of the report."""
    if isinstance(found, dict) and "failure" in found:
        return f"; failed: {found['failure']}"
    return f"; {found / 1e9:.0f} GB/s" if isinstance(found, float) else ""


def markdown(results: Figures) -> str:
    """The page."""
    parts = [
        _TITLE,
        (
            f"{results['device']}, capability {results['capability']}, CUDA {results['cuda']}; {pages.where(results)}, "
            f"chatterbox-tts {results['versions'].get('chatterbox-tts', '?')}; {results['date']}, "
            f"`{results['command']}`, {results['seconds']:.0f} s."
        ),
    ]
    if results.get("engine") != pages.engine():
        parts.append(f"**The engine has changed since.** No GPU has run what is here now.\n{SINCE}".rstrip())
    english = ("precisions", "english", "int8")
    for heading, needed, made in (
        ("## Targets", [english, ("precisions", "english", "bf16"), ("kernels", "english")], _targets),
        ("## Precisions and the package", [english], _precisions),
        ("## A token", [english], _tokens),
        ("## The other models", [("precisions",)], _others),
        ("## Kernels", [("kernels", "english")], _kernels),
        ("## The package's own numbers", [("oracles",)], _oracles),
    ):
        problem = next(filter(None, (_failure(results, *at) for at in needed)), "")
        parts.append(f"{heading}\n\n{f'Not measured: {problem}' if problem else made(results)}")
    return "\n\n".join(parts) + "\n"


def _failure(results: Figures, *at: str) -> str:
    """Why there are no figures at a place; empty where there are."""
    found: Any = results
    for name in at:
        found = found.get(name, {"failure": "not asked for"})
        if "failure" in found:
            return str(found["failure"])
    return ""


def _package(results: Figures, model: str) -> Figures | None:
    """The package's figures of a model, where there are any."""
    return None if _failure(results, "packages", model) else results["packages"][model]


def _targets(results: Figures) -> str:
    rows = []
    for name, value, limit, unit, more in TARGETS:
        found = value(results)
        met = found >= limit if more else found <= limit
        by = "" if met else f", by {abs(found / limit - 1) * 100:.0f} %"
        rows.append(
            [
                name,
                f"{'≥' if more else '≤'} {limit:g} {unit}".strip(),
                f"{found:.3g} {unit}".strip(),
                f"{'met' if met else 'not met'}{by}",
            ]
        )
    return pages.table(["", "aimed at", "measured", ""], rows)


_HEAD = [
    "", "allocated after load", "load peak", "peak over a take", "after takes", "load", "10 s: tokens", "mel", "wave",
    "watermark", "real-time factor", "side by side", "first sound",
]  # fmt: skip


def _precisions(results: Figures) -> str:
    ours, package = _measured(results, "english"), _package(results, "english")
    single, batched = ours["int8"]["takes"]["single"], ours["int8"]["takes"]["batched"]
    unloaded = max(found["allocated_after_unload_bytes"] for found in ours.values())
    theirs = (
        f"The package: {package['tokens']} tokens, {package['audio_seconds']:.1f} s, "
        f"{package['milliseconds_a_token']:.1f} ms a token. "
        if package
        else ""
    )
    return (
        f"{pages.table(_HEAD, _sides(results, 'english'))}\n\n"
        f"One chunk of {single['audio_seconds']:.1f} s ({single['tokens']} tokens); side by side, {batched['chunks']} "
        f"of them, {batched['audio_seconds']:.0f} s in all, eight at a time. The second take of each, with the built-"
        "in voice's ten seconds of reference, ten steps of the flow, guidance, and the watermark. "
        f"{theirs}Bytes are those that torch's allocator has given out, the "
        "peak with all there is; after a load and after takes without what was there before. After an unload "
        f"{unloaded / 1e6:.0f} MB at the most stay: cuBLAS's memory to work in, which it keeps for the process."
    )


def _measured(results: Figures, model: str) -> Figures:
    """A model's figures by precision, without those that failed."""
    return {name: found for name, found in results["precisions"][model].items() if "failure" not in found}


def _sides(results: Figures, model: str, label: str = "") -> list[list[str]]:
    """Rows of a model: ours at each precision, and the package, where it was measured."""
    package = _package(results, model)
    rows = []
    for precision, found in results["precisions"][model].items():
        if "failure" in found:
            rows.append([f"{label}ours, {precision}", found["failure"], *[""] * (len(_HEAD) - 2)])
            continue
        single, batched = found["takes"]["single"], found["takes"]["batched"]
        part = f" ({100 * found['allocated_bytes'] / package['allocated_bytes']:.1f} %)" if package else ""
        rows.append(
            [
                f"{label}ours, {precision}",
                f"{found['allocated_bytes'] / 1e6:,.0f} MB{part}",
                f"{found['load_peak_bytes'] / 1e6:,.0f} MB",
                f"{single['peak_allocated_bytes'] / 1e6:,.0f} MB",
                f"{found['allocated_after_takes_bytes'] / 1e6:,.0f} MB",
                f"{found['load_seconds']:.1f} s",
                *(f"{1000 * single['seconds_by_stage'][stage]:.0f} ms" for stage in _STAGES),
                f"{single['real_time_factor']:.3f}",
                f"{batched['real_time_factor']:.4f}",
                f"{1000 * found['takes']['first_sound_seconds']:.0f} ms",
            ]
        )
    if package:
        rows.append(
            [
                f"{label}chatterbox-tts, fp32",
                *(f"{package[name] / 1e6:,.0f} MB" for name in ("allocated_bytes", "load_peak_bytes", "peak_bytes")),
                "",
                f"{package['load_seconds']:.1f} s",
                *(f"{1000 * package['seconds_by_stage'][stage]:.0f} ms" for stage in _STAGES),
                f"{package['real_time_factor']:.3f}",
                "",
                "",
            ]
        )
    return rows


def _others(results: Figures) -> str:
    """Every model but the English one, as far as it was measured."""
    names = [name for name in results["precisions"] if name not in ("english", "demo")]
    if not names:
        return "Not measured on a GPU yet."
    rows = [row for name in names for row in _sides(results, name, f"{name}: ")]
    takes = (
        f"{name} {single['audio_seconds']:.1f} s ({single['tokens']} tokens, "
        f"{step['milliseconds']:.3f} ms a step at position {step['position']})"
        for name in names
        if (found := _measured(results, name).get("int8"))
        for single, step in [(found["takes"]["single"], found["steps"][1])]
    )
    packages = (
        f"{name} {found['tokens']} tokens, {found['audio_seconds']:.1f} s, "
        f"{found['milliseconds_a_token']:.1f} ms a token"
        for name in names
        if (found := _package(results, name))
    )
    return (
        f"{pages.table(_HEAD, rows)}\n\nAs above. At int8: {'; '.join(takes)}. The package: {'; '.join(packages)}; its "
        "multilingual class hooks an analyzer into T3 and is not timed. Turbo and nano have one row and a mean flow of "
        "two steps."
    )


def _tokens(results: Figures) -> str:
    ours = _measured(results, "english")
    head = ["ms a step", *(_step_name(step) for step in ours["int8"]["steps"])]
    rows = [[name, *(f"{step['milliseconds']:.3f}" for step in found["steps"])] for name, found in ours.items()]
    return pages.table(head, rows)


def _step_name(step: Figures) -> str:
    chunks = "" if step["lines"] == 1 else f"{step['lines']} chunks, "
    rows = "guided" if step["rows"] == 2 * step["lines"] else "without guidance"
    return f"{chunks}{rows}, at {step['position']}"


def _kernels(results: Figures) -> str:
    copied = results["copy_bytes_per_second"]
    rows = [
        [
            f"{model}: {kernel['matrix']} {kernel['rows']} × {kernel['columns']}",
            kernel["storage"],
            str(kernel["activations"]),
            f"{kernel['error_against_fp64']:.1e}",
            f"{kernel['microseconds']:.1f}",
            f"{kernel['copy_of_the_same_microseconds']:.1f}",
            f"{kernel['weight_bytes_per_second'] / 1e9:,.0f}",
            f"{100 * kernel['weight_bytes_per_second'] / copied:.0f} %",
        ]
        for model, kernels in results["kernels"].items()
        if "failure" not in kernels
        for kernel in kernels
    ]
    head = [
        "matrix",
        "stored",
        "rows",
        "error against float64",
        "µs",
        "µs to copy it",
        "GB/s of weights",
        "of the copy",
    ]
    made = pages.table(head, rows)
    return (
        f"{made}\n\nOne product after another in a CUDA graph, each with weights that no cache holds. A "
        f"copy of 1 GiB moves {copied / 1e9:,.0f} GB/s, read and written; a matrix of a few MB is over before memory "
        "is at its full speed, as the copies of the same bytes show."
    )


def _oracles(results: Figures) -> str:
    rows = [
        [
            name,
            f"{found['equal_tokens']} of {found['tokens']}",
            f"{found['mel_distance']:.1e}",
            f"{found['wave_distance']:.1e}",
        ]
        for name, found in results["oracles"].items()
    ]
    made = pages.table(["", "tokens equal", "mel within", "wave within"], rows)
    return f"At fp32 on the GPU, against the package on the CPU: the embedded voice, and tiny random models.\n\n{made}"


def paragraph(results: Figures) -> str:
    """What README says of a GPU."""
    small, package = results["precisions"]["english"]["int8"], results["packages"]["english"]
    single, batched = small["takes"]["single"], small["takes"]["batched"]
    ours, theirs = small["allocated_bytes"], package["allocated_bytes"]
    int8, bf16 = (_step(results, precision, 1, 2, 500) for precision in ("int8", "bf16"))
    return (
        f"On {results['device']} ([docs/gpu.md](docs/gpu.md), `make gpu`, {results['date']}): int8 keeps "
        f"{ours / 1e6:,.0f} MB allocated, {100 * ours / theirs:.1f} % of the package's {theirs / 1e6:,.0f} MB in the "
        f"same run, and has {single['peak_allocated_bytes'] / 1e6:,.0f} MB at the most over a take of "
        f"{single['audio_seconds']:.0f} s. A token takes {int8:.2f} ms at int8 and {bf16:.2f} ms in bf16 (the package: "
        f"{package['milliseconds_a_token']:.1f} ms); a second of sound {1000 * single['real_time_factor']:.0f} ms (the "
        f"package: {1000 * package['real_time_factor']:.0f} ms), {1000 * batched['real_time_factor']:.0f} ms in a long "
        f"text, whose chunks are decoded side by side. {' '.join(_short(results, name) for name in ('turbo', 'nano'))}"
    )


def _short(results: Figures, name: str) -> str:
    """A sentence of another model."""
    ours, package = results["precisions"][name]["int8"], results["packages"][name]
    return (
        f"{name.capitalize()} keeps {ours['allocated_bytes'] / 1e6:,.0f} MB at int8 (the package: "
        f"{package['allocated_bytes'] / 1e6:,.0f} MB), and a second of sound takes "
        f"{1000 * ours['takes']['single']['real_time_factor']:.0f} ms (the package: "
        f"{1000 * package['real_time_factor']:.0f} ms)."
    )


def rewrite() -> None:
    """Writes docs/gpu.md and README's paragraph."""
    results = pages.committed(RESULTS)
    PAGE.write_text(markdown(results), encoding="utf-8")
    table.put(table.ROOT / "README.md", BEGIN, END, paragraph(results))


if __name__ == "__main__":
    rewrite()
