"""Results as text, for terminals, logs and everything that shows no HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatterbox_nb.render.units import part, seconds, size, unverified
from chatterbox_nb.take import ConversionRequest

if TYPE_CHECKING:
    from chatterbox_nb.choices import ModelTable
    from chatterbox_nb.engine.report import LoadReport
    from chatterbox_nb.manager import ModelInfo
    from chatterbox_nb.take import Take
    from chatterbox_nb.usage import MemoryReading


def take(take: Take) -> str:
    lines = [f"Take: {caption(take)}"]
    lines += [f"  warning: {warning}" for warning in take.warnings]
    return "\n".join(lines)


def caption(take: Take) -> str:
    """What a take is, in one line."""
    facts = [
        seconds(take.duration),
        f"{take.model} {take.precision}",
        f"voice {take.request.voice.name if take.request.voice else 'builtin'}",
        f"seed {take.request.seed}",
    ]
    if len(take):
        facts.append(f"real-time factor {take.real_time_factor:.2f}")
    if isinstance(take.request, ConversionRequest):
        facts.insert(1, f"from {take.request.clip}")
    if len(take.chunks) > 1:
        facts.insert(1, f"{len(take.chunks)} chunks")
    if take.finish != "stop":
        facts.append(f"ended by {take.finish}")
    return " · ".join(facts)


def headline(report: LoadReport) -> str:
    """What a load came to, in one sentence, with the denominator."""
    ratio = report.bytes / report.shipped_bytes
    return (
        f"{report.title} at {report.plan.precision} on {report.plan.device}: {size(report.bytes)} in memory, "
        f"{part(1 - ratio)} less than the {size(report.shipped_bytes)} the package loads in fp32"
    )


_DENOMINATORS = {
    "of what the package loads in fp32": "shipped_bytes",
    "of our own fp32": "own_fp32_bytes",
    "of our own fp16": "own_fp16_bytes",
}


def ratio_rows(report: LoadReport) -> list[tuple[str, str, str]]:
    """What a load came to as a part of each denominator: the part, the denominator's name, its bytes."""
    return [(part(ratio), name, size(getattr(report, _DENOMINATORS[name]))) for name, ratio in report.ratios.items()]


CACHE = {
    "read": "Read from the int8 form that an earlier load kept on disk.",
    "written": "The int8 form is kept on disk; the next load reads that.",
    "not written": "The int8 form could not be kept on disk.",
    "not needed": "",
    "off": "",
}


def in_memory(report: LoadReport) -> str:
    """What a load did not have to bring in, since another model had it; empty when that is nothing."""
    if not report.shared:
        return ""
    *others, last = report.shared
    names = f"{', '.join(others)} and {last} were" if others else f"{last} was"
    return f"{names} in memory already: {size(report.shared_bytes)} less to load"


KIND_HEAD = ("kind", "layers in int8", "bytes", "other layers", "bytes")


def kind_rows(report: LoadReport) -> list[tuple[str, str, str, str, str]]:
    """Layers and bytes of each kind, converted and not."""
    return [
        (kind, str(layers), size(small), str(others), size(rest))
        for kind, (layers, small, others, rest) in report.by_kind.items()
    ]


def load_report(report: LoadReport) -> str:
    lines = [headline(report), f"  why: {report.plan.reason}", f"  from: {report.source}"]
    lines += [f"  {ratio:>8}  {name} ({denominator})" for ratio, name, denominator in ratio_rows(report)]
    lines += [f"  {size(count):>8}  {name}" for name, count in report.bytes_by_component.items() if count]
    lines.append(
        f"  process: grew {size(report.process_growth_bytes)}, peak {size(report.process_peak_bytes)}; "
        f"watermarker {size(report.watermarker_bytes)} on top"
    )
    converted, kept = (sum(counts[index] for counts in report.by_kind.values()) for index in (0, 2))
    lines.append(f"  layers: {converted} in int8, {kept} not")
    if report.shared:
        lines.append(f"  shared: {in_memory(report)}")
    if CACHE[report.cache]:
        lines.append(f"  disk: {CACHE[report.cache]}")
    lines.append("  time: " + ", ".join(f"{stage} {seconds(spent)}" for stage, spent in report.seconds.items()))
    lines += [f"  warning: {warning}" for warning in report.warnings]
    return "\n".join(lines)


def model_info(info: ModelInfo) -> str:
    kernel = f", kernel {info.kernel}" if info.kernel else ""
    how = f"{info.precision} on {info.device}, quantization {info.quantization}, dtype {info.dtype}{kernel}"
    lines = [
        f"{info.title}: {how}",
        f"  why: {info.reason}",
        f"  from: {info.source}, weights {info.weights[:16]}",
        f"  {size(info.bytes):>8}  in memory",
    ]
    lines += [f"  {size(count):>8}  {name}" for name, count in info.bytes_by_component.items()]
    if not info.verified:
        lines.append(f"  {unverified(info.device)}")
    return "\n".join(lines)


def model_head(table: ModelTable) -> tuple[str, ...]:
    return ("model", "parameters", "languages", "the package, fp32", *table.rows[0].bytes)


def model_rows(table: ModelTable) -> list[tuple[str, ...]]:
    """A row for each model: its size, languages, and bytes by precision."""
    return [
        (
            row.name,
            f"{row.parameters / 1e6:,.0f} M",
            ", ".join(row.languages) if len(row.languages) < 4 else f"{len(row.languages)} languages",
            size(row.shipped_bytes),
            *(size(count) for count in row.bytes.values()),
        )
        for row in table
    ]


def model_table(table: ModelTable) -> str:
    rows = [model_head(table), *model_rows(table)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"Models, and the weights each would keep in memory on {table.device}", *lines])


def memory(reading: MemoryReading) -> str:
    return f"Memory on {reading.device}\n" + "\n".join(
        f"  {size(count):>8}  {name}" for name, count in memory_rows(reading)
    )


def memory_rows(reading: MemoryReading) -> list[tuple[str, int]]:
    """What a reading tells, each with what it counts."""
    cpu = reading.device == "cpu"
    rows = [
        ("allocated: the model's tensors" if cpu else "allocated: tensors on the device", reading.allocated),
        ("reserved: held by the device's allocator", reading.reserved),
        ("peak: this process, in the last load or take" if cpu else "peak: allocated by this process", reading.peak),
        ("process: resident memory, imports included", reading.process),
        ("used in the machine by everyone" if cpu else "used on the device by everyone", reading.device_used),
        ("free", reading.device_free),
        ("in all", reading.device_total),
    ]
    return [(name, count) for name, count in rows if count is not None]
