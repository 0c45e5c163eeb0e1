"""What panels show of models, memory and takes, as HTML for `style.SHEET`; and the still picture of a panel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from chatterbox_nb.errors import cure
from chatterbox_nb.render import elements, plain, style, takes
from chatterbox_nb.render.units import part, size, unverified

if TYPE_CHECKING:
    from chatterbox_nb.choices import Choice, Outlook
    from chatterbox_nb.engine.report import LoadReport
    from chatterbox_nb.jobs import Done
    from chatterbox_nb.take import Take
    from chatterbox_nb.usage import MemoryReading

# Read on light and on dark; each component has the same one everywhere.
_COLOURS = {"t3": "#3d85b8", "flow": "#4f9d69", "vocoder": "#b8862b"}
_OTHER_COLOUR = "#9a6fb0"
WINDOW_SECONDS = 180  # that the sparkline looks back
_GAP_SECONDS = 4  # without a sample, where the line is broken
_LOW_PART = 0.08  # of the memory: with less of it free, it runs low
_LONG_TEXT = 200  # characters that fit without scrolling
_STILL_TAKES = 3
_STILL_BYTES = 3_000_000  # of MP3 in a saved notebook


def heading(text: str) -> str:
    return f'<div class="cbnb-title" role="heading" aria-level="3">{escape(text)}</div>'


def hint(text: str) -> str:
    return f'<div class="cbnb-muted">{escape(text)}</div>' if text else ""


def notice(text: str, kind: str) -> str:
    """What a person must see where they look: `kind` is error, low or done."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="cbnb-notice cbnb-{kind}" role="{role}">{escape(text)}</div>' if text else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], marked: int | None = None, words: bool = False) -> str:
    """A table whose first column names a thing and whose others are figures; one row may be marked.

    Args:
        words: a figure comes first, and words follow.
    """
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f"<tr{' class=cbnb-marked' if index == marked else ''}>"
        f'<th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for index, row in enumerate(rows)
    )
    kind = " cbnb-words" if words else ""
    above = f"<thead><tr>{top}</tr></thead>" if top else ""
    return f'<table class="cbnb-table{kind}">{above}<tbody>{body}</tbody></table>'


def choices(outlook: Outlook, chosen: str, loaded: str) -> str:
    """Every precision with the bytes it would take, what `auto` would be and why, and what does not fit.

    Args:
        chosen: the precision that the person has picked, or auto.
        loaded: the precision that is loaded of this model on this device, or an empty string.
    """
    picked = outlook.auto if chosen == "auto" else chosen
    rows = [
        (choice.precision, size(choice.bytes), part(choice.of_shipped), _remark(choice, outlook, loaded))
        for choice in outlook.choices
    ]
    marked = next((index for index, row in enumerate(rows) if row[0] == picked), None)
    free = "free memory is not known yet" if outlook.free_bytes is None else f"{size(outlook.free_bytes)} free for it"
    where = f"{outlook.title} on {outlook.device}, {free}; the package's fp32 is {size(outlook.shipped_bytes)}."
    if not outlook.verified:
        where += f" {unverified(outlook.device)}"
    return (
        table(("precision", "memory", "of the package's", "note"), rows, marked)
        + hint(f"auto is {outlook.auto}: {outlook.why}.")
        + hint(where)
    )


def _remark(choice: Choice, outlook: Outlook, loaded: str) -> str:
    if choice.precision == loaded:
        return "loaded"
    if choice.lacking:
        return f"does not fit, {size(choice.lacking)} too much"
    return "auto" if choice.precision == outlook.auto else ""


def loaded(report: LoadReport) -> str:
    """What is loaded: measured bytes by component as a bar, and the three ratios."""
    ratios = [(ratio, f"{name} ({denominator})") for ratio, name, denominator in plain.ratio_rows(report)]
    precision, device = report.plan.precision, report.plan.device
    return (
        f'<div class="cbnb-strong">{escape(report.title)} at {precision} on {escape(device)}: '
        f'<span class="cbnb-whole">{size(report.bytes)}</span></div>'
        + component_bar(report.bytes_by_component, report.shipped_bytes)
        + table((), ratios, words=True)
        + hint(report.plan.reason)
        + "".join(notice(warning, "low") for warning in report.warnings)
    )


def component_bar(sizes: Mapping[str, int], whole: int) -> str:
    """Bytes by component as a part of what the package loads in fp32, with a legend."""
    there = {name: count for name, count in sizes.items() if count}
    pieces = "".join(
        f'<span style="width:{100 * count / whole:.2f}%;background:{_COLOURS.get(name, _OTHER_COLOUR)}"></span>'
        for name, count in there.items()
    )
    legend = "".join(
        f'<span><i style="background:{_COLOURS.get(name, _OTHER_COLOUR)}"></i>{escape(name)} {size(count)}</span>'
        for name, count in there.items()
    )
    told = ", ".join(f"{name} {size(count)}" for name, count in there.items())
    return (
        f'<div class="cbnb-bar" role="img" aria-label="{escape(told)}, of {size(whole)}">{pieces}</div>'
        f'<div class="cbnb-legend">{legend}</div>'
    )


def memory(reading: MemoryReading) -> str:
    """A reading as a table."""
    rows = [(name, size(count)) for name, count in memory_rows(reading)]
    return table((), rows)


def memory_rows(reading: MemoryReading) -> list[tuple[str, int]]:
    """What a panel tells of a reading: a few words a row, and bytes."""
    cpu = reading.device == "cpu"
    rows = [
        ("this process" if cpu else "allocated by tensors", reading.process if cpu else reading.allocated),
        ("model's tensors" if cpu else "reserved", reading.allocated if cpu else reading.reserved),
        ("peak, last load or take" if cpu else "peak", reading.peak),
        ("other processes" if cpu else "other processes, contexts", reading.others),
        ("free", reading.device_free),
        ("in all", reading.device_total),
        ("process, on the CPU", None if cpu else reading.process),
    ]
    return [(name, count) for name, count in rows if count is not None]


def sparkline(samples: Sequence[tuple[float, int]], marks: Iterable[Done], now: float) -> str:
    """Memory over the last minutes, with a mark for each load and take.

    Args:
        samples: (seconds since the epoch, bytes), in order.
        marks: jobs that ended; those that are no load and no take are left out.
    """
    begin = now - WINDOW_SECONDS
    inside = [(moment - begin, count) for moment, count in samples if moment >= begin]
    if not inside:
        return ""
    top = max(count for _, count in inside) * 1.08 or 1
    lines: list[list[str]] = []
    before = -float("inf")
    for x, count in inside:
        if x - before > _GAP_SECONDS:
            lines.append([])
        lines[-1].append(f"{x:.1f},{40 * (1 - count / top):.2f}")
        before = x
    drawn = "".join(f'<polyline points="{" ".join(line if len(line) > 1 else line * 2)}"/>' for line in lines)
    ticks = "".join(
        f'<line class="cbnb-{done.kind}" x1="{done.ended - begin:.1f}" x2="{done.ended - begin:.1f}" y1="0" y2="40"/>'
        for done in marks
        if done.kind in ("load", "take") and done.ended >= begin
    )
    told = f"Memory over the last {WINDOW_SECONDS // 60} minutes: now {size(inside[-1][1])}"
    return (
        f'<svg class="cbnb-line" role="img" aria-label="{told}" viewBox="0 0 {WINDOW_SECONDS} 40" '
        f'preserveAspectRatio="none">{ticks}{drawn}</svg>'
        f'<div class="cbnb-legend"><span>{WINDOW_SECONDS // 60} min, 0 to {size(top)}</span>'
        '<span><i class="cbnb-load"></i>load</span><span><i class="cbnb-take"></i>take</span></div>'
    )


def components(report: LoadReport | None) -> str:
    """Bytes in memory by component, as a table."""
    if report is None:
        return hint("No model is loaded.")
    rows = [(name, size(count)) for name, count in report.bytes_by_component.items() if count]
    rows.append(("watermarker", size(report.watermarker_bytes)))
    return table((f"{report.model} at {report.plan.precision}", "in memory"), rows)


def low_memory(reading: MemoryReading, report: LoadReport | None) -> str:
    """What to do, when little is free on the device; an empty string while there is enough."""
    free, total = reading.device_free, reading.device_total
    if free is None or not total or free >= _LOW_PART * total:
        return ""
    mend = "Close other programs or notebooks." if report is None else cure(report.plan.precision, report.model)
    return notice(f"Memory runs low: {size(free)} of {size(total)} is free on {reading.device}. {mend}", "low")


def sound(take: Take) -> str:
    """A take that plays by itself and shows nothing."""
    return takes.player(take, autoplay=True, shown=False)


def take(take: Take, autoplay: bool = False) -> str:
    """A take with its text, its settings and its player."""
    options = take.request.options()
    settings = " · ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in options.items()
        if name not in ("seed", "voice") and value is not None
    )
    focus = ' tabindex="0"' if len(take.text) > _LONG_TEXT else ""  # so that the keyboard can scroll it
    peak = f" · {size(take.peak_bytes)} more memory at its peak" if take.peak_bytes is not None else ""
    return (
        f'<div class="cbnb-text"{focus}>{escape(take.text)}</div>{takes.take(take, autoplay)}'
        f'<div class="cbnb-muted">{escape(settings)}{peak}</div>'
    )


def still(name: str, report: LoadReport | None, reading: MemoryReading, kept: Sequence[Take]) -> str:
    """A panel as a saved notebook shows it: in words, with its newest takes. Hidden while the live one is there.

    Args:
        name: of the panel; `live_class(name)` is the class of the live one.
    """
    if report is None:
        model = elements.muted("Chatterbox panel: no model is loaded. Run the cell for the live panel.")
    else:
        model = elements.strong(f"Chatterbox panel: {plain.headline(report)}") + elements.muted(report.plan.reason)
        model += elements.table(plain.ratio_rows(report))
    figures = elements.table((size(count), words) for words, count in memory_rows(reading))
    players, sound = "", 0
    for take in kept[:_STILL_TAKES]:
        sound += len(take.mp3) if len(take) else 0
        if sound <= _STILL_BYTES:
            players += elements.line(take.text) + takes.take(take)
    inner = elements.box(model, elements.folded(f"Memory on {reading.device}", figures)) + players
    return f'<div class="{style.still_class(name)}">{style.hiding(name)}{inner}</div>'
