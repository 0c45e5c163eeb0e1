"""A take as HTML: caption, waveform, player. At its own level, small, and playing in untrusted notebooks too."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from chatterbox_nb.audio import Samples
from chatterbox_nb.render import elements, plain

if TYPE_CHECKING:
    from chatterbox_nb.take import Take

_HEIGHT = 48
_WIDTH = 480
_UNITS = 48  # of the picture's height from the middle to full scale


def take(take: Take, autoplay: bool = False) -> str:
    """The player of a take.

    Args:
        autoplay: starts by itself, where the browser lets it.
    """
    return elements.box(
        elements.muted(plain.caption(take)),
        waveform(take.samples, take.duration) if len(take) else "",
        player(take, autoplay) if len(take) else elements.line("No sound came out."),
        elements.warnings(take.warnings),
    )


def player(take: Take, autoplay: bool = False, shown: bool = True) -> str:
    """The browser's own player, with the sound inside."""
    sound = base64.b64encode(take.mp3).decode()
    look = f"width:{_WIDTH}px;max-width:100%;display:block" if shown else "display:none"
    return (
        f'<audio {"controls" if shown else ""}{" autoplay" if autoplay else ""} preload="metadata" style="{look}" '
        f'src="data:audio/mpeg;base64,{sound}"></audio>'
    )


def waveform(samples: Samples, seconds: float) -> str:
    """The extent of the samples over time, full scale from edge to edge, as a picture.

    Inline SVG does not survive a sanitizer; a picture with an address does. It cannot know the theme, so its colour
    works on light and dark.
    """
    columns = int(min(240, max(80, seconds * 48)))
    edges = np.linspace(0, len(samples), columns + 1).astype(int)
    strokes = []
    at = 0
    for begin, end in pairwise(edges):
        piece = samples[begin : max(end, begin + 1)]
        top = round(_UNITS * (1 - float(piece.max(initial=0.0))))
        bottom = max(top + 1, round(_UNITS * (1 - float(piece.min(initial=0.0)))))
        strokes.append(f"m1,{top - at}v{bottom - top}".replace(",-", "-"))  # relative, because it is written shorter
        at = bottom
    svg = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='.5 0 {columns} {2 * _UNITS}' preserveAspectRatio='none' "
        f"width='{_WIDTH}' height='{_HEIGHT}'><path d='M0 0{''.join(strokes)}' stroke='{elements.ACCENT}' "
        "stroke-width='.7'/></svg>"
    )
    address = "data:image/svg+xml," + quote(svg, safe=",=:/'")
    return (
        f'<img alt="Waveform of {seconds:.1f} seconds of speech" width="{_WIDTH}" height="{_HEIGHT}" '
        f'style="display:block;max-width:100%" src="{address}">'
    )
