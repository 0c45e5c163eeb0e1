"""The few HTML elements everything is made of. Text takes the notebook's colour; ours work on light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

ACCENT = "#3d85b8"
WARNING = "#b8862b"
_BOX = (
    "font-family:inherit;font-size:0.95em;line-height:1.45;font-variant-numeric:tabular-nums;margin:2px 0 6px 0;"
    "max-width:720px"
)


def box(*parts: str) -> str:
    return f'<div style="{_BOX}">{"".join(parts)}</div>'


def strong(text: str) -> str:
    return f"<div><b>{escape(text)}</b></div>"


def line(text: str) -> str:
    return f"<div>{escape(text)}</div>"


def muted(text: str) -> str:
    return f'<div style="opacity:0.75">{escape(text)}</div>'


def warnings(texts: Iterable[str]) -> str:
    style = f"border-left:3px solid {WARNING};padding-left:6px;margin-top:4px"
    return "".join(f'<div style="{style}">{escape(text)}</div>' for text in texts)


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """A table; columns of figures are aligned right."""
    rows = [list(row) for row in rows]
    right = [all(_is_figure(row[index]) for row in rows) for index in range(len(rows[0]))] if rows else []

    def cells(row: Sequence[str], tag: str) -> str:
        styles = (f"text-align:{'right' if aligned else 'left'};padding:1px 10px 1px 0" for aligned in right)
        return "".join(
            f'<{tag} style="{style}">{escape(cell)}</{tag}>' for cell, style in zip(row, styles, strict=True)
        )

    top = f"<thead><tr>{cells(head, 'th')}</tr></thead>" if head else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    style = "border-collapse:collapse;margin:4px 0"
    return f'<table style="{style}">{top}<tbody>{body}</tbody></table>'


def _is_figure(cell: str) -> bool:
    return not cell or cell[0].isdigit() or cell in ("unknown",)


def folded(summary: str, inner: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"


def bar(fraction: float, width: int = 160) -> str:
    """A bar, filled to a fraction from 0 to 1."""
    filled = round(width * min(1.0, max(0.0, fraction)))
    shape = "height:8px;border-radius:4px"
    track = f"display:inline-block;width:{width}px;{shape};background:rgba(127,127,127,0.3);vertical-align:middle"
    fill = f"display:block;width:{filled}px;{shape};background:{ACCENT}"
    return f'<span style="{track}"><span style="{fill}"></span></span>'
