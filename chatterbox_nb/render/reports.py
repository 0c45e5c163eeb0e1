"""Loads, models and memory as HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatterbox_nb.render import elements, plain
from chatterbox_nb.render.units import seconds, size, unverified

if TYPE_CHECKING:
    from chatterbox_nb.choices import ModelTable
    from chatterbox_nb.engine.report import LoadReport
    from chatterbox_nb.manager import ModelInfo
    from chatterbox_nb.usage import MemoryReading


def load_report(report: LoadReport) -> str:
    rows = [
        (row.component, row.kind, row.storage, row.kernel, row.placement, str(row.tensors), size(row.bytes))
        for row in report.rows
    ]
    times = ", ".join(f"{stage} {seconds(spent)}" for stage, spent in report.seconds.items())
    return elements.box(
        elements.strong(plain.headline(report)),
        elements.muted(report.plan.reason),
        elements.table(plain.ratio_rows(report)),
        elements.table((size(count), name) for name, count in report.bytes_by_component.items() if count),
        elements.muted(
            f"This process grew by {size(report.process_growth_bytes)}, at most {size(report.process_peak_bytes)} "
            f"while loading; the watermarker takes {size(report.watermarker_bytes)} on top. "
            f"Loaded from {report.source}: {times}."
        ),
        elements.muted(plain.in_memory(report)) if report.shared else "",
        elements.muted(plain.CACHE[report.cache]) if plain.CACHE[report.cache] else "",
        elements.warnings(report.warnings),
        elements.folded(
            "Layers and bytes by kind, in int8 and not",
            elements.table(plain.kind_rows(report), plain.KIND_HEAD),
        ),
        elements.folded(
            "Every row of the plan, as measured",
            elements.table(rows, ("component", "kind", "stored as", "kernel", "where", "tensors", "bytes")),
        ),
    )


def model_info(info: ModelInfo) -> str:
    facts = [
        ("model", info.title),
        ("precision", info.precision),
        ("quantization", info.quantization),
        ("dtype", info.dtype),
        ("device", info.device),
        ("kernel", info.kernel or "none needed"),
        ("from", info.source),
        ("weights", info.weights[:16]),
    ]
    return elements.box(
        elements.strong(f"{info.title}: {size(info.bytes)} in memory"),
        elements.muted(info.reason),
        elements.table(facts),
        elements.table((size(count), name) for name, count in info.bytes_by_component.items()),
        elements.warnings([] if info.verified else [unverified(info.device)]),
    )


def model_table(table: ModelTable) -> str:
    many = [row for row in table if len(row.languages) > 3]
    listed = "".join(elements.muted(f"{row.name}: {', '.join(row.languages)}") for row in many)
    return elements.box(
        elements.strong(f"Models, and the weights each would keep in memory on {table.device}"),
        elements.table(plain.model_rows(table), plain.model_head(table)),
        elements.folded("Languages", listed) if many else "",
        elements.muted("%tts_load MODEL loads one. Bytes are the plan's, which a load meets to the byte."),
    )


def memory(reading: MemoryReading) -> str:
    return elements.box(
        elements.strong(f"Memory on {reading.device}"),
        elements.table((size(count), name) for name, count in plain.memory_rows(reading)),
    )
