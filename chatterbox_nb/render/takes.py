"""A take as HTML: caption, waveform, player. At its own level, small, and playing in untrusted notebooks too."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from chatterbox_nb.audio import Samples
from chatterbox_nb.render import elements, plain

if TYPE_CHECKING:
    from chatterbox_nb.take import Take

_HEIGHT = 48
_WIDTH = 480


def take(take: Take, autoplay: bool = False) -> str:
    """The player of a take.

    Args:
        autoplay: starts by itself, where the browser lets it.
    """
    sound = base64.b64encode(take.mp3).decode() if len(take) else ""
    start = " autoplay" if autoplay else ""
    player = (
        f'<audio controls{start} preload="metadata" style="width:{_WIDTH}px;max-width:100%;display:block" '
        f'src="data:audio/mpeg;base64,{sound}"></audio>'
    )
    return elements.box(
        elements.muted(plain.caption(take)),
        waveform(take.samples, take.duration) if len(take) else "",
        player if len(take) else elements.line("No sound came out."),
        elements.warnings(take.warnings),
    )


def waveform(samples: Samples, seconds: float) -> str:
    """The extent of the samples over time, full scale from edge to edge, as a picture.

    Inline SVG does not survive a sanitizer; a picture with an address does. It cannot know the theme, so its colour
    works on light and dark.
    """
    columns = int(min(240, max(48, seconds * 48)))
    edges = np.linspace(0, len(samples), columns + 1).astype(int)
    middle = _HEIGHT / 2
    strokes = []
    for column, (begin, end) in enumerate(pairwise(edges)):
        piece = samples[begin : max(end, begin + 1)]
        top = round(middle - middle * float(piece.max(initial=0.0)), 1)
        bottom = round(middle - middle * float(piece.min(initial=0.0)), 1)
        strokes.append(f"M{column} {top:g}V{max(bottom, top + 0.6):.3g}")
    path = "".join(strokes)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-.5 0 {columns} {_HEIGHT}" preserveAspectRatio="none" '
        f'width="{_WIDTH}" height="{_HEIGHT}"><path d="{path}" stroke="{elements.ACCENT}" stroke-width=".7"/></svg>'
    )
    address = base64.b64encode(svg.encode()).decode()
    return (
        f'<img alt="Waveform of {seconds:.1f} seconds of speech" width="{_WIDTH}" height="{_HEIGHT}" '
        f'style="display:block;max-width:100%" src="data:image/svg+xml;base64,{address}">'
    )
